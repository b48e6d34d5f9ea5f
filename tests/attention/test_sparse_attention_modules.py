"""RaggedAttention, RaggedCrossAttention and WindowAttention: against dense attention, batches, contexts, training, bad input."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.attention import (
    CrossAttention,
    DiTBlock,
    PackedContext,
    RaggedAttention,
    RaggedCrossAttention,
    SelfAttention,
    SpatialSparseAttention,
    TransformerBlock,
    WindowAttention,
    pack_context,
    rope_phases,
)
from voxgen.core import SparseTensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.layers import set_torso_dtype
from voxgen.testing.compare import assert_same
from voxgen.testing.grids import random_grid

M = TypeVar("M", bound=nn.Module)
COUNTS = [30, 0, 7, 1]


def fill(module: M) -> M:
    """Weights of unit gain in place of the initial ones, many of which are zero."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(torch.from_numpy(recipe.weight(name, tuple(value.shape))))
    return module


def tokens(counts: list[int], channels: int = 24, resolution: int = 16) -> SparseTensor:
    grid = random_grid(counts, resolution)
    return SparseTensor(grid, torch.randn(len(grid), channels, dtype=torch.float64))


def contexts(count: int, channels: int = 10) -> list[Tensor]:
    return [torch.randn(m, channels, dtype=torch.float64) for m in (5, 3, 0, 9)][:count]


# --- against the dense layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotated", [False, True])
def test_ragged_attention_is_dense_attention_of_each_sample(rotated: bool) -> None:
    options = {"kv_heads": 2, "qk_rms_norm": True}
    dense, sparse = fill(SelfAttention(24, 4, **options)).double(), fill(RaggedAttention(24, 4, **options)).double()
    x = tokens(COUNTS)
    out = sparse(x, rope_phases(x.grid.cells, 6) if rotated else None)
    assert out.grid is x.grid
    for got, sample in zip(out.unbind(), x.unbind(), strict=True):
        expected = dense(sample.feats[None], rope_phases(sample.grid.cells, 6) if rotated else None)[0]
        assert_same(got.feats, expected, "sample", 1e-6 if rotated else 1e-12)  # phases of whole cells are float32


