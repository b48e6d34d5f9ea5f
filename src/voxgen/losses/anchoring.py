"""The term of the surface-anchoring mask."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from voxgen.core.aliases import Offsets
from voxgen.core.errors import RangeError

from .dual_grid import subdivision_bce


def mask_bce(
    logits: Sequence[Float[Tensor, "p 8"]], targets: Sequence[Bool[Tensor, "p 8"]], offsets: Sequence[Offsets] | None = None
) -> Float[Tensor, ""]:
    """Binary cross-entropy of the mask of an upsampling decoder: a mean over all candidates for each level, the levels added.

    About half of the children of a surface's cells are kept, so no weight between the classes is needed.

    Args:
        logits: for each level (p, 8) floats of all children of the **true** cells (teacher forcing).
        targets: for each level (p, 8) bool, `structure.mask()` of `voxgen.ops.candidates.level_structures`.
        offsets: as in `subdivision_bce`, which gives the levels apart.
    Returns:
        Scalar in float32 (float64 for float64 logits). Differentiable in the logits.
    Raises:
        RangeError: no levels.   Others as `subdivision_bce`.
    Source: Sparse-Up, equation 2; it is not part of its equation 3, so weight it by 1 or give it an optimiser of its own.
    Example:
        >>> mask_bce([torch.zeros(5, 8)] * 2, [torch.ones(5, 8, dtype=torch.bool)] * 2)
        tensor(1.3863)
    """
    if not logits:
        raise RangeError("mask_bce: at least one level is needed; got none.")
    return subdivision_bce(logits, targets, offsets).sum()
