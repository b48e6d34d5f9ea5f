"""Construction, first values, wrong input, and what each layer is by its definition."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import pytest
import torch
from layer_cases import LAYERS, WIDTH, children_of, made, tensor  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import voxgen.layers as layers_module
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import DeviceError, DtypeError, DuplicateError, EmptyResultWarning, RangeError, ShapeError, VoxgenError
from voxgen.layers import (
    DiagonalGaussian,
    DualGridHead,
    EarlyPruningUpsampler,
    LatentHead,
    LayerNorm32,
    MaterialHead,
    NearestUpsample,
    PooledDownsample,
    ResidualDownsample,
    ResidualUpsample,
    SparseConv3d,
    SparseConvNeXtBlock,
    SparseGroupNorm,
    SparseInstanceNorm,
    SparseResidualBlock,
    group_average,
    pointwise,
    read_dual_grid,
    read_materials,
    repeat_channels,
    set_torso_dtype,
)
from voxgen.ops.resample import Structure, channel_to_space, space_to_channel
from voxgen.testing.compare import TOLERANCE, assert_same
from voxgen.testing.grids import full_grid, random_grid

FLOAT = TOLERANCE[torch.float32]


def test_all_that_is_exported_is_there() -> None:
    assert len(set(layers_module.__all__)) == len(layers_module.__all__)
    for name in layers_module.__all__:
        assert getattr(layers_module, name).__doc__, name


# --- convolution -----------------------------------------------------------------------------------------------------


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


# --- norms and shortcuts ---------------------------------------------------------------------------------------------


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
    with _Recorder() as recorded, torch.no_grad():
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
    with _Recorder() as recorded, torch.no_grad():
        pieces = block(x).feats
    assert_same(pieces, block(x).feats.detach(), "pieces", FLOAT)
    hidden = 2 * WIDTH
    assert max(s[0] for s in recorded.shapes if len(s) == 2 and s[1] == hidden) <= 2048


# --- early pruning ---------------------------------------------------------------------------------------------------


class _Recorder(TorchDispatchMode):
    """Names of all operators that run, and shapes of all floating-point tensors that they make."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.names.append(str(func))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor) and value.is_floating_point():
                self.shapes.append(tuple(value.shape))
        return result


@pytest.mark.parametrize("upsample", [None, NearestUpsample(WIDTH, 24)])
@pytest.mark.parametrize("training", [True, False])
def test_no_tensor_has_a_row_for_a_dropped_child(upsample: nn.Module | None, training: bool) -> None:
    x = tensor(60, 0, 40)
    layer = EarlyPruningUpsampler(WIDTH, 24, upsample)
    with torch.no_grad():
        layer.predict.weight.normal_(0, 0.25)
        layer.predict.bias.fill_(-0.6)  # a quarter of the children
    with torch.set_grad_enabled(training), _Recorder() as recorded:
        result = layer(x.with_feats(x.feats.clone().requires_grad_(training)))
        if training:
            result.x.feats.sum().backward()
    kept = len(result.x)
    assert len(x) < kept < 3 * len(x)  # of eight times as many
    rows = {s[0] for s in recorded.shapes if len(s) >= 2 and s[0] > 64}  # weights have 27 or fewer
    assert rows == {len(x), kept}
    if not training:  # in inference not even channels of dropped children are made
        assert max(math.prod(s) for s in recorded.shapes if s and s[0] in rows) <= kept * 24


def test_what_decides_which_children_there_are() -> None:
    x = tensor(30, 0, 12)
    layer = made("early-pruning")
    predicted = layer(x)
    assert_same(predicted.logits, F.linear(x.feats, layer.predict.weight, layer.predict.bias), "logits", FLOAT)
    assert torch.equal(predicted.structure.mask(), predicted.logits > 0)
    assert predicted.x.grid is predicted.structure.children
    assert predicted.structure.parents is x.grid
    for given in ({"mask": predicted.logits}, {"mask": predicted.logits > 0}, {"structure": predicted.structure}):
        other = layer(x, **given)
        assert torch.equal(other.x.coords, predicted.x.coords)
        assert torch.equal(other.x.feats, predicted.x.feats)
        assert torch.equal(other.logits, predicted.logits)
    layer.threshold = 0.5
    assert torch.equal(layer(x).structure.mask(), predicted.logits > 0.5)
    assert torch.equal(layer(x, mask=predicted.logits).structure.mask(), predicted.logits > 0.5)
    every = layer(x, mask=torch.ones(len(x), 8, dtype=torch.bool))
    assert len(every.x) == 8 * len(x)


