"""Terms for materials on voxels."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from voxgen.core.aliases import Offsets

from ._reduce import mean, require_pair


def material_l1(prediction: Float[Tensor, "n c"], target: Float[Tensor, "n c"], offsets: Offsets | None = None) -> Float[Tensor, ""]:
    """Mean absolute difference of materials over voxels and channels.

    Args:
        prediction: (n, c) floats, what a material decoder gives, scaled as the target is.
        target: (n, c) floats. The networks work in [−1, 1]: `OVoxel.material_tensor().feats`.
        offsets: (b + 1,) int64 bounds of the samples: each sample counts the same. None: each voxel does, as published.
    Returns:
        Scalar in float32 (float64 if an input is); 0 without voxels. Differentiable in both.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.   RangeError: offsets of another number of rows.
    Source: TRELLIS.2 (arXiv 2512.14692), material SC-VAE. Differences: `offsets`.
    """
    one, other = require_pair("material_l1", ("prediction", "target"), prediction, target, ("n", "c"))
    return mean("material_l1", (one - other).abs(), offsets)


def material_l2(prediction: Float[Tensor, "n c"], target: Float[Tensor, "n c"], offsets: Offsets | None = None) -> Float[Tensor, ""]:
    """Mean squared difference of materials; otherwise as `material_l1`. An option of the original's trainer."""
    one, other = require_pair("material_l2", ("prediction", "target"), prediction, target, ("n", "c"))
    return mean("material_l2", (one - other).square(), offsets)
