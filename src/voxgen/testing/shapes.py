"""Procedural meshes of known geometry. All lie inside [-0.5, 0.5]³ unless their size says otherwise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from voxgen.core import TriMesh


def quad_faces(rows: int, columns: int, wrap_rows: bool = False, wrap_columns: bool = False) -> Tensor:
    """Two triangles for each square of a (rows, columns) lattice of vertices, (f, 3) int32."""
    i = torch.arange(rows if wrap_rows else rows - 1)
    j = torch.arange(columns if wrap_columns else columns - 1)
    i, j = (t.flatten() for t in torch.meshgrid(i, j, indexing="ij"))
    i1, j1 = (i + 1) % rows, (j + 1) % columns
    a, b, c, d = i * columns + j, i1 * columns + j, i1 * columns + j1, i * columns + j1
    return torch.cat((torch.stack((a, b, c), 1), torch.stack((a, c, d), 1))).int()


def torus(
    major: float = 0.3, minor: float = 0.12, around: int = 64, across: int = 32, center: tuple[float, float, float] = (0, 0, 0)
) -> TriMesh:
    """Closed torus about the z axis, outward winding, Euler number 0."""
    u = torch.arange(around, dtype=torch.float64) * (2 * math.pi / around)
    v = torch.arange(across, dtype=torch.float64) * (2 * math.pi / across)
    u, v = torch.meshgrid(u, v, indexing="ij")
    r = major + minor * v.cos()
    points = torch.stack((r * u.cos(), r * u.sin(), minor * v.sin()), -1).reshape(-1, 3) + torch.tensor(center, dtype=torch.float64)
    return TriMesh(points.float(), quad_faces(around, across, True, True))


def sphere(radius: float = 0.4, subdivisions: int = 3, center: tuple[float, float, float] = (0, 0, 0)) -> TriMesh:
    """Closed icosphere, outward winding, Euler number 2."""
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return TriMesh.from_arrays(ball.vertices + torch.tensor(center).numpy(), ball.faces)


def box(low: tuple[float, float, float] = (-0.3, -0.3, -0.3), high: tuple[float, float, float] = (0.3, 0.3, 0.3)) -> TriMesh:
    """Closed axis-aligned box of 12 triangles, outward winding."""
    corners = torch.tensor([[(low, high)[k >> (2 - a) & 1][a] for a in range(3)] for k in range(8)])
    faces = [
        [0, 1, 3],
        [0, 3, 2],
        [4, 6, 7],
        [4, 7, 5],
        [0, 4, 5],
        [0, 5, 1],
        [2, 3, 7],
        [2, 7, 6],
        [0, 2, 6],
        [0, 6, 4],
        [1, 5, 7],
        [1, 7, 3],
    ]
    return TriMesh(corners, torch.tensor(faces))


def rotated(
    mesh: TriMesh,
    angle: float = 0.5,
    axis: tuple[float, float, float] = (1, 2, 3),
    shift: tuple[float, float, float] = (0.013, -0.007, 0.021),
) -> TriMesh:
    """Turn a mesh about an axis through the origin and move it, so that its faces lie in no lattice plane."""
    n = torch.tensor(axis, dtype=torch.float64)
    n = n / n.norm()
    k = torch.tensor([[0, -n[2], n[1]], [n[2], 0, -n[0]], [-n[1], n[0], 0]], dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] += math.sin(angle) * k + (1 - math.cos(angle)) * k @ k
    matrix[:3, 3] = torch.tensor(shift, dtype=torch.float64)
    turned = mesh.replace(vertices=mesh.vertices.double()).transformed(matrix)
    return turned.replace(vertices=turned.vertices.to(mesh.vertices))


def wavy_sheet(n: int = 25, size: float = 0.8, amplitude: float = 0.08) -> TriMesh:
    """Open height field over a square, one boundary loop, with uv over [0, 1]²."""
    t = torch.linspace(0, 1, n, dtype=torch.float64)
    u, v = torch.meshgrid(t, t, indexing="ij")
    height = amplitude * ((6 * u).sin() + (5 * v + 1).cos())
    points = torch.stack(((u - 0.5) * size, (v - 0.5) * size, height), -1).reshape(-1, 3)
    return TriMesh(points.float(), quad_faces(n, n), uv=torch.stack((u, v), -1).reshape(-1, 2).float())


def bowl(radius: float = 0.4, opening: float = 0.6, rings: int = 16, around: int = 48) -> TriMesh:
    """Part of a sphere that is open at the top: polar angle from `opening` to pi, winding outwards, one boundary loop."""
    theta = torch.linspace(math.pi, opening, rings, dtype=torch.float64)
    phi = torch.arange(around, dtype=torch.float64) * (2 * math.pi / around)
    theta, phi = torch.meshgrid(theta[1:], phi, indexing="ij")
    ring = torch.stack((theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()), -1).reshape(-1, 3)
    points = torch.cat((torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64), ring)) * radius
    j = torch.arange(around)
    cap = torch.stack((torch.zeros_like(j), 1 + (j + 1) % around, 1 + j), 1)
    side = quad_faces(rings - 1, around, wrap_columns=True).long().flip(1) + 1
    return TriMesh(points.float(), torch.cat((cap, side)))


def merged(*meshes: TriMesh) -> TriMesh:
    """Several shapes as the parts of one mesh."""
    return TriMesh.concatenate(meshes)


def mobius(radius: float = 0.3, width: float = 0.2, around: int = 48) -> TriMesh:
    """Möbius strip about the z axis, one boundary loop, Euler number 0; no winding of its faces is consistent."""
    u = torch.arange(around, dtype=torch.float64) * (2 * math.pi / around)
    v = torch.tensor([-0.5, 0.5], dtype=torch.float64) * width
    u, v = torch.meshgrid(u, v, indexing="ij")
    r = radius + v * (u / 2).cos()
    points = torch.stack((r * u.cos(), r * u.sin(), v * (u / 2).sin()), -1).reshape(-1, 3)
    faces = quad_faces(around + 1, 2).long()
    last = faces >= 2 * around  # the turn that closes the strip exchanges its two borders
    return TriMesh(points.float(), torch.where(last, 2 * around + 1 - faces, faces))


def seam(sheets: int = 3, size: float = 0.4) -> TriMesh:
    """Square sheets that share one edge on the z axis, like the pages of a book: a non-manifold seam for three or more."""
    angle = torch.arange(sheets, dtype=torch.float64) * (2 * math.pi / sheets)
    page = torch.stack((angle.cos(), angle.sin(), torch.zeros_like(angle)), 1) * size
    low, high = torch.tensor([[0, 0, -size / 2], [0, 0, size / 2]], dtype=torch.float64)
    points = torch.cat((low[None], high[None], page + low, page + high))
    i = torch.arange(sheets) + 2
    zero, one = torch.zeros_like(i), torch.ones_like(i)
    faces = torch.cat((torch.stack((zero, i, i + sheets), 1), torch.stack((zero, i + sheets, one), 1)))
    return TriMesh(points.float(), faces)


def split_apart(mesh: TriMesh) -> TriMesh:
    """The same triangles with three vertices of their own each, as a file without shared vertices has them."""
    return TriMesh(mesh.corners().reshape(-1, 3), torch.arange(3 * mesh.num_faces).reshape(-1, 3), up=mesh.up)
