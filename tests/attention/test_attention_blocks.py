"""Self- and cross-attention and the transformer blocks: definitions, batches, both kinds of tokens, precision, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.attention import CrossAttention, DiTBlock, FeedForward, SelfAttention, TransformerBlock, modulation_layer, rope_phases
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.core.grid import restore
from voxgen.layers import set_torso_dtype
from voxgen.testing.compare import assert_same

GOLDEN = Path(__file__).parents[1] / "golden"
M = TypeVar("M", bound=nn.Module)


def fill(module: M) -> M:
    """Weights of unit gain in place of the initial ones, many of which are zero."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.copy_(torch.from_numpy(recipe.weight(name, tuple(value.shape))))
    return module


def block_of(modulation: str = "own", **options) -> DiTBlock:
    attention = SelfAttention(24, 4, qk_rms_norm=True)
    return fill(DiTBlock(24, attention, CrossAttention(24, 10, 4), modulation=modulation, **options))


class PerSample(nn.Module):
    """A dense module on the tokens of each sample, as the sparse attentions are."""

    def __init__(self, dense: nn.Module) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, x: SparseTensor, context: list[Tensor] | None = None) -> SparseTensor:
        parts = [sample.feats[None] for sample in x.unbind()]
        extra = [()] * len(parts) if context is None else [(tokens[None],) for tokens in context]
        done = [self.dense(part, *more)[0] for part, more in zip(parts, extra, strict=True)]
        return x.with_feats(torch.cat(done))


