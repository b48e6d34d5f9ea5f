"""Parts of a batch, balanced; the average of the weights; and elastic memory in a run."""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

pytest.importorskip("accelerate", reason="the examples need voxgen[train]")
pytest.importorskip("tensorboard", reason="the examples need voxgen[train]")

import tiny_training
from training.average import decay_at, moving_average, swapped
from training.balance import balanced, cut, mean_of_parts, weights_of_parts
from training.batches import BudgetSampler
from training.memory import elastic_network
from training.run import Run

from voxgen.losses import LossTerms
from voxgen.models import LatentFlow


def test_the_longest_goes_to_the_shortest_part() -> None:
    assert balanced([5, 9, 4, 7, 3, 8], 3) == [[1, 4], [5, 2], [3, 0]]
    assert balanced([3, 3, 3, 3], 2) == [[0, 2], [1, 3]]
    assert balanced([0, 0, 0], 3) == [[0], [1], [2]]  # no part is empty
    assert balanced([4], 1) == [[0]]
    with pytest.raises(ValueError, match="2 samples do not fill 3 parts"):
        balanced([1, 2], 3)


def test_parts_are_nearly_as_even_as_can_be() -> None:
    chance = random.Random(0)
    for _ in range(8):
        sizes = [chance.randint(1, 50) for _ in range(6)]
        found = balanced(sizes, 3)
        assert sorted(itertools.chain(*found)) == list(range(6))
        longest = max(sum(sizes[i] for i in part) for part in found)
        best = min(
            max(sum(s for s, p in zip(sizes, places, strict=True) if p == k) for k in range(3))
            for places in itertools.product(range(3), repeat=6)
        )
        assert longest <= 4 / 3 * best  # Graham's bound


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_batches_keep_to_the_budget_and_take_every_sample_once(parts: int) -> None:
    chance = random.Random(parts)
    for _ in range(20):
        sizes = [chance.randint(1, 60) for _ in range(chance.randint(1, 50))]
        order = chance.sample(range(len(sizes)), len(sizes))
        batches = cut(sizes, order, 60, parts)
        assert all(len(batch) == parts and all(batch) for batch in batches)
        assert all(len(part) == 1 or sum(sizes[i] for i in part) <= 60 for batch in batches for part in batch)
        *full, last = batches
        taken = [i for batch in full for part in batch for i in part]
        assert len(taken) == len(set(taken))
        assert {i for part in last for i in part} >= set(order) - set(taken)
        assert sum(map(len, last)) - len(set(order) - set(taken)) < parts  # it is filled up with less than one sample a part
        if len(sizes) >= 20:
            filled = [sum(sizes[i] for part in batch for i in part) for batch in batches[:-1]]
            assert sum(filled) / len(filled) > 0.6 * 60 * parts
    assert cut([500, 3, 4], [0, 1, 2], 60, 2) == [[[0], [1]], [[0], [2]]]  # one that is too large has a part of its own


def test_ranks_carry_equal_loads() -> None:
    chance = random.Random(1)
    sizes = [int(2 ** chance.uniform(3, 9)) for _ in range(400)]
    loads = [[sum(sizes[i] for i in part) for part in batch] for batch in cut(sizes, list(range(400)), 4000, 4)]
    waiting = [1 - sum(load) / len(load) / max(load) for load in loads[:-1]]
    assert max(waiting) < 0.02  # share of the time that a process waits for the longest


def test_one_process_with_two_parts_takes_what_two_processes_take() -> None:
    sizes = [10 + i for i in range(23)]

    def items(rank: int, world: int, parts: int, start: int = 0) -> list[Any]:
        sampler = BudgetSampler(sizes, 60, 0, rank, world, start, lambda chance: float(torch.rand((), generator=chance)), parts)
        return list(itertools.islice(iter(sampler), 12 * parts))

    one, first, second = items(0, 1, 2), items(0, 2, 1), items(1, 2, 1)
    assert one == list(itertools.chain(*zip(first, second, strict=True)))
    assert items(0, 1, 2, start=7)[:10] == one[14:]
    assert items(1, 2, 1, start=7)[:5] == second[7:]


def test_weights_of_parts() -> None:
    tokens = torch.tensor([30, 10])
    assert weights_of_parts(tokens, "equal").tolist() == [0.5, 0.5]
    assert weights_of_parts(tokens, "tokens").tolist() == [0.75, 0.25]
    assert mean_of_parts([{"total": 1.0, "depth": 3.0}, {"total": 2.0}]) == {"total": 1.5, "depth": 3.0}


