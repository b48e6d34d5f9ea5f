"""How good a set of generated shapes is beside a set of real ones: coverage, minimum matching distance, nearest-neighbour accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from voxgen.core.checks import FLOATS, require_finite, require_same_device, require_tensor
from voxgen.core.errors import ShapeError

from ._nearest import PointTree

__all__ = [
    "GenerationScores",
    "coverage",
    "minimum_matching_distance",
    "nearest_neighbor_accuracy",
    "pairwise_chamfer",
    "score_generation",
]

Clouds = Sequence[Float[Tensor, "p 3"]]
Distances = Float[Tensor, "g r"]


@dataclass(frozen=True)
class GenerationScores:
    """What `score_generation` gives.

    Attributes:
        coverage: see `coverage`; higher is better.
        minimum_matching_distance: see there, in the unit of the distances; lower is better.
        nearest_neighbor_accuracy: see there; 0.5 is best.
    """

    coverage: float
    minimum_matching_distance: float
    nearest_neighbor_accuracy: float

    def __str__(self) -> str:
        return (
            f"coverage {self.coverage:.3f}, minimum matching distance {self.minimum_matching_distance:.5g}, "
            f"nearest-neighbour accuracy {self.nearest_neighbor_accuracy:.3f}"
        )


def pairwise_chamfer(one: Clouds, other: Clouds, *, progress: bool = False) -> Distances:
    """Chamfer distance of each cloud of `one` to each of `other`: mean squared distance to the nearest point, added both ways.

    Args:
        one, other: clouds (p, 3), floats, each with at least one point; counts may differ, but a fair comparison has equal ones.
        progress: show a bar.
    Returns:
        (len(one), len(other)) float64, in squared units of the points.
    Raises:
        ShapeError, DtypeError, RangeError: a cloud that is none, is empty, or has points that are not finite.
    Source: the distance of P. Achlioptas et al. (arXiv 1707.02392). `voxgen.metrics.chamfer_distance` compares two surfaces, and has
        both powers.
    Cost: a k-d tree for each cloud, and two queries of each pair.
    """
    where = "pairwise_chamfer"
    first, second = _points(where, "one", one), _points(where, "other", other)
    trees = [PointTree(p) for p in first], [PointTree(p) for p in second]
    result = np.zeros((len(first), len(second)))
    with tqdm(total=result.size, desc="distances", unit="pair", disable=not progress) as bar:
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                there, back = trees[1][j].nearest(a).distances, trees[0][i].nearest(b).distances
                result[i, j] = np.square(there).mean() + np.square(back).mean()
            bar.update(len(second))
    return torch.from_numpy(result)


def coverage(distances: Distances) -> float:
    """Share of the real shapes that are the nearest one of some generated shape.

    Args:
        distances: (g, r) floats, of each generated shape to each real one.
    Returns:
        In (0, 1]; it cannot exceed g / r.
    Raises:
        ShapeError, DtypeError, RangeError: no matrix of finite numbers, or one without entries.
    Source: P. Achlioptas et al. (arXiv 1707.02392).
    """
    distances = _matrix("coverage", "distances", distances)
    return len(distances.argmin(1).unique()) / distances.shape[1]


def minimum_matching_distance(distances: Distances) -> float:
    """Mean over the real shapes of the distance to the nearest generated one.

    Args, errors and source as `coverage`.
    """
    return float(_matrix("minimum_matching_distance", "distances", distances).double().amin(0).mean())


def nearest_neighbor_accuracy(generated: Distances, between: Distances, real: Distances) -> float:
    """How often a shape's nearest other shape is of its own set: 0.5 where the sets cannot be told apart, 1 where they can.

    Below 0.5, generated shapes are closer to real ones than those are to each other: copies.

    Args:
        generated: (g, g) of the generated shapes to each other; the diagonal is left out.
        between: (g, r).   real: (r, r).
    Raises:
        ShapeError: matrices that do not fit each other, or sets of less than two in all.   Others as `coverage`.
    Source: leave-one-out 1-NN accuracy of D. Lopez-Paz and M. Oquab (arXiv 1610.06545), as G. Yang et al. use it
        (arXiv 1906.12320). Ties go to the other set.
    """
    where = "nearest_neighbor_accuracy"
    between = _matrix(where, "between", between)
    g, r = between.shape
    for name, value, size in (("generated", generated, g), ("real", real, r)):
        require_tensor(where, name, value, (size, size), FLOATS)
        require_finite(where, name, value)
    require_same_device(where, generated=generated, between=between, real=real)
    own = torch.cat((_nearest_other(generated), _nearest_other(real)))
    across = torch.cat((between.amin(1), between.amin(0)))
    return float((own < across.to(own)).double().mean())


def score_generation(generated: Clouds, real: Clouds, *, progress: bool = False) -> GenerationScores:
    """The three scores of generated shapes against real ones, by Chamfer distance between point clouds.

    Args:
        generated, real: point clouds (p, 3) sampled on the surfaces, of equal counts (2048 is usual), in one frame and scale.
            Sets of equal size make the usual figures.
        progress: show bars.
    Raises:
        As `pairwise_chamfer`; ShapeError: an empty set.
    Example:
        >>> clouds = [torch.rand(64, 3) for _ in range(8)]
        >>> score_generation(clouds, clouds).coverage
        1.0
    """
    for name, value in (("generated", generated), ("real", real)):
        if len(value) == 0:
            raise ShapeError(f"score_generation: {name} must have at least one shape; it is empty.")
    between = pairwise_chamfer(generated, real, progress=progress)
    own = [pairwise_chamfer(clouds, clouds, progress=progress) for clouds in (generated, real)]
    return GenerationScores(coverage(between), minimum_matching_distance(between), nearest_neighbor_accuracy(own[0], between, own[1]))


def _points(where: str, name: str, clouds: Clouds) -> list[np.ndarray[Any, Any]]:
    for i, cloud in enumerate(clouds):
        require_tensor(where, f"{name}[{i}]", cloud, ("p", 3), FLOATS)
        require_finite(where, f"{name}[{i}]", cloud)
        if len(cloud) == 0:
            raise ShapeError(f"{where}: {name}[{i}] must have at least one point; it is empty.")
    return [cloud.detach().double().cpu().numpy() for cloud in clouds]


def _matrix(where: str, name: str, value: Distances) -> Distances:
    require_tensor(where, name, value, ("g", "r"), FLOATS)
    require_finite(where, name, value)
    if value.numel() == 0:
        raise ShapeError(f"{where}: {name} must have at least one row and column; got {tuple(value.shape)}.")
    return value


def _nearest_other(distances: Tensor) -> Tensor:
    """(n,) smallest off the diagonal; infinite where there is no other."""
    alone = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    return distances.double().masked_fill(alone, float("inf")).amin(1)
