"""Time of a flow, as features."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.core.checks import FLOATS, require_int, require_tensor
from voxgen.core.errors import RangeError

from ._tokens import dtype_of

__all__ = ["TimestepEmbedder", "timestep_features"]

MAX_PERIOD = 10_000.0


def timestep_features(t: Float[Tensor, " b"], channels: int = 256) -> Float[Tensor, "b c"]:
    """Cosines and sines of a time at geometrically spaced frequencies.

    Args:
        t: (b,) floats, one time a sample, on the scale the network was trained with; the four systems use 0 to 1000.
        channels: width of the result, even.
    Returns:
        (b, channels) float32, or float64 for float64 times: cos(t·f_i), then sin(t·f_i), with f_i = 10000^(−2i / channels).
    Raises:
        ShapeError, DtypeError: t is not (b,) floats.   RangeError: odd or non-positive channels.
    Source: TRELLIS, TRELLIS.2 and Direct3D-S2, which all put the cosines first; differences: none.
    Numerics: half-precision times are widened first, so a time is exactly what was passed.
    Example:
        >>> timestep_features(torch.tensor([0.0]), 4).tolist()
        [[1.0, 1.0, 0.0, 0.0]]
    """
    where = "timestep_features"
    require_tensor(where, "t", t, ("b",), FLOATS, hint="One time a sample.")
    if require_int(where, "channels", channels, 2) % 2:
        raise RangeError(f"{where}: channels must be even, a cosine and a sine for each frequency; got {channels}.")
    half = channels // 2
    # Angles reach 1000 radians: both factors are made in float32 as in training, or the highest frequencies would differ.
    wide = t if t.dtype == torch.float64 else t.float()
    steps = torch.arange(half, dtype=wide.dtype, device=t.device)
    angles = wide[:, None] * torch.exp(-math.log(MAX_PERIOD) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], 1)


class TimestepEmbedder(nn.Module):
    """A time to a vector of the network's width: `timestep_features`, Linear, SiLU, Linear.

    Args:
        channels: width of the result.
        frequency_channels: width of the features, even.
    Parameters: `mlp.0.{weight (channels, frequency_channels), bias}`, `mlp.2.{weight (channels, channels), bias}`. Weights start
        normal with standard deviation 0.02, biases at 0.
    Shape: t (b,) floats → (b, channels), in the dtype of the weights.
    Raises: as `timestep_features`.
    Source: TRELLIS, TRELLIS.2 and Direct3D-S2; differences: none.
    Example:
        >>> TimestepEmbedder(64)(torch.tensor([0.0, 1000.0])).shape
        torch.Size([2, 64])
    """

    def __init__(self, channels: int, frequency_channels: int = 256) -> None:
        super().__init__()
        require_int("TimestepEmbedder", "channels", channels, 1)
        self.frequency_channels = require_int("TimestepEmbedder", "frequency_channels", frequency_channels, 2)
        self.mlp = nn.Sequential(nn.Linear(self.frequency_channels, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The initial weights again."""
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b c"]:
        features = timestep_features(t, self.frequency_channels)
        return self.mlp(features.to(dtype_of(self.mlp[0])))
