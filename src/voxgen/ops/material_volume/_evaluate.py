"""What a mesh looks like at pieces of its surface, vectorised."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from voxgen.core.material import linear_to_srgb
from voxgen.ops.texture._reference import sample
from voxgen.ops.voxelize._prepare import Scene

from ._record import columns
from ._samples import Pieces
from ._shading import COLORS, Lookup, Shading, Surface

SHARPEN = 0.25
"""Levels by which lookups are sharper than the texels of the level are large, because mixing four texels blurs by itself:
the value with the least error against dense sampling of textured assets (benchmarks/materials.py)."""
CANCELLED = 1e-6
"""Mean normals shorter than this are those of opposite sides: they have no direction, and become 0."""
TAPS = 8
"""Points at which a piece is looked up at most."""
ROUND_UP = 0.45
"""There are as many points as texels are stretched, rounded; simple ratios such as 1.5 do not lie on the edge."""
TILE_SLACK = 1e-6
"""By how much texture coordinates may leave a period of the texture and still belong to it."""


def evaluate(scene: Scene, shading: Shading, pieces: Pieces) -> Tensor:
    """(s, c) float64: the shading's channels side by side, colours in linear light, normals of unit length."""
    places = columns(shading.channels)
    width = max((p.stop for p in places.values()), default=0)
    result = torch.zeros((len(pieces.triangle), width), dtype=torch.float64, device=scene.vertices.device)
    surface = shading.surface[pieces.triangle]
    for number, material in enumerate(shading.surfaces):
        rows = (surface == number).nonzero()[:, 0]
        if len(rows) == 0:
            continue
        values = _of_surface(scene, shading, material, Pieces(*(t[rows] for t in pieces)))
        for name, place in places.items():
            result[rows, place] = values[name]
    return result


