"""Does carving lose anything? Shapes, views, and a decoder that is exact, so that a missing cell shows as a pixel that differs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from voxgen.core import Camera, Selection, TriMesh, VoxelGrid
from voxgen.core.coords import pack_keys, unpack_keys
from voxgen.ops.dual_faces import dual_faces
from voxgen.ops.rasterize import rasterize

from .shells import Distance, Shell, ball, ring, shell


def bumpy_ball(points: Tensor) -> Tensor:
    """About a ball, with 200 bumps that hide each other at the rim."""
    p = points - torch.tensor((0.01, -0.02, 0.03)).to(points)
    wave = (25 * p[..., 0]).sin() * (25 * p[..., 1]).sin() * (25 * p[..., 2]).sin()
    return (p.norm(dim=-1) - 0.38 + 0.02 * wave) / 1.5


def plates(points: Tensor) -> Tensor:
    """Four thin plates, one behind the other, leaning."""
    x, y, z = (points - torch.tensor((0.013, -0.007, 0.021)).to(points)).unbind(-1)
    height = z + 0.2 * x
    nearest = height - 0.17 * (height / 0.17).round().clamp(-1, 2)
    side = torch.maximum(x.abs(), y.abs()) - 0.3
    return torch.maximum((nearest.abs() - 0.025) / 1.05, side)


SHAPES: Mapping[str, Distance] = {"sphere": ball, "bumpy sphere": bumpy_ball, "torus": ring, "stacked plates": plates}


def outside_views(count: int = 19, size: int = 518, dtype: torch.dtype = torch.float64) -> Camera:
    """Views from all around at distance 1.6 to 2.2, the targets beside the origin in every third, so that the frame cuts the object."""
    i = torch.arange(count, dtype=torch.float64)
    polar, azimuth = (1 - 2 * (i + 0.5) / count).acos(), math.pi * (1 + 5**0.5) * i
    ray = torch.stack((polar.sin() * azimuth.cos(), polar.cos(), polar.sin() * azimuth.sin()), 1)
    eyes = ray * (1.6 + 0.2 * (i % 4))[:, None]
    target = torch.stack((0.2 * (i % 3 == 2), 0.1 * (i % 3 == 2), 0 * i), 1).double()
    return Camera.look_at(eyes.to(dtype), target.to(dtype), fov=40, width=size, height=size, near=0.5, far=4.0)


def latent_of(fine: VoxelGrid, factor: int) -> tuple[VoxelGrid, Tensor]:
    """The grid of cells that are `factor` times as large, and for each fine cell the row it lies in."""
    coords = fine.coords.clone()
    coords[:, 1:] //= factor
    keys, parent = pack_keys(coords).unique(return_inverse=True)
    x, y, z = (r // factor for r in fine.resolution)
    grid = VoxelGrid.from_sorted(unpack_keys(keys), resolution=(x, y, z), batch_size=fine.batch_size, frame=fine.frame.coarsen(factor))
    return grid, parent


def decoded(shape: Shell, parent: Tensor | None = None, selection: Selection | None = None) -> TriMesh:
    """The mesh of a shell, or of its cells whose parents are selected."""
    keep = torch.ones(len(shape.grid), dtype=torch.bool) if selection is None or parent is None else selection.mask[parent]
    part = Shell(shape.grid.select(keep), shape.dual[keep], shape.intersected[keep], shape.crossing_sign[keep])
    surface = dual_faces(part.grid, part.dual, part.intersected, crossing_sign=part.crossing_sign)
    return TriMesh(surface.vertices, surface.faces)


def depth_maps(mesh: TriMesh, camera: Camera) -> Tensor:
    """(v, h, w) float64 z of the nearest face at each pixel's centre, infinite where there is none."""
    images = []
    for view in range(len(camera)):
        single = camera[view]
        homogeneous = torch.cat((mesh.vertices.double(), torch.ones(mesh.num_vertices, 1, dtype=torch.float64)), 1)
        clip = homogeneous @ single.clip_matrices()[0].double().T
        raster = rasterize(clip, mesh.faces, camera.height, camera.width)
        n, f = camera.near, camera.far
        z = 2 * f * n / ((f + n) - raster.depth[0] * (f - n))
        images.append(torch.where(raster.face_id[0] >= 0, z, math.inf))
    return torch.stack(images)


def carving_errors(expected: Tensor, actual: Tensor, tolerance: float = 1e-6) -> Tensor:
    """(v,) int64 pixels of two depth maps (v, h, w), infinite in the background, that differ in mask or in depth."""
    both = expected.isfinite() & actual.isfinite()
    gap = torch.where(both, (expected - actual).abs(), 0.0)
    return ((expected.isfinite() != actual.isfinite()) | (gap > tolerance)).sum((1, 2))


def prepared(name: str, resolution: int) -> tuple[Shell, VoxelGrid, Tensor, TriMesh]:
    """A shape at 4 × resolution, its latent cells, the latent row of each cell, and a finer mesh to take depths from."""
    shape = shell(SHAPES[name], 4 * resolution)
    grid, parent = latent_of(shape.grid, 4)
    return shape, grid, parent, decoded(shell(SHAPES[name], 8 * resolution))
