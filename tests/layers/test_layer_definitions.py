"""Construction, first values, and what each layer is by its definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from layer_cases import WIDTH, children_of, made, tensor  # pyright: ignore[reportMissingImports]
from recorded import Recorder
from torch import nn
from torch.nn import functional as F

import voxgen.layers as layers_module
from voxgen.core import SparseTensor
from voxgen.core.errors import DeviceError, DtypeError, RangeError, ShapeError
from voxgen.layers import (
    DiagonalGaussian,
    DualGridHead,
    NearestUpsample,
    PooledDownsample,
    ResidualDownsample,
    ResidualUpsample,
    SparseConv3d,
    SparseConvNeXtBlock,
    SparseResidualBlock,
    group_average,
    read_dual_grid,
    read_materials,
    repeat_channels,
)
from voxgen.ops.resample import Structure, channel_to_space, space_to_channel
from voxgen.testing.compare import TOLERANCE, assert_same
from voxgen.testing.grids import full_grid

FLOAT = TOLERANCE[torch.float32]


def test_all_that_is_exported_is_there() -> None:
    assert len(set(layers_module.__all__)) == len(layers_module.__all__)
    for name in layers_module.__all__:
        assert getattr(layers_module, name).__doc__, name


@pytest.mark.parametrize("kernel", [1, 3, (1, 3, 5)])
def test_parameters_of_convolutions_and_their_first_values(kernel: Any) -> None:
    conv = SparseConv3d(40, 50, kernel)
    volume = conv.key.volume
    assert tuple(conv.weight.shape) == ((40, 50) if volume == 1 else (volume, 40, 50))
    assert conv.bias is not None
    bound = 1 / math.sqrt(40 * volume)
    for parameter in (conv.weight, conv.bias):
        size = parameter.detach().abs()
        assert 0.9 * bound < float(size.max()) <= bound
    assert float(conv.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert SparseConv3d(4, 5, bias=False).bias is None


def test_convolution_is_the_dense_one_where_cells_exist() -> None:
    x = tensor(40, 0, 20)
    same = made("conv")
    weight = same.weight.reshape(3, 3, 3, WIDTH, 8).permute(4, 3, 0, 1, 2)
    dense = F.conv3d(x.dense(), weight, same.bias, padding=1)
    b, i, j, k = x.coords.long().unbind(1)
    assert_same(same(x).feats, dense[b, :, i, j, k], "submanifold", FLOAT)
    assert same(x).grid is x.grid

    down = SparseConv3d(WIDTH, 8, 3, stride=2, padding=1, sites="window")
    y = down(x)
    dense = F.conv3d(x.dense(), down.weight.reshape(3, 3, 3, WIDTH, 8).permute(4, 3, 0, 1, 2), down.bias, stride=2, padding=1)
    b, i, j, k = y.coords.long().unbind(1)
    assert_same(y.feats, dense[b, :, i, j, k], "strided", FLOAT)

    up = SparseConv3d(8, WIDTH, 2, stride=2, transposed=True)
    coarse = SparseConv3d(WIDTH, 8, 2, stride=2)(x)
    assert len(up(coarse)) == 8 * len(coarse)
    back = up(coarse, out_grid=x.grid)
    assert back.grid is x.grid
    dense = F.conv_transpose3d(coarse.dense(), up.weight.reshape(2, 2, 2, 8, WIDTH).permute(3, 4, 0, 1, 2), up.bias, stride=2)
    b, i, j, k = x.coords.long().unbind(1)
    assert_same(back.feats, dense[b, :, i, j, k], "transposed", FLOAT)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("training", [True, False])
def test_convolution_to_children(kernel: int, training: bool) -> None:
    x = tensor(30, 0, 12)
    structure = children_of(x.grid)
    conv = SparseConv3d(WIDTH, 24, kernel)
    with torch.set_grad_enabled(training):
        y = conv(x, structure=structure)
        assert y.grid is structure.children
        assert_same(y.feats, channel_to_space(conv(x).feats, structure), "children", FLOAT)
    with pytest.raises(RangeError, match=r"structure.parents must be the output cells"):
        conv(x, structure=children_of(tensor(30, 0, 12, seed=1).grid))
    with pytest.raises(ShapeError, match="multiple of the 8 children"):
        SparseConv3d(WIDTH, 12, kernel)(x, structure=structure)


def test_convolution_keeps_nothing_between_calls() -> None:
    conv = made("conv")
    before = set(vars(conv))
    conv(tensor(10))
    assert set(vars(conv)) == before


def test_norms_of_samples_are_torchs_on_each_sample() -> None:
    x = tensor(30, 0, 1, 12)
    x = x.with_feats(5 * x.feats + 1000)  # far from zero: a variance by squares would lose most digits
    grouped, single = made("group-norm"), made("instance-norm")
    for groups, norm in ((4, grouped), (WIDTH, single)):
        expected = []
        for sample in x.unbind():
            rows = sample.feats.double()
            split = rows.reshape(len(rows), groups, WIDTH // groups)
            mean = split.mean((0, 2), keepdim=True)
            var = (split - mean).square().mean((0, 2), keepdim=True)
            expected.append(((split - mean) / (var + 1e-5).sqrt()).reshape(len(rows), WIDTH) * norm.weight + norm.bias)
        # float32 holds 1000 ± 5 to 6e-5
        assert_same(norm(x).feats, torch.cat(expected).nan_to_num(0).float(), "norm", 2e-5)


def test_layer_norm_takes_tensors_of_any_rank_and_one_pass() -> None:
    norm = made("layer-norm")
    for shape in ((WIDTH,), (3, WIDTH), (2, 3, 4, WIDTH), (0, WIDTH)):
        x = torch.randn(shape)
        assert torch.equal(norm(x), F.layer_norm(x, (WIDTH,), norm.weight, norm.bias, 1e-6))
    with Recorder() as recorded, torch.no_grad():
        norm(torch.randn(5, WIDTH))
    assert [name for name in recorded.names if "layer_norm" not in name and "randn" not in name] == []
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        x = torch.randn(50, WIDTH).to(dtype) * 30 + 5
        exact = F.layer_norm(x.double(), (WIDTH,), norm.weight.double(), norm.bias.double(), 1e-6).detach()
        assert norm(x).dtype == dtype
        assert float((norm(x).detach().double() - exact).abs().max() / exact.abs().max()) < torch.finfo(dtype).eps
        half = made("layer-norm").to(dtype)
        assert float((half(x).detach().double() - exact).abs().max() / exact.abs().max()) < 2 * torch.finfo(dtype).eps


def test_shortcuts() -> None:
    x = tensor(40, 0, 12)
    down = Structure.of_children(x.grid)
    for width in (8, 16, 32, 64, 128):
        block = ResidualDownsample(WIDTH, width)  # the last convolution is zero, so this is the shortcut
        expected = group_average(space_to_channel(x.feats, down), width)
        assert_same(block(x)[0].feats, expected, f"down {width}", FLOAT)
        assert bool((ResidualDownsample(WIDTH, width, shortcut=False)(x)[0].feats == 0).all())
    up = children_of(x.grid)
    for width in (2, 4, 8, 16, 30):
        expected = repeat_channels(channel_to_space(x.feats, up), width)
        assert torch.equal(ResidualUpsample(WIDTH, width)(x, up).feats, expected)
    assert bool((ResidualUpsample(WIDTH, 8, shortcut=False)(x, up).feats == 0).all())


def test_new_blocks_are_their_shortcut() -> None:
    x = tensor(20)
    assert torch.equal(SparseConvNeXtBlock(WIDTH)(x).feats, x.feats)
    assert torch.equal(SparseResidualBlock(WIDTH)(x).feats, x.feats)
    assert isinstance(SparseResidualBlock(WIDTH, WIDTH).skip_connection, nn.Identity)
    assert [n for n, _ in NearestUpsample(8, 8).named_parameters() if "skip" in n] == []


@pytest.mark.parametrize("pooling", ["mean", "mean_plus_one", "sum", "max"])
def test_poolings(pooling: Any) -> None:
    x = tensor(30)
    y, structure = PooledDownsample(WIDTH, WIDTH, pooling)(x)
    table = structure.table.long()
    children = torch.where(table[:, :, None] >= 0, x.feats[table.clamp_min(0)], float("nan"))
    number = (table >= 0).sum(1, keepdim=True)
    total = children.nansum(1)
    expected = {
        "sum": total,
        "mean": total / number,
        "mean_plus_one": total / (number + 1),
        "max": children.nan_to_num(-torch.inf).amax(1),
    }[pooling]
    assert_same(y.feats, expected, pooling, FLOAT)


def test_long_input_in_inference_goes_in_pieces_with_the_same_result() -> None:
    x = SparseTensor(full_grid((16, 16, 19)), torch.randn(16 * 16 * 19, WIDTH))  # more than two pieces, the last one short
    block = made("convnext")
    with Recorder() as recorded, torch.no_grad():
        pieces = block(x).feats
    assert_same(pieces, block(x).feats.detach(), "pieces", FLOAT)
    hidden = 2 * WIDTH
    assert max(s[0] for s in recorded.shapes if len(s) == 2 and s[1] == hidden) <= 2048


def test_latents() -> None:
    x = tensor(20, 0, 5)
    head = made("latent")
    posterior = head(x)
    both = F.linear(x.feats, head.linear.weight, head.linear.bias)
    assert_same(posterior.mode.feats, both[:, :4], "mean", FLOAT)
    assert_same(posterior.logvar, both[:, 4:], "logvar", FLOAT)
    noise = torch.randn(25, 4)
    expected = both[:, :4] + torch.exp(0.5 * both[:, 4:]) * noise
    assert_same(posterior.sample(noise=noise).feats, expected, "sample", FLOAT)
    first, second = (posterior.sample(torch.Generator().manual_seed(3)).feats for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, posterior.sample(torch.Generator().manual_seed(4)).feats)
    with pytest.raises(RangeError, match="not both"):
        posterior.sample(torch.Generator(), noise)
    with pytest.raises(ShapeError, match=r"noise must be \(25, 4\)"):
        posterior.sample(noise=noise[:3])
    with pytest.raises(DtypeError, match="noise must be"):
        posterior.sample(noise=noise.double())
    with pytest.raises(DeviceError, match="noise on meta"):
        posterior.sample(noise=noise.to("meta"))
    with pytest.raises(ShapeError, match="logvar"):
        DiagonalGaussian(posterior.mean, posterior.logvar[1:])
    wild = DiagonalGaussian(posterior.mean, torch.full_like(posterior.logvar, 60.0))  # never clamped
    assert float(wild.std.detach().mean()) == pytest.approx(math.exp(30), rel=1e-5)


def test_dual_grid_head() -> None:
    logits = torch.tensor([[-1e4, 0.0, 1e4, -0.1, 0.0, 0.1, 0.0]])
    read = read_dual_grid(logits)
    assert read.dual_vertices.tolist() == [[-0.5, 0.5, 1.5]]
    assert read.intersected.tolist() == [[False, False, True]]
    assert read.split_weight.tolist() == [[pytest.approx(math.log(2))]]
    assert read_dual_grid(logits, margin=0).dual_vertices.tolist() == [[0, 0.5, 1]]
    with pytest.raises(ShapeError, match=r"logits must be \(n, 7\)"):
        read_dual_grid(logits[:, :6])
    for margin in (-0.1, math.nan, math.inf):
        with pytest.raises(RangeError, match="margin must be at least 0"):
            read_dual_grid(logits, margin)
        with pytest.raises(RangeError, match="margin must be at least 0"):
            DualGridHead(4, margin)
    assert read_materials(torch.tensor([[-1.0, 1.0, 3.0]])).tolist() == [[0, 1, 2]]
