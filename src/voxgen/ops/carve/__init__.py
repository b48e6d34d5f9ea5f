"""Which cells of a grid views need: those near the surface that they see. What lies behind it is carved away."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core import Camera, Selection, VoxelGrid
from voxgen.core.checks import require_choice, require_int, require_same_device, require_tensor
from voxgen.core.errors import EmptyResultWarning, RangeError
from voxgen.ops._registry import Backend, Call, Op, cpu_only

from ._views import views_of

__all__ = ["Carving", "carve_by_depth"]

OP = Op(
    "carve",
    [
        Backend("numba", "voxgen.ops.carve._numba:carve", (cpu_only,)),
        Backend("reference", "voxgen.ops.carve._reference:carve"),
    ],
)
MAX_RINGS = 64


@dataclass(frozen=True, eq=False, repr=False)
class Carving(Selection):
    """The cells that `carve_by_depth` keeps.

    Args:
        coverage: (v, h, w) bool: pixels for which the kept cells hold everything that all cells hold, so that a decoder of kept cells
            draws there what a decoder of all cells draws. Pixels without surface count as covered: carving never adds any.
    """

    coverage: Bool[Tensor, "v h w"]


def carve_by_depth(
    grid: VoxelGrid,
    depth: Float[Tensor, "v h w"],
    camera: Camera,
    margin: float | None = None,
    *,
    sample: Tensor | None = None,
    background: float = math.inf,
    dilate: int = 1,
    cover: bool | None = None,
    reach: float = 1.0,
    rule: Literal["visible", "paper"] = "visible",
    backend: str = "auto",
) -> Carving:
    """Keep the voxels that contribute to what views see, and leave out those that are hidden or out of the picture.

    A cell is kept where a view of its sample sees its centre at depth z, inside the picture and between the near and far planes, and
        z <= D + margin,
    D being the depth of the surface in the pixel that the centre falls in. Then come the cells around: those within `dilate` of a kept
    one, and, with `cover`, those around each pixel's surface point. No cell is made that the grid does not have.

    Args:
        grid: (n cells), at any level: latents, an O-Voxel, SparseFlex cubes. It should hold every cell that the surface touches.
        depth: (v, h, w) float32 or float64, z in camera space (not z / w, not the ray's length) of the true surface at each pixel's
            centre, world units; infinite where there is none. `render_mesh(...).depth` is that, and `render_geometry(...,
            antialias=False, depth_background=math.inf).depth`: blended depths lie on no surface.
        camera: v views of height h and width w.
        margin: world units, at least 0, may be infinite; None is two cells along the longest side of a cell.
        sample: (v,) int64, the sample of the batch that each view shows; None: the only sample, or view i shows sample i. A cell is
            kept if any view of its sample keeps it; a sample without views keeps nothing.
        background: the number that marks pixels without surface in `depth`, 0 for many renderers. They see infinitely far.
        dilate: rings of cells that exist to add, 0 to 64. One ring makes up for cells whose centre lies behind a slanted surface.
        cover: keep also the cells that exist within `reach` of each pixel's surface point, so that nothing visible is lost by
            construction. In the usual case that adds next to nothing. None: yes with rule "visible".
        reach: cells, from 0 to 4: how far around a surface point the mesh there depends on cells. 1 is enough where the grid's own
            cells are meshed, 0.25 where each is divided in four along each side.
        rule: "paper" keeps z > D − margin, what the paper prints: with depths that are positive in front this keeps what is hidden.
        backend: see docs/backends.md.
    Returns:
        Carving: a `Selection` with the coverage of each view. Not differentiable.
    Raises:
        ShapeError: depth of another size than the camera's.   DtypeError, DeviceError: arguments of a wrong kind.
        RangeError: depth that is NaN, −∞ or, in a perspective view, not positive; an option out of range; a sample that does not
        exist; a camera that is not finite or not invertible.
    Warns:
        EmptyResultWarning: a sample has cells, and none is kept.
    Empty grid: an empty mask.   No view: nothing is kept.   Batch: a sample sees only its own views.
    Source: Focusing, depth-based voxel carving (§3.1 of its method). Differences: the sign of the inequality; background at infinity;
        `cover` and the coverage; rule="paper" and cover=False give the printed set before its ring (dilate=0) or after.
    Numerics: float64 throughout, whatever comes in, and the same operations in each engine.
    Memory: numba: 3 bytes a cell and 1 a pixel, beside the grid's index.   Cost: 1 M cells, 8 views of 518²: see benchmarks/carving.py.
    Example:
        >>> from voxgen.render import orbit_cameras, render_mesh
        >>> camera = orbit_cameras(2, width=64, height=64)
        >>> kept = carve_by_depth(grid, render_mesh(mesh, camera).depth, camera)
        >>> smaller, seen = kept.apply(latent), kept.coverage
    """
    where = "carve_by_depth"
    require_choice(where, "rule", rule, ("visible", "paper"))
    require_tensor(where, "depth", depth, ("v", "h", "w"), (torch.float32, torch.float64))
    require_tensor(where, "depth", depth, (len(camera), camera.height, camera.width), hint="One image of the camera's size for each view.")
    require_same_device(where, grid=grid.coords, depth=depth)
    dilate = require_int(where, "dilate", dilate, 0, MAX_RINGS)
    if not 0 <= reach <= 4:
        raise RangeError(f"{where}: reach must lie in [0, 4] cells; got {reach}.")
    length = 2 * max(grid.frame.voxel_size) if margin is None else float(margin)
    if not length >= 0:
        raise RangeError(f"{where}: margin must be at least 0, in world units; got {margin}.")
    views = views_of(where, grid, camera, sample)
    surface = _with_infinite_background(where, depth.detach(), camera, background)
    add = rule == "visible" if cover is None else cover
    call = Call.of(grid.coords, surface)
    mask, coverage = OP.run(backend, call, grid, surface, views, length, rule == "paper", dilate, add, float(reach))
    carving = Carving(grid, mask, coverage)
    _warn_if_empty(where, carving)
    return carving


def _with_infinite_background(where: str, depth: Tensor, camera: Camera, background: float) -> Tensor:
    if math.isnan(background):
        raise RangeError(f"{where}: background must be a number; got NaN.")
    surface = depth if background == math.inf else torch.where(depth == background, math.inf, depth)
    wrong = ~(surface > (-math.inf if camera.orthographic else 0))
    if bool(wrong.any()):
        view, row, column = wrong.nonzero()[0].tolist()
        raise RangeError(
            f"{where}: depth must be {'a number above −∞' if camera.orthographic else 'positive'}, infinite where nothing is seen; "
            f"{int(wrong.sum())} of {wrong.numel()} pixels are not, the first is view {view}, row {row}, column {column}: "
            f"{float(surface[view, row, column])}. If 0 marks the background, say background=0."
        )
    return surface


def _warn_if_empty(where: str, carving: Carving) -> None:
    lost = (carving.grid.offsets.diff() > 0) & (carving.counts == 0)
    if bool(lost.any()):
        which = lost.nonzero()[:, 0].tolist()
        warnings.warn(
            f"{where}: nothing is kept of sample {which if len(which) > 1 else which[0]}, of which no view sees a cell no deeper than its "
            "surface. Do the cameras look at the grid, and are grid and depth of one frame?",
            EmptyResultWarning,
            stacklevel=3,
        )
