"""What voxgen's own files say about a volume besides its voxels: resolution, frame, how floats became bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from voxgen.core import Frame
from voxgen.core.aliases import Int3
from voxgen.core.checks import describe, require_int3
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import DtypeError, FileFormatError, RangeError, ShapeError

VERSION = 1
"""Version of the metadata; readers refuse a newer one."""

QUANTIZERS = ("round", "trellis2")


class Volume(NamedTuple):
    """resolution: cells along x, y, z.   frame: index to world.   quantizer: "round" or "trellis2" (truncation).

    extra: what else the file says, JSON.
    """

    resolution: Int3
    frame: Frame
    quantizer: str
    extra: dict[str, Any]


def volume_to_json(volume: Volume) -> dict[str, Any]:
    """The dict for `metadata=` of the writers; `extra` must not use its keys."""
    table = {
        "version": VERSION,
        "resolution": list(volume.resolution),
        "origin": list(volume.frame.origin),
        "voxel_size": list(volume.frame.voxel_size),
        "up": volume.frame.up,
        "quantizer": volume.quantizer,
    }
    taken = sorted(table.keys() & volume.extra.keys())
    if taken or volume.quantizer not in QUANTIZERS:
        raise RangeError(
            f"volume_to_json: quantizer must be one of {QUANTIZERS} and extra must not have {taken}; got {volume.quantizer!r}."
        )
    return {**table, **volume.extra}


def volume_from_json(where: str, table: Mapping[str, Any]) -> Volume:
    """Inverse of `volume_to_json`.

    Args:
        where: call and file, first words of messages.
    Raises:
        FileFormatError: a key is missing, a value is out of range, a newer version.
    """
    keys = ("version", "resolution", "origin", "voxel_size", "up", "quantizer")
    missing = [key for key in keys if key not in table]
    if missing:
        raise FileFormatError(f"{where}: metadata: {', '.join(missing)} missing.")
    if table["version"] != VERSION or type(table["version"]) is not int:
        raise FileFormatError(f"{where}: metadata are of version {describe(table['version'])}; this voxgen reads version {VERSION}.")
    try:
        if not isinstance(table["resolution"], list):
            raise ShapeError("resolution must be a list of three")
        resolution = require_int3("metadata", "resolution", table["resolution"], 1, MAX_RESOLUTION)
        frame = Frame(_floats(table["origin"]), _floats(table["voxel_size"]), table["up"])
        if table["quantizer"] not in QUANTIZERS:
            raise RangeError(f"quantizer must be one of {QUANTIZERS}; got {describe(table['quantizer'])}")
    except (RangeError, ShapeError, DtypeError) as error:
        raise FileFormatError(f"{where}: metadata: {error}") from None
    extra = {key: value for key, value in table.items() if key not in (*keys, "crc32")}
    return Volume(resolution, frame, table["quantizer"], extra)


def _floats(values: Any) -> tuple[float, float, float]:
    if not isinstance(values, list) or len(values) != 3 or any(type(v) not in (int, float) or abs(v) > 1e300 for v in values):
        raise ShapeError(f"origin and voxel_size must be three numbers; got {describe(values)}")
    return float(values[0]), float(values[1]), float(values[2])