def test_parts_weighted_by_tokens_give_the_gradient_of_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of a part is its own, so it is left out here; everything else of a step is as in a run."""

    def forward(module: tiny_training.Training, batch: tiny_training.Tokens, generator: torch.Generator) -> LossTerms:
        x, samples = batch.latent, batch.latent.grid.batch_size
        found = module.flow(x, torch.full((samples,), 500.0), module.condition.expand(samples, -1, -1))
        return LossTerms((found.feats - x.feats).square().mean(), {})

    gradients: list[list[torch.Tensor]] = []

    def update(run: Run, parts: Any, *_: Any) -> None:
        weights = run.weights(parts)
        for index, part in enumerate(parts):
            run.backward(part, index, weights[index], last=index + 1 == len(parts))
        gradients.append([p.grad.clone() for p in run.inner.parameters() if p.grad is not None])
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny_training.Training, "forward", forward)
    monkeypatch.setattr(Run, "update", update)
    for parts, weights in ((1, "equal"), (3, "tokens"), (3, "equal")):
        arguments = ["--steps", "1", "--samples", "8", "--budget", "1000", "--parts", str(parts), "--part-weights", weights]
        with pytest.raises(KeyboardInterrupt):
            tiny_training.main([*arguments, "--out", str(tmp_path)])
    whole, tokens, equal = gradients
    for a, b in zip(whole, tokens, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)  # sums in another order
    assert any(not torch.allclose(a, b, rtol=1e-3) for a, b in zip(whole, equal, strict=True))


def test_the_decay_follows_its_schedule() -> None:
    assert [decay_at(n, 0.9999, "constant") for n in (0, 5)] == [0.9999, 0.9999]
    assert decay_at(1, 0.9) == pytest.approx(2 / 11)
    assert decay_at(10**6, 0.9) == 0.9
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = moving_average(model, 0.75, "constant")
    average.update_parameters(model)
    nn.init.ones_(model.weight)
    for n in range(1, 6):
        average.update_parameters(model)
        assert float(average.module.weight.detach()) == pytest.approx(1 - 0.75**n)


def test_the_average_takes_the_place_of_the_weights_and_gives_it_back() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    average = moving_average(model, 0.5, "constant")
    average.update_parameters(model)
    nn.init.ones_(cast(nn.Linear, model[0]).weight)
    average.update_parameters(model)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    averaged = {name: value.clone() for name, value in average.module.state_dict().items()}
    assert not torch.equal(own["0.weight"], averaged["0.weight"])
    with swapped(model, average) as network:
        assert network is model
        assert not model.training
        assert all(torch.equal(value, averaged[name]) for name, value in model.state_dict().items())
    with pytest.raises(KeyError, match="mine"), swapped(model, average):
        raise KeyError("mine")
    assert model.training
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, averaged[name]) for name, value in average.module.state_dict().items())


def test_elastic_memory_changes_no_loss(tmp_path: Path) -> None:
    arguments = ["--steps", "7", "--checkpoint-every", "3", "--schedule", "constant"]
    elastic = ["--elastic-memory", "0.75", "--memory-limit", "0.001"]
    tiny_training.main([*arguments, "--out", str(tmp_path / "plain")])
    tiny_training.main([*arguments, *elastic, "--steps", "4", "--out", str(tmp_path / "elastic")])
    tiny_training.main([*arguments, *elastic, "--resume", "--out", str(tmp_path / "elastic")])
    plain, found = ((tmp_path / name / "losses.jsonl").read_text() for name in ("plain", "elastic"))
    assert plain == found
    memory = torch.load(tmp_path / "elastic" / "checkpoint.pt", weights_only=True)["memory"]
    assert memory["steps"] == len(memory["ring"]) == 7
    module = tiny_training.Training(16)
    assert isinstance(elastic_network(module), LatentFlow)
    with pytest.raises(SystemExit, match="--elastic-memory is for flow transformers"):
        elastic_network(nn.Linear(1, 1))


@pytest.mark.parametrize("wrong", [["--parts", "0"], ["--elastic-memory", "1.5"], ["--bad-losses", "0"]])
def test_arguments_outside_their_ranges_are_told(wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tiny_training.main([*wrong, "--out", str(tmp_path)])
    assert f"{wrong[0]} must be" in capsys.readouterr().err


def test_one_process_cannot_be_cut(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--fsdp cuts weights over processes, and here is one"):
        tiny_training.main(["--fsdp", "--steps", "1", "--out", str(tmp_path)])
