"""Distances: means over sets of voxels, the published weights, early pruning, samples that count the same, bad input."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
import torch

from voxgen.core.batching import offsets_from_counts
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.losses import SampleBounds, SparseSDFLoss, kl_divergence, sdf_mse, sparse_sdf


def inputs(n: int = 12, tokens: int = 3) -> dict[str, Any]:
    active = torch.arange(n) % 3 != 0
    return {
        "prediction": torch.randn(n, 1, requires_grad=True),
        "target": torch.randn(n, 1),
        "active": active,
        "sharp": active & (torch.arange(n) < 5),
        "mean": torch.randn(tokens, 4, requires_grad=True),
        "logvar": torch.randn(tokens, 4, requires_grad=True),
    }


def test_the_published_sum() -> None:
    given = inputs()
    found = SparseSDFLoss()(**given)
    errors = (given["prediction"] - given["target"]).detach()[:, 0].square()
    inside, extra, sharp = (float(errors[rows].mean()) for rows in (given["active"], ~given["active"], given["sharp"]))
    mu, v = given["mean"].detach(), given["logvar"].detach()
    kl = float(0.5 * (mu**2 + v.exp() - 1 - v).mean())
    numbers = found.numbers()
    assert list(numbers) == ["total", "inside", "extra", "sharp", "kl"]
    assert numbers["total"] == pytest.approx(inside + 0.1 * extra + sharp + 1e-3 * kl, rel=1e-6)
    found.total.backward()
    assert all(given[name].grad.abs().sum() > 0 for name in ("prediction", "mean", "logvar"))


def test_sharp_voxels_count_in_both_their_sets() -> None:
    prediction = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
    sharp = torch.tensor([True, False, False, False])
    everything = torch.ones(4, dtype=torch.bool)
    z = torch.zeros(1, 1, dtype=torch.float64)
    target = torch.ones(4, 1, dtype=torch.float64)
    SparseSDFLoss()(prediction=prediction, target=target, active=everything, sharp=sharp, mean=z, logvar=z).total.backward()
    assert prediction.grad is not None
    assert prediction.grad[:, 0].tolist() == [-2.5, -0.5, -0.5, -0.5]  # 2 / 4 as one of four, and 2 / 1 alone


def test_voxels_outside_the_set_have_no_influence() -> None:
    prediction = torch.tensor([[1.0], [float("nan")], [3.0]], requires_grad=True)
    among = torch.tensor([True, False, True])
    loss = sdf_mse(prediction, torch.zeros(3, 1), among)
    assert float(loss.detach()) == 5.0
    loss.backward()
    assert prediction.grad is not None
    assert prediction.grad[:, 0].tolist() == [1.0, 0.0, 3.0]


def test_empty_sets_and_half_precision() -> None:
    x = torch.randn(3, 1)
    assert float(sdf_mse(x, torch.zeros(3, 1), torch.zeros(3, dtype=torch.bool))) == 0
    assert float(sdf_mse(x[:0], x[:0])) == 0
    half = sdf_mse(x.half(), torch.zeros(3, 1).half())
    assert half.dtype == torch.float32
    none = torch.zeros(0, 1)
    found = SparseSDFLoss()(prediction=none, target=none, active=none[:, 0].bool(), mean=none, logvar=none)
    assert found.numbers() == {"total": 0, "inside": 0, "extra": 0, "kl": 0}


def test_samples_count_the_same() -> None:
    """Samples of 2, 0, 3 and 1 voxels; the last has none in the set."""
    prediction = torch.tensor([[1.0], [9.0], [2.0], [2.0], [9.0], [9.0]])
    among = torch.tensor([True, False, True, True, False, False])
    offsets = offsets_from_counts(torch.tensor([2, 0, 3, 1]))
    zero = torch.zeros(6, 1)
    assert float(sdf_mse(prediction, zero, among, offsets)) == (1 + 4) / 2
    assert float(sdf_mse(prediction, zero, among)) == 3
    assert float(sdf_mse(prediction, zero, None, offsets)) == pytest.approx((41 + 89 / 3 + 81) / 3)

    given = inputs(6, 4)
    bounds = SampleBounds(offsets_from_counts(torch.tensor([1, 0, 2, 1])), offsets)
    found = SparseSDFLoss(per_sample=True)(**given, bounds=bounds)
    assert torch.equal(found.terms["inside"], sdf_mse(given["prediction"], given["target"], given["active"], offsets))
    assert torch.equal(found.terms["kl"], kl_divergence(given["mean"], given["logvar"], bounds.latent))


def test_early_pruning_adds_its_levels() -> None:
    logits = [torch.zeros(2, 8, requires_grad=True), torch.zeros(5, 8)]
    masks = [torch.rand(len(level), 8) > 0.5 for level in logits]
    plain, given = SparseSDFLoss(), inputs()
    found = plain(**given, subdivision_logits=logits, subdivisions=masks).numbers()
    assert found["subdivision_1"] == pytest.approx(0.693147, rel=1e-5)
    assert found["total"] == pytest.approx(plain(**given).numbers()["total"] + 0.2 * 0.693147, rel=1e-5)


def test_bad_input() -> None:
    given = inputs()
    loss = SparseSDFLoss()
    with pytest.raises(ShapeError, match="target"):
        loss(**{**given, "target": given["target"][:3]})
    with pytest.raises(ShapeError, match="active"):
        loss(**{**given, "active": given["active"][:3]})
    with pytest.raises(DtypeError, match="active"):
        loss(**{**given, "active": given["active"].float()})
    with pytest.raises(RangeError, match="sharp voxels must be active; 4 of 12"):
        loss(**{**given, "sharp": torch.ones(12, dtype=torch.bool)})
    with pytest.raises(RangeError, match="bounds must say"):
        SparseSDFLoss(per_sample=True)(**given)
    with pytest.raises(RangeError, match="extra must be a finite weight"):
        SparseSDFLoss(extra=-1)
    with pytest.raises(RangeError, match="at least one of the terms"):
        SparseSDFLoss(0, 0, 0, 0)(**given)
    with pytest.raises(RangeError, match="end at the number of rows, 12"):
        sdf_mse(given["prediction"], given["target"], given["active"], offsets_from_counts(torch.tensor([3])))
    with pytest.raises(ShapeError, match="prediction"):
        sdf_mse(torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize("item", [sdf_mse, SparseSDFLoss], ids=lambda item: item.__name__)
def test_examples(item: Any) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(item, globs={"torch": torch, **vars(sparse_sdf)})
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)
