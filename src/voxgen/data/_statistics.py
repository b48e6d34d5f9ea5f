"""Mean and variance of each channel, value by value, without holding them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from voxgen.core import SparseTensor
from voxgen.core.checks import describe
from voxgen.core.errors import RangeError, ShapeError
from voxgen.layers import DiagonalGaussian
from voxgen.models import LatentNormalization
from voxgen.models.structure import DensePosterior


class Moments:
    """Count, mean and sum of squared deviations of each channel, in float64, merged a record at a time (Chan et al.)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | None = None
        self.squares: Tensor | None = None

    def add(self, record: Any) -> None:
        """The values of one latent: (n, c) rows, or (c, x, y, z)."""
        inner: Tensor | float = 0.0
        if isinstance(record, DiagonalGaussian):
            rows, inner = record.mean.feats, record.logvar.double().exp().sum(0)
        elif isinstance(record, DensePosterior):
            rows, inner = record.mean[0].flatten(1).T, record.logvar.double().exp().sum((0, 2, 3, 4))
        elif isinstance(record, SparseTensor):
            rows = record.feats
        elif isinstance(record, Tensor) and record.ndim == 4:
            rows = record.flatten(1).T
        else:
            raise RangeError(f"ShardDataset.stats: only latents have channels; got {describe(record)}.")
        values = rows.double()
        n = len(values)
        if n == 0:
            return
        mean = values.mean(0)
        squares = (values - mean).square().sum(0) + inner
        if self.mean is None or self.squares is None:
            self.count, self.mean, self.squares = n, mean, squares
            return
        if len(mean) != len(self.mean):
            raise ShapeError(f"ShardDataset.stats: all latents must have {len(self.mean)} channels; one has {len(mean)}.")
        total = self.count + n
        shift = mean - self.mean
        self.squares = self.squares + squares + shift.square() * (self.count * n / total)
        self.mean = self.mean + shift * (n / total)
        self.count = total

    def normalization(self, where: str) -> LatentNormalization:
        if self.mean is None or self.squares is None:
            raise RangeError(f"{where}: there are no values to take statistics of.")
        std = (self.squares / self.count).sqrt()
        still = (std == 0).nonzero()[:, 0].tolist()
        if still:
            raise RangeError(f"{where}: channels {still} do not vary, so they cannot be normalised.")
        return LatentNormalization(tuple(self.mean.tolist()), tuple(std.tolist()))
