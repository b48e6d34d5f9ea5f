"""LatentVAETask: an autoencoder for whose latents a generator is trained afterwards, from meshes or from what `voxgen prepare` made."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch.utils.data import Dataset

from voxgen.core import TriMesh
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
FIELD = "ovoxel"
"""Of a prepared folder, unless it is told otherwise."""


class SeenVolumes(Dataset[V], Generic[V]):
    """Volumes by number, each with its axes exchanged as the item says.

    Args:
        read: number → volume; travels to the processes that load data.   sizes: of each.
        kind: how axes are exchanged and volumes batched.   orders: see `ORDERS`.
    """

    def __init__(self, read: Callable[[int], V], sizes: Sequence[int], kind: Kind[V], orders: Sequence[Axes]) -> None:
        self.read, self.sizes, self.kind, self.orders = read, sizes, kind, orders

    def __len__(self) -> int:
        return len(self.sizes)

    def draw(self, chance: torch.Generator) -> Axes:
        return self.orders[int(torch.randint(len(self.orders), (), generator=chance))]

    def __getitem__(self, item: tuple[int, Axes]) -> V:  # pyright: ignore[reportIncompatibleMethodOverride]
        index, axes = item
        volume = self.read(index)
        return volume if axes == (0, 1, 2) else self.kind.exchange_axes(volume, axes)

    def batched(self, volumes: list[V]) -> V:
        return self.kind.batched(volumes)


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
    """

    FIXED: ClassVar[tuple[str, ...]] = (*VAETask.FIXED, "field", "axes")

    read: Callable[[OVoxel], Any]
    normalize: Callable[[Any, Iterator[Any]], None]
    sizes: Callable[[list[int]], list[int]] = list

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        super().arguments(parser)
        add = parser.add_argument
        add("--field", default=FIELD, help="of a folder of `voxgen prepare` as --data: the field with O-Voxels")
        add("--axes", choices=tuple(ORDERS), default="any", help="exchange the axes of shapes: all six orders, the two with y up, none")

    def prepare(self, arguments: argparse.Namespace, *, show: bool) -> Prepared[Any]:
        orders = ORDERS[arguments.axes]
        if is_prepared(arguments.data):
            return self._prepared(arguments, orders)
        found = super().prepare(arguments, show=show)
        training: Any = found.training
        return Prepared(SeenVolumes(FromFiles(training.paths, self.kind.load), training.sizes, self.kind, orders), found.held_out)

    def _prepared(self, arguments: argparse.Namespace, orders: Sequence[Axes]) -> Prepared[Any]:
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
        return Prepared(SeenVolumes(FromShards(seen, field, self.read), sizes, self.kind, orders), measured)

    def finish(self, run: Run, held_out: Shapes) -> dict[str, float]:
        volumes: Any = run.prepared.training
        chosen = range(0, len(volumes), max(1, len(volumes) // NORMALIZED_BY))
        network = run.averaged
        network.eval()
        with torch.no_grad():
            self.normalize(network, (volumes.read(i).to(run.accelerator.device) for i in chosen))
        return super().finish(run, held_out)