@pytest.mark.parametrize("shift", [0, 3])
def test_window_attention_is_dense_attention_of_each_window(shift: int) -> None:
    dense, sparse = fill(SelfAttention(24, 4)).double(), fill(WindowAttention(24, 4, 5, shift=shift)).double()
    x = tokens([60, 0, 20], resolution=12)
    out = sparse(x).feats
    window = torch.cat([x.coords[:, :1], (x.coords[:, 1:] + shift) // 5], 1)
    for key in window.unique(dim=0):
        rows = (window == key).all(1)
        assert_same(out[rows], dense(x.feats[rows][None])[0], "window", 1e-12)


def test_cross_attention_is_dense_attention_of_each_sample() -> None:
    dense = fill(CrossAttention(24, 10, 4, qk_rms_norm=True)).double()
    sparse = fill(RaggedCrossAttention(24, 10, 4, qk_rms_norm=True)).double()
    x, context = tokens(COUNTS), contexts(4)
    out = sparse(x, context)
    for got, sample, own in zip(out.unbind(), x.unbind(), context, strict=True):
        assert_same(got.feats, dense(sample.feats[None], [own])[0], "sample", 1e-12)
    assert torch.equal(out.unbind()[2].feats, dense.to_out.bias.expand(7, 24))  # no condition tokens
    assert torch.equal(sparse(x, pack_context(context)).feats, out.feats)
    equal = torch.randn(4, 3, 10, dtype=torch.float64)
    assert torch.equal(sparse(x, equal).feats, sparse(x, list(equal)).feats)


def test_no_samples() -> None:
    x = tokens([])
    assert RaggedAttention(24, 4).double()(x).feats.shape == (0, 24)
    assert WindowAttention(24, 4).double()(x).feats.shape == (0, 24)
    cross = RaggedCrossAttention(24, 10, 4).double()
    none = torch.zeros(0, 3, 10, dtype=torch.float64)
    for context in ([], none, pack_context(none)):
        assert cross(x, context).feats.shape == (0, 24)


# --- blocks of them -------------------------------------------------------------------------------------------------


ATTENTIONS = {
    "ragged": lambda: RaggedAttention(24, 4, qk_rms_norm=True),
    "window": lambda: WindowAttention(24, 4, 4, shift=2),
    "sparse": lambda: SpatialSparseAttention(24, 4, 2, 2, 4, 4, top_k=2, shift=2),
}


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_blocks_take_any_attention_with_checkpointing_and_without(kind: str) -> None:
    x, context, time = tokens([20, 0, 9]), contexts(3), torch.randn(3, 24, dtype=torch.float64)
    results = []
    for again in (False, True):
        block = fill(DiTBlock(24, ATTENTIONS[kind](), RaggedCrossAttention(24, 10, 4), checkpoint=again)).double()
        plain = fill(TransformerBlock(24, ATTENTIONS[kind](), checkpoint=again)).double()
        feats = x.feats.clone().requires_grad_()
        out = plain(block(x.with_feats(feats), time, context)).feats
        weights = [*block.parameters(), *plain.parameters()]
        results.append([out, *torch.autograd.grad(out.square().sum(), (feats, *weights))])
    for name, first, second in zip(["out", "x", *"p" * 100], *results, strict=False):
        assert_same(second, first, name, 1e-12)
    block = fill(DiTBlock(24, ATTENTIONS[kind](), RaggedCrossAttention(24, 10, 4))).double()
    out = block(x, time, context)
    for i, (sample, own) in enumerate(zip(x.unbind(), context, strict=True)):
        assert_same(out.unbind()[i].feats, block(sample, time[i : i + 1], [own]).feats, f"sample {i}", 1e-12)


@pytest.mark.parametrize("kind", ["ragged", "window"])
def test_half_precision(kind: str) -> None:
    module = fill(ATTENTIONS[kind]())
    x = tokens(COUNTS).to(torch.float32)
    with torch.no_grad():
        expected = module(x).feats
        out = set_torso_dtype(module, torch.float16)(x.to(torch.float16)).feats
    assert out.dtype == torch.float16
    # weights, projections and result are rounded to 2^-11 of their size
    assert float((out.float() - expected).norm() / expected.norm()) < 4e-3


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [RaggedAttention(24, 4), WindowAttention(24, 4)])
def test_tokens_that_do_not_fit(module: nn.Module) -> None:
    x = tokens([5]).to(torch.float32)
    with pytest.raises(DtypeError, match="must be a SparseTensor"):
        module(x.feats)
    with pytest.raises(ShapeError, match="24 channels"):
        module(x.with_feats(x.feats[:, 1:]))
    with pytest.raises(DtypeError, match="dtype of the weights"):
        module(x.to(torch.float16))
    with pytest.raises(ShapeError, match="phases"):
        module(x, rope_phases(x.grid.cells[:3], 6))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"heads": 5}, RangeError),
        ({"kv_heads": 3}, RangeError),
        ({"window": 0}, RangeError),
        ({"shift": -1}, RangeError),
        ({"window": 2.5}, DtypeError),
    ],
)
def test_configurations_that_make_no_layer(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        WindowAttention(**{"channels": 24, "heads": 4, **options})


def test_contexts_that_do_not_fit() -> None:
    cross, x = RaggedCrossAttention(24, 10, 4), tokens([5, 3]).to(torch.float32)
    with pytest.raises(ShapeError, match="each of the 2 samples"):
        cross(x, [torch.zeros(3, 10)])
    with pytest.raises(ShapeError, match="context"):
        cross(x, torch.zeros(2, 3, 11))
    with pytest.raises(ShapeError, match="of the 2 samples"):
        cross(x, pack_context([torch.zeros(3, 10)]))
    with pytest.raises(ShapeError, match=r"context\.tokens"):
        cross(x, pack_context([torch.zeros(3, 9)] * 2))
    with pytest.raises(DtypeError, match="context must be"):
        cross(x, 3)
    with pytest.raises(DtypeError, match="dtype"):
        cross(x, torch.zeros(2, 3, 10, dtype=torch.float64))
    with pytest.raises(ShapeError, match="at least one"):
        pack_context([])
    with pytest.raises(DtypeError, match="As the first"):
        pack_context([torch.zeros(3, 10), torch.zeros(3, 10).half()])
    with pytest.raises(DtypeError, match="offsets"):
        PackedContext(torch.zeros(3, 10), torch.tensor([0, 3], dtype=torch.int32))
    with pytest.raises(RangeError, match="offsets"):
        cross(x, PackedContext(torch.zeros(3, 10), torch.tensor([0, 2, 9])))
