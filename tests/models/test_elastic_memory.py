"""Elastic memory: the fit, what follows from it, real memory on a CPU, and that gradients do not depend on it."""

from __future__ import annotations

import doctest
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.errors import DtypeError, RangeError
from voxgen.models import ElasticMemory, KeptForBackward, LatentFlow
from voxgen.models import elastic_memory as module
from voxgen.testing.grids import random_grid

BLOCKS = 6
K, B = 3.0e6, 2.0e9
"""Of the synthetic memory: bytes a token and bytes whatever the tokens."""


def taken(tokens: int, ratio: float, chance: torch.Generator) -> float:
    noise = 1 + 0.02 * float(torch.randn((), generator=chance))
    return (K * tokens * ratio + B) * noise


def trained(memory: ElasticMemory, steps: int, blocks: int = 30) -> list[tuple[int, float, float]]:
    chance = torch.Generator().manual_seed(1)
    done = []
    for tokens in torch.randint(1000, 30_000, (steps,), generator=chance).tolist():
        recomputed = module.blocks_to_recompute(memory.ratio(tokens), blocks)
        ratio = 1 - recomputed / blocks
        done.append((tokens, ratio, taken(tokens, ratio, chance)))
        memory.record(*done[-1])
    return done


def test_the_fit_finds_the_law_and_steps_then_fill_the_target_and_no_more() -> None:
    memory = ElasticMemory(limit=40e9, target=0.75, max_ratio=0.5, refit_every=200, ring=400)
    trained(memory, 200)
    assert memory.fitted is not None
    assert memory.fitted == (pytest.approx(K, rel=0.02), pytest.approx(B, rel=0.1))  # 2 % noise on 200 steps
    assert memory.max_ratio == pytest.approx(0.6)
    trained(memory, 1200)
    assert memory.max_ratio == 1.0
    done = trained(memory, 300)
    assert max(bytes for *_, bytes in done) < 0.75 * 40e9 * 1.1  # noise of 2 %, of which three deviations, and the fit's error
    large = [bytes for tokens, _, bytes in done if K * tokens + B > 40e9]
    assert len(large) > 50
    assert sum(large) / len(large) > 0.65 * 40e9  # a block or two less than there is room for: 1/30 to 2/30 of up to 90 GB
    small = [ratio for tokens, ratio, _ in done if K * tokens + B < 0.7 * 40e9]
    assert small
    assert min(small) == 1.0  # what fits recomputes nothing


def test_ratios_follow_from_the_fit_and_its_bounds() -> None:
    memory = ElasticMemory(limit=100.0, target=0.5, max_ratio=0.8, refit_every=2)
    drawn = [memory.ratio(10) for _ in range(50)]
    assert max(drawn) <= 0.8
    assert len(set(drawn)) > 40
    memory.record(10, 0.5, 20.0)
    memory.record(10, 1.0, 30.0)
    assert memory.fitted == (pytest.approx(2.0), pytest.approx(10.0))
    assert memory.max_ratio == pytest.approx(0.9)
    assert memory.ratio(40) == pytest.approx((50 - 10) / (2 * 40))
    assert memory.ratio(1_000_000) == pytest.approx(0, abs=1e-4)
    assert memory.ratio(1) == memory.ratio(0) == pytest.approx(0.9)
    memory.limit = 15.0  # less than what there is without any token
    assert memory.ratio(40) == 0.0


def test_a_fit_that_says_nothing_leaves_the_one_before() -> None:
    memory = ElasticMemory(limit=100.0, refit_every=2, ring=2)
    for tokens, ratio, bytes in ((10, 0.5, 20.0), (10, 1.0, 30.0)):
        memory.record(tokens, ratio, bytes)
    before = memory.fitted
    for points in (((10, 0.5, 25.0), (10, 0.5, 26.0)), ((10, 0.5, 30.0), (10, 1.0, 20.0))):  # one x; falling
        for point in points:
            memory.record(*point)
        assert memory.fitted == before


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.5, 0.97, 0.99, 1.0])
def test_blocks_are_those_of_the_paper(ratio: float) -> None:
    expected = 0 if ratio == 1 else min(math.ceil((1 - ratio) * 30) + 1, 30)
    assert module.blocks_to_recompute(ratio, 30) == expected
    assert module.blocks_to_recompute(ratio, 0) == 0


def test_a_restored_controller_goes_on_as_the_old_one() -> None:
    whole = ElasticMemory(limit=40e9, refit_every=50, seed=3)
    trained(whole, 75)
    half = ElasticMemory(limit=40e9, refit_every=50, seed=4)
    half.load_state_dict(whole.state_dict())
    assert trained(half, 60) == trained(whole, 60)
    early, late = ElasticMemory(limit=40e9, seed=3), ElasticMemory(limit=40e9, seed=4)
    early.ratio(5)
    late.load_state_dict(early.state_dict())
    assert [early.ratio(5) for _ in range(3)] == [late.ratio(5) for _ in range(3)]


