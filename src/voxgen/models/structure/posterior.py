"""A diagonal Gaussian over a dense latent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.checks import require_same_device, require_tensor
from voxgen.core.errors import RangeError

__all__ = ["DensePosterior"]


@dataclass(frozen=True, eq=False)
class DensePosterior:
    """Mean and log variance of each value of a latent cube; `voxgen.layers.DiagonalGaussian` for sparse ones.

    Attributes:
        mean: (b, c, x, y, z) floats; also the mode.
        logvar: the same shape and dtype.
    Raises:
        ShapeError, DtypeError, DeviceError: the two do not fit.
    Example:
        >>> DensePosterior(torch.zeros(1, 4, 2, 2, 2), torch.zeros(1, 4, 2, 2, 2)).sample().shape
        torch.Size([1, 4, 2, 2, 2])
    """

    mean: Float[Tensor, "b c x y z"]
    logvar: Float[Tensor, "b c x y z"]

    def __post_init__(self) -> None:
        require_tensor("DensePosterior", "logvar", self.logvar, tuple(self.mean.shape), (self.mean.dtype,), hint="As the mean.")
        require_same_device("DensePosterior", mean=self.mean, logvar=self.logvar)

    @property
    def std(self) -> Float[Tensor, "b c x y z"]:
        return torch.exp(0.5 * self.logvar)

    def sample(
        self, generator: torch.Generator | None = None, noise: Float[Tensor, "b c x y z"] | None = None
    ) -> Float[Tensor, "b c x y z"]:
        """mean + std · noise; standard normal noise unless it is given. Differentiable in both parameters.

        Raises:
            RangeError: noise and a generator.   ShapeError, DtypeError: noise of another shape or dtype.
        """
        if noise is not None and generator is not None:
            raise RangeError("DensePosterior.sample: give noise or a generator to draw it, not both.")
        if noise is None:
            noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        require_tensor("DensePosterior.sample", "noise", noise, tuple(self.mean.shape), (self.mean.dtype,), hint="As the mean.")
        return self.mean + self.std * noise
