"""LatentVAETask: an autoencoder for whose latents a generator is trained afterwards, from meshes or from what `voxgen prepare` made."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from voxgen.core import TriMesh, VoxelGrid
from voxgen.data import AssetInput, ProceduralSource, ShardDataset
from voxgen.representations import OVoxel

from .data import Axes, Kind, Volume
from .run import Run
from .task import Prepared
from .vae import Shapes, VAETask

V = TypeVar("V", bound=Volume)
ORDERS: dict[str, tuple[Axes, ...]] = {
    "any": ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)),
    "upright": ((0, 1, 2), (2, 1, 0)),
    "none": ((0, 1, 2),),
}
"""Orders of the axes that shapes are seen in: all; those that leave y, which points up, where it is; the given one."""
NORMALIZED_BY = 200
"""Shapes over which mean and standard deviation of the latents are taken."""
SURFACE = 3
"""Cells that a box is expected to hold, over those of one of its faces: what batches are filled by."""
STEP = 8
"""Boxes start at multiples of it, as the cells of a latent do at any factor up to it."""
FIELD = "ovoxel"
"""Of a prepared folder, unless it is told otherwise."""


Seen = tuple[Axes, int]
"""Order of the axes, and a number from which the place of a box follows."""


class SeenVolumes(Dataset[V], Generic[V]):
    """Volumes by number, each with its axes exchanged as the item says, whole or cut to a box.

    Args:
        read: number → volume; travels to the processes that load data.   sizes: of each.
        kind: how axes are exchanged and volumes batched.   orders: see `ORDERS`.
        crop: side of boxes in cells, and how to keep some rows of a volume; None: volumes are whole.
    """

    def __init__(
        self,
        read: Callable[[int], V],
        sizes: Sequence[int],
        kind: Kind[V],
        orders: Sequence[Axes],
        crop: tuple[int, Callable[[V, Tensor], V]] | None = None,
    ) -> None:
        self.read, self.kind, self.orders, self.crop = read, kind, orders, crop
        self.sizes = sizes if crop is None else [min(size, SURFACE * crop[0] ** 2) for size in sizes]

    def __len__(self) -> int:
        return len(self.sizes)

    def draw(self, chance: torch.Generator) -> Seen:
        order = self.orders[int(torch.randint(len(self.orders), (), generator=chance))]
        return order, int(torch.randint(1 << 31, (), generator=chance)) if self.crop else 0

    def __getitem__(self, item: tuple[int, Seen]) -> V:  # pyright: ignore[reportIncompatibleMethodOverride]
        index, (axes, place) = item
        volume = self.read(index)
        if self.crop is not None:
            side, select = self.crop
            volume = select(volume, inside_box(volume.grid, side, torch.Generator().manual_seed(place)))
        return volume if axes == (0, 1, 2) else self.kind.exchange_axes(volume, axes)

    def batched(self, volumes: list[V]) -> V:
        return self.kind.batched(volumes)


def inside_box(grid: VoxelGrid, side: int, chance: torch.Generator) -> Tensor:
    """(n,) bool: the cells of a box around a cell drawn at random, which starts at a multiple of `STEP`."""
    cells = grid.cells
    middle = cells[int(torch.randint(len(cells), (), generator=chance))]
    low = (middle - torch.randint(side - STEP + 1, (3,), generator=chance).int()).div(STEP, rounding_mode="floor") * STEP
    return ((cells >= low) & (cells < low + side)).all(1)


@dataclass(frozen=True)
class FromFiles(Generic[V]):
    """Volumes of files by number."""

    paths: Sequence[Path]
    load: Callable[[Path], V]

    def __call__(self, index: int) -> V:
        return self.load(self.paths[index])


@dataclass(frozen=True)
class FromShards(Generic[V]):
    """Volumes of a prepared folder by number."""

    data: ShardDataset
    field: str
    read: Callable[[OVoxel], V]

    def __call__(self, index: int) -> V:
        return self.read(self.data.read(index, self.field))


@dataclass(frozen=True)
class ShardSource:
    """A held-out asset of a prepared folder. It is compared with its mesh where a recipe makes that again, else with its O-Voxel's surface.

    Attributes:
        name: of the asset, as the folder knows it.   ovoxel: of it.
    """

    name: str
    ovoxel: OVoxel
    origin: None = None

    def mesh(self, fill: float = 1.0) -> TriMesh:
        """Whoever prepared the folder has settled how much of the cube the shape fills."""
        del fill
        made = re.fullmatch(r"procedural-(\d+)-(\d+)", self.name)
        return AssetInput(ProceduralSource(int(made[2]), int(made[1]))).mesh if made else self.ovoxel.to_mesh()


def is_prepared(folder: Path | None) -> bool:
    """Whether a folder is one of `voxgen prepare`."""
    return folder is not None and (folder / "manifest.json").exists()


@dataclass(frozen=True, kw_only=True)
class LatentVAETask(VAETask):
    """An autoencoder that a generator builds on.

    Its --data may be a folder of `voxgen prepare --ovoxel`; which of its assets are held out follows from their names. Before a network is
    written, mean and standard deviation of the latents of training shapes are put into it, which generators work with.

    Attributes:
        read: prepared O-Voxel → volume.
        normalize: (network, volumes on its device) → puts mean and standard deviation of their latents into the network.
        sizes: cells of prepared O-Voxels → sizes of the volumes.
        select: (volume, rows as a mask) → those cells alone; None: there is no --crop.
    """

    FIXED: ClassVar[tuple[str, ...]] = (*VAETask.FIXED, "field", "axes", "crop")

    read: Callable[[OVoxel], Any]
    normalize: Callable[[Any, Iterator[Any]], None]
    sizes: Callable[[list[int]], list[int]] = list
    select: Callable[[Any, Tensor], Any] | None = None

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        super().arguments(parser)
        add = parser.add_argument
        add("--field", default=FIELD, help="of a folder of `voxgen prepare` as --data: the field with O-Voxels")
        add("--axes", choices=tuple(ORDERS), default="any", help="exchange the axes of shapes: all six orders, the two with y up, none")
        if self.select is not None:
            add("--crop", type=int, default=0, help=f"train on boxes of so many cells a side, a multiple of {STEP}; 0: whole shapes")
        else:
            parser.set_defaults(crop=0)

    def settle(self, arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
        super().settle(arguments, parser)
        if arguments.crop < 0 or arguments.crop % STEP:
            parser.error(f"--crop must be a multiple of {STEP}, or 0; got {arguments.crop}")

    def prepare(self, arguments: argparse.Namespace, *, show: bool) -> Prepared[Any]:
        if is_prepared(arguments.data):
            return self._prepared(arguments)
        found = super().prepare(arguments, show=show)
        training: Any = found.training
        volumes = self._seen(FromFiles(training.paths, self.kind.load), training.sizes, arguments)
        return Prepared(volumes, found.held_out)

    def _seen(self, read: Callable[[int], Any], sizes: Sequence[int], arguments: argparse.Namespace) -> SeenVolumes[Any]:
        crop = (arguments.crop, self.select) if arguments.crop and self.select is not None else None
        return SeenVolumes(read, sizes, self.kind, ORDERS[arguments.axes], crop)

    def _prepared(self, arguments: argparse.Namespace) -> Prepared[Any]:
        """The O-Voxels of held-out assets are written where those of meshes would be."""
        field = arguments.field
        data = ShardDataset(arguments.data, [field], check=False)
        seen, unseen = data.split(min(arguments.held_out, len(data) // 2))
        folder = arguments.out / self.kind.name.lower().replace("-", "")
        folder.mkdir(parents=True, exist_ok=True)
        measured = []
        for index, name in enumerate(unseen.names):
            ovoxel = unseen.read(index, field)
            self.kind.save(self.read(ovoxel), path := folder / f"{name.replace('/', '-')}.npz")
            measured.append((ShardSource(name, ovoxel), path))
        sizes = self.sizes(seen.sizes(field).tolist())
        return Prepared(self._seen(FromShards(seen, field, self.read), sizes, arguments), measured)

    def finish(self, run: Run, held_out: Shapes) -> dict[str, float]:
        volumes: Any = run.prepared.training
        chosen = range(0, len(volumes), max(1, len(volumes) // NORMALIZED_BY))
        network = run.averaged
        network.eval()
        with torch.no_grad():
            self.normalize(network, (volumes.read(i).to(run.accelerator.device) for i in chosen))
        return super().finish(run, held_out)
