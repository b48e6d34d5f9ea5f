"""Terms for fields at the corners of sparse cells: smooth, of one opinion, and with dual vertices in the middle of their crossings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from voxgen.core.aliases import Offsets
from voxgen.core.checks import FLOATS, require_choice, require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.ops.cube_corners import CubeCorners, average_at_corners, corner_deviation
from voxgen.ops.flexicubes import FlexSurface

from ._reduce import mean, single
from .dual_grid import subdivision_bce
from .tsdf import Reduction


def sparse_total_variation(
    values: Float[Tensor, "m d"] | Float[Tensor, " m"],
    neighbors: Int64[Tensor, "m 3"],
    *,
    voxel_size: float = 1.0,
    reduction: Reduction = "mean",
    eps: float = 1e-8,
) -> Float[Tensor, ""]:
    """Total variation of a field on sparse points: the length of its gradient by forward differences, channels added.

    Σ_channels √(Σ_axes ((s(c + e_a) − s(c)) / voxel_size)² + eps) − √eps; a difference to a point that does not exist is 0. About 1 where
    the field is a distance in world units. It makes a field smooth and also smaller.

    Args:
        values: (m, d) or (m,) floats at points, corners usually.
        neighbors: (m, 3) rows of the next point along x, y and z, −1 where there is none: `corner_neighbors(corners)`.
        voxel_size: spacing of the points in the units of values.
        reduction: "mean" over points, or "sum".
        eps: positive; keeps the gradient finite where nothing varies.
    Returns:
        Scalar in float32 (float64 if values are); 0 for a constant field, with a gradient of 0, and without points. Differentiable.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.   RangeError: eps or voxel_size is not positive.
    Source: Focusing, Eq. (6), weight 0.001, in the form of Plenoxels (Fridovich-Keil et al. 2022). Differences: the paper states neither
        mean or sum nor spacing; `− √eps`, so that a constant costs nothing.
    """
    where = "sparse_total_variation"
    require_choice(where, "reduction", reduction, ("mean", "sum"))
    if not (0 < eps < math.inf and 0 < voxel_size < math.inf):
        raise RangeError(f"{where}: eps and voxel_size must be positive and finite; got {eps} and {voxel_size}.")
    shape = ("m",) if isinstance(values, Tensor) and values.ndim == 1 else ("m", "d")
    field = single(require_tensor(where, "values", values, shape, FLOATS))
    field = field[:, None] if field.ndim == 1 else field
    require_tensor(where, "neighbors", neighbors, ("m", 3), (torch.int64, torch.int32), hint="`corner_neighbors` gives them.")
    if len(neighbors) != len(field):
        raise ShapeError(f"{where}: neighbors must have one row for each of the {len(field)} values; got {tuple(neighbors.shape)}.")
    require_same_device(where, values=field, neighbors=neighbors)
    square = torch.zeros_like(field)
    for ahead in neighbors.long().unbind(1):
        # `embedding` has a deterministic backward; a point without neighbour is its own
        next_to = torch.nn.functional.embedding(torch.where(ahead >= 0, ahead, torch.arange(len(field), device=field.device)), field)
        square = square + ((next_to - field) / voxel_size).square()
    length = square / ((square + eps).sqrt() + math.sqrt(eps))  # √(x + eps) − √eps, without cancelling
    return mean(where, length.sum(1), None) if reduction == "mean" else length.sum()


def flex_consistency(
    at_cells: Float[Tensor, "n 8 c"], corners: CubeCorners, at_corners: Float[Tensor, "m c"] | None = None
) -> Float[Tensor, ""]:
    """How much cells that share a corner differ in what they say of it: mean square of value less mean, over cells, corners, channels.

    Args:
        at_cells: (n, 8, c) floats: value and raw displacement that each cell gives to its corners (`SparseFlexPrediction.at_cells`).
        corners: of the cells' grid.
        at_corners: (m, c) their means, if they are known; None computes them.
    Returns:
        Scalar in float32 (float64 if at_cells is); 0 without cells. Differentiable in both.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit the corners.
    Source: TRELLIS and SparseFlex, part of L_flex with weight 1.
    """
    values = single(require_tensor("flex_consistency", "at_cells", at_cells, ("n", 8, "c"), FLOATS))
    means = average_at_corners(values, corners) if at_corners is None else at_corners.to(values.dtype)
    return mean("flex_consistency", corner_deviation(values, means, corners).square(), None)


def flex_deviation(surface: FlexSurface) -> Float[Tensor, ""]:
    """How unevenly far the crossings of each dual vertex lie from it, mean over crossings, world units.

    Args:
        surface: of `flexicubes`.
    Returns:
        Scalar; 0 for a surface without vertices. Differentiable in all that the surface was made from.
    Source: FlexiCubes, L_dev; part of TRELLIS' L_flex with weight 0.5.
    """
    return mean("flex_deviation", surface.deviation(), None)


def flex_weights(raw: Float[Tensor, "n w"]) -> Float[Tensor, ""]:
    """Mean size of the raw channels that become alpha and beta, which pulls these weights to 1.

    Args:
        raw: (n, w) floats: channels 32 to 51 of the 53 that a decoder gives. That of gamma does not belong to it.
    Returns:
        Scalar in float32 (float64 if raw is); 0 without cells. Differentiable.
    Source: TRELLIS, part of L_flex with weight 0.2.
    """
    return mean("flex_weights", single(require_tensor("flex_weights", "raw", raw, ("n", "w"), FLOATS)).abs(), None)


def occupancy_bce(
    logits: Sequence[Float[Tensor, "p 8"]], targets: Sequence[Bool[Tensor, "p 8"]], offsets: Sequence[Offsets] | None = None
) -> Float[Tensor, ""]:
    """Binary cross-entropy of which children hold surface, the mean for each level, levels added: L_occ.

    Args:
        logits: for each level (p, 8) floats (`SelfPruningUpsampler`).
        targets: for each level (p, 8) bool: the child holds an input point.
        offsets: as in `subdivision_bce`, which gives the levels apart.
    Returns:
        Scalar in float32 (float64 for float64 logits); 0 without levels. Differentiable in the logits.
    Raises: as `subdivision_bce`.
    Source: SparseFlex (arXiv 2503.21732) and Focusing, whose weight for it is not published; 1 in `SparseFlexVAELoss`.
    """
    return subdivision_bce(logits, targets, offsets).sum()
