"""O-Voxel → Gaussians: a coloured disc for each cell, so that a mesh gives Gaussians without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from voxgen.core.errors import RangeError
from voxgen.core.material import linear_to_srgb
from voxgen.ops.dual_faces import dual_faces
from voxgen.ops.splat import Y0

if TYPE_CHECKING:
    from voxgen.representations.ovoxel import OVoxel

    from ._fields import GaussianSplats

GREY = 0.8
"""Colour of cells without base_color."""


def from_ovoxel(ovoxel: OVoxel, *, spread: float = 0.6, thickness: float = 0.1, opacity: float = 0.98) -> GaussianSplats:
    """One Gaussian for each cell that a face of the mesh touches: a disc at the dual vertex, along the surface, in its base colour.

    Args:
        ovoxel: with the material base_color, else everything is light grey. The material alpha multiplies `opacity`.
        spread: standard deviation along the surface, in cells. Below 0.5 gaps open, above 0.8 textures blur.
        thickness: standard deviation across it, in cells.
        opacity: of a cell that is opaque, in (0, 1).
    Returns:
        GaussianSplats of degree 0, float32, in the O-Voxel's world frame; colours unlit, sRGB-encoded. Differentiable in dual vertices and
        materials.
    Raises:
        RangeError: an argument out of range.
    An empty O-Voxel, or one without a face, gives no Gaussians.
    """
    from ._fields import GaussianSplats

    where = "GaussianSplats.from_ovoxel"
    if not (spread > 0 and thickness >= 0 and 0 < opacity < 1):
        raise RangeError(f"{where}: spread must be > 0, thickness >= 0, opacity in (0, 1); got {spread}, {thickness}, {opacity}.")
    surface = dual_faces(
        ovoxel.grid, ovoxel.dual_vertices.float(), ovoxel.intersected, crossing_sign=ovoxel.crossing_sign, keep_unused=True
    )
    normals, used = _vertex_normals(surface.vertices, surface.faces.long())
    rows = used.nonzero()[:, 0]
    means, normals = surface.vertices.index_select(0, rows), normals.index_select(0, rows)
    size = means.new_tensor(ovoxel.frame.voxel_size)
    cell = float(size.prod()) ** (1 / 3)
    scales = (cell * means.new_tensor([spread, spread, thickness])).expand(len(rows), 3)
    color = ovoxel.materials.get("base_color")
    if color is None:
        color = means.new_full((len(ovoxel), 3), GREY)
    elif ovoxel.color_space == "linear":
        color = linear_to_srgb(color.float())
    alpha = ovoxel.materials.get("alpha")
    opacities = means.new_full((len(rows),), opacity)
    if alpha is not None:
        opacities = opacities * alpha.float().index_select(0, rows)[:, 0].clamp(0, 1)
    sh = (color.float().index_select(0, rows)[:, None] - 0.5) / Y0
    offsets = torch.searchsorted(rows, ovoxel.grid.offsets)
    return GaussianSplats(means, _towards(normals), scales.contiguous(), opacities, sh, offsets, up=ovoxel.frame.up)


def _vertex_normals(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """(v, 3) unit normals, faces weighted by their area, and (v,) bool whether a face touches the vertex."""
    corners = vertices.detach().double().index_select(0, faces.flatten()).reshape(-1, 3, 3)
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = vertices.new_zeros(len(vertices), 3, dtype=torch.float64)
    total.index_add_(0, faces.flatten(), area.repeat_interleave(3, 0))
    used = torch.zeros(len(vertices), dtype=torch.bool, device=vertices.device)
    used[faces.flatten()] = True
    return normalize(total, dim=1).to(vertices.dtype), used


def _towards(normals: Tensor) -> Tensor:
    """Quaternions (n, 4) that turn z to the normals; no turn where there is none (two sheets that cancel)."""
    x, y, z = normals.unbind(1)
    flipped = z < 0  # a disc has two sides, and so the turn never exceeds a right angle
    x, y, z = (torch.where(flipped, -t, t) for t in (x, y, z))
    found = torch.stack((1 + z, -y, x, torch.zeros_like(z)), 1)
    return normalize(found, dim=1)