def test_the_decision_has_no_gradient_and_logits_and_features_have() -> None:
    x = tensor(20)
    layer = made("early-pruning")
    layer(x).x.feats.sum().backward()
    assert layer.predict.weight.grad is None
    assert layer.upsample.conv1.weight.grad is not None
    layer(x).logits.sum().backward()
    assert layer.predict.weight.grad is not None


def test_a_mask_that_keeps_nothing() -> None:
    x = tensor(20, 0, 5)
    layer = made("early-pruning")
    none = torch.zeros(len(x), 8, dtype=torch.bool)
    with pytest.warns(EmptyResultWarning, match="keeps no child"):
        result = layer(x, mask=none)
    assert tuple(result.x.feats.shape) == (0, 8)
    assert result.x.grid.batch_size == 3
    assert result.x.grid.resolution == (24, 24, 24)
    later = EarlyPruningUpsampler(8, 8)(SparseConvNeXtBlock(8)(result.x))  # nothing to warn of: there was nothing
    assert len(later.x) == 0
    down, _ = ResidualDownsample(8, 16)(later.x)
    assert (len(down), down.grid.resolution) == (0, (24, 24, 24))
    (later.x.feats.sum() + result.logits.sum()).backward()
    with torch.no_grad():
        layer.predict.bias.fill_(-1e9)
    with pytest.warns(EmptyResultWarning):
        assert len(layer(x).x) == 0


def test_a_cell_whose_logits_are_nan_has_no_children() -> None:
    x = tensor(20)
    x.feats[3] = float("nan")
    result = made("early-pruning")(x)
    assert bool(result.logits[3].isnan().all())
    assert 3 not in result.structure.parent.tolist()


def test_a_module_of_the_users_own() -> None:
    class Lean(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, width)

        def forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
            return SparseTensor(structure.children, self.linear(x.feats)[structure.parent])

    x = tensor(20)
    assert EarlyPruningUpsampler(WIDTH, 5, Lean(5))(x).x.channels == 5
    with pytest.raises(ShapeError, match=r"upsample must give a SparseTensor of 7 channels on the .* cells"):
        EarlyPruningUpsampler(WIDTH, 7, Lean(5))(x)
    with pytest.raises(ShapeError, match="upsample must give"):
        EarlyPruningUpsampler(WIDTH, WIDTH, _FirstArgument())(x)


class _FirstArgument(nn.Module):
    def forward(self, x: SparseTensor, structure: Structure) -> SparseTensor:
        return x


# --- heads -----------------------------------------------------------------------------------------------------------


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


# --- wrong input -----------------------------------------------------------------------------------------------------


