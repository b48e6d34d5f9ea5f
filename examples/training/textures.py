"""Procedural textures: spots, stripes, checks, clouds, in colours drawn at random."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from voxgen.core import Material, Texture, TriMesh

SIDE = 256
"""Texels along the cube of a shape."""
PLANES = torch.tensor([[2, 1], [0, 2], [0, 1]])
"""The axes of a texture on faces that look along x, y, z."""
PATTERNS = ("stripes", "checks", "spots", "clouds", "patches", "gradient")


def textured(mesh: TriMesh, seed: int) -> TriMesh:
    """The mesh with a texture that is laid on it along the axis that each face looks along most; equal for equal arguments.

    Each face gets vertices of its own, so that seams are sharp.
    """
    corners = mesh.corners()
    planes = PLANES[mesh.face_normals().abs().argmax(1)]
    uv = corners.gather(2, planes[:, None].expand(-1, 3, -1)).reshape(-1, 2) + 0.5
    faces = torch.arange(3 * mesh.num_faces, dtype=torch.int32).reshape(-1, 3)
    image = picture(torch.Generator().manual_seed(seed + 1))
    material = Material("procedural", base_color=Texture(image, (0, 1, 2), srgb=True), metallic_factor=0.0)
    return TriMesh(corners.reshape(-1, 3), faces, uv=uv, materials=(material,), up=mesh.up)


def picture(chance: torch.Generator) -> Tensor:
    """(SIDE, SIDE, 3) uint8: a ground, and one to three patterns over it, each in a colour of its own."""
    image = _color(chance).expand(SIDE, SIDE, 3)
    for _ in range(int(torch.randint(1, 4, (), generator=chance))):
        name = PATTERNS[int(torch.randint(len(PATTERNS), (), generator=chance))]
        image = torch.lerp(image, _color(chance).expand(SIDE, SIDE, 3), _pattern(name, chance)[..., None])
    return (255 * image).round().to(torch.uint8)


def _color(chance: torch.Generator) -> Tensor:
    """Any colour, or a grey: much of what people paint is white or black."""
    color = torch.rand(3, generator=chance)
    if float(torch.rand((), generator=chance)) < 0.6:
        return color
    return color[:1].sub(0.5).mul(3).add(0.5).clamp(0, 1).expand(3)


def _pattern(name: str, chance: torch.Generator) -> Tensor:
    """(SIDE, SIDE) in [0, 1]."""
    at = (torch.arange(SIDE) + 0.5) / SIDE
    y, x = torch.meshgrid(at, at, indexing="ij")
    angle, phase, period = (torch.rand(3, generator=chance) * torch.tensor([math.pi, 1.0, 0.3]) + torch.tensor([0, 0, 0.08])).tolist()
    across, along = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    if name == "gradient":
        return (across - across.min()) / (across.max() - across.min())
    if name in ("clouds", "patches"):
        cells = int(torch.randint(3, 14, (), generator=chance))
        noise = interpolate(torch.rand(1, 1, cells, cells, generator=chance), (SIDE, SIDE), mode="bicubic")[0, 0]
        return noise.clamp(0, 1) if name == "clouds" else _edge(noise - 0.5)
    first, second = ((t / period + phase) % 1 - 0.5 for t in (across, along))
    if name == "stripes":
        return _edge(0.25 - first.abs())
    if name == "checks":
        return _edge(first * second)
    return _edge(0.3 - (first.square() + second.square()).sqrt())


def _edge(distance: Tensor) -> Tensor:
    """1 where positive, with a border of about a texel."""
    return (distance * SIDE / 4 + 0.5).clamp(0, 1)
