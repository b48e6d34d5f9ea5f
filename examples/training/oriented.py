"""Meshes with oriented points on them, the voxels of their latents, and the cells of the output that they touch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxgen.core import Frame, TriMesh, VoxelGrid
from voxgen.core.atomic import atomic_write
from voxgen.ops.grid_sets import child_offsets, parents
from voxgen.ops.lookup import lookup_cells
from voxgen.ops.surface_cells import surface_cells
from voxgen.representations import OrientedPoints

FACTOR = 4
"""Cells of the output along one cell of the latent."""
POINTS = 40_000
"""On each shape, at 256³."""


@dataclass(frozen=True, eq=False)
class Shapes:
    """Meshes in the unit cube, points on them, the voxels of their latents, and the cells of the output that they touch."""

    meshes: tuple[TriMesh, ...]
    cloud: OrientedPoints
    latent: VoxelGrid
    fine: VoxelGrid

    @property
    def grid(self) -> VoxelGrid:
        return self.fine

    def __len__(self) -> int:
        return len(self.fine)

    def to(self, target: torch.device) -> Shapes:
        return Shapes(tuple(mesh.to(target) for mesh in self.meshes), self.cloud.to(target), self.latent.to(target), self.fine.to(target))


def convert(mesh: TriMesh, resolution: int) -> Shapes:
    plain = TriMesh(mesh.vertices, mesh.faces, up=mesh.up)
    count = max(2000, POINTS * resolution**2 // 256**2)
    cloud = OrientedPoints.from_mesh(plain, count, frame=Frame.unit(1, mesh.up), method="systematic")
    frame = Frame.unit(resolution, mesh.up)
    cells = surface_cells(plain.vertices, plain.faces, origin=frame.origin, voxel_size=frame.voxel_size, resolution=resolution)
    return Shapes((plain,), cloud, cloud.voxels(resolution // FACTOR, plain, skin=0.0), _single(cells, resolution))


def _single(cells: Tensor, resolution: int) -> VoxelGrid:
    return VoxelGrid.from_sorted(torch.nn.functional.pad(cells, (1, 0)), resolution=resolution, batch_size=1)


def store(shape: Shapes, path: Path) -> None:
    (mesh,) = shape.meshes
    arrays = {"vertices": mesh.vertices, "faces": mesh.faces, "points": shape.cloud.points, "normals": shape.cloud.normals}
    arrays |= {"latent": shape.latent.cells.short(), "fine": shape.fine.cells.short(), "resolution": torch.tensor(shape.fine.resolution[0])}
    with atomic_write(path) as file:
        np.savez(file, **{name: array.numpy() for name, array in arrays.items()})  # pyright: ignore[reportArgumentType]


def load(path: Path) -> Shapes:
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    resolution = int(arrays["resolution"])
    mesh = TriMesh(arrays["vertices"], arrays["faces"])
    cloud = OrientedPoints(arrays["points"], arrays["normals"], frame=Frame.unit(1))
    latent, fine = _single(arrays["latent"].int(), resolution // FACTOR), _single(arrays["fine"].int(), resolution)
    return Shapes((mesh,), cloud, latent, fine)


def exchange_axes(shape: Shapes, axes: tuple[int, int, int]) -> Shapes:
    """Normals stay outward in a mirror; faces are wound the other way there."""
    (mesh,), order = shape.meshes, list(axes)
    mirrored = axes in ((0, 2, 1), (1, 0, 2), (2, 1, 0))
    turned = TriMesh(mesh.vertices[:, order], mesh.faces.flip(1) if mirrored else mesh.faces)
    cloud = shape.cloud.replace(points=shape.cloud.points[:, order], normals=shape.cloud.normals[:, order])
    latent, fine = (
        VoxelGrid.build(torch.cat((g.coords[:, :1], g.cells[:, order]), 1), resolution=g.resolution, batch_size=1)[0]
        for g in (shape.latent, shape.fine)
    )
    return Shapes((turned,), cloud, latent, fine)


def batched(items: list[Shapes]) -> Shapes:
    meshes = tuple(mesh for item in items for mesh in item.meshes)
    latent, fine = (VoxelGrid.batched([getattr(item, name) for item in items]) for name in ("latent", "fine"))
    return Shapes(meshes, OrientedPoints.batched([item.cloud for item in items]), latent, fine)


def children_that_exist(grid: VoxelGrid, finest: VoxelGrid) -> Tensor:
    """(n, 8) bool: which children of each cell hold cells of the finest grid, slot = x + 2y + 4z."""
    while finest.resolution[0] > 2 * grid.resolution[0]:
        finest = parents(finest)
    coords = grid.coords[:, None] * torch.tensor([1, 2, 2, 2], dtype=torch.int32, device=grid.device)
    coords = coords + torch.nn.functional.pad(child_offsets((2, 2, 2), "x_fastest", grid.device), (1, 0))
    return (lookup_cells(finest, coords.reshape(-1, 4)) >= 0).reshape(-1, 8)
