"""Meshes → volumes on disk, to train autoencoders on."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from voxgen.core import TriMesh, VoxelGrid
from voxgen.core.errors import VoxgenError
from voxgen.io import load_mesh

from .shapes import fitted, random_shape

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
HELD_OUT_SEED = 1_000_000_000
"""Procedural shapes from here on are never trained on."""


class Volume(Protocol):
    """One shape or a batch of shapes on sparse cells."""

    @property
    def grid(self) -> VoxelGrid: ...
    def __len__(self) -> int: ...
    def to(self, target: torch.device, /) -> Volume: ...


V = TypeVar("V", bound=Volume)


@dataclass(frozen=True)
class Kind(Generic[V]):
    """What volumes an example trains on, as functions.

    Attributes:
        name: plural, for bars and folders.
        fill: of the cube [-0.5, 0.5]³ along the longest side of a mesh.
        closed: whether meshes should be closed: procedural shapes then are.
        convert: mesh inside the cube, cells a side → volume, empty if nothing is there.
        save, load: one volume and the path of an .npz file, which appears last and whole.
        exchange_axes: new axis i is old axis `axes[i]`.
        batched: several volumes as one.
        dress: what to put on a procedural shape, by its seed: textures.
    """

    name: str
    convert: Callable[[TriMesh, int], V]
    save: Callable[[V, Path], None]
    load: Callable[[Path], V]
    exchange_axes: Callable[[V, tuple[int, int, int]], V]
    batched: Callable[[list[V]], V]
    fill: float = 1.0
    closed: bool = False
    dress: Callable[[TriMesh, int], TriMesh] | None = None

    def mesh_of(self, source: Source) -> TriMesh:
        """What is converted: the mesh of a source, fitted and dressed."""
        mesh = source.mesh(self.fill)
        return self.dress(mesh, source.origin) if self.dress is not None and isinstance(source.origin, int) else mesh


@dataclass(frozen=True)
class Source:
    """Where a shape comes from: a file, or a seed of the procedural shapes."""

    name: str
    origin: Path | int
    closed: bool = False

    def mesh(self, fill: float = 1.0) -> TriMesh:
        """The mesh, fitted into this share of the cube [-0.5, 0.5]³."""
        if isinstance(self.origin, int):
            mesh = random_shape(self.origin, closed=self.closed)[1]
        else:
            mesh = fitted(load_mesh(self.origin).with_up("y"))
        return mesh if fill == 1 else mesh.replace(vertices=mesh.vertices * fill)

    def key(self) -> str:
        """Changes when the shape does."""
        if isinstance(self.origin, int):
            return f"procedural-{'closed-' if self.closed else ''}{self.origin}"
        stat = self.origin.stat()
        return hashlib.sha256(f"{self.origin.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:24]


def find_sources(folder: Path | None, count: int, held_out: int, closed: bool = False) -> tuple[list[Source], list[Source]]:
    """Shapes to train on, and shapes to measure on.

    Args:
        folder: meshes in it and below it, sorted; every n-th one is held out. None: procedural shapes.
        count: procedural shapes to train on.   held_out: shapes to measure on, at most half of a folder.
        closed: leave out the procedural shapes that are open.
    """
    if folder is None:
        seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + held_out)
        measured = [Source(random_shape(seed, closed=closed)[0], seed, closed) for seed in seeds]
        return [Source(f"shape {seed}", seed, closed) for seed in range(count)], measured
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if len(files) < 2:
        raise SystemExit(f"{folder} holds {len(files)} meshes ({', '.join(SUFFIXES)}); at least two are needed, one to measure on.")
    stride = max(2, len(files) // held_out)
    sources = [Source(str(p.relative_to(folder)), p) for p in files]
    measured = sources[::stride][:held_out]
    return [s for s in sources if s not in measured], measured


def prepare(sources: list[Source], kind: Kind[V], resolution: int, folder: Path, *, show: bool) -> list[tuple[Source, Path]]:
    """Convert all shapes that are not in the folder yet; those that cannot be converted are named and left out; none left ends the run.

    A file appears under its name only when it is whole, so a preparation that is killed continues where it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready = []
    for source in tqdm(sources, desc=f"{kind.name} at {resolution}³", unit="shape", disable=not show):
        path = folder / f"{source.key()}-{resolution}.npz"
        if not path.exists():
            try:
                volume = kind.convert(kind.mesh_of(source), resolution)
            except VoxgenError as error:
                warnings.warn(f"{source.name} is left out: {error}", stacklevel=2)
                continue
            if len(volume) == 0:
                warnings.warn(f"{source.name} is left out: none of the grid's cells holds anything of it.", stacklevel=2)
                continue
            kind.save(volume, path)
        ready.append((source, path))
    if not ready:
        raise SystemExit(f"none of the {len(sources)} shapes could be used: {', '.join(s.name for s in sources[:5])}")
    return ready


Axes = tuple[int, int, int]
"""The order in which the axes of a shape are taken."""


class VolumeDataset(Dataset[V], Generic[V]):
    """Volumes from files, each with its axes exchanged as the item says: six shapes from one, without a new conversion."""

    def __init__(self, paths: list[Path], kind: Kind[V], names: list[str] | None = None) -> None:
        self.paths, self.kind, self.names = paths, kind, names
        self.sizes = [len(kind.load(path)) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def draw(self, chance: torch.Generator) -> Axes:
        x, y, z = torch.randperm(3, generator=chance).tolist()
        return x, y, z

    def __getitem__(self, item: tuple[int, Axes]) -> V:  # pyright: ignore[reportIncompatibleMethodOverride]
        index, axes = item
        return self.kind.exchange_axes(self.kind.load(self.paths[index]), axes)

    def batched(self, volumes: list[V]) -> V:
        return self.kind.batched(volumes)


def exchanged(grid: VoxelGrid, axes: tuple[int, int, int]) -> tuple[VoxelGrid, Tensor]:
    """The mirrored or turned grid, whose new axis i is old axis `axes[i]`, and the old row of each of its cells."""
    coords = torch.cat((grid.coords[:, :1], grid.cells[:, list(axes)]), 1)
    return VoxelGrid.build(coords, resolution=grid.resolution, batch_size=grid.batch_size, frame=grid.frame)
