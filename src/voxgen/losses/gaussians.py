"""Terms that keep Gaussians small and opaque."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.checks import FLOATS, require_tensor

from ._reduce import mean, single


def gaussian_volume(scales: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Mean over Gaussians of the product of their three activated scales.

    Args:
        scales: (n, 3) world units.
    Returns:
        Scalar; 0 without Gaussians. Differentiable.
    Raises:
        ShapeError, DtypeError: not (n, 3) floats.
    Source: TRELLIS, weight 1e4 at resolution 64; `GaussianActivation.volume_weight` gives it for others. Differences: none.
    """
    require_tensor("gaussian_volume", "scales", scales, ("n", 3), FLOATS)
    return mean("gaussian_volume", torch.prod(single(scales), 1), None)


def gaussian_opacity(opacities: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean over Gaussians of (opacity - 1)².

    Args:
        opacities: (n,) in [0, 1].
    Returns:
        Scalar; 0 without Gaussians. Differentiable.
    Raises:
        ShapeError, DtypeError: not (n,) floats.
    Source: TRELLIS, weight 1e-3. Differences: none.
    """
    require_tensor("gaussian_opacity", "opacities", opacities, ("n",), FLOATS)
    return mean("gaussian_opacity", (single(opacities) - 1).square(), None)
