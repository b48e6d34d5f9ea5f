"""Gaussians in .ply files, in the layout that viewers of 3D Gaussian splatting read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from voxgen.core.checks import require_choice
from voxgen.core.errors import FileFormatError, RangeError
from voxgen.core.frame import UpAxis
from voxgen.core.gaussians import FIELDS, HARMONICS
from voxgen.representations.ovoxel._files import DEFAULT_MAX_BYTES, PathOrFile, label, read_bytes, write_bytes

from ._transform import TURNS, transform

if TYPE_CHECKING:
    from ._fields import GaussianSplats

FileUp = Literal["-y", "y", "z"]
"""The axis that points up in a file; viewers of 3D Gaussian splatting take "-y"."""
SMALLEST_LOGIT = 1e-7
SMALLEST_SCALE = 1e-30
_MAX_HEADER = 1 << 16
_TYPES = {"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8", "uchar": "u1", "uint8": "u1", "int": "<i4", "int32": "<i4"}
_POSITION, _COLOR, _SCALE = ("x", "y", "z"), ("f_dc_0", "f_dc_1", "f_dc_2"), ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")


def save_ply(splats: GaussianSplats, path: PathOrFile, *, up: FileUp = "-y", layout: Literal["inria", "gsplat"] = "inria") -> None:
    """Write one object for viewers: raw harmonics, logits of opacities, logarithms of scales, quaternions [w, x, y, z], float32.

    Args:
        path: where to (written under a temporary name and renamed), or an open binary file.
        up: the axis that shall point up in the file; everything is turned to it from `splats.up`. "-y" is what viewers expect. Without a
            turn, quaternions are written as they are, else of length 1.
        layout: "inria" has normals (zeros), as the first code and TRELLIS write them; "gsplat" has none.
    Raises:
        RangeError: a batch of several objects, values not finite, an unknown word.   OSError: cannot write.
    Numerics: opacities within 1e-7 of 0 and 1 and scales below 1e-30 are written as these bounds, whose logits and logarithms are finite.
    Source: 3D Gaussian splatting; TRELLIS' exporter, byte for byte but for rounding.
    """
    where = "GaussianSplats.save_ply"
    require_choice(where, "up", up, ("-y", "y", "z"))
    require_choice(where, "layout", layout, ("inria", "gsplat"))
    if splats.batch_size != 1:
        raise RangeError(f"{where}: a file holds one object; got a batch of {splats.batch_size}. Save .sample(i) each.")
    turned = splats if up == splats.up else transform(splats, TURNS[splats.up, up])
    opacity = turned.opacities.double().clamp(SMALLEST_LOGIT, 1 - SMALLEST_LOGIT)
    rest = turned.sh[:, 1:].transpose(1, 2).flatten(1)  # by colour channel first
    columns: list[tuple[tuple[str, ...], Tensor]] = [
        (_POSITION, turned.means),
        (("nx", "ny", "nz"), torch.zeros_like(turned.means)),
        (_COLOR, turned.sh[:, 0]),
        (_rest_names(rest.shape[1]), rest),
        (("opacity",), torch.logit(opacity)[:, None]),
        (_SCALE, turned.scales.double().clamp_min(SMALLEST_SCALE).log()),
        (_ROTATION, turned.rotations),
    ]
    if layout == "gsplat":
        del columns[1]
    table = torch.cat([value.detach().float().cpu() for _, value in columns], 1)
    if not bool(torch.isfinite(table).all()):
        raise RangeError(f"{where}: all values must be finite; {int((~torch.isfinite(table)).any(1).sum())} Gaussians have others.")
    names = [name for group, _ in columns for name in group]
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(table)}",
        *(f"property float {n}" for n in names),
        "end_header\n",
    ]
    write_bytes(path, ["\n".join(lines).encode("ascii"), table.numpy().astype("<f4").tobytes()])


def load_ply(path: PathOrFile, *, up: FileUp = "-y", into: UpAxis = "y", max_bytes: int = DEFAULT_MAX_BYTES) -> GaussianSplats:
    """Read Gaussians as voxgen, TRELLIS, gsplat, the first code and most trainers write them.

    Args:
        path: the file, or an open binary file.
        up: the axis that points up in the file. It is not written there, so it must be known; "-y" is the habit.
        into: the up axis of the result, to which everything is turned. `up="z", into="z"` changes nothing.
        max_bytes: refuse larger files.
    Returns:
        GaussianSplats of one object, float32, on the CPU. Properties are found by name, in any order; further ones are ignored.
    Raises:
        FileFormatError: no binary little-endian .ply, truncated, properties missing or not numbers, values not finite, larger
        than `max_bytes`.   OSError: cannot read.
    """
    from ._fields import GaussianSplats

    require_choice("GaussianSplats.load_ply", "up", up, ("-y", "y", "z"))
    require_choice("GaussianSplats.load_ply", "into", into, ("y", "z"))
    where = f"GaussianSplats.load_ply: {label(path)}"
    rows = _rows(where, read_bytes(where, path, max_bytes))
    present = set(rows.dtype.names or ())
    missing = [name for name in (*_POSITION, *_COLOR, "opacity", *_SCALE, *_ROTATION) if name not in present]
    if missing:
        raise FileFormatError(f"{where}: properties are missing: {', '.join(missing)}. Is it a mesh, or a point cloud of another kind?")
    count = sum(name.startswith("f_rest_") for name in present)
    if count % 3 or count // 3 + 1 not in HARMONICS or not set(_rest_names(count)) <= present:
        raise FileFormatError(f"{where}: harmonics must have 0, 9, 24 or 45 properties f_rest_0, f_rest_1, ...; the file has {count}.")

    def take(*names: str) -> Tensor:
        return torch.from_numpy(np.stack([rows[name].astype(np.float32) for name in names], 1))

    rest = take(*_rest_names(count)).reshape(len(rows), 3, -1).transpose(1, 2) if count else torch.zeros(len(rows), 0, 3)
    sh = torch.cat((take(*_COLOR)[:, None], rest), 1)
    opacities = torch.sigmoid(take("opacity")[:, 0].double()).float()
    splats = GaussianSplats(take(*_POSITION), take(*_ROTATION), take(*_SCALE).double().exp().float(), opacities, sh, up=into)
    for name in FIELDS:
        value = getattr(splats, name)
        bad = ~torch.isfinite(value).reshape(len(value), -1).all(1) if len(value) else torch.zeros(0, dtype=torch.bool)
        if name == "rotations":
            bad |= value.norm(dim=1) == 0
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            raise FileFormatError(f"{where}: {int(bad.sum())} Gaussians have no usable {name}; the first is number {row}.")
    return splats if up == into else transform(splats, TURNS[up, into])


def _rest_names(count: int) -> tuple[str, ...]:
    return tuple(f"f_rest_{i}" for i in range(count))


def _rows(where: str, data: bytes) -> np.ndarray:
    """The element `vertex` as a structured array."""
    found = re.search(rb"(?:\r\n|\n)end_header(?:\r\n|\n)", data[:_MAX_HEADER])
    if not data.startswith(b"ply") or found is None:
        raise FileFormatError(f"{where}: no .ply file: it must start with 'ply' and have a line 'end_header'; it starts with {data[:8]!r}.")
    lines = [line.split() for line in data[: found.start()].decode("latin-1").splitlines()[1:]]
    lines = [words for words in lines if words and words[0] not in ("comment", "obj_info")]
    if not lines or lines[0] != ["format", "binary_little_endian", "1.0"]:
        raise FileFormatError(f"{where}: format must be binary_little_endian 1.0; got {' '.join(lines[0]) if lines else 'none'!r:.60}.")
    element = lines[1] if len(lines) > 1 else []
    if len(element) != 3 or element[:2] != ["element", "vertex"] or not re.fullmatch(r"[0-9]{1,12}", element[2]):
        raise FileFormatError(f"{where}: the first element must be 'element vertex COUNT'; got {' '.join(element)!r:.60}.")
    fields: list[tuple[str, str]] = []
    for words in lines[2:]:
        if words[0] == "element":
            break  # what follows the vertices is not read
        if len(words) != 3 or words[0] != "property" or words[1] not in _TYPES or words[2] in (name for name, _ in fields):
            raise FileFormatError(f"{where}: expected 'property float NAME', each name once; got {' '.join(words)!r:.60}.")
        fields.append((words[2], _TYPES[words[1]]))
    layout, count, start = np.dtype(fields), int(element[2]), found.end()
    if count * layout.itemsize > len(data) - start:
        there = (len(data) - start) // max(1, layout.itemsize)
        raise FileFormatError(f"{where}: the file is truncated: it declares {count:,} Gaussians, and {there:,} are there.")
    return np.frombuffer(data, layout, count, start)
