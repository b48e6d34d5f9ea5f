"""What layers refuse, and in which words."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import pytest
import torch
from layer_cases import LAYERS, WIDTH, children_of, made, tensor  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import DeviceError, DtypeError, DuplicateError, RangeError, ShapeError, VoxgenError
from voxgen.layers import (
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
    repeat_channels,
    set_torso_dtype,
)
from voxgen.ops.resample import Structure
from voxgen.testing.grids import random_grid

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