def ragged(counts: list[int], channels: int) -> SparseTensor:
    """Samples of these many cells with random features."""
    rows = [[b, i // 64, i // 8 % 8, i % 8] for b, n in enumerate(counts) for i in range(n)]
    grid, _ = VoxelGrid.build(torch.tensor(rows, dtype=torch.int32), resolution=8, batch_size=len(counts))
    return SparseTensor(grid, torch.randn(len(grid), channels))


# --- attention modules ----------------------------------------------------------------------------------------------


def test_self_attention_by_its_parts() -> None:
    layer = fill(SelfAttention(12, 3, qk_rms_norm=True)).double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    q, k, v = (part.unflatten(-1, (3, 4)) for part in layer.to_qkv(x).chunk(3, -1))
    assert layer.q_rms_norm is not None
    assert layer.k_rms_norm is not None
    q, k = layer.q_rms_norm(q), layer.k_rms_norm(k)
    weights = torch.softmax(torch.einsum("bnhd,bmhd->bhnm", q, k) / 2, -1)
    expected = layer.to_out(torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(2))
    assert_same(layer(x), expected, "self-attention", 1e-12)


def test_grouped_heads_read_their_group() -> None:
    layer = fill(SelfAttention(24, 6, kv_heads=2, bias=False))
    assert layer.to_qkv.weight.shape == (24 + 8 + 8, 24)
    whole = fill(SelfAttention(24, 6, bias=False))
    q, k, v = layer.to_qkv.weight.split([24, 8, 8])
    repeated = [part.view(2, 4, 24).repeat_interleave(3, 0).view(24, 24) for part in (k, v)]
    with torch.no_grad():
        whole.to_qkv.weight.copy_(torch.cat([q, *repeated]))
        whole.to_out.weight.copy_(layer.to_out.weight)
    x = torch.randn(2, 5, 24)
    assert_same(layer(x), whole(x), "grouped heads")


def test_self_attention_turns_by_position() -> None:
    layer = fill(SelfAttention(24, 2))
    x, positions = torch.randn(2, 5, 24), torch.randint(0, 9, (5, 3))
    turned = layer(x, rope_phases(positions, 12))
    order = torch.randperm(5)
    assert_same(layer(x[:, order], rope_phases(positions[order], 12)), turned[:, order], "permuted")
    assert_same(layer(x, rope_phases(positions + 4, 12)), turned, "moved", 1e-4)  # sines of larger angles round more
    assert (layer(x) - turned).abs().max() > 1e-2


def test_cross_attention_of_ragged_and_empty_conditions() -> None:
    layer = fill(CrossAttention(12, 10, 3, qk_rms_norm=True))
    x = torch.randn(3, 5, 12)
    context = [torch.randn(4, 10), torch.randn(0, 10), torch.randn(7, 10)]
    out = layer(x, context)
    for i, tokens in enumerate(context):
        assert_same(out[i], layer(x[i : i + 1], tokens[None])[0], f"sample {i}")
    assert_same(out[1], layer.to_out.bias.expand(5, 12), "sample without a condition", 0)
    assert layer(x[:0], []).shape == (0, 5, 12)
    assert_same(layer(x, torch.zeros(3, 0, 10)), layer.to_out.bias.expand(3, 5, 12), "no condition at all", 0)


def test_cross_attention_in_bad_form() -> None:
    layer = CrossAttention(12, 10, 3)
    x = torch.randn(3, 5, 12)
    with pytest.raises(ShapeError, match="one tensor for each of the 3"):
        layer(x, [torch.zeros(4, 10)] * 2)
    with pytest.raises(ShapeError, match=r"context\[1\]"):
        layer(x, [torch.zeros(4, 10), torch.zeros(4, 9), torch.zeros(4, 10)])
    with pytest.raises(ShapeError, match="Give a list"):
        layer(x, torch.zeros(1, 4, 10))
    with pytest.raises(DtypeError, match="context must be"):
        layer(x, 7)
    with pytest.raises(RangeError, match="multiple of heads"):
        CrossAttention(12, 10, 5)
    with pytest.raises(RangeError, match="kv_heads"):
        SelfAttention(12, 4, kv_heads=3)
    with pytest.raises(ShapeError, match="x must be"):
        SelfAttention(12, 4)(torch.zeros(5, 12))


# --- blocks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modulation", ["own", "shared"])
def test_dit_block_by_its_formula(modulation: str) -> None:
    block = block_of(modulation)
    x, time, context = torch.randn(2, 5, 24), torch.randn(2, 24), torch.randn(2, 7, 10)
    if modulation == "own":
        values = block.adaLN_modulation[1](torch.nn.functional.silu(time))
    else:
        time = fill(modulation_layer(24))(time)
        values = time + block.modulation
    shift1, scale1, gate1, shift2, scale2, gate2 = values[:, None].chunk(6, -1)
    plain: Callable[[Tensor], Tensor] = lambda a: torch.nn.functional.layer_norm(a, (24,), eps=1e-6)  # noqa: E731
    h = x + gate1 * block.self_attn(plain(x) * (1 + scale1) + shift1)
    h = h + block.cross_attn(block.norm2(h), context)
    h = h + gate2 * block.mlp(plain(h) * (1 + scale2) + shift2)
    assert_same(block(x, time, context), h, "block")


def test_dit_block_starts_as_its_cross_attention() -> None:
    block = DiTBlock(24, SelfAttention(24, 4), CrossAttention(24, 10, 4))
    x, context = torch.randn(2, 5, 24), torch.randn(2, 7, 10)
    assert_same(block(x, torch.randn(2, 24), context), x + block.cross_attn(block.norm2(x), context), "gates of zero")


def test_dit_block_takes_sparse_tokens() -> None:
    dense = block_of()
    sparse = block_of()
    sparse.self_attn, sparse.cross_attn = PerSample(dense.self_attn), PerSample(dense.cross_attn)
    x = ragged([5, 0, 9], 24)
    time, context = torch.randn(3, 24), [torch.randn(n, 10) for n in (4, 2, 6)]
    out = sparse(x, time, context)
    assert out.grid is x.grid
    for i, (before, after) in enumerate(zip(x.unbind(), out.unbind(), strict=True)):
        expected = dense(before.feats[None], time[i : i + 1], context[i][None])[0]
        assert_same(after.feats, expected, f"sample {i}")
        alone = sparse(before, time[i : i + 1], context[i : i + 1])
        assert_same(alone.feats, after.feats, f"sample {i} alone")


@pytest.mark.parametrize("make", [lambda c: block_of(checkpoint=c), lambda c: block_of("shared", checkpoint=c)])
def test_checkpointing_changes_no_gradient(make: Callable[[bool], DiTBlock]) -> None:
    plain, thrifty = make(False), make(True)
    x = torch.randn(2, 5, 24, requires_grad=True)
    time = torch.randn(2, 24 if hasattr(plain, "adaLN_modulation") else 144)
    context = [torch.randn(3, 10), torch.randn(0, 10)]
    upstream = torch.randn(2, 5, 24)
    results = [torch.autograd.grad(block(x, time, context), (x, *block.parameters()), upstream) for block in (plain, thrifty)]
    for name, a, b in zip(["x", *dict(plain.named_parameters())], *results, strict=True):
        assert_same(b, a, f"gradient of {name}")
        assert a.abs().max() > 0, name


def test_gradients_of_a_block() -> None:
    block = block_of().double()
    inputs = [torch.randn(2, 3, 24), torch.randn(2, 24), torch.randn(2, 2, 10)]
    inputs = [value.double().requires_grad_() for value in inputs]
    assert torch.autograd.gradcheck(block, inputs, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("modulation", ["own", "shared"])
def test_half_precision_of_the_linear_layers(modulation: str, dtype: torch.dtype) -> None:
    block, half = block_of(modulation), set_torso_dtype(block_of(modulation), dtype)
    assert half.norm2 is not None
    assert half.norm2.weight.dtype == torch.float32
    x, time, context = torch.randn(2, 5, 24), torch.randn(2, 24 if modulation == "own" else 144), torch.randn(2, 7, 10)
    out = half(x.to(dtype), time, context.to(dtype))
    assert out.dtype == dtype
    # About ten roundings of 2^-11 (2^-8) on the way through the block.
    assert_same(out.float(), block(x, time, context), "half", 5e-3 if dtype == torch.float16 else 4e-2)


def test_transformer_block_of_either_kind() -> None:
    block = fill(TransformerBlock(24, SelfAttention(24, 4), mlp_ratio=2.0))
    assert sorted({name.split(".")[0] for name in block.state_dict()}) == ["attn", "mlp"]
    x = ragged([4, 6], 24)
    sparse = TransformerBlock(24, PerSample(block.attn), mlp_ratio=2.0, checkpoint=True)
    sparse.mlp = block.mlp
    for before, after in zip(x.unbind(), sparse(x).unbind(), strict=True):
        assert_same(after.feats, block(before.feats[None])[0], "sample")
    h = x.feats[None]
    plain: Callable[[Tensor], Tensor] = lambda a: torch.nn.functional.layer_norm(a, (24,), eps=1e-6)  # noqa: E731
    expected = h + block.attn(plain(h))
    assert_same(block(h), expected + block.mlp(plain(expected)), "formula")


@pytest.mark.parametrize("qk_rms_norm", [False, True])
def test_transformer_block_of_trellis(qk_rms_norm: bool) -> None:
    about = json.loads((GOLDEN / "trellis_attention_blocks.json").read_text())
    with np.load(GOLDEN / "trellis_attention_blocks.npz") as arrays:
        coords = torch.from_numpy(arrays["coords"])
        expected = torch.from_numpy(arrays["block_full_rms" if qk_rms_norm else "block_full"])
    block = TransformerBlock(64, PerSample(SelfAttention(64, 2, qk_rms_norm=qk_rms_norm)), mlp_ratio=2.0)
    state = {name: torch.from_numpy(recipe.weight(name, tuple(shape), about["seed"])) for name, shape in about["tensors"]}
    names = {name: name.replace("attn.", "attn.dense.") for name in state if qk_rms_norm or "rms_norm" not in name}
    block.load_state_dict({own: state[name] for name, own in names.items()})
    tokens = torch.from_numpy(recipe.normal("tokens", (len(coords), 64), about["seed"]))
    grid, order = VoxelGrid.build(coords, resolution=int(coords[:, 1:].max()) + 1)
    with torch.no_grad():
        out = restore(block(SparseTensor(grid, tokens[order])).feats, order)
    assert_same(out[::5], expected, "block", 1e-4)  # as the file states


def test_blocks_in_bad_form() -> None:
    block = block_of()
    x, time, context = torch.randn(2, 5, 24), torch.randn(2, 24), torch.randn(2, 7, 10)
    with pytest.raises(ShapeError, match="One row a sample"):
        block(x, time[:1], context)
    with pytest.raises(ShapeError, match="x must be"):
        block(x[..., :23], time, context)
    with pytest.raises(DtypeError, match="SparseTensor"):
        block([x], time, context)
    with pytest.raises(RangeError, match="context must be given"):
        block(x, time)
    with pytest.raises(RangeError, match="context must be given"):
        DiTBlock(24, SelfAttention(24, 4))(x, time, context)
    with pytest.raises(ShapeError, match="24 channels; got 12"):
        TransformerBlock(24, PerSample(FeedForward(24)))(ragged([3], 12))
