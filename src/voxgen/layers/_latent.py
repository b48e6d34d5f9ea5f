"""Latent head: features to a diagonal Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.checks import require_int, require_same_device, require_tensor
from voxgen.core.errors import RangeError

from ._checks import require_input


@dataclass(frozen=True)
class DiagonalGaussian:
    mean: SparseTensor
    logvar: Float[Tensor, "n c"]

    def __post_init__(self) -> None:
        where = "DiagonalGaussian"
        require_tensor(where, "logvar", self.logvar, tuple(self.mean.feats.shape), (self.mean.dtype,), hint="As the mean's features.")
        require_same_device(where, mean=self.mean.feats, logvar=self.logvar)

    @property
    def mode(self) -> SparseTensor:
        return self.mean

    @property
    def std(self) -> Float[Tensor, "n c"]:
        return torch.exp(0.5 * self.logvar)

    def sample(self, generator: torch.Generator | None = None, noise: Float[Tensor, "n c"] | None = None) -> SparseTensor:
        where = "DiagonalGaussian.sample"
        mean = self.mean.feats
        if noise is None:
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        elif generator is not None:
            raise RangeError(f"{where}: give noise or a generator to draw it, not both.")
        require_tensor(where, "noise", noise, tuple(mean.shape), (mean.dtype,), hint="As the mean's features.")
        require_same_device(where, mean=mean, noise=noise)
        return self.mean.with_feats(mean + self.std * noise)


class LatentHead(nn.Module):
    def __init__(self, channels: int, latent_channels: int) -> None:
        super().__init__()
        self.latent_channels = require_int("LatentHead", "latent_channels", latent_channels, 1)
        self.linear = nn.Linear(channels, 2 * self.latent_channels)

    def forward(self, x: SparseTensor) -> DiagonalGaussian:
        require_input("LatentHead", x, self.linear.in_features, self.linear.weight)
        mean, logvar = self.linear(x.feats).chunk(2, 1)
        return DiagonalGaussian(x.with_feats(mean), logvar)
