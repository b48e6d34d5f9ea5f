"""Procedural training shapes: bodies of revolution, extruded outlines, and unions of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.frame import FIT_SCALE

AROUND = 64
PRIMITIVES = ("box", "prism", "gear", "cylinder", "cone", "ellipsoid", "torus", "bowl", "vase")
KINDS = (*PRIMITIVES, "union", "union", "union")
"""Drawn with equal chance; most of what people model is put together from parts."""
OPEN = ("bowl", "vase")


def random_shape(seed: int, *, closed: bool = False) -> tuple[str, TriMesh]:
    """Kind and mesh of a shape that fills the cube [-0.5, 0.5]³ along its longest side; equal for equal arguments.

    Closed parts wind outwards. With `closed` there are no others.
    """
    chance = torch.Generator().manual_seed(seed)
    parts = tuple(kind for kind in PRIMITIVES if not (closed and kind in OPEN))
    kinds = (*parts, *KINDS[len(PRIMITIVES) :])
    kind = kinds[int(torch.randint(len(kinds), (), generator=chance))]
    return kind, fitted(_union(parts, chance) if kind == "union" else _turned(_primitive(kind, chance), chance))


def fitted(mesh: TriMesh) -> TriMesh:
    """The mesh moved and scaled into the cube [-0.5, 0.5]³."""
    low, high = mesh.bounds()
    return mesh.replace(vertices=(mesh.vertices - (low + high) / 2) * (FIT_SCALE / float((high - low).max())))


def _union(kinds: tuple[str, ...], chance: torch.Generator) -> TriMesh:
    """Two to four parts that touch or overlap: each next to one that is there."""
    parts: list[TriMesh] = []
    for _ in range(int(torch.randint(2, 5, (), generator=chance))):
        kind = kinds[int(torch.randint(len(kinds), (), generator=chance))]
        part = _turned(_primitive(kind, chance), chance)
        size = _between(0.4, 1.0, chance)
        center = torch.zeros(3)
        if parts:
            host = parts[int(torch.randint(len(parts), (), generator=chance))]
            center = host.vertices[int(torch.randint(host.num_vertices, (), generator=chance))]
        parts.append(part.replace(vertices=part.vertices * size + center))
    return TriMesh.concatenate(parts)


def _turned(mesh: TriMesh, chance: torch.Generator) -> TriMesh:
    """Stretched along its axes, then turned: upright onto some axis, or anyhow."""
    points = mesh.vertices * (0.5 + 0.5 * torch.rand(3, generator=chance))
    if _between(0, 1, chance) < 0.4:
        return _outwards(mesh.replace(vertices=points[:, torch.randperm(3, generator=chance)]))
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=chance))
    return _outwards(mesh.replace(vertices=points @ (q * r.diagonal().sign())))


def _outwards(mesh: TriMesh) -> TriMesh:
    """Wound so that its volume is positive: half of all turns mirror."""
    a, b, c = mesh.vertices[mesh.faces.long()].unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum()
    return mesh if volume > 0 else mesh.replace(faces=mesh.faces.flip(1))


def _primitive(kind: str, chance: torch.Generator) -> TriMesh:
    t = torch.linspace(0, 1, 24)
    if kind == "box":
        return _extrude(torch.ones(4), _between(0.6, 1.4, chance))
    if kind == "prism":
        return _extrude(torch.ones(int(torch.randint(3, 9, (), generator=chance))), _between(0.4, 1.6, chance))
    if kind == "gear":
        teeth = int(torch.randint(5, 11, (), generator=chance))
        root = _between(0.6, 0.85, chance)
        return _extrude(torch.tensor([root, root, 1.0, 1.0]).repeat(teeth), _between(0.25, 0.7, chance))
    if kind in ("cylinder", "cone"):
        top = 1.0 if kind == "cylinder" else _between(0.0, 0.5, chance)
        height = _between(0.5, 2.0, chance)
        return _lathe(torch.tensor([0.0, 1.0, top, 0.0]), torch.tensor([0.0, 0.0, height, height]))
    if kind == "ellipsoid":
        return _lathe((math.pi * t).sin(), -(math.pi * t).cos())
    if kind == "torus":
        thick = _between(0.2, 0.5, chance)
        angle = 2 * math.pi * t[:-1]
        return _lathe(1 + thick * angle.cos(), thick * angle.sin(), closed=True)
    if kind == "bowl":
        angle = math.pi * _between(0.4, 0.75, chance) * t
        return _lathe(angle.sin(), -angle.cos())
    waves = torch.rand(4, generator=chance) * torch.tensor([0.0, 0.35, 0.25, 0.15]) + torch.tensor([0.55, 0.0, 0.0, 0.0])
    phase = torch.rand(4, generator=chance) * 2 * math.pi
    radius = sum(w * (k * math.pi * t + p).cos() if k else w.expand(24) for k, (w, p) in enumerate(zip(waves, phase, strict=True)))
    assert isinstance(radius, Tensor)
    return _lathe(torch.cat((torch.zeros(1), radius.clamp(min=0.12))), torch.cat((torch.zeros(1), 2.2 * t)))  # a vase: open at the top


def _lathe(radius: Tensor, height: Tensor, closed: bool = False) -> TriMesh:
    """The profile (radius, height) turned about the z axis; `closed` joins its ends."""
    radius = torch.where(radius < 1e-6, 0.0, radius)  # a pole is one point
    angle = torch.arange(AROUND) * (2 * math.pi / AROUND)
    ring = torch.stack((angle.cos(), angle.sin()), 1)
    points = torch.cat((radius[:, None, None] * ring, height[:, None, None].expand(-1, AROUND, 1)), 2)
    rows = torch.arange(len(radius) if closed else len(radius) - 1)
    i, j = (x.flatten() for x in torch.meshgrid(rows, torch.arange(AROUND), indexing="ij"))
    i1, j1 = (i + 1) % len(radius), (j + 1) % AROUND
    a, b, c, d = i * AROUND + j, i * AROUND + j1, i1 * AROUND + j1, i1 * AROUND + j
    return _cleaned(points.reshape(-1, 3), torch.cat((torch.stack((a, b, c), 1), torch.stack((a, c, d), 1))))


def _extrude(radii: Tensor, height: float) -> TriMesh:
    """A prism over the outline with these radii at equal angles, with both lids."""
    n = len(radii)
    angle = (torch.arange(n) + 0.5) * (2 * math.pi / n)
    outline = radii[:, None] * torch.stack((angle.cos(), angle.sin()), 1)
    base = torch.cat((outline, torch.zeros(1, 2)))  # the last vertex is the middle of a lid
    points = torch.cat([torch.cat((base, torch.full((n + 1, 1), z)), 1) for z in (-height / 2, height / 2)])
    i, j, middle = torch.arange(n), (torch.arange(n) + 1) % n, torch.full((n,), n)
    up = n + 1
    faces = [(i, j, j + up), (i, j + up, i + up), (j, i, middle), (i + up, j + up, middle + up)]
    return _cleaned(points, torch.cat([torch.stack(f, 1) for f in faces]))


def _cleaned(points: Tensor, faces: Tensor) -> TriMesh:
    """Without the triangles that shrink to an edge at the poles."""
    mesh = TriMesh(points, faces)
    mesh = mesh.replace(faces=mesh.weld()[mesh.faces.long()].int())
    f = mesh.faces
    return mesh.select_faces((f[:, 0] != f[:, 1]) & (f[:, 1] != f[:, 2]) & (f[:, 2] != f[:, 0]))


def _between(low: float, high: float, chance: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=chance))
