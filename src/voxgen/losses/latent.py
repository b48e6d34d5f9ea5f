"""Terms for latents."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from voxgen.core.aliases import Offsets

from ._reduce import mean as mean_of
from ._reduce import require_pair


def kl_divergence(mean: Float[Tensor, "t c"], logvar: Float[Tensor, "t c"], offsets: Offsets | None = None) -> Float[Tensor, ""]:
    """Kullback–Leibler divergence of a diagonal Gaussian from the standard normal, mean over tokens and channels.

    0.5 · mean(μ² + e^logvar − logvar − 1). Others sum over the channels; their weights are smaller by the width of the latent.

    Args:
        mean, logvar: (t, c) floats, one row a token. logvar is taken as it is: beyond about 88 its exponential, and the
            result, is infinite in float32, which is not hidden by clamping.
        offsets: (b + 1,) int64 bounds of the samples: each sample counts the same. None: each token does, as published.
    Returns:
        Scalar in float32 (float64 if an input is), at least 0; 0 without tokens. Differentiable in both.
    Raises:
        ShapeError, DtypeError, DeviceError: inputs that do not fit each other.   RangeError: offsets of another number of rows.
    Source: Kingma and Welling, "Auto-encoding variational Bayes", appendix B; the mean is that of TRELLIS and TRELLIS.2.
    """
    mu, log_variance = require_pair("kl_divergence", ("mean", "logvar"), mean, logvar, ("t", "c"))
    # expm1(v) − v keeps its digits near v = 0, where e^v − v − 1 cancels
    return mean_of("kl_divergence", 0.5 * (mu.square() + log_variance.expm1() - log_variance), offsets)
