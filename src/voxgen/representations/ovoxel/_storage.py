"""Save and load: the O-Voxel's fields as named attributes of a voxel file, the format by suffix."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from voxgen.core import Frame, VoxelGrid
from voxgen.core.aliases import Int3
from voxgen.core.checks import require_choice, require_int3
from voxgen.core.coords import MAX_RESOLUTION, check_coords
from voxgen.core.errors import FileFormatError, RangeError

from . import _quantize as quantize
from ._metadata import Volume, volume_from_json, volume_to_json
from ._npz import VoxelFile, read_npz, write_npz
from ._ply import read_voxel_ply, write_voxel_ply
from ._vxz import read_vxz, write_vxz

if TYPE_CHECKING:
    from ._fields import OVoxel

SUFFIXES = (".vxz", ".npz", ".ply")
DUAL_NAMES = ("vertices", "dual_vertices")
"""What files call the dual vertices: TRELLIS.2's datasets, and its example."""


def save(
    ovoxel: OVoxel,
    path: str | Path,
    *,
    compression: Literal["lzma", "zstd", "deflate", "none"] = "lzma",
    level: int | None = None,
    filter: Literal["none", "parent", "neighbor"] = "none",
    compat: Literal["trellis2"] | None = None,
    threads: int = 1,
    progress: bool = False,
) -> None:
    """Write one object to a file; the suffix says which format.

    Args:
        path: `.vxz` (bytes, as TRELLIS.2), `.npz` (float32, lossless) or `.ply` (a point cloud of the cells, float32).
        compression, level, filter, threads: of `.vxz`; see `write_vxz`. LZMA is the smallest and slowest, zstd decodes fastest.
        compat: "trellis2" writes the original's bytes: truncated numbers, no crossing signs, no metadata.
        progress: show a bar (`.vxz`).
    Raises:
        FileFormatError: another suffix.   OSError: cannot write; the old file, if any, is as it was.
        RangeError: a batch of several objects; split weights in a `.vxz`, which holds bytes only; values not finite.
    """
    where = "OVoxel.save"
    suffix = _suffix(where, path)
    if ovoxel.batch_size != 1:
        raise RangeError(f"{where}: a file holds one object; got a batch of {ovoxel.batch_size}. Save .sample(i) each.")
    if compat is not None:
        require_choice(where, "compat", compat, ("trellis2",))
    cells = ovoxel.grid.cells.cpu()
    metadata = None
    if compat is None:
        metadata = volume_to_json(Volume(ovoxel.resolution, ovoxel.frame, "round", {"color_space": ovoxel.color_space}))
    if suffix == ".vxz":
        if ovoxel.split_weight is not None:
            raise RangeError(f"{where}: .vxz holds bytes and no split weights; save as .npz, or drop them by replace(split_weight=None).")
        write_vxz(
            path,
            cells,
            _to_bytes(ovoxel, compat),
            compression=compression,
            level=level,
            filter=filter,
            metadata=metadata,
            threads=threads,
            progress=progress,
        )
        return
    values = {"vertices": ovoxel.dual_vertices.float().cpu(), **_flag_bytes(ovoxel, compat)}
    if ovoxel.split_weight is not None:
        values["split_weight"] = ovoxel.split_weight.float().cpu()
    values.update({name: value.float().cpu() for name, value in ovoxel.materials.items()})
    values = {name: value.detach() for name, value in values.items()}
    write = write_npz if suffix == ".npz" else write_voxel_ply
    write(path, cells, values, metadata=metadata)


def load(
    path: str | Path,
    *,
    materials: str | Path | None = None,
    resolution: int | Int3 | None = None,
    frame: Frame | None = None,
    threads: int = 1,
    progress: bool = False,
) -> OVoxel:
    """Read what `save` or the original wrote.

    Args:
        path: `.vxz`, `.npz` or `.ply` with the geometry.
        materials: a second file with materials of the same cells, as TRELLIS.2's datasets have.
        resolution: cells an axis. Needed for files without voxgen's metadata, which do not say it.
        frame: for such files; None is the unit cube with z up, which is TRELLIS.2's.
        threads, progress: of `.vxz`.
    Returns:
        OVoxel on the CPU, cells in lexicographic order.
    Raises:
        FileFormatError: a damaged or foreign file, or materials whose cells are not those of the geometry; the message names it.
        RangeError: the resolution is needed, contradicts the file, or is too small for the cells.   OSError: cannot read.
    """
    where = "OVoxel.load"
    file = _read(where, path, threads, progress)
    values = file.attributes
    geometry = [name for name in DUAL_NAMES if name in values]
    if not geometry or "intersected" not in values:
        raise FileFormatError(
            f"{where}: {path}: must hold 'vertices' and 'intersected'; holds {sorted(values)}. "
            "A file of materials alone goes with its geometry: load(geometry, materials=this)."
        )
    volume = _volume(where, path, file, resolution, frame)
    if materials is not None:
        second = _read(where, materials, threads, progress)
        if not torch.equal(second.coords, file.coords):
            raise FileFormatError(
                f"{where}: {materials}: must have the {len(file.coords)} cells of {path}; has {len(second.coords)} others."
            )
        values = {**values, **second.attributes}
    grid = _grid(where, path, file.coords, volume)
    return _decode(where, path, grid, geometry[0], values, volume)