def finish(shading: Shading, sums: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Weighted sums → channels: means in [0, 1], colours encoded unless they are to stay linear, normals of unit length."""
    means = sums / weights[:, None]
    result = {}
    for name, place in columns(shading.channels).items():
        value = means[:, place]
        if name == "normal":
            length = value.norm(dim=1, keepdim=True)
            value = torch.where(length > CANCELLED, value / length, 0.0)
        else:
            value = value.clamp(0, 1)
            if name in COLORS and not shading.linear:
                value = linear_to_srgb(value)
        result[name] = value.float()
    return result


def _of_surface(scene: Scene, shading: Shading, surface: Surface, pieces: Pieces) -> dict[str, Tensor]:
    m = surface.material
    corners = scene.faces[pieces.triangle].long()
    b = weights(pieces.b)
    read = [_read(scene, shading, lookup, corners, pieces) for lookup in surface.lookups]

    def texture(slot: str, width: int) -> Tensor:
        if slot not in surface.places:
            return b.new_ones((len(b), width))
        lookup, first = surface.places[slot]
        return read[lookup][:, first : first + width]

    color = b.new_ones((len(b), 4)) if shading.color is None else _mix(shading.color, corners, b)
    values: dict[str, Tensor] = {name: _mix(rows, corners, b) for name, rows in shading.replaced.items()}
    if "base_color" in shading.channels:
        if "base_color" not in values:
            values["base_color"] = texture("base_color", 3) * b.new_tensor(m.base_color_factor)
        values["base_color"] = values["base_color"] * color[:, :3]
    for name, factor in (("metallic", m.metallic_factor), ("roughness", m.roughness_factor)):
        if name in shading.channels and name not in values:
            values[name] = texture(name, 1) * factor
    if "emissive" in shading.channels and "emissive" not in values:
        values["emissive"] = texture("emissive", 3) * b.new_tensor(m.emissive_factor)
    if "alpha" in shading.channels:
        values["alpha"] = _alpha(surface, values.get("alpha"), texture("alpha", 1), color[:, 3:])
    if shading.normals is not None:
        values["normal"] = _normal(scene, shading, shading.normals, surface, corners, b, texture("normal", 3) * 2 - 1)
    return values


def _read(scene: Scene, shading: Shading, lookup: Lookup, corners: Tensor, pieces: Pieces) -> Tensor:
    """(s, c) texture values, each over the texels that its piece covers."""
    uv = shading.uv[lookup.uv_set][corners]
    height, width = lookup.pyramid.levels[0].shape[:2]
    level = 0.5 * (pieces.share * determinant(uv).abs() * (width * height)).log2() - SHARPEN + shading.mip_offset
    # A triangle inside one period of a repeated texture does not see the other side of it.
    low = (uv.amin(1) + TILE_SLACK).floor()
    repeat = torch.tensor([code == 0 for code in lookup.wrap], device=uv.device)
    single = repeat & (uv.amax(1) <= low + 1 + TILE_SLACK)
    codes = torch.where(single, 1, torch.tensor(lookup.wrap, device=uv.device)).to(torch.int8)
    uv = uv - torch.where(single, low, 0.0)[:, None]

    def at(rows: Tensor, b: Tensor, level: Tensor) -> Tensor:
        return sample(lookup.pyramid, (uv[rows] * weights(b)[:, :, None]).sum(1), level, codes[rows], lookup.nearest)

    if lookup.base_only:
        return at(torch.arange(len(level), device=level.device), pieces.b, torch.zeros_like(level))
    stretch, direction = anisotropy(scene.vertices[corners].double(), uv * uv.new_tensor((width, height)))
    taps = (stretch + ROUND_UP).floor().clamp(1, TAPS)
    taps = torch.where((level + 0.5 * stretch.log2() > 0) & (pieces.share > 0), taps, 1.0)
    finer = torch.maximum(0.5 * stretch.log2() - taps.log2(), -0.5 * stretch.log2())
    level = torch.where(taps > 1, level + finer, level)
    begin, end = _chord(pieces.corners, direction)
    total = level.new_zeros((len(level), lookup.pyramid.channels))
    for tap in range(TAPS):
        rows = (taps > tap).nonzero()[:, 0]
        along = begin[rows] + (tap + 0.5) / taps[rows] * (end - begin)[rows]
        along = torch.where(taps[rows] > 1, along, 0.0)
        b = pieces.b[rows] + along[:, None] * direction[rows]
        total = total.index_add(0, rows, at(rows, b, level[rows]) / taps[rows, None])
    return total


def weights(b: Tensor) -> Tensor:
    """(s, 3) weights of a triangle's corners for (b1, b2)."""
    return torch.cat((1 - b.sum(1, keepdim=True), b), 1)


def anisotropy(p: Tensor, texels: Tensor) -> tuple[Tensor, Tensor]:
    """How many times as many texels lie along one direction of a triangle as along the other: (s,), and that direction in (b1, b2).

    Args:
        p: (s, 3, 3) corners.   texels: (s, 3, 2) their places in the image, in texels.
    These are the axes of the ellipse that a circle on the surface is in the image: the generalised eigenvalues of the two
    metrics (first fundamental forms) of the triangle. 1 where one of the two has no area.
    """
    e1, e2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    t1, t2 = texels[:, 1] - texels[:, 0], texels[:, 2] - texels[:, 0]
    g11, g12, g22 = (e1 * e1).sum(1), (e1 * e2).sum(1), (e2 * e2).sum(1)
    a11, a12, a22 = (t1 * t1).sum(1), (t1 * t2).sum(1), (t2 * t2).sum(1)
    area, texel_area = g11 * g22 - g12 * g12, a11 * a22 - a12 * a12
    half = (a11 * g22 + a22 * g11 - 2 * a12 * g12) / 2
    largest = half + (half * half - area * texel_area).clamp(min=0).sqrt()  # eigenvalue × area
    stretch = largest / (area * texel_area).sqrt()
    stretch = torch.where((area > 0) & (texel_area > 0), stretch, 1.0).clamp(1, 1e6)
    scale = largest / area
    first = torch.stack((scale * g12 - a12, a11 - scale * g11), 1)
    second = torch.stack((a22 - scale * g22, scale * g12 - a12), 1)
    larger = (first.abs().sum(1) >= second.abs().sum(1))[:, None]
    return stretch, torch.where((stretch > 1)[:, None], torch.where(larger, first, second), 0.0)


def _chord(corners: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Where the line from a piece's centroid enters and leaves the piece, as multiples of the direction."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    g1 = (direction[:, 0] * v[:, 1] - direction[:, 1] * v[:, 0]) / area
    g2 = (u[:, 0] * direction[:, 1] - u[:, 1] * direction[:, 0]) / area
    slopes = torch.stack((-g1 - g2, g1, g2), 1)
    return -1 / (3 * slopes.amax(1)), 1 / (3 * (-slopes).amax(1))


def determinant(uv: Tensor) -> Tensor:
    """(s,) twice the signed area of triangles (s, 3, 2) in texture space."""
    first, second = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def _mix(rows: Tensor, corners: Tensor, b: Tensor) -> Tensor:
    return (rows[corners] * b[:, :, None]).sum(1)


def _alpha(surface: Surface, replaced: Tensor | None, texel: Tensor, vertex: Tensor) -> Tensor:
    m = surface.material
    if replaced is None and m.alpha_mode == "OPAQUE":
        return torch.ones_like(texel)
    value = texel * m.alpha_factor * vertex if replaced is None else replaced
    if m.alpha_mode != "MASK":
        return value
    if replaced is None and "alpha" in surface.places and surface.lookups[surface.places["alpha"][0]].pyramid.cutoff is not None:
        return texel  # the share of the texels that reach the cutoff
    return (value >= m.alpha_cutoff).to(value.dtype)


def _normal(scene: Scene, shading: Shading, normals: Tensor, surface: Surface, corners: Tensor, b: Tensor, mapped: Tensor) -> Tensor:
    """Unit normals: those of the vertices, mixed, and turned by the normal map."""
    p = scene.vertices[corners].double()
    e1, e2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    n = _mix(normals, corners, b)
    n = torch.where(n.norm(dim=1, keepdim=True) > CANCELLED, n, torch.linalg.cross(e1, e2))
    n = normalize(n, dim=1, eps=1e-300)
    if "normal" not in surface.places:
        return n
    uv = shading.uv[surface.lookups[surface.places["normal"][0]].uv_set][corners]
    side = determinant(uv).sign()[:, None]
    t = (uv[:, 2:, 1] - uv[:, :1, 1]) * e1 - (uv[:, 1:2, 1] - uv[:, :1, 1]) * e2
    t = side * t
    t = t - (t * n).sum(1, keepdim=True) * n
    framed = (side != 0) & (t.norm(dim=1, keepdim=True) > 0)
    t = normalize(t, dim=1, eps=1e-300)
    bitangent = side * torch.linalg.cross(n, t)
    scale = surface.material.normal_scale
    turned = scale * mapped[:, :1] * t + scale * mapped[:, 1:2] * bitangent + mapped[:, 2:] * n
    return torch.where(framed & (turned.norm(dim=1, keepdim=True) > CANCELLED), normalize(turned, dim=1, eps=1e-300), n)
