"""Latents with pictures: what flows train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from voxgen.core import SparseTensor
from voxgen.models import LatentNormalization

Latent = Tensor | SparseTensor
"""Of one object: dense (c, x, y, z), or on the cells of a grid."""


@dataclass(frozen=True, eq=False)
class LatentBatch:
    """Normalised latents of b objects, and a picture of each.

    Attributes:
        latent: dense (b, c, x, y, z), or on cells.
        images: (b, 3, s, s) colours on black.
        extra: more channels on the same cells, which the flow reads and does not make; None for most flows.
    """

    latent: Latent
    images: UInt8[Tensor, "b 3 s s"]
    extra: SparseTensor | None = None

    def __len__(self) -> int:
        """Tokens."""
        return len(self.latent) if isinstance(self.latent, SparseTensor) else self.latent[:, 0].numel()

    def to(self, device: torch.device) -> LatentBatch:
        extra = None if self.extra is None else self.extra.to(device)
        return LatentBatch(self.latent.to(device), self.images.to(device), extra)

    def pictures(self) -> Float[Tensor, "b 3 s s"]:
        """Colours from 0 to 1."""
        return self.images.float() / 255

    @staticmethod
    def of(samples: Sequence[LatentBatch]) -> LatentBatch:
        """Several batches as one."""
        extra = [s.extra for s in samples if s.extra is not None]
        joined = SparseTensor.batched(extra) if extra else None
        return LatentBatch(_joined([s.latent for s in samples]), torch.cat([s.images for s in samples]), joined)


class Pictures(Protocol):
    """(n, v, 3, s, s) uint8; a tensor is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, place: tuple[int, int], /) -> Tensor: ...


class MappedPictures:
    """Pictures in a .npy file, read when they are asked for; other processes map the file, too."""

    def __init__(self, path: Path) -> None:
        self.path, self.array = path, np.load(path, mmap_mode="r")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __getitem__(self, place: tuple[int, int], /) -> Tensor:
        return torch.from_numpy(self.array[place].copy())

    def __reduce__(self) -> tuple[type[MappedPictures], tuple[Path]]:
        return MappedPictures, (self.path,)


class LatentDataset(Dataset[LatentBatch]):
    """Latents in memory, and pictures from a file that is mapped: what was read stays in memory while there is room.

    A picture is drawn for each object of each batch. Axes are not exchanged: a picture would show another object.

    Args:
        latents: normalised, one for each object.
        images: (m, v, 3, s, s) uint8, v pictures of each of more objects.   rows: which of them are those of the objects.
        names: of the objects.
        extra: see `LatentBatch`.
    """

    def __init__(
        self,
        latents: Sequence[Latent],
        images: Pictures,
        rows: Sequence[int],
        names: Sequence[str],
        extra: Sequence[SparseTensor] | None = None,
    ) -> None:
        self.latents, self.images, self.rows, self.names, self.extra = latents, images, rows, names, extra
        self.sizes = [tokens(latent) for latent in latents]

    def __len__(self) -> int:
        return len(self.latents)

    def draw(self, chance: torch.Generator) -> int:
        """Which picture."""
        return int(torch.randint(self.images.shape[1], (), generator=chance))

    def __getitem__(self, item: tuple[int, int]) -> LatentBatch:  # pyright: ignore[reportIncompatibleMethodOverride]
        index, view = item
        latent = self.latents[index]
        extra = None if self.extra is None else self.extra[index]
        return LatentBatch(latent[None] if isinstance(latent, Tensor) else latent, self.images[self.rows[index], view][None], extra)

    def batched(self, samples: list[LatentBatch]) -> LatentBatch:
        return LatentBatch.of(samples)


def tokens(latent: Latent) -> int:
    """Of one object: its cells, or those of the cube."""
    return len(latent) if isinstance(latent, SparseTensor) else latent[0].numel()


def measured_over(latents: Sequence[Latent]) -> LatentNormalization:
    """Mean and standard deviation of each channel of sparse latents. Dense ones stay as they are: their autoencoder scales them."""
    sparse = [latent for latent in latents if isinstance(latent, SparseTensor)]
    if sparse:
        return LatentNormalization.of(sparse)
    channels = len(latents[0])
    return LatentNormalization((0.0,) * channels, (1.0,) * channels)


def normalized(latent: Latent, normalization: LatentNormalization) -> Latent:
    if isinstance(latent, SparseTensor):
        return normalization.normalize(latent)
    mean, std = _constants(normalization, latent)
    return (latent - mean) / std


def denormalized(latent: Latent, normalization: LatentNormalization) -> Latent:
    """Inverse of `normalized`; also of dense batches (b, c, x, y, z)."""
    if isinstance(latent, SparseTensor):
        return normalization.denormalize(latent)
    mean, std = _constants(normalization, latent)
    return latent * std + mean


def _constants(normalization: LatentNormalization, like: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor((normalization.mean, normalization.std)).to(like).reshape(2, -1, 1, 1, 1).unbind()
    return mean, std


def _joined(latents: list[Latent]) -> Latent:
    sparse = [latent for latent in latents if isinstance(latent, SparseTensor)]
    return SparseTensor.batched(sparse) if sparse else torch.cat([latent for latent in latents if isinstance(latent, Tensor)])
