"""What every engine of the mesh-to-grid ops needs first: checked input, relative to the corner of the grid."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.aliases import Float3, Int3
from voxgen.core.checks import describe, require_choice, require_int3, require_same_device, require_tensor
from voxgen.core.coords import MAX_RESOLUTION
from voxgen.core.errors import EmptyResultWarning, FrameError, MeshError, RangeError, ShapeError

TOLERANCE_CELLS = 1e-3
"""How far outside the box a vertex may lie, in cells: what rounding of coordinates does, and no more."""


@dataclass(frozen=True)
class Scene:
    """A checked mesh and the grid to convert it to.

    vertices: (v, 3) float32, contiguous, relative to the lowest corner of the grid, in world units.
    faces: (f, 3) int32, contiguous.
    voxel_size: three numbers that float32 represents exactly.   resolution: cells along the axes.
    crossings: how many grid edges the triangles cross on average over shifts of the grid (the area of the mesh seen along each
        axis, in cell faces). A closed surface has about as many cells.
    closed: the mesh lies inside the box, and a surface on the box's upper face belongs to the last cell. False is the
        original: such a surface is lost, and what lies outside the box is left out without a word.
    """

    vertices: Tensor
    faces: Tensor
    voxel_size: Float3
    resolution: Int3
    crossings: float
    closed: bool

    def sizes(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.tensor(self.voxel_size, dtype=dtype, device=self.vertices.device)

    def cell_corners(self) -> Tensor:
        """(f, 3, 3) float64 corners of the triangles in cells from the lowest corner of the grid."""
        return self.vertices[self.faces.long()].double() / self.sizes()


def prepare(
    where: str,
    vertices: Any,
    faces: Any,
    origin: Any,
    voxel_size: Any,
    resolution: Any,
    compat: str | None,
) -> Scene:
    """Check all arguments of a mesh-to-grid op; errors as documented there."""
    require_tensor(where, "vertices", vertices, ("v", 3), (torch.float32, torch.float64))
    require_tensor(where, "faces", faces, ("f", 3), (torch.int32, torch.int64))
    device = require_same_device(where, vertices=vertices, faces=faces)
    cells = require_int3(where, "resolution", resolution, 1, MAX_RESOLUTION)
    if compat is not None:
        require_choice(where, "compat", compat, ("trellis2",))
    corner = _three(where, "origin", origin)
    size = _three(where, "voxel_size", voxel_size)
    if not all(s > 0 for s in size):
        raise RangeError(f"{where}: voxel_size must be positive; got {size}.")
    _check_indices(where, faces, len(vertices))
    TriMesh(vertices, faces).validate(where)

    shift = torch.tensor(corner, dtype=torch.float64).to(vertices.dtype).double().to(device)
    local = (vertices.detach().double() - shift).float().contiguous()
    sizes = torch.tensor(size, dtype=torch.float32).tolist()
    scene = Scene(local, faces.detach().int().contiguous(), (sizes[0], sizes[1], sizes[2]), cells, 0.0, compat is None)
    corners = scene.cell_corners()
    _check_inside(where, scene, corners)
    normals = _check_area(where, corners)
    return replace(scene, crossings=float(normals.abs().sum()) / 2)


def warn_if_empty(where: str, scene: Scene, count: int) -> None:
    """Say why a mesh gave no cells."""
    if count:
        return
    corners = scene.cell_corners()
    extent = max(float(corners[:, :, k].max() - corners[:, :, k].min()) for k in range(3))
    warnings.warn(
        f"{where}: no triangle crosses an edge between cells, so the result is empty. The whole mesh is {extent:.3g} voxels long, "
        f"and a part that lies inside one voxel is not seen. Use a higher resolution, or a smaller box around the mesh.",
        EmptyResultWarning,
        stacklevel=3,
    )


def _three(where: str, name: str, value: Any) -> Float3:
    if isinstance(value, Tensor):
        value = value.tolist()
    values: Sequence[Any] = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * 3
    if len(values) != 3:
        raise ShapeError(f"{where}: {name} must be one number or three; got {len(values)}.")
    try:
        x, y, z = (float(v) for v in values)
    except (TypeError, ValueError):
        raise RangeError(f"{where}: {name} must be one number or three; got {describe(value)}.") from None
    if not all(map(math.isfinite, (x, y, z))):
        raise RangeError(f"{where}: {name} must be finite; got {(x, y, z)}.")
    return x, y, z


def _check_indices(where: str, faces: Tensor, count: int) -> None:
    """Before int64 indices are narrowed, so that 2³² + 1 does not pass as 1."""
    if faces.dtype == torch.int64 and len(faces) and not -1 <= int(faces.amin()) <= int(faces.amax()) <= count:
        raise MeshError(
            f"{where}: faces must index {count} vertices; got indices from {int(faces.amin())} to {int(faces.amax())}. "
            "Remove the faces that refer to missing vertices."
        )


def _check_inside(where: str, scene: Scene, corners: Tensor) -> None:
    for axis, cells in enumerate(scene.resolution):
        low, high = map(float, corners[:, :, axis].aminmax())
        tolerance = max(TOLERANCE_CELLS, cells * 2.0**-23) if scene.closed else float(MAX_RESOLUTION)
        side, far = ("below", -low) if -low > high - cells else ("above", high - cells)
        if far > tolerance:
            raise FrameError(
                f"{where}: the mesh must lie inside the box of {cells} voxels along {'xyz'[axis]}; it reaches {far:.4g} voxels {side} it. "
                "Fit the box to the mesh (Frame.fit(vertices, resolution)), or move and scale the mesh into it."
            )


def _check_area(where: str, corners: Tensor) -> Tensor:
    """Normals of the triangles, twice as long as their area; raise if none has an area."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normals = torch.linalg.cross(first, second)
    if not bool((normals.norm(dim=1) > 1e-14 * first.norm(dim=1) * second.norm(dim=1)).any()):
        raise MeshError(
            f"{where}: at least one face must have an area; all {len(corners)} faces are degenerate (corners equal or on one line). "
            "Points and curves have no surface to convert: remove them, or give them a thickness."
        )
    return normals
