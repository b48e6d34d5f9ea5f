"""How each kind of record becomes named tensors and a few facts, and back: what shards hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from voxgen.core import Camera, SparseTensor, VoxelGrid
from voxgen.core.checks import describe
from voxgen.core.coords import check_coords
from voxgen.core.errors import DtypeError, FileFormatError, RangeError, ShapeError
from voxgen.layers import DiagonalGaussian
from voxgen.models.structure import DensePosterior
from voxgen.representations import OrientedPoints, OVoxel, SparseSDF
from voxgen.representations.ovoxel._metadata import Volume, volume_from_json, volume_to_json
from voxgen.representations.ovoxel._quantize import (
    dequantize_attribute,
    dequantize_dual,
    dequantize_normal,
    pack_edge_flags,
    quantize_attribute,
    quantize_dual,
    quantize_normal,
    unpack_edge_flags,
)

from ._pictures import decode_pictures, encode_pictures

R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Packed:
    """One record as a shard holds it.

    Attributes:
        tensors: by name, on the CPU.
        facts: what the tensors do not say, as JSON: resolution, frame, band.
        size: what a batch is filled by: cells, points, pictures, or tokens.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)
    size: int = 0


@dataclass(frozen=True)
class Kind(Generic[R]):
    """Both ways between a record and what shards hold. `unpack` takes the first words of messages, and may keep the tensors."""

    pack: Callable[[R], Packed]
    unpack: Callable[[str, Packed], R]


def pack(where: str, kind: str, record: object) -> Packed:
    """A record as tensors on the CPU.

    Raises:
        DtypeError: a record of another kind.   RangeError: a kind that voxgen does not know; a batch of several samples.
    """
    try:
        packed = kind_named(where, kind).pack(record)
    except (AttributeError, TypeError) as error:
        raise DtypeError(f"{where}: the record must be of kind {kind!r}; got {describe(record)} ({error}).") from error
    return Packed({name: t.detach().cpu().contiguous() for name, t in packed.tensors.items()}, packed.facts, packed.size)


