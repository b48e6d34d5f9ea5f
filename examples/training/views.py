"""Shapes as the cells of their surface and pictures of them from many sides: what the texture example trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxgen.core import Camera, Frame, SparseTensor, TriMesh, VoxelGrid
from voxgen.core.atomic import atomic_write
from voxgen.core.material import linear_to_srgb
from voxgen.ops.project_features import project_features
from voxgen.ops.surface_cells import CHANNELS, surface_channels, surface_grid
from voxgen.render import random_cameras, render_mesh

from .data import exchanged

FACTOR = 4
"""Cells of the finest level along one of the latent's."""
SEEN = 4
"""Numbers of a fine cell: its mean colour in the views that see it, less one half, times `GAIN`; and whether any does."""
GAIN = 4.0
"""Makes colours as large as the code of positions that the transformer adds to them."""
FEATURES = SEEN * FACTOR**3
OUTER = ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0))
"""Places of `SurfaceMoments.normal_outer` in the matrix."""


@dataclass(frozen=True, eq=False)
class Views:
    """b shapes.

    Attributes:
        grid: (n cells) of the finest level that the surfaces touch.
        seen: (n, SEEN) see `SEEN`.
        geometry: (m cells of the latent's level, 15) numbers of the surface inside each.
        images: (b, v, h, w, 4) uint8, sRGB and alpha, not premultiplied.
        cameras: one of v views for each shape.
    """

    grid: VoxelGrid
    seen: Tensor
    geometry: SparseTensor
    images: Tensor
    cameras: tuple[Camera, ...]

    def __len__(self) -> int:
        return len(self.grid)

    def to(self, target: torch.device) -> Views:
        cameras = tuple(camera.to(target) for camera in self.cameras)
        return Views(self.grid.to(target), self.seen.to(target), self.geometry.to(target), self.images.to(target), cameras)

    def features(self) -> SparseTensor:
        """What the encoder reads of a cell of the latent's level: `seen` of the finest cells in it, side by side, 0 where there is none."""
        coarse = self.geometry.grid
        scale = torch.tensor([1, FACTOR, FACTOR, FACTOR], dtype=torch.int32, device=coarse.device)
        x, y, z = (self.grid.cells % FACTOR).long().unbind(1)
        row = coarse.rows_of(self.grid.coords // scale).long() * FACTOR**3 + x + FACTOR * y + FACTOR**2 * z
        flat = self.seen.new_zeros(len(coarse) * FACTOR**3, SEEN).index_copy(0, row, self.seen)
        return SparseTensor(coarse, flat.reshape(len(coarse), FEATURES))


def recolored(shape: Views, chance: torch.Generator) -> Views:
    """The same shapes in other colours: red, green and blue exchanged, and some of them inverted, as chance will."""
    order = torch.randperm(3, generator=chance)
    inverted = torch.randint(2, (3,), generator=chance)
    sign = (1 - 2 * inverted).to(shape.seen)
    color = shape.images[..., order.to(shape.images.device)]
    color = torch.where(inverted.to(color.device) > 0, 255 - color, color)
    seen = torch.cat((shape.seen[:, order.to(shape.seen.device)] * sign, shape.seen[:, 3:]), 1)
    return replace(shape, images=torch.cat((color, shape.images[..., 3:]), -1), seen=seen)


def photograph(mesh: TriMesh, camera: Camera) -> tuple[Tensor, Tensor]:
    """Base colour without light and alpha, not premultiplied, (v, h, w, 4) sRGB in [0, 1]; and depth (v, h, w)."""
    shown = render_mesh(mesh, camera, shading="albedo", background=(0, 0, 0), encoding="linear", supersample=2)
    alpha = shown.mask[..., None]
    color = linear_to_srgb((shown.color / alpha.clamp_min(1e-6)).clamp(0, 1))
    return torch.cat((torch.where(alpha > 0, color, 0), alpha), 3), shown.depth


def cameras_around(count: int, size: int, seed: int) -> Camera:
    """The views of TRELLIS: distance 2 from the cube's middle, 40 degrees, evenly over the sphere."""
    return random_cameras(count, width=size, height=size, generator=torch.Generator().manual_seed(seed))


def convert(mesh: TriMesh, resolution: int, *, size: int, count: int) -> Views:
    """Look at a mesh from `count` sides, and gather on its cells what is seen there."""
    camera = cameras_around(count, size, seed=mesh.num_faces)
    images, depth = photograph(mesh, camera)
    fine = surface_grid(mesh, resolution)
    colors = torch.cat((images[..., :3] * images[..., 3:], images[..., 3:]), 3)  # premultiplied: nothing leaks in along outlines
    found = project_features(
        fine.frame.centers(fine.cells),
        colors.permute(0, 3, 1, 2),
        camera,
        average="seen",
        depth=depth,
        depth_tolerance=3**0.5 / resolution,
    ).feats
    covered = (found[:, 3:] > 0.05).float()
    seen = torch.cat(((found[:, :3] / found[:, 3:].clamp_min(0.05) - 0.5) * (GAIN * covered), covered), 1)
    stored = (255 * images).round().to(torch.uint8)[None]
    return Views(fine, seen, surface_channels(mesh, resolution // FACTOR), stored, (camera,))


def store(shape: Views, path: Path) -> None:
    (camera,) = shape.cameras
    arrays = {
        "cells": shape.grid.cells.short(),
        "seen": shape.seen.half(),
        "coarse": shape.geometry.grid.cells.short(),
        "geometry": shape.geometry.feats.half(),
        "images": shape.images[0],
        "world_to_camera": camera.world_to_camera,
        "intrinsics": camera.intrinsics,
        "ends": torch.tensor([camera.near, camera.far]),
        "resolution": torch.tensor(shape.grid.resolution[0]),
    }
    with atomic_write(path) as file:
        np.savez_compressed(file, **{name: array.numpy() for name, array in arrays.items()})  # pyright: ignore[reportArgumentType]


def load(path: Path) -> Views:
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    resolution, images = int(arrays["resolution"]), arrays["images"]
    fine, coarse = _grid(arrays["cells"], resolution), _grid(arrays["coarse"], resolution // FACTOR)
    near, far = arrays["ends"].tolist()
    camera = Camera(arrays["world_to_camera"], arrays["intrinsics"], images.shape[2], images.shape[1], near, far)
    return Views(fine, arrays["seen"].float(), SparseTensor(coarse, arrays["geometry"].float()), images[None], (camera,))


def _grid(cells: Tensor, resolution: int) -> VoxelGrid:
    coords = torch.nn.functional.pad(cells.int(), (1, 0))
    return VoxelGrid.from_sorted(coords, resolution=resolution, batch_size=1, frame=Frame.unit(resolution))


def exchange_axes(shape: Views, axes: tuple[int, int, int]) -> Views:
    """Cameras move with the world; where that is a mirror, pictures are mirrored from left to right."""
    order, (camera,) = list(axes), shape.cameras
    fine, rows = exchanged(shape.grid, axes)
    coarse, coarse_rows = exchanged(shape.geometry.grid, axes)
    moved = torch.eye(4)[[*order, 3]]
    world_to_camera, images = camera.world_to_camera @ moved.T, shape.images
    if axes in ((0, 2, 1), (1, 0, 2), (2, 1, 0)):
        world_to_camera = world_to_camera * torch.tensor([-1.0, 1, 1, 1])[:, None]
        images = images.flip(3)
    turned = Camera(world_to_camera, camera.intrinsics, camera.width, camera.height, camera.near, camera.far)
    numbers = shape.geometry.feats[coarse_rows][:, _geometry_order(order)]
    return Views(fine, shape.seen[rows], SparseTensor(coarse, numbers), images, (turned,))


def _geometry_order(order: Sequence[int]) -> list[int]:
    """Which of the fifteen numbers stands where after an exchange of axes."""
    outer = [next(k for k, pair in enumerate(OUTER) if {*pair} == {order[i], order[j]}) for i, j in OUTER]
    found = [*order, *(3 + i for i in order), *(6 + k for k in outer), *(12 + i for i in order)]
    assert len(found) == CHANNELS
    return found


def batched(items: list[Views]) -> Views:
    grids = VoxelGrid.batched([item.grid for item in items])
    coarse = VoxelGrid.batched([item.geometry.grid for item in items])
    geometry = SparseTensor(coarse, torch.cat([item.geometry.feats for item in items]))
    images = torch.cat([item.images for item in items])
    return Views(grids, torch.cat([item.seen for item in items]), geometry, images, tuple(c for item in items for c in item.cameras))
