"""Occupancy of coarse cells: the volumes of the structure example, and how what comes back of them is measured and shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxgen.core import Frame, TriMesh, VoxelGrid
from voxgen.core.atomic import atomic_write
from voxgen.ops.grid_sets import intersection, parents
from voxgen.render import Panel, camera_for_bounds, compose_figure, render_mesh
from voxgen.representations import OVoxel

from .data import Axes, Kind, Source, exchanged
from .measure import Measures
from .scores import numbers, table

FINER = 2
"""Cells of the O-Voxel along a side of one here. Cells are those that a finer O-Voxel has anything in, as in TRELLIS.2, whose first stage
makes the cells of the shape's latent: so all stages of a generator agree about which cells there are."""
FACES = (((0, 1, 3, 2), 0, 0), ((4, 6, 7, 5), 0, 1), ((0, 4, 5, 1), 1, 0), ((2, 3, 7, 6), 1, 1), ((0, 2, 6, 4), 2, 0), ((1, 5, 7, 3), 2, 1))
"""Faces of a cell: corners (4 x + 2 y + z) as seen from outside, axis, and side."""


@dataclass(frozen=True, eq=False)
class Occupied:
    """Which cells of b cubes are occupied."""

    grid: VoxelGrid

    def __len__(self) -> int:
        """Cubes that hold anything: a dense network takes equally long for each."""
        return int((self.grid.offsets.diff() > 0).sum())

    def to(self, target: torch.device) -> Occupied:
        return Occupied(self.grid.to(target))

    def dense(self) -> Tensor:
        """(b, 1, x, y, z) bool."""
        cube = torch.zeros(self.grid.batch_size, 1, *self.grid.resolution, dtype=torch.bool, device=self.grid.device)
        b, x, y, z = self.grid.coords.long().unbind(1)
        cube[b, 0, x, y, z] = True
        return cube


def occupied_by(ovoxel: OVoxel) -> Occupied:
    """The coarse cells that an O-Voxel has cells in."""
    return Occupied(parents(ovoxel.grid, FINER))


def convert(mesh: TriMesh, resolution: int) -> Occupied:
    fine = FINER * resolution
    return occupied_by(OVoxel.from_mesh(mesh, fine, materials=False, frame=Frame.unit(fine)))


def store(volume: Occupied, path: Path) -> None:
    with atomic_write(path) as file:
        np.savez_compressed(file, cells=volume.grid.cells.short().numpy(), resolution=np.array(volume.grid.resolution[0]))


def load(path: Path) -> Occupied:
    with np.load(path) as file:
        cells, resolution = torch.from_numpy(file["cells"]), int(file["resolution"])
    coords = torch.nn.functional.pad(cells.int(), (1, 0))
    return Occupied(VoxelGrid.from_sorted(coords, resolution=resolution, batch_size=1, frame=Frame.unit(resolution)))


def exchange_axes(volume: Occupied, axes: Axes) -> Occupied:
    return Occupied(exchanged(volume.grid, axes)[0])


def batched(items: list[Occupied]) -> Occupied:
    return Occupied(VoxelGrid.batched([item.grid for item in items]))


KIND = Kind("structures", convert, store, load, exchange_axes, batched)


@dataclass(frozen=True)
class Score:
    """One shape: its cells, those that came back, and how many of both are right: shared over either, over the found, over the true."""

    cells: float
    found: float
    iou: float
    precision: float
    recall: float

    HEADER = f"{'held-out shape':<24} {'cells':>7} {'found':>7} {'IoU':>7} {'precision':>9} {'recall':>7}"

    @staticmethod
    def of(truth: VoxelGrid, found: VoxelGrid) -> Score:
        shared, n, m = len(intersection(truth, found)), len(truth), len(found)
        return Score(n, m, shared / max(n + m - shared, 1), shared / max(m, 1), shared / max(n, 1))

    def row(self, name: str) -> str:
        return f"{name[:24]:<24} {self.cells:>7,.0f} {self.found:>7,.0f} {self.iou:>7.4f} {self.precision:>9.4f} {self.recall:>7.4f}"


@dataclass(frozen=True, eq=False)
class Returned:
    """A held-out shape and the cells that came back of it."""

    source: Source
    truth: VoxelGrid
    found: VoxelGrid
    score: Score


def compare(
    vae: nn.Module, reconstruct: Any, source: Source, truth: Occupied, kind: Kind[Any], device: torch.device, samples: int
) -> Returned:
    """Encode and decode a shape; `reconstruct` of the example is (network, occupied) → grid. All cells count: nothing is sampled."""
    del kind, samples
    found = reconstruct(vae, truth.to(device)).to("cpu")
    return Returned(source, truth.grid, found, Score.of(truth.grid, found))


def picture(results: list[Returned], resolution: int, title: str, size: int = 256) -> Tensor:
    """Two shapes a row: the true cells, and those that came back, the wrong ones in colour. (h, w, 3) uint8."""
    del resolution
    panels = [panel for result in results for panel in _panels(result, size)]
    caption = "Held-out shapes, by the averaged weights. Grey: right. Red: cells that are not there. Blue: cells that are missing."
    return compose_figure([panels[i : i + 4] for i in range(0, len(panels), 4)], title=title, caption=caption)


MEASURES = Measures(compare, table, picture, numbers, "shares of cells")


def _panels(result: Returned, size: int) -> list[Panel]:
    camera = camera_for_bounds((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5), elevation=25, azimuth=35, margin=0.8, width=size, height=size)
    grey, red, blue = (0.75, 0.75, 0.75), (0.85, 0.1, 0.1), (0.1, 0.3, 0.9)
    right, score = intersection(result.truth, result.found), result.score
    missing = result.truth.select(result.found.rows_of(result.truth.coords) < 0)
    added = result.found.select(result.truth.rows_of(result.found.coords) < 0)
    drawn = [boxes([(result.truth, grey)]), boxes([(right, grey), (added, red), (missing, blue)])]
    images = [render_mesh(mesh, camera, supersample=2, normals="flat").color[0] for mesh in drawn]
    notes = (f"IoU {score.iou:.3f}", f"precision {score.precision:.3f}, recall {score.recall:.3f}")
    return [Panel(images[0], result.source.name), Panel(images[1], "reconstruction", notes)]


def boxes(parts: Sequence[tuple[VoxelGrid, tuple[float, float, float]]]) -> TriMesh:
    """Cells as boxes, each grid in its colour; faces between two cells of one grid are left out."""
    vertices, colors = [torch.zeros(0, 4, 3)], [torch.zeros(0, 4, 3)]
    corner = torch.stack(torch.meshgrid(*[torch.arange(2)] * 3, indexing="ij"), -1).reshape(8, 3).float()
    for grid, color in parts:
        size = torch.tensor(grid.frame.voxel_size)
        low = grid.frame.centers(grid.cells) - size / 2
        for corners, axis, side in FACES:
            step = torch.zeros(4, dtype=torch.int32)
            step[1 + axis] = 2 * side - 1
            open_cells = low[grid.rows_of(grid.coords + step) < 0]
            vertices.append(open_cells[:, None] + corner[list(corners)] * size)
            colors.append(torch.tensor(color).expand(len(open_cells), 4, 3))
    quads = torch.cat(vertices)
    first = 4 * torch.arange(len(quads))[:, None]
    faces = torch.cat((first + torch.tensor([0, 1, 2]), first + torch.tensor([0, 2, 3])))
    return TriMesh(quads.reshape(-1, 3), faces.int(), attributes={"base_color": torch.cat(colors).reshape(-1, 3)})
