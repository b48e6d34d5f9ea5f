"""Rasterisation of nothing, and of what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from voxgen.core.errors import BackendUnavailable, DeviceError, DtypeError, MeshError, RangeError, ShapeError
from voxgen.ops.rasterize import interpolate, rasterize


def test_nothing_to_see() -> None:
    none = torch.zeros(0, 3, dtype=torch.int32)
    positions = torch.zeros(0, 4, requires_grad=True)
    raster = rasterize(positions, none, 3, 5)
    assert raster.face_id.shape == (1, 3, 5)
    assert bool((raster.face_id == -1).all())
    assert bool((raster.depth == 1).all())
    assert interpolate(torch.zeros(0, 2), none, raster).shape == (1, 3, 5, 2)
    assert interpolate(torch.zeros(0, 0), none, raster).shape == (1, 3, 5, 0)
    (gradient,) = torch.autograd.grad(raster.depth.sum(), positions)
    assert gradient.shape == (0, 4)
    assert rasterize(torch.zeros(0, 7, 4), torch.tensor([[0, 1, 2]]), 3, 5).depth.shape == (0, 3, 5)


TRIANGLE = torch.tensor([[-1.0, -1, 0, 1], [1, -1, 0, 1], [-1, 1, 0, 1]])


ONE = torch.tensor([[0, 1, 2]])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((TRIANGLE[:, :3], ONE, 4, 4), ShapeError, r"positions must be \(v, 4\)"),
        ((TRIANGLE[0], ONE, 4, 4), ShapeError, r"positions must be \(b, v, 4\)"),
        ((TRIANGLE.half(), ONE, 4, 4), DtypeError, "float32 or float64; got"),
        (([[0.0]], ONE, 4, 4), DtypeError, "positions must be a tensor"),
        ((TRIANGLE, ONE[0], 4, 4), ShapeError, r"faces must be \(f, 3\)"),
        ((TRIANGLE, ONE.float(), 4, 4), DtypeError, "int32 or int64"),
        ((TRIANGLE, ONE + 1, 4, 4), MeshError, "index 3 vertices; got indices from 1 to 3"),
        ((TRIANGLE, ONE - 1, 4, 4), MeshError, "from -1 to 1"),
        ((TRIANGLE * torch.nan, ONE, 4, 4), RangeError, "positions must be finite; 3 of 3 rows are not"),
        ((TRIANGLE / 0, ONE, 4, 4), RangeError, "positions must be finite"),
        ((TRIANGLE, ONE, 0, 4), RangeError, "height must be from 1 to 32768; got 0"),
        ((TRIANGLE, ONE, 4, -1), RangeError, "width must be from 1"),
        ((TRIANGLE, ONE, 4, 2.5), DtypeError, "whole number"),
        ((TRIANGLE, ONE, 100_000, 4), RangeError, "height"),
        ((TRIANGLE, ONE.to("meta"), 4, 4), DeviceError, "one device"),
    ],
)
def test_bad_arguments(arguments: tuple[Tensor, Tensor, int, int], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        rasterize(*arguments)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"ranges": torch.tensor([[0, 2]])}, RangeError, r"row 0 = \[0, 2\] asks for faces 0 to 2. Give"),
        ({"ranges": torch.tensor([[0, 1], [-1, 1]])}, RangeError, "row 1"),
        ({"ranges": torch.tensor([[0, -1]])}, RangeError, "row 0"),
        ({"ranges": torch.tensor([0, 1])}, ShapeError, r"ranges must be \(b, 2\)"),
        ({"ranges": torch.tensor([[0.0, 1.0]])}, DtypeError, "int32 or int64"),
        ({"window": (0, 0, 4)}, ShapeError, "top, left, rows, columns"),
        ({"window": (0, 0, 5, 4)}, RangeError, "rows.*from 1 to 4"),
        ({"window": (0, 4, 1, 1)}, RangeError, "left.*from 0 to 3"),
        ({"window": (-1, 0, 1, 1)}, RangeError, "top"),
        ({"window": (0, 0, 1, 0)}, RangeError, "columns"),
        ({"window": (0, 0, 1.5, 1)}, DtypeError, "whole number"),
        ({"max_faces": 0}, RangeError, "max_faces must be at least 1"),
        ({"window": (0, 0, 2, 2), "behind": torch.zeros(1, 4, 4, dtype=torch.int32)}, ShapeError, r"behind must be \(1, 2, 2\)"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        rasterize(TRIANGLE, ONE, 4, 4, **options)


def test_bad_layers_backends_and_attributes() -> None:
    with pytest.raises(ShapeError, match=r"ranges must be \(2, 2\)"):
        rasterize(torch.stack((TRIANGLE, TRIANGLE)), ONE, 4, 4, ranges=torch.tensor([[0, 1]]))
    raster = rasterize(TRIANGLE, ONE, 4, 4)
    with pytest.raises(ShapeError, match=r"behind must be \(1, 4, 5\)"):
        rasterize(TRIANGLE, ONE, 4, 5, behind=raster.face_id)
    with pytest.raises(MeshError, match="behind must name some of the 1 faces"):
        rasterize(TRIANGLE, ONE, 4, 4, behind=raster.face_id + 1)
    with pytest.raises(BackendUnavailable, match="reference: ready"):
        rasterize(TRIANGLE.double(), ONE, 4, 4, backend="triton")
    with pytest.raises(BackendUnavailable, match=r"nvdiffrast: .*package nvdiffrast is not installed|runs on cuda"):
        rasterize(TRIANGLE, ONE, 4, 4, backend="nvdiffrast")
    with pytest.raises(MeshError, match="row for each vertex"):
        interpolate(torch.zeros(2, 1), ONE, raster)
    with pytest.raises(MeshError, match="those given to rasterize"):
        interpolate(torch.zeros(3, 1), ONE[:0], raster)
    with pytest.raises(DtypeError, match="attributes"):
        interpolate(torch.zeros(3, 1, dtype=torch.int32), ONE, raster)
    with pytest.raises(ShapeError, match=r"\(1, v, c\)"):
        interpolate(torch.zeros(2, 3, 1), ONE, raster)
