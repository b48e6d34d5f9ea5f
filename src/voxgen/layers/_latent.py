"""Latent head: features to a diagonal Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.checks import require_same_device, require_tensor
from voxgen.core.errors import RangeError

from ._checks import require_channels, require_input


@dataclass(frozen=True)
class DiagonalGaussian:
    """A normal distribution for each channel of each latent cell.

    Its divergence from the standard normal is `voxgen.losses.kl_divergence(mean.feats, logvar)`.

    Args:
        mean: (n cells, c).
        logvar: (n, c) logarithm of the variance, of the mean's dtype; never clamped.
    Raises:
        ShapeError, DtypeError, DeviceError: logvar does not fit the mean.
    Example:
        >>> posterior = LatentHead(64, 8)(x)                              # x: SparseTensor of 64 channels
        >>> z = posterior.sample(torch.Generator().manual_seed(0))
    """

    mean: SparseTensor
    logvar: Float[Tensor, "n c"]

    def __post_init__(self) -> None:
        where = "DiagonalGaussian"
        require_tensor(where, "logvar", self.logvar, tuple(self.mean.feats.shape), (self.mean.dtype,), hint="As the mean's features.")
        require_same_device(where, mean=self.mean.feats, logvar=self.logvar)

    @property
    def mode(self) -> SparseTensor:
        """The most likely value: the mean."""
        return self.mean

    @property
    def std(self) -> Float[Tensor, "n c"]:
        """Standard deviation, exp(logvar / 2)."""
        return torch.exp(0.5 * self.logvar)

    def sample(self, generator: torch.Generator | None = None, noise: Float[Tensor, "n c"] | None = None) -> SparseTensor:
        """mean + std · noise, differentiable in mean and logvar.

        Args:
            generator: draws the noise, one number after the other down the rows; on the mean's device.
            noise: (n, c) standard normal numbers, instead of drawing them: for noise that must not depend on the batch.
        Raises:
            RangeError: both are given.   ShapeError, DtypeError, DeviceError: noise that does not fit the mean.
        """
        where = "DiagonalGaussian.sample"
        mean = self.mean.feats
        if noise is None:
            noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        elif generator is not None:
            raise RangeError(f"{where}: give noise, or a generator to draw it, not both.")
        require_tensor(where, "noise", noise, tuple(mean.shape), (mean.dtype,), hint="As the mean's features.")
        require_same_device(where, mean=mean, noise=noise)
        return self.mean.with_feats(mean + self.std * noise)


class LatentHead(nn.Module):
    """A linear map to mean and log variance of the latents.

    Args:
        channels: C.
        latent_channels: L.
    Parameters:
        linear.weight: (2L, C), the mean's rows first.   linear.bias: (2L,).
    Raises:
        RangeError: a width below 1. By `forward`: ShapeError, DtypeError, DeviceError, x does not fit.
    Takes (n cells, C), returns a `DiagonalGaussian` of (n cells, L). Differentiable. Empty tensors are legal.
    Cost: 4C · L operations a cell.
    Source: TRELLIS.2, `to_latent` of the encoders; differences: none.
    Example:
        >>> posterior = LatentHead(64, 8)(x)                              # x: SparseTensor of 64 channels
        >>> posterior.mode.channels, posterior.logvar.shape[1]
        (8, 8)
    """

    def __init__(self, channels: int, latent_channels: int) -> None:
        super().__init__()
        require_channels("LatentHead", channels=channels, latent_channels=latent_channels)
        self.linear = nn.Linear(channels, 2 * latent_channels)

    def forward(self, x: SparseTensor) -> DiagonalGaussian:
        """The distribution at each cell of x."""
        require_input("LatentHead", x, self.linear.in_features, self.linear.weight)
        mean, logvar = self.linear(x.feats).chunk(2, 1)
        return DiagonalGaussian(x.with_feats(mean), logvar)
