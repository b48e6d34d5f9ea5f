"""Cameras drawn at random: around an object, evenly over the sphere, or inside of it."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from voxgen.core import Camera, TriMesh
from voxgen.core.aliases import Float3
from voxgen.core.checks import require_choice, require_finite, require_int
from voxgen.core.errors import RangeError
from voxgen.core.frame import UpAxis
from voxgen.ops.sample_surface import sample_surface

from .cameras import box_corners, directions, view_axes

Sampling = Literal["hammersley", "uniform"]
UNIT_CUBE_RADIUS = math.sqrt(3) / 2
"""Radius of the sphere around the unit cube."""


def quasi_uniform_sphere(n: int, *, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """n unit vectors that cover the sphere more evenly than random ones: the Hammersley set.

    Args:
        n: number of directions, at least 0.
        shift: moves the set around the unit square of (u, v): another set for each shift.
    Returns:
        (n, 3) float64: z = 1 − 2 u, azimuth 2π v about z, with u = (i + shift[0]) / n and v the radical inverse of i in base
        2 plus shift[1], both modulo 1.
    Raises:
        DtypeError, RangeError: n is not a whole number of 0 or more, or a shift is not finite.
    Source: J. Hammersley, 1960; T.-T. Wong et al., "Sampling with Hammersley and Halton points", 1997.
    """
    n = require_int("quasi_uniform_sphere", "n", n, 0)
    if not all(math.isfinite(s) for s in shift) or len(shift) != 2:
        raise RangeError(f"quasi_uniform_sphere: shift must be two finite numbers; got {shift}.")
    return _on_sphere(*_hammersley(n, *shift))


def _hammersley(n: int, first: float, second: float) -> tuple[Tensor, Tensor]:
    """The n points (u, v) in [0, 1)² of the set, moved by these shares of the square; float64."""
    i = torch.arange(n)
    inverse = torch.zeros(n, dtype=torch.float64)
    for bit in range(max(1, n.bit_length())):
        inverse += (i >> bit & 1) * 0.5 ** (bit + 1)
    return (((i + first) / max(n, 1)) % 1).double(), (inverse + second) % 1


def _on_sphere(u: Tensor, v: Tensor) -> Tensor:
    """Areas are kept: evenly spread (u, v) in [0, 1)² give evenly spread directions (n, 3)."""
    z = 1 - 2 * u
    ring = (1 - z * z).clamp(min=0).sqrt()
    return torch.stack((ring * (2 * math.pi * v).cos(), ring * (2 * math.pi * v).sin(), z), 1)


def _on_patch(
    where: str, u: Tensor, v: Tensor, azimuth: tuple[float, float] | None, elevation: tuple[float, float] | None, up: UpAxis
) -> Tensor:
    """As `_on_sphere`, on the part of the sphere between these angles."""
    around, upwards = azimuth or (-180.0, 180.0), elevation or (-90.0, 90.0)
    if not (len(around) == 2 and -math.inf < around[0] <= around[1] < math.inf):
        raise RangeError(f"{where}: azimuth must be two finite angles in degrees, the smaller first; got {azimuth}.")
    if not (len(upwards) == 2 and -90 <= upwards[0] <= upwards[1] <= 90):
        raise RangeError(f"{where}: elevation must be two angles in [-90, 90] degrees, the smaller first; got {elevation}.")
    low, high = (math.sin(math.radians(angle)) for angle in upwards)
    turn = torch.deg2rad(around[0] + (around[1] - around[0]) * v)
    return directions((low + (high - low) * u).asin(), turn, up)[0]


def random_cameras(
    n: int,
    *,
    target: Float3 = (0.0, 0.0, 0.0),
    radius: float | None = 2.0,
    fov: float | tuple[float, float] = 40.0,
    object_radius: float = UNIT_CUBE_RADIUS,
    sampling: Sampling = "hammersley",
    azimuth: tuple[float, float] | None = None,
    elevation: tuple[float, float] | None = None,
    up: UpAxis = "y",
    near: float | None = None,
    far: float | None = None,
    width: int = 512,
    height: int = 512,
    generator: Generator | None = None,
) -> Camera:
    """Views of an object from random sides, as render losses and image conditions take them.

    The defaults are the training views of TRELLIS and Focusing: distance 2, 40°, clip planes at 1 and 3. Its condition images:
    `random_cameras(n, radius=None, fov=(10, 70))`. TRELLIS.2's training views, but for its clip planes, which cut through the
    object at another depth in each view: `random_cameras(n, radius=None, fov=(0.573, 28.955), object_radius=0.5, sampling="uniform")`.

    Args:
        n: number of views, at least 1.
        target: world point in the middle of the images.
        radius: distance of the eyes from the target. None: (object radius) / sin(fov / 2), at which the sphere around the object
            touches the border of the image.
        fov: full vertical field of view in degrees; two numbers are a range in which each view draws its own, sin²(fov / 2) evenly,
            so that with radius=None all distances have their share of 1 / distance².
        object_radius: of the sphere about the target that holds the object; the default that of the unit cube.
        sampling: "hammersley": the n views together cover the sphere evenly, by a set that is shifted at random.
            "uniform": each is drawn alone.
        azimuth, elevation: degrees, the smaller end first, as for `orbit_cameras`: views from this part of the sphere alone, still evenly
            by area. None: all around, or from straight below to straight above.
        up: the world axis that points up in the images.
        near, far: clip distances; None: 2 / √3 object radii before and behind the target of the nearest and farthest eye (for
            the unit cube: its distance −1 and +1), near at least 1 % of the object's radius.
        width, height: image size in pixels.
        generator: on the CPU; the same state gives the same cameras. None takes torch's.
    Returns:
        Camera of n views, float32 on the CPU.
    Raises:
        RangeError, DtypeError: an argument out of range, or none of the words.
    Source: TRELLIS (arXiv 2412.01506), Focusing. TRELLIS' renderer flips the sign of the principal point's row in its projection, which
        shows only where it is not the centre, and maps depths to [0, 1] where [-1, 1] is expected, so that its near plane lies
        at 0.6 instead of 1; `Camera` does neither.
    Example:
        >>> camera = random_cameras(8, generator=torch.Generator().manual_seed(0))
        >>> len(camera), camera.near, camera.far
        (8, 1.0, 3.0)
    """
    where = "random_cameras"
    n = require_int(where, "n", n, 1)
    require_choice(where, "sampling", sampling, get_args(Sampling))
    require_choice(where, "up", up, ("y", "z"))
    angles = _draw_fov(where, fov, n, generator)
    if not (math.isfinite(object_radius) and object_radius > 0):
        raise RangeError(f"{where}: object_radius must be positive; got {object_radius}.")
    if radius is not None and not (math.isfinite(radius) and radius > 0):
        raise RangeError(f"{where}: radius must be positive, or None; got {radius}.")
    u, v = torch.rand(2, 1 if sampling == "hammersley" else n, generator=generator, dtype=torch.float64)
    if sampling == "hammersley":
        u, v = _hammersley(n, float(u), float(v))
    outward = _on_sphere(u, v) if azimuth is None and elevation is None else _on_patch(where, u, v, azimuth, elevation, up)
    distance = torch.full((n,), radius, dtype=torch.float64) if radius is not None else object_radius / (angles / 2).sin()
    center = torch.tensor(target, dtype=torch.float64)
    reach = 2 / math.sqrt(3) * object_radius
    nearest = near if near is not None else max(0.01 * object_radius, round(float(distance.min()) - reach, 9))
    farthest = far if far is not None else round(float(distance.max()) + reach, 9)
    eyes = center + distance[:, None] * outward
    return _looking(eyes, -outward, angles, up, nearest, farthest, width, height)


def inside_cameras(
    n: int,
    *,
    low: Tensor | Float3 = (-0.5, -0.5, -0.5),
    high: Tensor | Float3 = (0.5, 0.5, 0.5),
    surface: TriMesh | None = None,
    clearance: tuple[float, float] = (0.02, 0.2),
    fov: float | tuple[float, float] = 70.0,
    near: float | None = None,
    far: float | None = None,
    width: int = 512,
    height: int = 512,
    generator: Generator | None = None,
) -> Camera:
    """Views from inside an object, with a near plane close to the eye, for supervision of what no camera outside sees.

    Args:
        n: number of views, at least 1.
        low, high: corners of the box in which the eyes are drawn evenly, looking anywhere. Not read with `surface`.
        surface: a mesh: eyes start from points drawn evenly on it and step back against the normal (inside, where faces wind
            outwards), looking into the half space before them. A thin wall may be stepped through.
        clearance: smallest and largest step from the surface, as shares of the longest side of the object's box.
        fov: as for `random_cameras`.
        near, far: clip distances; None: 0.5 % and 200 % of the longest side of the box.
        width, height: image size in pixels.
        generator: on the CPU; the same state gives the same cameras. None takes torch's.
    Returns:
        Camera of n views, float32 on the CPU. Horizons lie level where `surface` has one: its up axis, else y, is up.
    Raises:
        RangeError, DtypeError, ShapeError: an argument out of range.   MeshError: a surface without area, or that is not finite.
    Source: frustum-aware sectional training of TripoSF (arXiv 2503.21732); its way of drawing cameras is not published.
    """
    where = "inside_cameras"
    n = require_int(where, "n", n, 1)
    angles = _draw_fov(where, fov, n, generator)
    if len(clearance) != 2 or not 0 <= clearance[0] <= clearance[1] < math.inf:
        raise RangeError(f"{where}: clearance must be two shares, the smaller first, at least 0; got {clearance}.")
    u, v, w = torch.rand(3, n, generator=generator, dtype=torch.float64)
    direction = _on_sphere(u, v)
    if surface is None:
        first, last = box_corners(where, low, high)[0][[0, -1]]
        side = float((last - first).max())
        eyes = first + (last - first) * torch.rand(n, 3, generator=generator, dtype=torch.float64)
    else:
        place, inward, side = _on_surface(surface, n, generator)
        eyes = place + inward * (side * (clearance[0] + (clearance[1] - clearance[0]) * w))[:, None]
        direction = torch.where((direction * inward).sum(1, keepdim=True) < 0, -direction, direction)
    nearest, farthest = 0.005 * side if near is None else near, 2 * side if far is None else far
    return _looking(eyes, direction, angles, "y" if surface is None else surface.up, nearest, farthest, width, height)


def _on_surface(mesh: TriMesh, n: int, generator: Generator | None) -> tuple[Tensor, Tensor, float]:
    """Points drawn evenly on a mesh (n, 3), what points away from their outer side (n, 3), and the longest side of its box."""
    seed = int(torch.randint(1 << 31, (), generator=generator))
    drawn = sample_surface(mesh, n, method="independent", seed=seed)
    low, high = mesh.bounds()
    return drawn.points.detach().cpu().double(), -drawn.normals.detach().cpu().double(), float((high - low).max())


def _draw_fov(where: str, fov: float | tuple[float, float], n: int, generator: Generator | None) -> Tensor:
    """(n,) radians."""
    ends = fov if isinstance(fov, tuple) else (fov, fov)
    if len(ends) != 2 or not 0 < ends[0] <= ends[1] < 180:
        raise RangeError(f"{where}: fov must lie in (0, 180) degrees, a range with its smaller end first; got {fov}.")
    low, high = (math.sin(math.radians(end) / 2) ** 2 for end in ends)
    share = torch.rand(n, generator=generator, dtype=torch.float64)
    return 2 * (low + (high - low) * share).sqrt().asin()


def _looking(eyes: Tensor, direction: Tensor, fov: Tensor, up: UpAxis, near: float, far: float, width: int, height: int) -> Camera:
    """Cameras at eyes (n, 3) that look along unit directions (n, 3), each with its own field of view (n,) in radians."""
    require_finite("Camera", "eyes", eyes)
    _, upward = view_axes(-direction, up)
    camera = Camera.look_at(eyes, eyes + direction, up=upward, width=width, height=height, near=near, far=far)
    focal = height / (2 * (fov / 2).tan())
    intrinsics = camera.intrinsics.clone()
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    return Camera(camera.world_to_camera.float(), intrinsics.float(), width, height, near, far)
