"""The original's evaluation, quirks included, vectorised over the pairs of a triangle and a cell."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from voxgen.ops.texture._reference import sample
from voxgen.ops.voxelize._prepare import Scene

from ._evaluate import determinant
from ._record import columns
from ._shading import Lookup, Shading, Surface

FLAT = 1e-6
"""Triangles with a smaller determinant of texture coordinates count as having none."""


def evaluate(scene: Scene, shading: Shading, cells: Tensor, triangle: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """(m, c) values and (m,) weights of pairs, float64.

    The cell's centre is projected on the triangle's plane, and barycentrics are taken there whether inside the triangle or
    not. The weight is 1 minus the signed distance to the plane in world units.
    """
    size = scene.sizes()
    p = scene.vertices[scene.faces[triangle].long()].double()
    e1, e2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    normal = normalize(torch.linalg.cross(e1, e2), dim=1, eps=1e-300)
    from_corner = (cells[row] + 0.5) * size - p[:, 0]
    distance = (from_corner * normal).sum(1)
    b = _barycentrics(e1, e2, from_corner - distance[:, None] * normal)
    places = columns(shading.channels)
    values = torch.zeros((len(row), max((s.stop for s in places.values()), default=0)), dtype=torch.float64, device=row.device)
    surface = shading.surface[triangle]
    for number, material in enumerate(shading.surfaces):
        rows = (surface == number).nonzero()[:, 0]
        found = _of_surface(shading, material, scene.faces[triangle[rows]].long(), e1[rows], e2[rows], b[rows], max(scene.voxel_size))
        for name, place in places.items():
            values[rows, place] = found[name]
    return values, 1 - distance


def finish(shading: Shading, sums: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Weighted sums → channels as the original has them before it makes bytes: neither cut to their range nor renormalised."""
    means = (sums / weights[:, None]).float()
    return {name: means[:, place] for name, place in columns(shading.channels).items()}


def _barycentrics(e1: Tensor, e2: Tensor, q: Tensor) -> Tensor:
    """(m, 3) of points q in the plane of e1, e2; the first corner for triangles without area (the original divides by 0)."""
    d11, d12, d22 = (e1 * e1).sum(1), (e1 * e2).sum(1), (e2 * e2).sum(1)
    q1, q2 = (q * e1).sum(1), (q * e2).sum(1)
    scale = d11 * d22 - d12 * d12
    b1 = torch.where(scale == 0, 0.0, (d22 * q1 - d12 * q2) / scale)
    b2 = torch.where(scale == 0, 0.0, (d11 * q2 - d12 * q1) / scale)
    return torch.stack((1 - b1 - b2, b1, b2), 1)


def _of_surface(shading: Shading, surface: Surface, corners: Tensor, e1: Tensor, e2: Tensor, b: Tensor, size: float) -> dict[str, Tensor]:
    m = surface.material
    read = [_read(shading, lookup, corners, e1, e2, b, size) for lookup in surface.lookups]

    def texture(slot: str, width: int) -> Tensor:
        if slot not in surface.places:
            return b.new_ones((len(b), width))
        lookup, first = surface.places[slot]
        return read[lookup][:, first : first + width]

    alpha = texture("alpha", 1) * m.alpha_factor
    if m.alpha_mode != "BLEND":
        alpha = torch.ones_like(alpha) if m.alpha_mode == "OPAQUE" else (alpha >= m.alpha_cutoff).to(alpha.dtype)
    values = {
        "base_color": texture("base_color", 3) * b.new_tensor(m.base_color_factor),
        "metallic": texture("metallic", 1) * m.metallic_factor,
        "roughness": texture("roughness", 1) * m.roughness_factor,
        "emissive": texture("emissive", 3) * b.new_tensor(m.emissive_factor),
        "alpha": alpha,
    }
    if shading.normals is not None:
        values["normal"] = (shading.normals[corners] * b[:, :, None]).sum(1)
        if "normal" in surface.places:
            uv = shading.uv[surface.lookups[surface.places["normal"][0]].uv_set][corners]
            tangent, bitangent = _gradients(uv, e1, e2)
            flat = (determinant(uv).abs() < FLAT)[:, None]
            tangent = torch.where(flat, b.new_tensor((1.0, 0.0, 0.0)), normalize(tangent, dim=1, eps=1e-300))
            bitangent = torch.where(flat, b.new_tensor((0.0, 1.0, 0.0)), normalize(bitangent, dim=1, eps=1e-300))
            x, y, z = (texture("normal", 3) * 2 - 1).split(1, 1)
            values["normal"] = normalize(x * tangent + y * bitangent + z * values["normal"], dim=1, eps=1e-300)
    return values


def _gradients(uv: Tensor, e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor]:
    """How the position changes with u and v, times the determinant."""
    d1, d2 = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    return d2[:, 1:] * e1 - d1[:, 1:] * e2, d1[:, :1] * e2 - d2[:, :1] * e1


def _read(shading: Shading, lookup: Lookup, corners: Tensor, e1: Tensor, e2: Tensor, b: Tensor, size: float) -> Tensor:
    uv = shading.uv[lookup.uv_set][corners]
    along_u, along_v = (g.norm(dim=1) for g in _gradients(uv, e1, e2))
    det = determinant(uv).abs()
    length = size / (along_u * along_v).sqrt() * det
    level = (length * lookup.pyramid.levels[0].shape[0]).log2() + shading.mip_offset
    level = torch.where((det < FLAT) | ~torch.isfinite(level) | lookup.base_only, 0.0, level)
    codes = torch.tensor([lookup.wrap], dtype=torch.int8, device=uv.device).expand(len(uv), 2)
    return sample(lookup.pyramid, (uv * b[:, :, None]).sum(1), level, codes, lookup.nearest)
