"""Save and load: .safetensors files of points, normals and bounds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from voxgen.core.checks import require_finite
from voxgen.core.errors import DtypeError, FileFormatError, ShapeError
from voxgen.representations._tensor_file import read_tensors, require_finite_values, require_names, write_tensors
from voxgen.representations.ovoxel._metadata import Volume

if TYPE_CHECKING:
    from ._fields import OrientedPoints

FORMAT = "voxgen-oriented-points"


def save(cloud: OrientedPoints, path: str | Path) -> None:
    """Write all samples to a .safetensors file.

    Raises:
        FileFormatError: another suffix.   RangeError: points or normals not finite.   OSError: cannot write; the old file, if any,
        is as it was.
    """
    where = "OrientedPoints.save"
    for name in ("points", "normals"):
        require_finite(where, name, getattr(cloud, name))
    tensors = {name: getattr(cloud, name) for name in ("points", "normals", "offsets")}
    write_tensors(where, path, FORMAT, Volume((1, 1, 1), cloud.frame, "round", {}), tensors)


def load(path: str | Path) -> OrientedPoints:
    """Read what `save` wrote, on the CPU.

    Raises:
        FileFormatError: a damaged or foreign file; the message names it.   OSError: cannot read.
    """
    from ._fields import OrientedPoints

    where = "OrientedPoints.load"
    volume, tensors = read_tensors(where, path, FORMAT)
    require_names(f"{where}: {path}", tensors, {"points", "normals", "offsets"})
    require_finite_values(f"{where}: {path}", tensors)
    try:
        return OrientedPoints(tensors["points"], tensors["normals"], tensors["offsets"], volume.frame)
    except (ShapeError, DtypeError) as error:
        raise FileFormatError(f"{where}: {path}: {error}") from None