BAD_WIDTHS: list[tuple[Any, type[VoxgenError], str]] = [
    (lambda: ResidualDownsample(16, 12), ShapeError, "out_channels 12 with channels 16"),
    (lambda: ResidualDownsample(3, 16), ShapeError, r"divides 8 · channels = 24 .* out_channels 16 with channels 3"),
    (lambda: ResidualDownsample(2, 32), ShapeError, "out_channels 32 with channels 2"),
    (lambda: ResidualUpsample(12, 6), ShapeError, "channels 12 with out_channels 6"),
    (lambda: ResidualUpsample(48, 32), ShapeError, "channels 48 with out_channels 32"),
    (lambda: EarlyPruningUpsampler(48, 32), ShapeError, "channels 48 with out_channels 32"),
    (lambda: ResidualDownsample(0, 8), RangeError, "channels must be at least 1; got 0"),
    (lambda: ResidualUpsample(8, 0), RangeError, "out_channels must be at least 1; got 0"),
    (lambda: PooledDownsample(8, -1), RangeError, "out_channels must be at least 1; got -1"),
    (lambda: PooledDownsample(8, 8, "median"), RangeError, "pooling must be one of"),  # pyright: ignore[reportArgumentType]
    (lambda: NearestUpsample(0, 8), RangeError, "NearestUpsample: channels must be at least 1"),
    (lambda: SparseResidualBlock(0), RangeError, "SparseResidualBlock: channels must be at least 1"),
    (lambda: SparseConvNeXtBlock(0), RangeError, "SparseConvNeXtBlock: channels must be at least 1"),
    (lambda: SparseConvNeXtBlock(8, mlp_ratio=0.1), RangeError, "at least one hidden channel; got 0.1 with 8 channels"),
    (lambda: SparseConvNeXtBlock(8, mlp_ratio=math.nan), RangeError, "at least one hidden channel"),
    (lambda: SparseConvNeXtBlock(8, kernel_size=2), RangeError, "even kernel_size"),
    (lambda: SparseConv3d(8, 8, 4), RangeError, r"even kernel_size .* got kernel_size \(4, 4, 4\) with stride \(1, 1, 1\)"),
    (lambda: SparseConv3d(8, 8, 2, stride=4), RangeError, "even kernel_size"),
    (lambda: SparseConv3d(8, 8, 0), RangeError, "kernel_size"),
    (lambda: SparseConv3d(8, 8, (3, 3)), ShapeError, "kernel_size must be one whole number or three"),  # pyright: ignore[reportArgumentType]
    (lambda: SparseConv3d(8, 8, stride=0), RangeError, "stride"),
    (lambda: SparseConv3d(8, 8, sites="corner"), RangeError, "sites must be one of"),  # pyright: ignore[reportArgumentType]
    (lambda: SparseConv3d(8.0, 8), DtypeError, "in_channels must be a whole number"),  # pyright: ignore[reportArgumentType]
    (lambda: SparseGroupNorm(5, 16), ShapeError, "5 groups of 16 channels"),
    (lambda: SparseGroupNorm(0, 16), RangeError, "num_groups must be at least 1"),
    (lambda: SparseInstanceNorm(0), RangeError, "channels must be at least 1"),
    (lambda: LayerNorm32(0), RangeError, "channels must be at least 1"),
    (lambda: LatentHead(8, 0), RangeError, "latent_channels must be at least 1"),
    (lambda: MaterialHead(8, 0), RangeError, "material_channels must be at least 1"),
    (lambda: DualGridHead(0), RangeError, "channels must be at least 1"),
    (lambda: EarlyPruningUpsampler(16, 8, threshold=math.nan), RangeError, "threshold must be a number"),
    (lambda: set_torso_dtype(nn.Linear(2, 2), torch.int32), DtypeError, "float dtype; got torch.int32"),
    (lambda: group_average(torch.zeros(2, 6), 4), ShapeError, "must divide the 6 channels of feats; got 4"),
    (lambda: group_average(torch.zeros(2, 6), 0), RangeError, "out_channels must be at least 1"),
    (lambda: repeat_channels(torch.zeros(2, 6), 9), ShapeError, "must be a multiple of the 6 channels of feats; got 9"),
    (lambda: repeat_channels(torch.zeros(2, 6, dtype=torch.int32), 6), DtypeError, "feats must be"),
    (lambda: LayerNorm32(4)(torch.zeros(3, 5)), ShapeError, r"must have 4 channels; got \(3, 5\)"),
    (lambda: LayerNorm32(4)(torch.zeros(3, 4, dtype=torch.int32)), DtypeError, "LayerNorm32: x must be"),
    (lambda: LayerNorm32(4)([[1.0]]), DtypeError, "LayerNorm32: x must be a tensor"),  # pyright: ignore[reportArgumentType]
]


@pytest.mark.parametrize(("attempt", "error", "message"), BAD_WIDTHS)
def test_bad_arguments(attempt: Any, error: type[VoxgenError], message: str) -> None:
    with pytest.raises(error, match=message):
        attempt()


