"""Cameras that look at a box: from one side, or from all around."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from voxgen.core import Camera
from voxgen.core.aliases import Float3
from voxgen.core.checks import FLOATS, require_choice, require_finite, require_int, require_tensor
from voxgen.core.errors import RangeError
from voxgen.core.frame import UpAxis


def camera_for_bounds(
    low: Tensor | Float3,
    high: Tensor | Float3,
    *,
    elevation: float = 20.0,
    azimuth: float = 30.0,
    up: UpAxis = "y",
    fov: float = 30.0,
    distance: float | None = None,
    margin: float = 1.05,
    width: int = 512,
    height: int = 512,
    orthographic: bool = False,
) -> Camera:
    """One view of a box; the same as `orbit_cameras` with n = 1.

    Example:
        >>> camera = camera_for_bounds(*mesh.bounds(), up=mesh.up, azimuth=45)
    """
    return orbit_cameras(
        1,
        low=low,
        high=high,
        elevation=elevation,
        azimuth=azimuth,
        up=up,
        fov=fov,
        distance=distance,
        margin=margin,
        width=width,
        height=height,
        orthographic=orthographic,
    )


def orbit_cameras(
    n: int,
    *,
    low: Tensor | Float3 = (-0.5, -0.5, -0.5),
    high: Tensor | Float3 = (0.5, 0.5, 0.5),
    points: Tensor | None = None,
    elevation: float | Sequence[float] = 20.0,
    azimuth: float | Sequence[float] = 30.0,
    up: UpAxis = "y",
    fov: float = 30.0,
    distance: float | None = None,
    margin: float = 1.05,
    width: int = 512,
    height: int = 512,
    orthographic: bool = False,
) -> Camera:
    """n views on a circle around a box, all from one distance, so that the box has one size in all of them.

    Azimuth 0 looks at the front, which glTF puts at +z where y is up (-y where z is up); 90 looks from +x. Elevation 90 looks
    straight down, with what was up in the image at elevation 0 behind the top.

    Args:
        n: number of views, at least 1.
        low, high: opposite corners of the box, world units; it may be flat, but not a point.
        points: (p, 3) fit these instead of a box, such as the vertices of a mesh: tighter. low and high do not count then.
        elevation: degrees above the horizon, -90 to 90; one for all or one a view.
        azimuth: degrees of the first view, the others follow in equal steps of 360 / n; or one a view.
        up: the world axis that points up in the images.
        fov: full vertical field of view in degrees.
        distance: from the box's centre to the cameras; None takes the smallest at which all of it is seen in every view.
        margin: factor on the fitted image section; 1 lets the box touch the border.
        width, height: image size in pixels.
        orthographic: parallel projection with the section that fits the box.
    Returns:
        Camera of n views, float32. near and far enclose the box with room for things somewhat outside.
    Raises:
        RangeError: a count, angle, distance or margin out of range, or a box that is empty, a point or not finite.
        ShapeError, DtypeError: low or high is not three numbers, points is not (p, 3); a sequence of angles whose length is not n.
    Example:
        >>> len(orbit_cameras(4, elevation=15.0))
        4
    """
    where = "orbit_cameras"
    n = require_int(where, "n", n, 1)
    require_choice(where, "up", up, ("y", "z"))
    width, height = require_int(where, "width", width, 1), require_int(where, "height", height, 1)
    seen, centre = box_corners(where, low, high) if points is None else _cloud(where, points)
    elevations = _angles(where, "elevation", elevation, n, 0.0)
    azimuths = _angles(where, "azimuth", azimuth, n, 360.0 / n)
    if bool((elevations.abs() > math.pi / 2 + 1e-9).any()):
        raise RangeError(f"{where}: elevation must lie in [-90, 90] degrees; got {elevation}.")
    if not 0 < fov < 180:
        raise RangeError(f"{where}: fov must lie in (0, 180) degrees; got {fov}.")
    if not (math.isfinite(margin) and margin > 0):
        raise RangeError(f"{where}: margin must be positive; got {margin}.")
    if distance is not None and not (math.isfinite(distance) and distance > 0):
        raise RangeError(f"{where}: distance must be positive; got {distance}.")
    outward, upward = directions(elevations, azimuths, up)
    slope = math.tan(math.radians(fov) / 2)
    size = float((seen - centre).norm(dim=1).max())
    fitted, section, nearest, farthest = -math.inf, 0.0, math.inf, -math.inf
    for out, above in zip(outward, upward, strict=True):
        x, y, z = ((seen - centre) @ torch.stack((torch.linalg.cross(above, out), above, -out), 1)).unbind(1)
        half = torch.maximum(y.abs(), x.abs() * (height / width)) * margin
        fitted = max(fitted, float((half / slope - z).max()))
        section = max(section, 2 * float(half.max()))
        nearest, farthest = min(nearest, float(z.min())), max(farthest, float(z.max()))
    away = distance if distance is not None else 2 * size if orthographic else fitted
    return Camera.look_at(
        (centre + away * outward).float(),
        centre.float(),
        up=upward.float(),
        fov=fov,
        width=width,
        height=height,
        near=max(0.01 * size, away + nearest - size),
        far=away + farthest + size,
        orthographic_height=section if orthographic else None,
    )


def box_corners(where: str, low: Tensor | Float3, high: Tensor | Float3) -> tuple[Tensor, Tensor]:
    """The eight corners and the centre, float64."""
    ends = []
    for name, value in (("low", low), ("high", high)):
        end = value.detach().cpu().double() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
        ends.append(require_tensor(where, name, end, (3,)))
    bounds = torch.stack(ends)
    if not bool(torch.isfinite(bounds).all()) or bool((bounds[0] > bounds[1]).any()) or bool((bounds[0] == bounds[1]).all()):
        raise RangeError(
            f"{where}: low must be below high, finite and not the same point; got {bounds[0].tolist()} and {bounds[1].tolist()}."
        )
    corners = torch.cartesian_prod(*bounds.T)
    return corners, bounds.mean(0)


def _cloud(where: str, points: Tensor) -> tuple[Tensor, Tensor]:
    """The points and the centre of their box, float64."""
    require_tensor(where, "points", points, ("p", 3), FLOATS)
    cloud = points.detach().cpu().double()
    if not len(cloud):
        raise RangeError(f"{where}: points must not be empty.")
    require_finite(where, "points", cloud)
    low, high = cloud.amin(0), cloud.amax(0)
    if bool((low == high).all()):
        raise RangeError(f"{where}: points must not all lie in one place; all are {low.tolist()}.")
    return cloud, (low + high) / 2


def _angles(where: str, name: str, value: float | Sequence[float], n: int, step: float) -> Tensor:
    """(n,) radians."""
    degrees = torch.as_tensor(value, dtype=torch.float64)
    degrees = degrees + torch.arange(n, dtype=torch.float64) * step if degrees.ndim == 0 else require_tensor(where, name, degrees, (n,))
    if not bool(torch.isfinite(degrees).all()):
        raise RangeError(f"{where}: {name} must be finite; got {value}.")
    return torch.deg2rad(degrees)


def directions(elevation: Tensor, azimuth: Tensor, up: UpAxis) -> tuple[Tensor, Tensor]:
    """(n, 3) from the centre to the cameras, and what points up in the images (at a right angle, so it never degenerates)."""
    outward = torch.stack((azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()), 1)
    upward = torch.stack((-azimuth.sin() * elevation.sin(), elevation.cos(), -azimuth.cos() * elevation.sin()), 1)
    if up == "z":
        turn = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)  # rows: where x, y, z go
        outward, upward = outward @ turn, upward @ turn
    return outward, upward


def view_axes(outward: Tensor, up: UpAxis) -> tuple[Tensor, Tensor]:
    """As `directions`, from unit vectors (n, 3) to the cameras instead of angles."""
    x, y, z = outward.unbind(1)
    if up == "z":
        y, z = z, -y
    return directions(y.clamp(-1, 1).asin(), torch.atan2(x, z), up)
