"""What the distances between surfaces come back as: plain numbers in frozen records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxgen.core.errors import RangeError


@dataclass(frozen=True)
class DistanceSummary:
    """Distances of many points, world units.

    Attributes:
        mean, rms, max: arithmetic mean, root of the mean square, largest.
        percentiles: by percentage.
        count: number of points.
    """

    mean: float
    rms: float
    max: float
    percentiles: Mapping[float, float]
    count: int

    @staticmethod
    def of(distances: Tensor, percentiles: Sequence[float] = (50, 90, 95, 99)) -> DistanceSummary:
        """From (n,) distances, n at least 1.

        Raises:
            RangeError: no distances, or a percentage outside [0, 100].
        """
        if len(distances) == 0:
            raise RangeError("DistanceSummary.of: at least one distance is needed; got none.")
        if not all(0 <= p <= 100 for p in percentiles):
            raise RangeError(f"DistanceSummary.of: percentiles must lie in [0, 100]; got {list(percentiles)}.")
        d = distances.double()
        ranked = d.sort().values if percentiles else d
        return DistanceSummary(
            float(d.mean()),
            float(d.square().mean().sqrt()),
            float(d.max()),
            {p: _interpolate(ranked, p / 100 * (len(d) - 1)) for p in percentiles},
            len(d),
        )

    def __str__(self) -> str:
        ranks = "  ".join(f"p{p:g} {value:.4g}" for p, value in self.percentiles.items())
        return f"mean {self.mean:.4g}  rms {self.rms:.4g}  {ranks}  max {self.max:.4g}  ({self.count:,} points)"


def _interpolate(ranked: Tensor, position: float) -> float:
    """Value at a fractional rank (torch.quantile refuses more than 2²⁴ values)."""
    low = int(position)
    high = min(low + 1, len(ranked) - 1)
    return float(torch.lerp(ranked[low], ranked[high], position - low))


@dataclass(frozen=True)
class MeshDistance:
    """Result of `mesh_distance`: one summary a direction."""

    a_to_b: DistanceSummary
    b_to_a: DistanceSummary

    @property
    def mean(self) -> float:
        """Mean of the two directions' means."""
        return (self.a_to_b.mean + self.b_to_a.mean) / 2

    @property
    def rms(self) -> float:
        """Root of the mean of the two directions' mean squares."""
        return ((self.a_to_b.rms**2 + self.b_to_a.rms**2) / 2) ** 0.5

    @property
    def max(self) -> float:
        """Larger of the two directions' largest distances: the sampled Hausdorff distance, a lower bound of the true one."""
        return max(self.a_to_b.max, self.b_to_a.max)

    def __str__(self) -> str:
        return f"a to b  {self.a_to_b}\nb to a  {self.b_to_a}"


@dataclass(frozen=True)
class ChamferDistance:
    """Result of `chamfer_distance`. `l1` and `l2` are the means of the two directed values (a to b, b to a)."""

    l1: float
    l2: float
    l1_directed: tuple[float, float]
    l2_directed: tuple[float, float]


@dataclass(frozen=True)
class FScore:
    """Result of `f_score`: shares in [0, 1] at `threshold` world units."""

    f: float
    precision: float
    recall: float
    threshold: float


@dataclass(frozen=True)
class NormalConsistency:
    """Result of `normal_consistency`: mean |cos| and mean cos, each also by direction (a to b, b to a)."""

    absolute: float
    signed: float
    absolute_directed: tuple[float, float]
    signed_directed: tuple[float, float]
