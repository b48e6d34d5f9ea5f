"""Latents and pictures of a prepared folder, or of procedural assets that are prepared first."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from voxgen.core import Frame, SparseTensor, VoxelGrid
from voxgen.core.atomic import atomic_write
from voxgen.data import ConditionImages, ImagesStage, Manifest, ShardDataset, Stage, prepare, procedural_sources
from voxgen.layers import DiagonalGaussian
from voxgen.models.image_condition import prepare_image

from .drawings import Drawing
from .encodings import Encoding
from .flow_measure import HeldOut
from .latents import Latent, LatentDataset, MappedPictures, measured_over, normalized


@dataclass(frozen=True)
class Wanted:
    """Latents of one autoencoder.

    Attributes:
        name: of its file among what is kept in --out.   file: of the autoencoder.   encoding: see `Encoding`.
        field: where the latents themselves are in the folder; None: they are made here.
    """

    name: str
    file: Path
    encoding: Encoding
    field: str | None = None

    @property
    def reads(self) -> str:
        return self.encoding.field if self.field is None else self.field


def asset_options(parser: argparse.ArgumentParser) -> None:
    """Which assets to train on, and what is kept of them."""
    add = parser.add_argument
    add("--data", type=Path, help="folder that `voxgen prepare` made; default: procedural assets, prepared in --out")
    add("--assets", type=int, default=300, help="procedural assets")
    add("--views", type=int, default=8, help="pictures of each procedural asset")
    add("--cache", type=Path, help="folder for latents and crops of pictures, which runs on the same data share; default: --out")
    add("--held-out", type=int, default=24, help="assets to measure on, which are not trained on")


def prepared_folder(arguments: argparse.Namespace, stages: Sequence[Stage], *, workers: int = 1, show: bool) -> Path:
    """The folder of --data, or one of procedural assets in --out, to which these stages were applied."""
    if arguments.data is not None:
        return arguments.data
    folder, several = arguments.out / "data", workers > 1
    engine = "processes" if several else "here"
    prepare(procedural_sources(arguments.assets), folder, stages, workers=workers if several else None, engine=engine, progress=show)
    return folder


def opened(arguments: argparse.Namespace, wanted: Sequence[Wanted], *, show: bool) -> ShardDataset:
    """What latents are made from, and pictures, of --data or of procedural assets in --out."""
    stages = {item.reads: item.encoding.stage for item in wanted}
    pictures = ImagesStage(arguments.views, 2 * arguments.picture_size)
    folder = prepared_folder(arguments, [*stages.values(), pictures], workers=arguments.workers_to_prepare, show=show)
    return ShardDataset(folder, [*stages, "images"])


def split(data: ShardDataset, held_out: int) -> tuple[list[int], list[int]]:
    """Assets to train on, and held-out ones, at most half: by name, as the autoencoders hold out, so that no network saw them."""
    place = {name: i for i, name in enumerate(data.names)}
    seen, unseen = data.split(min(held_out, len(data) // 2))
    return [place[name] for name in seen.names], [place[name] for name in unseen.names]


def latents_of(data: ShardDataset, wanted: Wanted, folder: Path, *, show: bool) -> list[Latent]:
    """Of all assets, read or made; what was made is kept in the folder for the next run."""
    if wanted.field is not None:
        return [_plain(data.read(i, wanted.field)) for i in tqdm(range(len(data)), desc=wanted.name, unit="asset", disable=not show)]
    key = _key(data, wanted)
    path = folder / f"{wanted.name}-{_digest([key])[:12]}.pt"
    if path.exists() and (found := torch.load(path, weights_only=True))["key"] == key:
        return _unpacked(found)
    made = []
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for i in tqdm(range(len(data)), desc=f"latents of {wanted.file.name}", unit="asset", disable=not show):
            made.append(wanted.encoding.encode(data.read(i, wanted.reads)))
    with atomic_write(path) as file:
        torch.save({"key": key, **_packed(made)}, file)
    return made


def pictures_of(data: ShardDataset, size: int, folder: Path, *, show: bool) -> MappedPictures:
    """(n, v, 3, size, size) uint8, cropped as TRELLIS.2 crops for training, in a file that is mapped.

    Where assets have different numbers of pictures the least of them counts.
    """
    path, count = folder / f"pictures-{size}.npy", int(data.sizes("images").min())
    key = {"names": _digest(data.names), "data": str(data.folder.resolve()), "views": count, "prepared": _prepared(data, "images")}
    note = path.with_suffix(".json")
    if not (path.exists() and note.exists() and json.loads(note.read_text()) == key):
        note.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}-{os.getpid()}.tmp")  # a run that has the old one mapped keeps it
        images = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (len(data), count, 3, size, size))
        for i in tqdm(range(len(data)), desc=f"pictures of {size} pixels", unit="asset", disable=not show):
            shots: ConditionImages = data.read(i, "images")
            for j in range(count):
                seen = prepare_image(shots.images[j].numpy(), size=size, training=True, assume_foreground=True)
                images[i, j] = (255 * seen).round().byte().numpy()
        images.flush()
        os.replace(unfinished, path)
        with atomic_write(note, "w") as file:
            json.dump(key, file)
    return MappedPictures(path)


def gathered(
    arguments: argparse.Namespace, wanted: Wanted, shape: Wanted | None = None, *, drawing: Drawing | None, show: bool
) -> tuple[LatentDataset, HeldOut]:
    """What a flow trains on, and what it is measured on.

    Args:
        arguments: of a `FlowTask`.
        wanted: what the flow makes.   shape: what it reads besides, on the same cells.
        drawing: of what it makes.
    """
    data = opened(arguments, [wanted] if shape is None else [wanted, shape], show=show)
    latents = latents_of(data, wanted, arguments.cache, show=show)
    shapes = None if shape is None else cast(list[SparseTensor], latents_of(data, shape, arguments.cache, show=show))
    if shapes is not None:
        _require_same_cells(data.names, latents, shapes)
    images = pictures_of(data, arguments.picture_size, arguments.cache, show=show)
    training, measured = (kept(latents, part, arguments.max_tokens) for part in split(data, arguments.held_out))
    if not training or not measured:
        raise SystemExit(f"{data.folder}: {len(training)} assets to train on and {len(measured)} to measure on; one of either is needed.")
    normalization = wanted.encoding.normalization or measured_over([latents[i] for i in training])
    more = None
    if shape is not None and shapes is not None:
        more = shape.encoding.normalization or measured_over([shapes[i] for i in training])

    def part(indices: list[int]) -> LatentDataset:
        extra = None if more is None or shapes is None else [more.normalize(shapes[i]) for i in indices]
        names = [data.names[i] for i in indices]
        return LatentDataset([normalized(latents[i], normalization) for i in indices], images, indices, names, extra)

    return part(training), HeldOut(part(measured), normalization, drawing, more)


def kept(latents: Sequence[Latent], indices: Sequence[int], most: int) -> list[int]:
    """Those with some tokens, and at most so many."""
    return [i for i in indices if not isinstance(latents[i], SparseTensor) or 0 < len(latents[i]) <= most]


def _require_same_cells(names: Sequence[str], latents: Sequence[Latent], shapes: Sequence[SparseTensor]) -> None:
    for name, latent, shape in zip(names, latents, shapes, strict=True):
        if not isinstance(latent, SparseTensor) or not latent.grid.same_cells(shape.grid):
            raise SystemExit(f"{name}: the latent of the shape is not on the cells of the other: {shape!r} and {latent!r}.")


def _plain(record: Latent | DiagonalGaussian) -> Latent:
    return (record.mean if isinstance(record, DiagonalGaussian) else record).to(torch.float32)


def _packed(latents: Sequence[Latent]) -> dict[str, Any]:
    """Plain tensors, which load without running code."""
    if isinstance(latents[0], Tensor):
        return {"dense": list(latents)}
    sparse = cast(Sequence[SparseTensor], latents)
    return {"feats": [z.feats for z in sparse], "cells": [z.grid.cells for z in sparse], "resolution": sparse[0].grid.resolution[0]}


def _unpacked(found: Mapping[str, Any]) -> list[Latent]:
    if "dense" in found:
        return found["dense"]
    side = found["resolution"]
    frame = Frame.unit(side)
    coords = [torch.nn.functional.pad(cells, (1, 0)) for cells in found["cells"]]
    grids = [VoxelGrid.from_sorted(c, resolution=side, batch_size=1, frame=frame) for c in coords]
    return [SparseTensor(grid, feats) for grid, feats in zip(grids, found["feats"], strict=True)]


def _key(data: ShardDataset, wanted: Wanted) -> str:
    """Changes with the autoencoder, the assets, and how they were prepared."""
    weights = hashlib.sha256(wanted.file.read_bytes()).hexdigest()
    prepared = _prepared(data, wanted.reads)
    return f"{weights} {wanted.reads} {wanted.encoding.resolution} {data.folder.resolve()} {_digest(data.names)} {prepared}"


def _prepared(data: ShardDataset, field: str) -> str:
    """Of the settings that a field was prepared with, and the checksums of its records: a folder that was prepared anew has another."""
    about = Manifest.read(data.folder).fields[field]
    indexes = sorted((data.folder / field).glob("*.jsonl"))
    return _digest([about.kind, json.dumps(about.config, sort_keys=True), *(path.read_text(encoding="utf-8") for path in indexes)])


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
