"""A flow, its image encoder, and the loss of both in one forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.flow import FlowLoss, LogitNormalTimes, RectifiedFlow, UniformTimes, drop_condition
from voxgen.flow.times import TimeDistribution
from voxgen.losses import LossTerms
from voxgen.models.image_condition import ImageConditioner

from .latents import LatentBatch

TIMES: dict[str, TimeDistribution] = {"uniform": UniformTimes(), "logit-normal": LogitNormalTimes(1.0, 1.0)}
"""Where on the path to train. TRELLIS and the structure of TRELLIS.2: logit-normal; latents of TRELLIS.2: uniform."""


@dataclass(frozen=True)
class _Kept:
    """An encoder that does not learn."""

    encoder: ImageConditioner

    def __deepcopy__(self, memo: object) -> _Kept:
        """The average of a module has the same."""
        return self


class FlowTraining(nn.Module):
    """A flow conditioned on pictures.

    Args:
        flow: a `StructureFlow`, `LatentFlow`, `PatchedLatentFlow` or `SSDiT`.
        encoder: pictures → condition tokens. A module in training mode learns with the flow; one that is frozen is no part of the state.
        path: see `RectifiedFlow`.   times: a name of `TIMES`.   drop: how often a condition is left out.
    """

    def __init__(self, flow: nn.Module, encoder: ImageConditioner, *, path: RectifiedFlow, times: str, drop: float) -> None:
        super().__init__()
        self.flow = flow
        self.path, self.times, self.drop = path, times, drop
        trains = isinstance(encoder, nn.Module) and any(p.requires_grad for p in encoder.parameters())
        self.encoder = cast(nn.Module, encoder) if trains else None
        self._frozen = None if trains else _Kept(encoder)  # neither state nor optimiser nor average have it

    @property
    def conditioner(self) -> ImageConditioner:
        return cast(ImageConditioner, self.encoder) if self._frozen is None else self._frozen.encoder

    def forward(self, batch: LatentBatch, generator: torch.Generator) -> LossTerms:
        """One time and one noise for each object."""
        condition = drop_condition(self.tokens(batch), self.drop, generator)
        loss = self.loss(batch, condition, TIMES[self.times], generator)
        return LossTerms(loss.total, {"velocity": loss.total})

    def tokens(self, batch: LatentBatch) -> Tensor:
        """(b, m, c) condition tokens of the pictures."""
        if self._frozen is None:
            return cast(nn.Module, self.encoder)(batch.pictures())
        with torch.no_grad():
            return self._frozen.encoder.tokens(batch.pictures())

    def loss(
        self, batch: LatentBatch, condition: Tensor, times: TimeDistribution | Tensor, generator: torch.Generator | None = None
    ) -> FlowLoss:
        """See `RectifiedFlow.loss`."""
        latent: Any = batch.latent
        return self.path.loss(self.velocity(batch.extra), latent, condition, times=times, generator=generator)

    def velocity(self, extra: SparseTensor | None = None) -> Any:
        """What samplers and the loss call: the flow, with its further input where it has one."""
        if extra is None:
            return self.flow
        return lambda x, t, condition: self.flow(x, t, condition, extra)
