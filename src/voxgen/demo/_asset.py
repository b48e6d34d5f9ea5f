"""A procedural asset that is hard on purpose."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from voxgen.core import Material, Texture, TriMesh
from voxgen.testing.shapes import quad_faces


def procedural_asset() -> TriMesh:
    """Parts that break converters, in one scene (Y up, about 2 units tall, some 30,000 triangles).

    - "bowl": an open shell with a striped metallic-roughness texture that is neither square nor a power of two;
    - "core": a closed ball inside the bowl, inside another closed ball ("shell", half transparent): a shell in a shell;
    - "ring": a closed torus that passes through the bowl's wall (self-intersection);
    - "cloth": an open sheet with holes cut by alpha (MASK);
    - "fins": three sheets that share one edge (a non-manifold seam).
    """
    return TriMesh.concatenate([_bowl(), _ball("core", 0.16, _copper()), _ball("shell", 0.26, _glass()), _ring(), _cloth(), _fins()])


def _lattice(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    a, b = torch.linspace(0, 1, rows, dtype=torch.float64), torch.linspace(0, 1, columns, dtype=torch.float64)
    s, t = torch.meshgrid(a, b, indexing="ij")
    return s, t


def _patch(name: str, points: Tensor, material: Material, flip: bool = False, tiles: tuple[float, float] = (1, 1)) -> TriMesh:
    """A (rows, columns, 3) lattice of points with uv over its rows and columns."""
    rows, columns = points.shape[:2]
    s, t = _lattice(rows, columns)
    uv = torch.stack((t * tiles[0], s * tiles[1]), -1).reshape(-1, 2).float()
    faces = quad_faces(rows, columns)
    points = (points * 2**20).round() / 2**20  # the two ends of a turn become equal, so that seams weld
    return TriMesh(points.reshape(-1, 3).float(), faces.flip(1) if flip else faces, uv=uv, materials=(material,), part_names=(name,))


def _round(radius: Tensor | float, polar: Tensor, around: Tensor) -> Tensor:
    """Spherical coordinates, polar angle from +y."""
    return torch.stack((polar.sin() * around.cos() * radius, polar.cos() * radius, -polar.sin() * around.sin() * radius), -1)


def _bowl() -> TriMesh:
    s, t = _lattice(49, 97)
    polar = math.pi - s * (math.pi - 1.05)
    radius = 0.62 + 0.03 * torch.cos(8 * 2 * math.pi * t) * s
    return _patch("bowl", _round(radius, polar, 2 * math.pi * t), _stripes(), flip=True, tiles=(2, 1))


def _ball(name: str, radius: float, material: Material) -> TriMesh:
    s, t = _lattice(33, 65)
    return _patch(name, _round(radius, math.pi * (1 - s), 2 * math.pi * t), material, flip=True)


def _ring() -> TriMesh:
    s, t = _lattice(97, 33)
    u, v = 2 * math.pi * s, 2 * math.pi * t
    r = 0.72 + 0.07 * v.cos()
    points = torch.stack((r * u.cos(), 0.07 * v.sin(), -r * u.sin()), -1)
    tilt = math.radians(24)
    x, y, z = points.unbind(-1)
    turned = torch.stack((x, y * math.cos(tilt) - z * math.sin(tilt), y * math.sin(tilt) + z * math.cos(tilt)), -1)
    return _patch("ring", turned, _gold(), tiles=(1, 6))


def _cloth() -> TriMesh:
    s, t = _lattice(65, 65)
    x, z = (t - 0.5) * 2.0, (0.5 - s) * 2.0
    y = -0.78 + 0.06 * torch.sin(4 * x + 1) * torch.cos(3 * z)
    return _patch("cloth", torch.stack((x, y, z), -1), _weave(), tiles=(3, 3))


def _fins() -> TriMesh:
    rows, columns = 13, 9
    s, t = _lattice(rows, columns)
    sheets = []
    for angle in (0.4, 2.5, 4.6):
        x = 0.72 + t * 0.3 * math.cos(angle)
        z = -0.62 + t * 0.3 * math.sin(angle)
        sheets.append(torch.stack((x, -0.55 + 0.9 * s + 0 * t, z), -1))
    points = torch.cat([p.reshape(-1, 3) for p in sheets]).float()
    faces = torch.cat([quad_faces(rows, columns) + k * rows * columns for k in range(3)]).long()
    seam = torch.arange(3 * rows * columns)
    for k in (1, 2):  # the first column of each further sheet is that of the first: one edge with three faces
        seam[k * rows * columns + columns * torch.arange(rows)] = columns * torch.arange(rows)
    mesh = TriMesh(points, seam[faces], uv=torch.zeros(len(points), 2), materials=(_leaf(),), part_names=("fins",))
    return mesh.select_faces(torch.ones(mesh.num_faces, dtype=torch.bool))


def _image(height: int, width: int) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return y, x


def _bytes(*planes: Tensor | float, like: Tensor) -> Tensor:
    full = [torch.as_tensor(p, dtype=torch.float32).expand_as(like) for p in planes]
    return (torch.stack(full, -1).clamp(0, 1) * 255).round().to(torch.uint8)


def _stripes() -> Material:
    y, x = _image(180, 300)
    band = ((12 * y + 1.5 * torch.sin(2 * math.pi * x)) % 1 < 0.5).float()
    dots = (((15 * x) % 1 - 0.5) ** 2 + ((9 * y) % 1 - 0.5) ** 2 < 0.06).float()
    color = _bytes(0.16 + 0.7 * band, 0.36 + 0.45 * band - 0.3 * dots, 0.62 - 0.25 * band + 0.2 * dots, like=y)
    packed = _bytes(1.0, 0.75 - 0.45 * dots, 0.9 * dots, like=y)
    return Material(
        "stripes",
        base_color=Texture(color, (0, 1, 2), srgb=True, name="stripes"),
        roughness=Texture(packed, (1,), name="stripes_mr"),
        metallic=Texture(packed, (2,), name="stripes_mr"),
        double_sided=True,
    )


def _weave() -> Material:
    y, x = _image(128, 128)
    hole = ((4 * x) % 1 - 0.5).abs().maximum(((4 * y) % 1 - 0.5).abs()) < 0.22
    check = (((8 * x).floor() + (8 * y).floor()) % 2) * 0.25
    color = _bytes(0.75 - check, 0.2 + check, 0.22, 1 - hole.float(), like=y)
    return Material(
        "weave",
        base_color=Texture(color, (0, 1, 2), srgb=True, name="weave"),
        alpha=Texture(color, (3,), name="weave"),
        alpha_mode="MASK",
        metallic_factor=0.0,
        roughness_factor=0.9,
        double_sided=True,
    )


def _copper() -> Material:
    return Material("copper", (0.90, 0.38, 0.20), metallic_factor=1.0, roughness_factor=0.35)


def _gold() -> Material:
    return Material("gold", (0.95, 0.68, 0.22), metallic_factor=1.0, roughness_factor=0.25)


def _glass() -> Material:
    return Material("glass", (0.55, 0.85, 0.95), alpha_factor=0.35, alpha_mode="BLEND", metallic_factor=0.0, roughness_factor=0.1)


def _leaf() -> Material:
    return Material("leaf", (0.18, 0.42, 0.12), metallic_factor=0.0, roughness_factor=0.6, double_sided=True)
