"""The trunk of the sparse autoencoders: the original's numbers, order of its parts, precision, batches, bad input."""

from __future__ import annotations

import pytest
import torch

from golden.reader import Golden  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.attention import TransformerBlock, WindowTransformer, absolute_embedding
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.core.grid import restore
from voxgen.layers import set_torso_dtype
from voxgen.ops.blocks import partition
from voxgen.testing.compare import assert_same


def tokens(channels: int = 12, side: int = 10) -> SparseTensor:
    """Two samples of random cells and an empty one."""
    cells = torch.nonzero(torch.rand(2, side, side, side) < 0.2).int()
    grid, _ = VoxelGrid.build(cells, resolution=side, batch_size=3)
    return SparseTensor(grid, torch.randn(len(grid), channels))


def trunk_of(num_blocks: int = 3, **options) -> WindowTransformer:
    return WindowTransformer(12, num_blocks, 2, 4, **options)


def test_blocks_are_the_originals():
    golden = Golden.read("triposf_swin")
    coords, feats, c = golden.arrays["in/coords"], golden.normal("x"), golden.configuration
    trunk = WindowTransformer(c["channels"], 2, c["num_heads"], c["window_size"], mlp_ratio=c["mlp_ratio"])
    trunk.load_state_dict({key.removeprefix("block_"): value for key, value in golden.weights().items()})
    grid, order = VoxelGrid.build(coords, resolution=64)
    wanted, position = golden.expected("position", absolute_embedding(coords[:, 1:], c["channels"]))
    assert_same(position, wanted, "position", golden.tolerance)
    x = SparseTensor(grid, feats[order])
    for i, block in enumerate(trunk):
        assert isinstance(block, TransformerBlock)
        attended = restore(block.attn(x.with_feats(block.norm1(x.feats))).feats, order)  # pyright: ignore[reportCallIssue]
        for name, rows in ((f"attention_{i}", attended), (f"block_{i}", restore(block(x).feats, order))):
            wanted, got = golden.expected(name, rows)
            assert_same(got, wanted, name, golden.tolerance)
        windows = partition(grid, c["window_size"], c["shifts"][i])
        facts = golden.about["facts"][f"windows_{i}"]
        assert (len(windows), windows.longest, int(windows.counts.min())) == (facts["count"], facts["longest"], facts["shortest"])
        assert torch.equal(restore(windows.block, order), golden.arrays[f"out/window_{i}"].int())


def test_position_code_comes_first_then_blocks_with_shifts_in_turn():
    trunk, x = trunk_of(), tokens()
    h = x.with_feats(x.feats + absolute_embedding(x.grid.cells * 2.0, 12))
    for block in trunk:
        h = block(h)
    assert_same(trunk(x, factor=2.0).feats, h.feats, "trunk")
    shifts = [block.attn.shift for block in trunk]  # pyright: ignore
    assert shifts == [0, 2, 0]
    assert_same(trunk_of(0)(x).feats, x.feats + absolute_embedding(x.grid.cells, 12), "no blocks")


def test_half_precision_blocks_take_wide_tokens():
    x = tokens()
    trunk = set_torso_dtype(trunk_of(), torch.float16)
    out = trunk(x)
    assert out.dtype == torch.float16
    coded = x.with_feats((x.feats + absolute_embedding(x.grid.cells, 12)).half())
    for block in trunk:
        coded = block(coded)
    assert_same(out.feats, coded.feats, "half")


def test_checkpointing_changes_nothing():
    x, plain = tokens(), trunk_of()
    saving = trunk_of(checkpoint=True)
    saving.load_state_dict(plain.state_dict())
    results = []
    for trunk in (plain, saving):
        feats = x.feats.clone().requires_grad_()
        out = trunk(x.with_feats(feats)).feats
        out.square().sum().backward()
        results.append((out, feats.grad, trunk[0].attn.to_qkv.weight.grad))  # pyright: ignore
    for name, one, other in zip(("out", "tokens", "weight"), *results, strict=True):
        assert_same(other, one, name)


def test_batch_and_empty():
    x, trunk = tokens(), trunk_of()
    assert_same(trunk(x).feats, torch.cat([trunk(part).feats for part in x.unbind()]), "samples")
    nothing = SparseTensor(x.grid.select(torch.zeros(len(x), dtype=torch.bool)), x.feats[:0])
    assert trunk(nothing).feats.shape == (0, 12)


def test_bad_input():
    x, trunk = tokens(), trunk_of()
    with pytest.raises(ShapeError, match="12 channels"):
        trunk(tokens(6))
    with pytest.raises(DtypeError, match="SparseTensor"):
        trunk(x.feats)
    for factor in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(RangeError, match="factor must be positive"):
            trunk(x, factor=factor)
    with pytest.raises(RangeError, match="channels"):
        WindowTransformer(5, 1, 1)
    with pytest.raises(RangeError, match="num_blocks"):
        WindowTransformer(12, -1, 1)
