"""Meshes → O-Voxels on disk, and ragged batches of them in an order that can be continued anywhere."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm

from voxgen.core import Frame, TriMesh, VoxelGrid
from voxgen.core.errors import VoxgenError
from voxgen.io import load_mesh
from voxgen.representations import OVoxel

from .shapes import fitted, random_shape

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
HELD_OUT_SEED = 1_000_000_000
"""Procedural shapes from here on are never trained on."""


@dataclass(frozen=True)
class Source:
    """Where a shape comes from: a file, or a seed of the procedural shapes."""

    name: str
    origin: Path | int

    def mesh(self) -> TriMesh:
        """The mesh, fitted into the cube [-0.5, 0.5]³."""
        if isinstance(self.origin, int):
            return random_shape(self.origin)[1]
        return fitted(load_mesh(self.origin).with_up("y"))

    def key(self) -> str:
        """Changes when the shape does."""
        if isinstance(self.origin, int):
            return f"procedural-{self.origin}"
        stat = self.origin.stat()
        return hashlib.sha256(f"{self.origin.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:24]


def find_sources(folder: Path | None, count: int, held_out: int) -> tuple[list[Source], list[Source]]:
    """Shapes to train on, and shapes to measure on.

    Args:
        folder: meshes in it and below it, sorted; every n-th one is held out. None: procedural shapes.
        count: procedural shapes to train on.   held_out: shapes to measure on, at most half of a folder.
    """
    if folder is None:
        measured = [Source(random_shape(seed)[0], seed) for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + held_out)]
        return [Source(f"shape {seed}", seed) for seed in range(count)], measured
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if len(files) < 2:
        raise SystemExit(f"{folder} holds {len(files)} meshes ({', '.join(SUFFIXES)}); at least two are needed, one to measure on.")
    stride = max(2, len(files) // held_out)
    sources = [Source(str(p.relative_to(folder)), p) for p in files]
    measured = sources[::stride][:held_out]
    return [s for s in sources if s not in measured], measured


def prepare(sources: list[Source], resolution: int, folder: Path, *, show: bool) -> list[tuple[Source, Path]]:
    """Convert all shapes that are not in the folder yet; those that cannot be converted are named and left out; none left ends the run.

    A file appears under its name only when it is whole, so a preparation that is killed continues where it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready = []
    for source in tqdm(sources, desc=f"O-Voxels at {resolution}³", unit="shape", disable=not show):
        path = folder / f"{source.key()}-{resolution}.npz"
        if not path.exists():
            try:
                ovoxel = OVoxel.from_mesh(source.mesh(), resolution, materials=False, frame=Frame.unit(resolution))
            except VoxgenError as error:
                warnings.warn(f"{source.name} is left out: {error}", stacklevel=2)
                continue
            if len(ovoxel) == 0:
                warnings.warn(f"{source.name} is left out: its surface crosses no edge of the grid.", stacklevel=2)
                continue
            ovoxel.replace(crossing_sign=None).save(path)
        ready.append((source, path))
    if not ready:
        raise SystemExit(f"none of the {len(sources)} shapes could be used: {', '.join(s.name for s in sources[:5])}")
    return ready


def load(path: Path) -> OVoxel:
    """An O-Voxel of `prepare`, in the unit cube."""
    return OVoxel.load(path)


def count_cells(paths: list[Path]) -> list[int]:
    """Voxels of each file."""
    return [len(load(path)) for path in paths]


Item = tuple[int, tuple[int, int, int]]
"""Number of a shape, and the order in which its axes are taken."""


class OVoxelDataset(Dataset[OVoxel]):
    """O-Voxels from files, each with its axes exchanged as the item says: six shapes from one, without a new conversion."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: Item) -> OVoxel:  # pyright: ignore[reportIncompatibleMethodOverride]
        index, axes = item
        return exchange_axes(load(self.paths[index]), axes)


def exchange_axes(ovoxel: OVoxel, axes: tuple[int, int, int]) -> OVoxel:
    """The mirrored or turned shape: new axis i is old axis `axes[i]`. A cell owns the edges at its highest corner, before and after."""
    order = list(axes)
    coords = torch.cat((ovoxel.coords[:, :1], ovoxel.coords[:, 1:][:, order]), 1)
    grid, rows = VoxelGrid.build(coords, resolution=ovoxel.resolution, batch_size=ovoxel.batch_size, frame=ovoxel.frame)
    return OVoxel(grid, ovoxel.dual_vertices[rows][:, order], ovoxel.intersected[rows][:, order])


class BudgetSampler(Sampler[list[Item]]):
    """Endless batches of at most `budget` voxels. Batch n follows from the seed and n alone, so a run can go on after a kill.

    Each epoch is shuffled and cut greedily; a shape larger than the budget makes a batch of its own. With several processes
    each takes every world-th batch, and all take equally many.

    Args:
        cells: voxels of each shape.   budget: voxels a batch.   seed: of the order.
        rank, world: this process, and how many there are.   start: how many batches of this process are done.
    """

    def __init__(self, cells: list[int], budget: int, seed: int, rank: int = 0, world: int = 1, start: int = 0) -> None:
        self.cells, self.budget, self.seed, self.rank, self.world, self.start = cells, budget, seed, rank, world, start

    def __iter__(self) -> Iterator[list[Item]]:
        epoch, skip = 0, self.start
        while True:
            batches = self.epoch(epoch)
            own = batches[self.rank :: self.world]
            yield from own[skip:]
            skip = max(0, skip - len(own))
            epoch += 1

    def epoch(self, number: int) -> list[list[Item]]:
        """The batches of an epoch, of all processes."""
        chance = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        batches: list[list[Item]] = [[]]
        room = self.budget
        for index in torch.randperm(len(self.cells), generator=chance).tolist():
            x, y, z = torch.randperm(3, generator=chance).tolist()
            if batches[-1] and self.cells[index] > room:
                batches.append([])
                room = self.budget
            batches[-1].append((index, (x, y, z)))
            room -= self.cells[index]
        missing = -len(batches) % self.world
        return batches + [batches[i % len(batches)] for i in range(missing)]  # some twice, so that no process waits for another


def collate(items: list[OVoxel]) -> OVoxel:
    """Several shapes as one batch."""
    return OVoxel.batched(items)
