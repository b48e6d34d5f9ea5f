"""Submanifold convolution by torchsparse 2.1, with its own map of the same cells, which is kept with our table.

torchsparse has no package on the registry; this adapter follows its public functions and was never run against it on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxgen.ops.neighbors import NeighborTable

from .layouts import to_layout


def conv(feats: Tensor, weight: Tensor, bias: Tensor | None, table: NeighborTable) -> Tensor:
    """See `sparse_conv`."""
    import torchsparse  # pyright: ignore[reportMissingImports]
    from torchsparse.nn import functional  # pyright: ignore[reportMissingImports]

    grid, size = table.in_grid, table.key.kernel_size
    tensor = torchsparse.SparseTensor(feats, grid.coords, stride=1, spatial_range=(grid.batch_size, *grid.resolution))
    training = torch.is_grad_enabled() and (feats.requires_grad or weight.requires_grad)
    # a map that was made for inference lacks what the gradient needs
    known: dict[str, Any] = table.relation.derived(("torchsparse caches", training), dict)
    if "caches" in known:
        tensor._caches = known["caches"]
    out = functional.conv3d(tensor, to_layout(weight, "torchsparse", size), size, bias=bias, stride=1, training=training)
    known["caches"] = out._caches
    return out.feats
