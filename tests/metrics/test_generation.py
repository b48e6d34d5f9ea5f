"""Scores of sets of shapes, on sets whose scores are known."""

from __future__ import annotations

import pytest
import torch

from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.metrics import (
    GenerationScores,
    coverage,
    minimum_matching_distance,
    nearest_neighbor_accuracy,
    pairwise_chamfer,
    score_generation,
)


def clouds(count: int, seed: int, spread: float = 1.0) -> list[torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return [torch.rand(50, 3, generator=chance) + spread * torch.randn(3, generator=chance) for _ in range(count)]


def test_chamfer_is_that_of_a_table_of_all_pairs() -> None:
    one, other = clouds(2, 0), [c[:30] for c in clouds(3, 1)]
    found = pairwise_chamfer(one, other)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            table = torch.cdist(a.double(), b.double()) ** 2
            torch.testing.assert_close(found[i, j], table.amin(1).mean() + table.amin(0).mean(), rtol=1e-9, atol=0)
    torch.testing.assert_close(pairwise_chamfer(other, one), found.T)  # symmetric


def test_scores_by_hand() -> None:
    between = torch.tensor([[1.0, 5.0, 9.0], [2.0, 4.0, 9.0]])  # both generated shapes are nearest to the first real one
    assert coverage(between) == pytest.approx(1 / 3)
    assert minimum_matching_distance(between) == pytest.approx((1 + 4 + 9) / 3)
    generated = torch.tensor([[0.0, 0.5], [0.5, 0.0]])
    real = torch.tensor([[0.0, 7.0, 0.5], [7.0, 0.0, 3.0], [0.5, 3.0, 0.0]])
    # own set is nearer for both generated (0.5 < 1, 2) and for all real ones (0.5 < 1, 3 < 4, 0.5 < 9)
    assert nearest_neighbor_accuracy(generated, between, real) == 1.0
    assert nearest_neighbor_accuracy(generated + 10, between, real) == pytest.approx(3 / 5)


def test_equal_sets_are_copies_and_far_sets_are_told_apart() -> None:
    real = clouds(12, 0)
    same = score_generation(real, real)
    assert same == GenerationScores(1.0, 0.0, 0.0)
    far = score_generation([c + 100 for c in clouds(12, 1)], real)
    assert far.nearest_neighbor_accuracy == 1.0
    assert far.minimum_matching_distance > 1e3
    assert far.coverage < 0.5


def test_two_draws_of_one_distribution_are_hard_to_tell_apart() -> None:
    scores = score_generation(clouds(60, 2), clouds(60, 3))
    assert 0.35 < scores.nearest_neighbor_accuracy < 0.65  # binomial of 120: 0.5 ± 0.14 at three deviations
    assert scores.coverage > 0.4
    assert "coverage" in str(scores)


def test_one_shape_a_set() -> None:
    assert score_generation(clouds(1, 0), clouds(1, 1)).nearest_neighbor_accuracy == 0.0  # no other of its own


def test_bad_input() -> None:
    good = clouds(2, 0)
    with pytest.raises(ShapeError, match=r"real must have at least one shape"):
        score_generation(good, [])
    with pytest.raises(ShapeError, match=r"one\[1\]"):
        pairwise_chamfer([good[0], good[1][:, :2]], good)
    with pytest.raises(ShapeError, match=r"other\[0\] must have at least one point"):
        pairwise_chamfer(good, [torch.zeros(0, 3)])
    with pytest.raises(RangeError, match="finite"):
        pairwise_chamfer(good, [torch.full((4, 3), float("nan"))])
    with pytest.raises(DtypeError):
        coverage(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ShapeError):
        nearest_neighbor_accuracy(torch.zeros(3, 3), torch.zeros(2, 3), torch.zeros(3, 3))
