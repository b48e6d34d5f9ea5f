"""Save and load: .safetensors files of all fields."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from voxgen.core import Frame
from voxgen.core.checks import require_finite
from voxgen.core.errors import DtypeError, FileFormatError, RangeError, ShapeError
from voxgen.core.gaussians import FIELDS
from voxgen.representations._tensor_file import read_tensors, require_finite_values, require_names, write_tensors
from voxgen.representations.ovoxel._metadata import Volume

if TYPE_CHECKING:
    from ._fields import GaussianSplats

FORMAT = "voxgen-gaussian-splats"


def save(splats: GaussianSplats, path: str | Path) -> None:
    """Write all objects to a .safetensors file, exactly. For viewers see `save_ply`.

    Raises:
        FileFormatError: another suffix.   RangeError: values not finite.   OSError: cannot write; the old file, if any, is as it was.
    """
    for name in FIELDS:
        require_finite("GaussianSplats.save", name, getattr(splats, name))
    tensors = {name: getattr(splats, name) for name in FIELDS} | {"offsets": splats.bounds}
    write_tensors("GaussianSplats.save", path, FORMAT, Volume((1, 1, 1), Frame.unit(1, splats.up), "round", {}), tensors)


def load(path: str | Path) -> GaussianSplats:
    """Read what `save` wrote, on the CPU.

    Raises:
        FileFormatError: a damaged or foreign file; the message names it.   OSError: cannot read.
    """
    from ._fields import GaussianSplats

    where = "GaussianSplats.load"
    volume, tensors = read_tensors(where, path, FORMAT)
    require_names(f"{where}: {path}", tensors, {*FIELDS, "offsets"})
    require_finite_values(f"{where}: {path}", tensors)
    try:
        return GaussianSplats(**tensors, up=volume.frame.up)
    except (ShapeError, DtypeError, RangeError) as error:
        raise FileFormatError(f"{where}: {path}: {error}") from None
