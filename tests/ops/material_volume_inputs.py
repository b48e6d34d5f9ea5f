"""Meshes, textures and calls that the tests of the material volume share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxgen.core import Material, Texture, TriMesh
from voxgen.ops.material_volume import OP, MaterialVolume, material_volume
from voxgen.testing import shapes
from voxgen.testing.cases.voxelize import grid_of

ENGINES = list(OP.backends)
FAST = [name for name in ENGINES if name != "reference"]
PBR = ("base_color", "metallic", "roughness", "alpha")


def convert(mesh: TriMesh, resolution: int | tuple[int, int, int], **options: Any) -> MaterialVolume:
    return material_volume(mesh, **{**grid_of(resolution), **options})  # pyright: ignore[reportArgumentType]


def joined(volume: MaterialVolume) -> Tensor:
    return torch.cat(list(volume.values.values()), 1)


def quad(half: float, z: float = 0.013, material: Material | None = None, cells: int = 1) -> TriMesh:
    """A square sheet across z with uv over [0, 1]², in cells² squares."""
    t = torch.linspace(0, 1, cells + 1)
    v, u = torch.meshgrid(t, t, indexing="ij")
    points = torch.stack(((u * 2 - 1) * half, (v * 2 - 1) * half, torch.full_like(u, z)), -1).reshape(-1, 3)
    faces = shapes.quad_faces(cells + 1, cells + 1).flip(1)
    uv = torch.stack((u, v), -1).reshape(-1, 2)
    return TriMesh(points, faces, uv=uv, materials=() if material is None else (material,))


def colored(image: Tensor, **options: Any) -> Material:
    return Material(base_color=Texture(image, (0, 1, 2), **{"srgb": True, **options}))


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(11), dtype=torch.uint8)


def smooth_image(side: int) -> Tensor:
    """A texture with detail at several scales, different at its four borders."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    bands = [0.5 + 0.3 * torch.sin(9 * x + 4 * y) + 0.2 * x, y, 0.5 + 0.5 * torch.sin(40 * x) * torch.cos(23 * y)]
    return (torch.stack(bands, -1).clamp(0, 1) * 255).byte()