def unpack(where: str, kind: str, packed: Packed) -> Any:
    """Inverse of `pack`.

    Raises:
        FileFormatError: tensors or facts that do not make a record of this kind.
    """
    try:
        return kind_named(where, kind).unpack(where, packed)
    except (KeyError, ShapeError, DtypeError, RangeError, TypeError, IndexError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise FileFormatError(f"{where}: is no record of kind {kind!r}: {what}.") from error


def kind_named(where: str, kind: str) -> Kind[Any]:
    if kind not in KINDS:
        raise RangeError(f"{where}: this voxgen knows records of the kinds {', '.join(KINDS)}; got {kind!r}.")
    return KINDS[kind]


def _cells(grid: VoxelGrid) -> Tensor:
    """(n, 3) in the narrowest dtype that holds the resolution."""
    if grid.batch_size != 1:
        raise RangeError(f"a shard holds single objects; got a batch of {grid.batch_size}. Pack .sample(i) each.")
    longest = max(grid.resolution)
    return grid.cells.to(torch.uint8 if longest <= 1 << 8 else torch.int16 if longest <= 1 << 15 else torch.int32)


def _volume(grid: VoxelGrid, **extra: Any) -> dict[str, Any]:
    return volume_to_json(Volume(grid.resolution, grid.frame, "round", extra))


def _grid(where: str, packed: Packed) -> tuple[VoxelGrid, dict[str, Any]]:
    volume = volume_from_json(where, packed.facts)
    cells = packed.tensors["cells"]
    if cells.ndim != 2 or cells.shape[1] != 3 or cells.is_floating_point():
        raise ShapeError(f"cells must be (n, 3) whole numbers; got {describe(cells)}")
    coords = torch.nn.functional.pad(cells.int(), (1, 0))
    check_coords("cells", coords, volume.resolution, 1)
    grid = VoxelGrid.from_sorted(coords, resolution=volume.resolution, batch_size=1, frame=volume.frame)
    return grid, volume.extra


def _pack_ovoxel(item: OVoxel, *, exact: bool) -> Packed:
    tensors = {"cells": _cells(item.grid), "intersected": pack_edge_flags(item.intersected)}
    tensors["dual_vertices"] = item.dual_vertices if exact else quantize_dual(item.dual_vertices)
    if item.crossing_sign is not None:
        tensors["crossing_sign"] = pack_edge_flags(item.crossing_sign)
    if item.split_weight is not None:
        tensors["split_weight"] = item.split_weight
    for name, value in item.materials.items():
        rows = value if exact else quantize_normal(value) if name == "normal" else quantize_attribute(value)
        tensors[f"materials.{name}"] = rows
    return Packed(tensors, _volume(item.grid, color_space=item.color_space), len(item))


def _unpack_ovoxel(where: str, packed: Packed) -> OVoxel:
    grid, extra = _grid(where, packed)
    held = packed.tensors
    dual, materials = held["dual_vertices"], {}
    for name, rows in held.items():
        head, _, tail = name.partition(".")
        if head == "materials":
            decode = dequantize_normal if tail == "normal" else dequantize_attribute
            materials[tail] = decode(rows) if rows.dtype == torch.uint8 else rows
    return OVoxel(
        grid,
        dequantize_dual(dual) if dual.dtype == torch.uint8 else dual,
        unpack_edge_flags(held["intersected"]),
        unpack_edge_flags(held["crossing_sign"]) if "crossing_sign" in held else None,
        held.get("split_weight"),
        materials,
        extra["color_space"],
    )


def _pack_sdf(item: SparseSDF) -> Packed:
    facts = _volume(item.grid, band=item.band, signed=item.signed)
    return Packed({"cells": _cells(item.grid), "sdf_cells": item.sdf_cells}, facts, len(item))


def _unpack_sdf(where: str, packed: Packed) -> SparseSDF:
    grid, extra = _grid(where, packed)
    return SparseSDF(grid, packed.tensors["sdf_cells"], extra["band"], extra["signed"])


def _pack_points(item: OrientedPoints) -> Packed:
    if item.batch_size != 1:
        raise RangeError(f"a shard holds single objects; got a batch of {item.batch_size}. Pack .sample(i) each.")
    facts = volume_to_json(Volume((1, 1, 1), item.frame, "round", {}))
    return Packed({"points": item.points, "normals": item.normals}, facts, len(item))


def _unpack_points(where: str, packed: Packed) -> OrientedPoints:
    frame = volume_from_json(where, packed.facts).frame
    return OrientedPoints(packed.tensors["points"], packed.tensors["normals"], frame=frame)


def _pack_sparse(item: SparseTensor) -> Packed:
    return Packed({"cells": _cells(item.grid), "feats": item.feats}, _volume(item.grid), len(item))


def _unpack_sparse(where: str, packed: Packed) -> SparseTensor:
    return SparseTensor(_grid(where, packed)[0], packed.tensors["feats"])


def _pack_posterior(item: DiagonalGaussian) -> Packed:
    packed = _pack_sparse(item.mean)
    return Packed({**packed.tensors, "logvar": item.logvar}, packed.facts, packed.size)


def _unpack_posterior(where: str, packed: Packed) -> DiagonalGaussian:
    return DiagonalGaussian(_unpack_sparse(where, packed), packed.tensors["logvar"])


def _pack_dense(item: Tensor) -> Packed:
    if item.ndim != 4:
        raise ShapeError(f"a dense latent must be (c, x, y, z); got {describe(item)}")
    return Packed({"values": item}, {}, item[0].numel())


def _unpack_dense(where: str, packed: Packed) -> Tensor:
    return packed.tensors["values"]


def _pack_dense_posterior(item: DensePosterior) -> Packed:
    if len(item.mean) != 1:
        raise RangeError(f"a shard holds single objects; got a batch of {len(item.mean)}.")
    packed = _pack_dense(item.mean[0])
    return Packed({**packed.tensors, "logvar": item.logvar[0]}, {}, packed.size)


def _unpack_dense_posterior(where: str, packed: Packed) -> DensePosterior:
    return DensePosterior(packed.tensors["values"][None], packed.tensors["logvar"][None])


def _pack_images(item: Any) -> Packed:
    stream, lengths = encode_pictures(item.images)
    camera: Camera = item.camera
    tensors = {"png": stream, "lengths": lengths, "world_to_camera": camera.world_to_camera, "intrinsics": camera.intrinsics}
    names = ("width", "height", "near", "far", "orthographic")
    return Packed(tensors, {name: getattr(camera, name) for name in names}, len(lengths))


def _unpack_images(where: str, packed: Packed) -> Any:
    from .conditions import ConditionImages

    held, facts = packed.tensors, packed.facts
    camera = Camera(held["world_to_camera"], held["intrinsics"], **facts)
    images = decode_pictures(where, held["png"], held["lengths"], (facts["height"], facts["width"]))
    return ConditionImages(images, camera)


KINDS: Mapping[str, Kind[Any]] = {
    "dense": Kind(_pack_dense, _unpack_dense),
    "dense/posterior": Kind(_pack_dense_posterior, _unpack_dense_posterior),
    "images": Kind(_pack_images, _unpack_images),
    "ovoxel": Kind(lambda item: _pack_ovoxel(item, exact=True), _unpack_ovoxel),
    "ovoxel/bytes": Kind(lambda item: _pack_ovoxel(item, exact=False), _unpack_ovoxel),
    "points": Kind(_pack_points, _unpack_points),
    "sdf": Kind(_pack_sdf, _unpack_sdf),
    "sparse": Kind(_pack_sparse, _unpack_sparse),
    "sparse/posterior": Kind(_pack_posterior, _unpack_posterior),
}
"""What a field may hold: (c, x, y, z) tensors, `DensePosterior`, `ConditionImages`, `OVoxel` (exact, or rounded to bytes as in .vxz
files), `OrientedPoints`, `SparseSDF`, `SparseTensor`, `DiagonalGaussian`."""
