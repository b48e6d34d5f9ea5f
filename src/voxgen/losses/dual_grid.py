"""Terms for dual grids: which children exist, which edges are crossed, where the dual vertices lie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core.aliases import Offsets
from voxgen.core.checks import FLOATS, require_tensor
from voxgen.core.errors import ShapeError

from ._reduce import mean, require_flags, require_pair, single

_bce = torch.nn.functional.binary_cross_entropy_with_logits


def subdivision_bce(
    logits: Sequence[Float[Tensor, "p s"]], targets: Sequence[Bool[Tensor, "p s"]], offsets: Sequence[Offsets] | None = None
) -> Float[Tensor, " l"]:
    """Binary cross-entropy of the children that each voxel is predicted to have, one mean for each level.

    The published loss adds the levels: take `.sum()`. An upsampler gives the logits, `Structure.mask()` the targets.

    Args:
        logits: for each of l levels (p, 8) floats, one row a parent, one column a child (2³; other factors: s columns).
        targets: for each level (p, 8) bool, which children exist.
        offsets: for each level (b + 1,) int64 bounds of the samples among the parents: each sample counts the same. None:
            each voxel counts the same, as published, so large samples weigh more.
    Returns:
        (l,) in float32 (float64 for float64 logits) also for half inputs. 0 for a level without voxels. Differentiable in the
        logits. No levels give shape (0,).
    Raises:
        ShapeError: different numbers of levels, or targets that do not fit their logits.   DtypeError, DeviceError: inputs
        that do not fit each other.   RangeError: offsets of another number of rows.
    Source: TRELLIS.2 (arXiv 2512.14692), early-pruning upsampler. Differences: `offsets`.
    Example:
        >>> subdivision_bce([torch.zeros(5, 8)], [torch.ones(5, 8, dtype=torch.bool)])
        tensor([0.6931])
    """
    where = "subdivision_bce"
    if len(logits) != len(targets) or (offsets is not None and len(offsets) != len(logits)):
        bounds = "" if offsets is None else f" and offsets of {len(offsets)}"
        raise ShapeError(
            f"{where}: one target is needed for each level; got logits of {len(logits)} levels, targets of {len(targets)}{bounds}."
        )
    levels = []
    for i, (level, target) in enumerate(zip(logits, targets, strict=True)):
        require_tensor(where, f"logits[{i}]", level, ("p", "s"), FLOATS)
        require_flags(where, f"targets[{i}]", target, level)
        errors = _bce(single(level), target.to(single(level).dtype), reduction="none")
        levels.append(mean(where, errors, None if offsets is None else offsets[i]))
    return torch.stack(levels) if levels else torch.zeros(0)


def crossing_bce(logits: Float[Tensor, "n 3"], crossings: Bool[Tensor, "n 3"], offsets: Offsets | None = None) -> Float[Tensor, ""]:
    """Binary cross-entropy of the edge flags: which of the three edges that a voxel owns the surface crosses.

    Args:
        logits: (n, 3) floats, crossed where positive.
        crossings: (n, 3) bool, `OVoxel.intersected`.
        offsets: (b + 1,) int64 bounds of the samples: each sample counts the same. None: each voxel does, as published.
    Returns:
        Scalar in float32 (float64 for float64 logits); 0 without voxels. Differentiable in the logits.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.   RangeError: offsets of another number of rows.
    Source: TRELLIS.2 (arXiv 2512.14692), shape SC-VAE. Differences: `offsets`.
    """
    require_tensor("crossing_bce", "logits", logits, ("n", 3), FLOATS)
    require_flags("crossing_bce", "crossings", crossings, logits)
    errors = _bce(single(logits), crossings.to(single(logits).dtype), reduction="none")
    return mean("crossing_bce", errors, offsets)


def dual_vertex_mse(dual_vertices: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"], offsets: Offsets | None = None) -> Float[Tensor, ""]:
    """Mean squared error of the dual vertices, in voxels squared, over voxels and axes.

    Args:
        dual_vertices: (n, 3) floats, positions inside the cell; a network may leave [0, 1].
        target: (n, 3) floats. The original trains on values that were stored as bytes, truncated to k / 255, so they lie 0.002
            too low on average; `OVoxel.dual_vertices` are better targets.
        offsets: (b + 1,) int64 bounds of the samples: each sample counts the same. None: each voxel does, as published.
    Returns:
        Scalar in float32 (float64 if an input is); 0 without voxels. Differentiable in both.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.   RangeError: offsets of another number of rows.
    Source: TRELLIS.2 (arXiv 2512.14692), shape SC-VAE. Differences: `offsets`.
    """
    one, other = require_pair("dual_vertex_mse", ("dual_vertices", "target"), dual_vertices, target, ("n", 3))
    return mean("dual_vertex_mse", (one - other).square(), offsets)
