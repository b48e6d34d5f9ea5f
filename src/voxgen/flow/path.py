"""RectifiedFlow: the straight path from data to noise, and what a network learns of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core import SparseTensor
from voxgen.core.batching import batch_index
from voxgen.core.errors import RangeError, ShapeError

from ._batch import B, Batch, batch_size, combine, noise_like, require_batch, require_times, spread, values
from .times import LogitNormalTimes, TimeDistribution

Velocity: TypeAlias = Callable[[Any, Tensor, Any], Any]
"""A network: noised batch, (b,) float32 times as `RectifiedFlow.network_times` gives them, condition → velocity, a batch like the first."""


@dataclass(frozen=True, eq=False)
class FlowLoss:
    """What `RectifiedFlow.loss` gives.

    Attributes:
        total: the mean that is trained on.
        per_sample: (b,) mean squared error of each sample, without graph; NaN for one without values.
        times: (b,) where on the path each sample was.
    """

    total: Float[Tensor, ""]
    per_sample: Float[Tensor, " b"]
    times: Float[Tensor, " b"]


@dataclass(frozen=True)
class RectifiedFlow:
    """The path x_t = (1 − t) x₀ + (σ + (1 − σ) t) ε with velocity v = (1 − σ) ε − x₀: t = 0 is data, t = 1 is noise.

    All methods take dense batches (b, ...) or `SparseTensor`s, and one time a sample.

    Args:
        sigma_min: σ, the noise that is left at t = 0. TRELLIS and TRELLIS.2: 1e-5; Direct3D-S2: 0.
        time_scale: what the network is given is t · time_scale.
    Raises:
        RangeError: sigma_min outside [0, 1), or a time_scale that is not positive.
        Methods: ShapeError, DtypeError, DeviceError: batches that do not fit each other.   RangeError: a time outside [0, 1].
    Differentiable in batches and times.   Half types: sums in float32, results in the dtype of the batch.
    Source: X. Liu et al., Flow straight and fast (arXiv 2209.03003); constants of TRELLIS (arXiv 2412.01506).
    Example:
        >>> flow = RectifiedFlow()
        >>> x, v = flow.noised(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, -1.0]]), torch.tensor([0.25]))
        >>> [round(float(n), 6) for n in x[0]], [round(float(n), 6) for n in v[0]]
        ([0.875004, 1.249993], [-0.500005, -2.99999])
    """

    sigma_min: float = 1e-5
    time_scale: float = 1000.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_min < 1:
            raise RangeError(f"RectifiedFlow: sigma_min must lie in [0, 1); got {self.sigma_min}.")
        if not (math.isfinite(self.time_scale) and self.time_scale > 0):
            raise RangeError(f"RectifiedFlow: time_scale must be positive and finite; got {self.time_scale}.")

    def noised(self, data: B, noise: B, t: Tensor) -> tuple[B, B]:
        """The point of the path at t (b,) and its velocity, the target of the network."""
        where = "RectifiedFlow.noised"
        require_batch(where, "data", data)
        require_batch(where, "noise", noise, data)
        require_times(where, t, data)
        time, s = spread(t, data), self.sigma_min
        x = combine(data, lambda d, e: ((1 - time) * d + (s + (1 - s) * time) * e).to(d.dtype), noise)
        return x, combine(data, lambda d, e: (1 - s) * e - d, noise)

    def data(self, x: B, velocity: B, t: Tensor) -> B:
        """x₀ = (1 − σ) x_t − (σ + (1 − σ) t) v."""
        time, s = self._at("RectifiedFlow.data", x, velocity, t), self.sigma_min
        return combine(x, lambda a, v: ((1 - s) * a - (s + (1 - s) * time) * v).to(a.dtype), velocity)

    def noise(self, x: B, velocity: B, t: Tensor) -> B:
        """ε = x_t + (1 − t) v."""
        time = self._at("RectifiedFlow.noise", x, velocity, t)
        return combine(x, lambda a, v: (a + (1 - time) * v).to(a.dtype), velocity)

    def velocity(self, x: B, data: B, t: Tensor) -> B:
        """v = ((1 − σ) x_t − x₀) / (σ + (1 − σ) t), the inverse of `data`. Infinite at t = 0 where σ = 0."""
        time, s = self._at("RectifiedFlow.velocity", x, data, t), self.sigma_min
        return combine(x, lambda a, d: (((1 - s) * a - d) / (s + (1 - s) * time)).to(a.dtype), data)

    def network_times(self, t: Tensor) -> Tensor:
        """What the network is given: (b,) float32."""
        return (t.double() * self.time_scale).float()

    def loss(
        self,
        model: Velocity,
        data: B,
        condition: Any = None,
        *,
        times: TimeDistribution | Tensor | None = None,
        noise: B | None = None,
        generator: torch.Generator | None = None,
    ) -> FlowLoss:
        """Mean squared error of the velocity that a network sees at a random place of the path.

        Args:
            model: see `Velocity`.
            data: x₀, as normalised as the network wants it.
            condition: passed through; drop it before with `drop_condition`.
            times: a distribution, or the times themselves (b,); None is `LogitNormalTimes(1.0, 1.0)`, TRELLIS' choice.
            noise: ε; None draws it.
            generator: of times and noise.
        Returns:
            FlowLoss; `total` is the mean over all values of the batch, so that a sample counts by its size, as published.
            0 without values.
        Raises:
            ShapeError: the network gives a velocity of another shape.   Others as `noised`.
        """
        where = "RectifiedFlow.loss"
        require_batch(where, "data", data)
        if not isinstance(times, Tensor):
            times = (LogitNormalTimes(1.0, 1.0) if times is None else times)(batch_size(data), generator)
        times = times.to(values(data).device)
        noise = noise_like(data, generator) if noise is None else noise
        x, target = self.noised(data, noise, times)
        found = model(x, self.network_times(times), condition)
        if values(found).shape != values(target).shape:
            raise ShapeError(f"{where}: model must give a velocity {tuple(values(target).shape)}; it gave {tuple(values(found).shape)}.")
        error = (values(found).float() - values(target).float()).square()
        return FlowLoss(error.sum() / max(error.numel(), 1), _per_sample(error.detach(), data), times)

    def _at(self, where: str, x: Batch, other: Batch, t: Tensor) -> Tensor:
        require_batch(where, "x", x)
        require_batch(where, "second argument", other, x)
        require_times(where, t, x)
        return spread(t, x)


def _per_sample(error: Tensor, like: Batch) -> Tensor:
    if not isinstance(like, SparseTensor):
        return error.flatten(1).mean(1)
    counts = (like.grid.offsets[1:] - like.grid.offsets[:-1]).to(error)
    return error.new_zeros(like.grid.batch_size).index_add(0, batch_index(like.grid.offsets), error.mean(1)) / counts