def test_every_width_that_the_rules_allow_works_and_no_other() -> None:
    x = tensor(3)
    for c, o in itertools.product((8, 16, 24), (2, 3, 4, 6, 8, 12, 16, 24, 48)):
        given = x.with_feats(x.feats[:, :1].repeat(1, c))
        for block, allowed in (
            (lambda c=c, o=o: ResidualDownsample(c, o), o % 8 == 0 and 8 * c % o == 0),
            (lambda c=c, o=o: ResidualUpsample(c, o), o % (c // 8) == 0),
        ):
            if not allowed:
                with pytest.raises(ShapeError):
                    block()
                continue
            module = block()
            y = module(given)[0] if isinstance(module, ResidualDownsample) else module(given, children_of(given.grid))
            assert y.channels == o


NORMS = ("layer-norm", "group-norm", "instance-norm")
checked = pytest.mark.parametrize("name", [n for n in LAYERS if n != "pointwise"])


@checked
def test_inputs_that_do_not_fit(name: str) -> None:
    x, module, run = tensor(6), made(name), LAYERS[name].run
    with pytest.raises(ShapeError, match=r"16 channels; got .*5"):
        run(module, x.with_feats(x.feats[:, :5]))
    away = SparseTensor(x.grid.to("meta"), x.feats.to("meta"))
    if "up" not in name and name not in (
        "early-pruning",
        "self-pruning",
        "anchoring",
        "without-shortcut",
    ):  # children_of has no values to choose by
        with pytest.raises(DeviceError, match="one device"):
            run(module, away)
    with pytest.raises(DeviceError, match="one device"):
        run(made(name).to("meta"), x)
    with pytest.raises(DtypeError):
        run(module, x.with_feats(x.feats.int()))
    if name not in NORMS:
        with pytest.raises(DtypeError, match=r"dtype of the weights, torch.float32; got torch.float64"):
            run(module, x.to(torch.float64))
        with pytest.raises(DtypeError, match=r"must be a SparseTensor; got \(6, 16\) float32"):
            module(x.feats, children_of(x.grid)) if name.endswith("-up") or name == "without-shortcut" else module(x.feats)


@pytest.mark.parametrize(
    "name", ["residual-down", "pooled-down", "residual-up", "nearest-up", "octant-up", "early-pruning", "self-pruning", "anchoring"]
)
def test_structures_that_do_not_fit(name: str) -> None:
    x, module = tensor(12, 6), made(name)
    other = tensor(12, 6, seed=5)
    goes_down = "down" in name
    side = "children" if goes_down else "parents"

    def structure(grid: VoxelGrid, factor: int = 2) -> Structure:
        return Structure.of_children(grid, factor) if goes_down else Structure.of_mask(grid, None, factor)

    def run(given: Structure) -> Any:
        return module(x, structure=given)

    with pytest.raises(RangeError, match=rf"structure.{side} must be the cells of x"):
        run(structure(other.grid))
    with pytest.raises(RangeError, match=rf"structure.{side} must be the cells of x"):
        run(structure(tensor(12, 6, 0).grid))  # another batch size
    with pytest.raises(RangeError, match=r"factor 2 along each axis; got factor \(4, 4, 4\)"):
        run(structure(x.grid, 4))
    equal = VoxelGrid.from_sorted(x.coords.clone(), resolution=x.grid.resolution, batch_size=2)
    run(structure(equal))  # equal cells are the cells


def test_masks_that_do_not_fit() -> None:
    x, layer = tensor(6), made("early-pruning")
    for mask, error, message in (
        (torch.ones(5, 8), ShapeError, r"mask must be \(6, 8\)"),
        (torch.ones(6, 4), ShapeError, r"mask must be \(6, 8\)"),
        (torch.ones(6, 8, dtype=torch.int64), DtypeError, "mask must be"),
        (torch.ones(6, 8, device="meta"), DeviceError, "mask on meta"),
    ):
        with pytest.raises(error, match=message):
            layer(x, mask=mask)
    with pytest.raises(RangeError, match="at most one"):
        layer(x, mask=torch.ones(6, 8), structure=children_of(x.grid))


def test_cells_that_are_none() -> None:
    feats = torch.randn(3, WIDTH)
    with pytest.raises(DuplicateError, match=re.escape("[0, 1, 2, 3]")):
        SparseTensor.build(torch.tensor([[0, 1, 2, 3], [0, 0, 0, 0], [0, 1, 2, 3]], dtype=torch.int32), feats, resolution=4)
    with pytest.raises(DtypeError, match="World points"):
        SparseTensor.build(torch.rand(3, 4), feats, resolution=4)
    with pytest.raises(ShapeError, match="one row for each of the grid's 5 cells"):
        pointwise(_Half())(tensor(5))


class _Half(nn.Module):
    def forward(self, feats: Tensor) -> Tensor:
        return feats[::2]


def test_out_grids_that_do_not_fit() -> None:
    x = tensor(6, 3)
    up = SparseConv3d(WIDTH, 4, 2, stride=2, transposed=True)
    with pytest.raises(VoxgenError, match="frame"):
        up(x, out_grid=x.grid)
    with pytest.raises(RangeError, match="batch_size"):
        up(x, out_grid=random_grid((9,), 24))
