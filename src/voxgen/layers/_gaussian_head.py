"""GaussianHead: features of a cell to the raw channels of its Gaussians."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.errors import RangeError
from voxgen.core.hammersley import hammersley

from ._checks import require_channels, require_input


class GaussianHead(nn.Module):
    """A linear map to the raw channels of several Gaussians a cell, and the places in the cell where they start.

    The channels of g Gaussians lie in groups, each (g, k) with k fastest: offsets of the centre (3g), colour (3g), scales (3g),
    rotation (4g), opacity (g). `voxgen.representations.GaussianSplats.from_features` activates them.

    Args:
        channels: C.
        num_gaussians: g; 32 at resolution 64, 8 at 128 and 4 at 256 keep their number constant.
        voxel_size: how far a centre may go, in cells: half of it from the middle of the cell along each axis; above 1.
        perturb_offset: False starts all of them in the middle of the cell.
    Parameters:
        linear.weight: (14g, C).   linear.bias: (14g,).
    Buffer:
        offset_perturbation: (g, 3), added to raw offsets before their tanh: (tanh(offset_perturbation) · voxel_size + 1) / 2 is the
        i-th point of a Hammersley set over the cell.
    Raises:
        RangeError: a width or number below 1, a voxel_size that is not above 1. By `forward`: ShapeError, DtypeError, DeviceError, x
        does not fit.
    Takes (n cells, C), returns (n cells, 14g) on the same grid. Differentiable. Empty tensors are legal.
    Cost: 28 C · g operations a cell.
    Source: TRELLIS, last layer of its Gaussian decoder; differences: none.
    Example:
        >>> GaussianHead(16, num_gaussians=4)(x).channels                 # x: SparseTensor of 16 channels
        56
    """

    WIDTH: ClassVar[int] = 14
    offset_perturbation: Tensor

    def __init__(self, channels: int, num_gaussians: int = 32, *, voxel_size: float = 1.5, perturb_offset: bool = True) -> None:
        super().__init__()
        where = "GaussianHead"
        require_channels(where, channels=channels, num_gaussians=num_gaussians)
        if not 1 < voxel_size < math.inf:
            raise RangeError(f"{where}: voxel_size must be above 1 and finite, or the first Gaussian starts at infinity; got {voxel_size}.")
        self.linear = nn.Linear(channels, self.WIDTH * num_gaussians)
        self.num_gaussians = num_gaussians
        self.voxel_size = voxel_size
        self.perturb_offset = perturb_offset
        self.register_buffer("offset_perturbation", self.starts(self.linear.weight.device))

    def starts(self, device: torch.device | str = "cpu") -> Float[Tensor, "g 3"]:
        """What `offset_perturbation` holds, float32."""
        if not self.perturb_offset:
            return torch.zeros(self.num_gaussians, 3, device=device)
        return torch.atanh((2 * hammersley(self.num_gaussians) - 1) / self.voxel_size).float().to(device)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Raw channels at the cells of x."""
        require_input("GaussianHead", x, self.linear.in_features, self.linear.weight)
        return x.with_feats(self.linear(x.feats))