def _suffix(where: str, path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise FileFormatError(f"{where}: {path}: the suffix must be one of {', '.join(SUFFIXES)}; got {suffix!r}.")
    return suffix


def _flag_bytes(ovoxel: OVoxel, compat: str | None) -> dict[str, Tensor]:
    flags = {"intersected": quantize.pack_edge_flags(ovoxel.intersected).cpu()}
    if ovoxel.crossing_sign is not None and compat is None:
        flags["crossing_sign"] = quantize.pack_edge_flags(ovoxel.crossing_sign).cpu()
    return flags


def _to_bytes(ovoxel: OVoxel, compat: Literal["trellis2"] | None) -> dict[str, Tensor]:
    data = {"vertices": quantize.quantize_dual(ovoxel.dual_vertices, compat=compat).cpu(), **_flag_bytes(ovoxel, compat)}
    for name, value in ovoxel.materials.items():
        to_bytes = quantize.quantize_normal if name == "normal" else quantize.quantize_attribute
        data[name] = to_bytes(value, compat=compat).cpu()
    return data


def _read(where: str, path: str | Path, threads: int, progress: bool) -> VoxelFile:
    suffix = _suffix(where, path)
    if suffix == ".vxz":
        file = read_vxz(path, threads=threads, progress=progress)
        return VoxelFile(file.coords, dict(file.attributes), file.header.get("voxgen"))
    return read_npz(path) if suffix == ".npz" else read_voxel_ply(path)


def _volume(where: str, path: str | Path, file: VoxelFile, resolution: int | Int3 | None, frame: Frame | None) -> Volume:
    given = None if resolution is None else require_int3(where, "resolution", resolution, 1, MAX_RESOLUTION)
    if file.metadata is None:
        if given is None:
            raise RangeError(f"{where}: {path}: the file does not say its resolution; give resolution=, for example {_guess(file.coords)}.")
        return Volume(given, frame or Frame.unit(given, up="z"), "trellis2", {})
    volume = volume_from_json(f"{where}: {path}", file.metadata)
    if given is not None and given != volume.resolution:
        raise RangeError(f"{where}: {path}: the file says its resolution is {volume.resolution}; got resolution={resolution}.")
    if frame is not None:
        frame.require_close(f"{where}: {path}", volume.frame)
    return volume


def _guess(coords: Tensor) -> int:
    """The smallest power of two that holds the cells."""
    return 1 << int(coords.max()).bit_length() if len(coords) else 1


def _grid(where: str, path: str | Path, cells: Tensor, volume: Volume) -> VoxelGrid:
    coords = torch.nn.functional.pad(cells, (1, 0))
    try:
        check_coords(where, coords, volume.resolution, 1)
    except RangeError as error:
        raise RangeError(f"{where}: {path}: resolution {volume.resolution} is too small for its cells: {error}") from None
    return VoxelGrid.from_sorted(coords, resolution=volume.resolution, batch_size=1, frame=volume.frame)


def _decode(where: str, path: str | Path, grid: VoxelGrid, dual: str, values: Mapping[str, Tensor], volume: Volume) -> OVoxel:
    from ._fields import MATERIAL_CHANNELS, OVoxel

    known = {dual, "intersected", "crossing_sign", "split_weight", *MATERIAL_CHANNELS}
    unknown = sorted(set(values) - known)
    if unknown:
        raise FileFormatError(f"{where}: {path}: holds attributes that an O-Voxel does not have: {unknown}.")
    widths = {dual: 3, "intersected": 1, "crossing_sign": 1, "split_weight": 1, **MATERIAL_CHANNELS}
    for name, value in values.items():
        if value.shape[1] != widths[name]:
            raise FileFormatError(f"{where}: {path}: {name!r} must have {widths[name]} channels; has {value.shape[1]}.")
    color_space: Any = volume.extra.get("color_space", "srgb")
    if color_space not in ("srgb", "linear"):
        raise FileFormatError(f"{where}: {path}: color_space must be 'srgb' or 'linear'; got {color_space!r}.")

    def number(name: str) -> Tensor:
        value = values[name]
        if value.dtype != torch.uint8:
            return value
        return quantize.dequantize_normal(value) if name == "normal" else quantize.dequantize_attribute(value)

    def flags(name: str) -> Tensor:
        try:
            return quantize.unpack_edge_flags(values[name])
        except (RangeError, TypeError) as error:
            raise FileFormatError(f"{where}: {path}: {name}: {error}") from None

    return OVoxel(
        grid,
        number(dual),
        flags("intersected"),
        flags("crossing_sign") if "crossing_sign" in values else None,
        number("split_weight") if "split_weight" in values else None,
        {name: number(name) for name in MATERIAL_CHANNELS if name in values},
        color_space,
    )
