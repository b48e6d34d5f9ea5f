"""Samplers: from noise down the path to data, a step at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Generic, Literal

import torch
from tqdm import tqdm

from voxgen.core.errors import RangeError, ShapeError

from ._batch import B, combine, filled, require_batch, values
from .guidance import ClassifierFreeGuidance
from .path import RectifiedFlow, Velocity
from .times import sampling_times


@dataclass(frozen=True, eq=False)
class SamplerState(Generic[B]):
    """How far a sampling is. Save it and go on later, or on another machine: the rest gives the same.

    Attributes:
        x: the batch at times[step].
        step: how many steps are done.
        times: all of them, from 1 down to 0.
        data: x₀ as the last step foresaw it; None before the first.
        velocity: of the last step, for samplers that look back; None where it is not needed.
    """

    x: B
    step: int
    times: tuple[float, ...]
    data: B | None = None
    velocity: B | None = None

    @property
    def done(self) -> bool:
        return self.step == len(self.times) - 1


Callback = Callable[[SamplerState[Any]], None]
"""Called after each step."""


@dataclass(frozen=True)
class Sampler(ABC):
    """Base of the samplers: the walk, which each fills with its step.

    Args:
        steps: how many.
        rescale: of the times, see `sampling_times`.
        times: the times themselves, from 1 (or less) strictly down to 0; None follows from steps and rescale.
        flow: the path that the network was trained on.
        guidance: None takes the positive condition alone.
    Raises:
        RangeError: steps, rescale or times out of range.
    """

    steps: int = 50
    rescale: float = 1.0
    times: Sequence[float] | None = None
    flow: RectifiedFlow = field(default_factory=RectifiedFlow)
    guidance: ClassifierFreeGuidance | None = None

    def __post_init__(self) -> None:
        self.time_grid()

    def time_grid(self) -> tuple[float, ...]:
        """The times that the walk goes through."""
        if self.times is None:
            return sampling_times(self.steps, self.rescale)
        grid = tuple(float(t) for t in self.times)
        if len(grid) < 2 or grid[0] > 1 or grid[-1] < 0 or not all(a > b for a, b in pairwise(grid)):
            raise RangeError(f"{type(self).__name__}: times must fall strictly, from at most 1 to at least 0; got {list(grid)}.")
        return grid

    def start(self, noise: B) -> SamplerState[B]:
        """The state before the first step."""
        require_batch(type(self).__name__, "noise", noise)
        return SamplerState(noise, 0, self.time_grid())

    @torch.no_grad()
    def step(self, model: Velocity, state: SamplerState[B], positive: Any = None, negative: Any = None) -> SamplerState[B]:
        """One step further. Raises RangeError where none is left."""
        if state.done:
            raise RangeError(f"{type(self).__name__}.step: all {state.step} steps are done; start anew with `start`.")
        return self._advance(model, state, state.times[state.step], state.times[state.step + 1], positive, negative)

    def __call__(
        self,
        model: Velocity,
        noise: B | SamplerState[B],
        positive: Any = None,
        negative: Any = None,
        *,
        callback: Callback | None = None,
        progress: bool = False,
    ) -> B:
        """Walk from noise to data.

        Args:
            model: see `Velocity`; called without gradients.
            noise: the start, a dense batch or a `SparseTensor` (see `noise_like`), or the state of an interrupted walk.
            positive, negative: conditions, passed to the network as they are. negative is used with guidance only.
            callback: called with the state after each step.
            progress: show a bar.
        Returns:
            The batch at the last time.
        Raises:
            ShapeError: the network gives a velocity of another shape.   DtypeError: noise that is no batch of floats.
        """
        state = noise if isinstance(noise, SamplerState) else self.start(noise)
        with tqdm(total=len(state.times) - 1, initial=state.step, desc="sampling", unit="step", disable=not progress) as bar:
            while not state.done:
                state = self.step(model, state, positive, negative)
                bar.update()
                if callback is not None:
                    callback(state)
        return state.x

    def velocity(self, model: Velocity, x: B, t: float, positive: Any, negative: Any) -> B:
        """Of the network, guided."""
        if self.guidance is None:
            seen = self.flow.network_times(filled(x, t))
            found = model(x, seen, positive)
        else:
            found = self.guidance(self.flow, model, x, t, positive, negative)
        if values(found).shape != values(x).shape:
            where = type(self).__name__
            raise ShapeError(f"{where}: model must give a velocity {tuple(values(x).shape)}; it gave {tuple(values(found).shape)}.")
        return found

    @abstractmethod
    def _advance(self, model: Velocity, state: SamplerState[B], t: float, to: float, positive: Any, negative: Any) -> SamplerState[B]:
        """One step from t to `to`."""

    def _moved(self, state: SamplerState[B], x: B, velocity: B, keep: B | None = None) -> SamplerState[B]:
        """The next state; x₀ is foreseen from the old one."""
        data = self.flow.data(state.x, velocity, filled(state.x, state.times[state.step]))
        return replace(state, x=x, step=state.step + 1, data=data, velocity=keep)


@dataclass(frozen=True)
class EulerSampler(Sampler):
    """x ← x + (t' − t) v(x, t): one pass of the network a step, error of first order.

    Further arguments of `Sampler`.

    Args:
        increment: how (t' − t) v is computed where x is a half type. "wide": in float32, and the sum is rounded once. "network":
            factor and product are rounded to the dtype of the velocity, as in the pipeline of Direct3D-S2 on a CPU; that
            differs by about 1e-3 after five steps.
    Source: TRELLIS (`FlowEulerSampler` and its guided variants), Direct3D-S2 with `times=shifted_times(...)`.
    Example:
        >>> sampler = EulerSampler(12, rescale=3.0)
        >>> sampler(lambda x, t, c: x - c, torch.zeros(1, 2), torch.ones(1, 2)).round(decimals=2)
        tensor([[0.6500, 0.6500]])
    """

    increment: Literal["wide", "network"] = "wide"

    def _advance(self, model: Velocity, state: SamplerState[B], t: float, to: float, positive: Any, negative: Any) -> SamplerState[B]:
        v = self.velocity(model, state.x, t, positive, negative)
        if self.increment == "network":
            factor = torch.tensor(to - t, dtype=torch.float32).to(values(v))
            x = combine(state.x, lambda a, b: (a.float() + factor * b).to(a.dtype), v)
        else:
            x = _along(state.x, to - t, v)
        return self._moved(state, x, v)


@dataclass(frozen=True)
class HeunSampler(Sampler):
    """Euler's step, corrected by the velocity at its end: two passes a step (one in the last), error of second order.

    The last step, to t = 0, is Euler's: a network is not trained at t = 0. Arguments of `Sampler`.
    Source: T. Karras et al. (arXiv 2206.00364), algorithm 1 without churn.
    """

    def _advance(self, model: Velocity, state: SamplerState[B], t: float, to: float, positive: Any, negative: Any) -> SamplerState[B]:
        v = self.velocity(model, state.x, t, positive, negative)
        x = _along(state.x, to - t, v)
        if to > 0:
            end = self.velocity(model, x, to, positive, negative)
            v = combine(v, lambda a, b: (a + b) / 2, end)
            x = _along(state.x, to - t, v)
        return self._moved(state, x, v)


@dataclass(frozen=True)
class MultistepSampler(Sampler):
    """Adams and Bashforth's method of two steps for uneven times: one pass a step, error of second order.

    For few steps: it extrapolates the velocity from the last two. The first step is Euler's. Arguments of `Sampler`.
    Source: E. Hairer et al., Solving ordinary differential equations I, III.1 and III.5.
    """

    def _advance(self, model: Velocity, state: SamplerState[B], t: float, to: float, positive: Any, negative: Any) -> SamplerState[B]:
        v = self.velocity(model, state.x, t, positive, negative)
        used = v
        if state.velocity is not None:
            ratio = (to - t) / (2 * (t - state.times[state.step - 1]))
            used = combine(v, lambda now, before: now + ratio * (now - before), state.velocity)
        return self._moved(state, _along(state.x, to - t, used), v, keep=v)


def _along(x: B, step: float, velocity: B) -> B:
    return combine(
        x, lambda a, v: (a + step * v).to(a.dtype) if v.dtype == a.dtype else (a.float() + step * v.float()).to(a.dtype), velocity
    )
