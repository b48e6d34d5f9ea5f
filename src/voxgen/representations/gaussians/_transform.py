"""Crop, merge, move and turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from voxgen.core.aliases import Float3
from voxgen.core.batching import batch_index, counts_from_offsets, offsets_from_counts
from voxgen.core.checks import require_choice, require_same_device
from voxgen.core.errors import DtypeError, FrameError, RangeError, ShapeError
from voxgen.core.frame import UpAxis
from voxgen.core.gaussians import FIELDS
from voxgen.ops.splat import spherical_harmonics

if TYPE_CHECKING:
    from ._fields import GaussianSplats

SAME = 1e-4
"""How far a matrix may be from a rotation times a scale, relatively."""
TURNS = {
    ("z", "y"): ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
    ("y", "z"): ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    ("z", "-y"): ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    ("-y", "z"): ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
    ("y", "-y"): ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),
    ("-y", "y"): ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),
}
"""Turns about x that bring one up axis to another."""


def crop(splats: GaussianSplats, low: Float3, high: Float3) -> GaussianSplats:
    """Keep the Gaussians with low <= centre < high, world units.

    Raises:
        RangeError: a box without an inside.
    """
    if len(low) != 3 or len(high) != 3 or not all(a < b for a, b in zip(low, high, strict=True)):
        raise RangeError(f"GaussianSplats.crop: low must be less than high on every axis; got {low} and {high}.")
    a, b = splats.means.new_tensor(low), splats.means.new_tensor(high)
    return splats.select(((splats.means >= a) & (splats.means < b)).all(1))


def merge(splats: GaussianSplats, *others: GaussianSplats) -> GaussianSplats:
    """Object s of the result is object s of all together. Lower degrees are filled up with zeros.

    Raises:
        ShapeError: different numbers of objects.   FrameError: different up axes.   DtypeError, DeviceError: different dtypes or devices.
    """
    where, items = "GaussianSplats.merge", (splats, *others)
    if any(item.batch_size != splats.batch_size for item in items):
        raise ShapeError(f"{where}: all must have one number of objects; got {[item.batch_size for item in items]}.")
    if any(item.up != splats.up for item in items):
        raise FrameError(f"{where}: all must have one up axis; got {[item.up for item in items]}. Turn them with with_up.")
    if any(item.dtype != splats.dtype for item in items):
        raise DtypeError(f"{where}: all must have one dtype; got {[str(item.dtype) for item in items]}.")
    require_same_device(where, **{f"item {i}": item.means for i, item in enumerate(items)})
    order = torch.cat([batch_index(item.bounds) for item in items]).sort(stable=True)[1]
    width = max(item.sh.shape[1] for item in items)
    columns = {name: torch.cat([_wide(getattr(item, name), name, width) for item in items]).index_select(0, order) for name in FIELDS}
    counts = torch.stack([counts_from_offsets(item.bounds) for item in items]).sum(0)
    return replace(splats, **columns, offsets=offsets_from_counts(counts))


def _wide(value: Tensor, name: str, width: int) -> Tensor:
    return torch.nn.functional.pad(value, (0, 0, 0, width - value.shape[1])) if name == "sh" else value


def transform(splats: GaussianSplats, matrix: Tensor | Sequence[Sequence[float]]) -> GaussianSplats:
    """Move, turn and scale: centres, rotations, scales, and colours that depend on the direction.

    Args:
        matrix: (4, 4) or (3, 3): a rotation times a positive scale, and a shift.
    Returns:
        Gaussians that look from the moved camera as these look from the camera. Rotations are of length 1 then, with their largest
        number positive. Differentiable in the Gaussians.
    Raises:
        ShapeError: another shape.   RangeError: a matrix that mirrors, shears, scales axes differently, or is not finite.
    Numerics: harmonics of degree 1 to 3 turn by matrices that are fitted exactly (to 1e-14) in float64.
    """
    where = "GaussianSplats.transform"
    m = torch.as_tensor(matrix).detach().to("cpu", torch.float64)
    if m.shape not in ((3, 3), (4, 4)):
        raise ShapeError(f"{where}: matrix must be (3, 3) or (4, 4); got {tuple(m.shape)}.")
    linear, shift = m[:3, :3], m[:3, 3] if len(m) == 4 else torch.zeros(3, dtype=torch.float64)
    scale = float(torch.linalg.det(linear)) if bool(torch.isfinite(m).all()) else -1.0
    if not scale > 0:
        raise RangeError(f"{where}: matrix must be finite and keep the orientation (determinant > 0); got {m.tolist()}.")
    scale = scale ** (1 / 3)
    rotation = linear / scale
    if float((rotation @ rotation.T - torch.eye(3).double()).abs().max()) > SAME:
        raise RangeError(f"{where}: matrix must be a rotation times one scale for all axes; got {linear.tolist()}.")
    if len(m) == 4 and not torch.equal(m[3], torch.tensor([0, 0, 0, 1.0], dtype=torch.float64)):
        raise RangeError(f"{where}: the last row of matrix must be 0 0 0 1; got {m[3].tolist()}.")
    means = splats.means @ linear.T.to(splats.means) + shift.to(splats.means)
    rotations = _turned(splats.rotations, rotation)
    return replace(splats, means=means, rotations=rotations, scales=splats.scales * scale, sh=_turned_harmonics(splats.sh, rotation))


def with_up(splats: GaussianSplats, up: UpAxis) -> GaussianSplats:
    """Turn about x so that the up axis is `up`: from "z" to "y" is (x, y, z) → (x, z, -y). Itself if it is already."""
    require_choice("GaussianSplats.with_up", "up", up, ("y", "z"))
    return splats if up == splats.up else replace(transform(splats, TURNS[splats.up, up]), up=up)


def _turned(quaternions: Tensor, rotation: Tensor) -> Tensor:
    """Product with the quaternion of a rotation matrix, of length 1, its largest number positive."""
    w, x, y, z = _quaternion(rotation)
    rows = ((w, -x, -y, -z), (x, w, -z, y), (y, z, w, -x), (z, -y, x, w))
    left = torch.tensor(rows, dtype=torch.float64, device=quaternions.device)
    product = (normalize(quaternions.double(), dim=1) @ left.T).to(quaternions.dtype)
    largest = product.detach().abs().argmax(1, keepdim=True)
    return product * torch.where(product.detach().gather(1, largest) < 0, -1.0, 1.0)


def _quaternion(rotation: Tensor) -> tuple[float, float, float, float]:
    """[w, x, y, z] as the eigenvector that belongs to a rotation: stable for all of them."""
    (a, b, c), (d, e, f), (g, h, i) = rotation.tolist()
    rows = (
        (a - e - i, b + d, c + g, h - f),
        (b + d, e - a - i, f + h, c - g),
        (c + g, f + h, i - a - e, d - b),
        (h - f, c - g, d - b, a + e + i),
    )
    x, y, z, w = torch.linalg.eigh(torch.tensor(rows, dtype=torch.float64))[1][:, 3].tolist()
    return w, x, y, z


def _turned_harmonics(sh: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients of the same colours seen along turned directions."""
    degree = round(sh.shape[1] ** 0.5) - 1
    if degree == 0 or len(sh) == 0:
        return sh
    directions = normalize(torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1)
    before = spherical_harmonics(directions @ rotation, degree)  # seen along the direction turned back
    after = spherical_harmonics(directions, degree)
    matrix = torch.linalg.lstsq(after, before).solution
    return torch.einsum("jk,nkc->njc", matrix.to(sh), sh)