@pytest.fixture
def flow() -> LatentFlow:
    torch.manual_seed(0)
    flow = LatentFlow(16, 8, 48, 24, 8, num_blocks=BLOCKS, num_heads=4)
    for p in flow.parameters():
        nn.init.normal_(p, std=0.05)
    return flow


def loss_of(flow: LatentFlow, tokens: int) -> Tensor:
    chance = torch.Generator().manual_seed(tokens)
    x = SparseTensor(random_grid((tokens,), 16), torch.randn(tokens, 8, generator=chance))
    return flow(x, torch.tensor([500.0]), torch.randn(1, 7, 24, generator=chance)).feats.square().mean()


def recompute(flow: LatentFlow, count: int) -> None:
    blocks: Any = flow.blocks
    for i, block in enumerate(blocks):
        block.checkpoint = i < count


def test_real_memory_follows_the_law_and_stays_under_the_target(flow: LatentFlow) -> None:
    memory = ElasticMemory(limit=8e6, target=0.75, max_ratio=1.0, refit_every=12)
    for tokens in (40, 80, 120, 160, 200, 240) * 2:
        with memory.step(flow, tokens) as step:
            loss_of(flow, tokens).backward()
        assert step.recomputed == [block.checkpoint for block in flow.blocks].count(True)  # pyright: ignore[reportArgumentType]
        assert step.bytes > 0
    assert memory.fitted is not None
    k, b = memory.fitted
    for x, y in memory.ring:
        assert abs(y - (k * x + b)) < 0.04 * 8e6  # what checkpointed blocks keep, their inputs, is not in the law; measured 0.025
    filled = []
    for tokens in (60, 150, 250, 400):
        with memory.step(flow, tokens) as step:
            loss_of(flow, tokens).backward()
        filled.append((step.recomputed, step.bytes / 8e6))
    assert [recomputed for recomputed, _ in filled] == sorted(recomputed for recomputed, _ in filled)
    assert filled[0][0] == 0
    assert 0 < filled[2][0] < BLOCKS
    assert max(share for _, share in filled) < 0.75
    with KeptForBackward() as kept:
        recompute(flow, 0)
        loss_of(flow, 400)
    assert kept.bytes > 0.75 * 8e6  # so the controller was needed


def test_gradients_do_not_depend_on_what_is_recomputed(flow: LatentFlow) -> None:
    found = []
    for recomputed in (0, 2, BLOCKS):
        flow.zero_grad()
        recompute(flow, recomputed)
        loss_of(flow, 50).backward()
        found.append([p.grad for p in flow.parameters() if p.grad is not None])
    assert len(found[0]) == len(list(flow.parameters()))
    for gradients in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], gradients, strict=True))  # the same operations in the same order


def test_a_step_that_fails_is_not_recorded(flow: LatentFlow) -> None:
    memory = ElasticMemory(limit=1e9)
    with pytest.raises(ValueError, match="mine"), memory.step(flow, 5):
        raise ValueError("mine")
    assert memory.steps == len(memory.ring) == 0


def test_bad_input_says_what_is_wrong(flow: LatentFlow) -> None:
    for wrong in ({"limit": 0.0}, {"target": 0.0}, {"target": 1.5}, {"max_ratio": -0.1}, {"refit_every": 0}, {"ring": 1}, {"growth": 2.0}):
        with pytest.raises(RangeError, match=rf"ElasticMemory: {next(iter(wrong))} must be"):
            ElasticMemory(**wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match=r"step: on cpu nothing says how much memory there is; pass limit="), ElasticMemory().step(flow, 5):
        pass
    with pytest.raises(DtypeError, match="must have blocks with a checkpoint"), ElasticMemory(limit=1e9).step(nn.Linear(1, 1), 5):
        pass
    with pytest.raises(RangeError, match="tokens must be"):
        ElasticMemory(limit=1e9).ratio(-1)


def test_docstrings(flow: LatentFlow) -> None:
    chance = torch.Generator().manual_seed(0)
    x = SparseTensor(random_grid((20,), 16), torch.randn(20, 8, generator=chance))
    names = {"torch": torch, "ElasticMemory": ElasticMemory, "KeptForBackward": KeptForBackward}
    names |= {"flow": LatentFlow(16, 8, 48, 24, 8, num_blocks=2, num_heads=4), "x": x}
    names |= {"times": torch.tensor([500.0]), "context": torch.zeros(1, 7, 24)}
    for item in (ElasticMemory, KeptForBackward):
        for test in doctest.DocTestFinder(recurse=False).find(item, globs=names):
            assert test.examples
            assert doctest.DocTestRunner().run(test).failed == 0
