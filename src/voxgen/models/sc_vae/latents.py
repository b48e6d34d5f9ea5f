"""Normalisation of latents, and the constants of TRELLIS.2's released autoencoders."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from voxgen.core import SparseTensor
from voxgen.core.errors import RangeError, ShapeError

L = TypeVar("L", SparseTensor, Tensor)


@dataclass(frozen=True)
class LatentNormalization:
    """(z - mean) / std for each channel, and back. Generators work on normalised latents, decoders on the others.

    Args:
        mean: one number a channel.
        std: one positive number a channel.
    Raises:
        RangeError: numbers that are not finite, or a std that is not positive.   ShapeError: different lengths.
    Example:
        >>> z = SparseTensor(latent_grid, torch.randn(len(latent_grid), 32))
        >>> x = SHAPE_LATENTS.normalize(z)
        >>> torch.allclose(SHAPE_LATENTS.denormalize(x).feats, z.feats, atol=1e-5)
        True
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(v) for v in self.mean))
        object.__setattr__(self, "std", tuple(float(v) for v in self.std))
        if len(self.mean) != len(self.std):
            raise ShapeError(f"LatentNormalization: mean and std must have one length; got {len(self.mean)} and {len(self.std)}.")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or not all(v > 0 for v in self.std):
            raise RangeError("LatentNormalization: mean must be finite, std finite and positive.")

    @staticmethod
    def of(latents: Iterable[SparseTensor]) -> LatentNormalization:
        """Mean and standard deviation of each channel over all cells of some latents, gathered in float64, one latent at a time.

        Raises:
            RangeError: fewer than two cells, a channel that is the same everywhere, numbers that are not finite.
            ShapeError: latents of different widths.
        Example:
            >>> found = LatentNormalization.of([SparseTensor(latent_grid, 2 * torch.randn(len(latent_grid), 4) + 1)])
            >>> found.channels
            4
        """
        where, count = "LatentNormalization.of", 0
        mean = squares = torch.zeros(0, dtype=torch.float64)
        for z in latents:
            rows = z.feats.detach().to("cpu", torch.float64)
            if count == 0:
                mean = squares = rows.new_zeros(z.channels)
            if z.channels != len(mean):
                raise ShapeError(f"{where}: latents must have one width; got {len(mean)} and {z.channels}.")
            if len(rows) == 0:
                continue
            own, total = rows.mean(0), count + len(rows)
            squares = squares + (rows - own).square().sum(0) + (own - mean).square() * (count * len(rows) / total)
            mean, count = mean + (own - mean) * (len(rows) / total), total
        if count < 2:
            raise RangeError(f"{where}: at least two cells are needed; got {count}.")
        return LatentNormalization(tuple(mean.tolist()), tuple((squares / count).sqrt().tolist()))

    @property
    def channels(self) -> int:
        return len(self.mean)

    def normalize(self, z: L) -> L:
        """What a decoder reads → what a generator makes: a sparse latent, or a dense one (b, c, ...)."""
        mean, std = self._constants("normalize", z)
        return z.with_feats((z.feats - mean) / std) if isinstance(z, SparseTensor) else (z - mean) / std

    def denormalize(self, x: L) -> L:
        """What a generator makes → what a decoder reads."""
        mean, std = self._constants("denormalize", x)
        return x.with_feats(x.feats * std + mean) if isinstance(x, SparseTensor) else x * std + mean

    def _constants(self, where: str, z: SparseTensor | Tensor) -> tuple[Tensor, Tensor]:
        rows = z.feats if isinstance(z, SparseTensor) else z
        found = rows.shape[1] if rows.ndim > 1 else 0
        if found != self.channels:
            raise ShapeError(f"LatentNormalization.{where}: the latent must have {self.channels} channels; got {found}.")
        mean, std = torch.tensor((self.mean, self.std), dtype=rows.dtype, device=rows.device).reshape(2, -1, *[1] * (rows.ndim - 2))
        return mean, std


# fmt: off
SHAPE_LATENTS = LatentNormalization(
    mean=(
        0.781296, 0.018091, -0.495192, -0.558457, 1.060530, 0.093252, 1.518149, -0.933218,
        -0.732996, 2.604095, -0.118341, -2.143904, 0.495076, -2.179512, -2.130751, -0.996944,
        0.261421, -2.217463, 1.260067, -0.150213, 3.790713, 1.481266, -1.046058, -1.523667,
        -0.059621, 2.220780, 1.621212, 0.877230, 0.567247, -3.175944, -3.186688, 1.578665,
    ),
    std=(
        5.972266, 4.706852, 5.445010, 5.209927, 5.320220, 4.547237, 5.020802, 5.444004,
        5.226681, 5.683095, 4.831436, 5.286469, 5.652043, 5.367606, 5.525084, 4.730578,
        4.805265, 5.124013, 5.530808, 5.619001, 5.103930, 5.417670, 5.269677, 5.547194,
        5.634698, 5.235274, 6.110351, 5.511298, 6.237273, 4.879207, 5.347008, 5.405691,
    ),
)
"""Of the latents of TRELLIS.2's released shape autoencoder."""

MATERIAL_LATENTS = LatentNormalization(
    mean=(
        3.501659, 2.212398, 2.226094, 0.251093, -0.026248, -0.687364, 0.439898, -0.928075,
        0.029398, -0.339596, -0.869527, 1.038479, -0.972385, 0.126042, -1.129303, 0.455149,
        -1.209521, 2.069067, 0.544735, 2.569128, -0.323407, 2.293000, -1.925608, -1.217717,
        1.213905, 0.971588, -0.023631, 0.106750, 2.021786, 0.250524, -0.662387, -0.768862,
    ),
    std=(
        2.665652, 2.743913, 2.765121, 2.595319, 3.037293, 2.291316, 2.144656, 2.911822,
        2.969419, 2.501689, 2.154811, 3.163343, 2.621215, 2.381943, 3.186697, 3.021588,
        2.295916, 3.234985, 3.233086, 2.260140, 2.874801, 2.810596, 3.292720, 2.674999,
        2.680878, 2.372054, 2.451546, 2.353556, 2.995195, 2.379849, 2.786195, 2.775190,
    ),
)
"""Of the latents of TRELLIS.2's released material autoencoder."""
# fmt: on
