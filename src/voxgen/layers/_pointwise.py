"""Any module on features as a layer on sparse tensors."""

from __future__ import annotations

from torch import nn

from voxgen.core import SparseTensor


class Pointwise(nn.Module):
    """A module on features (n, c), applied to the features of a SparseTensor. Made by `pointwise`.

    Parameters: those of the module, under `module.`.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: SparseTensor) -> SparseTensor:
        """The same cells with the module's features; ShapeError if it does not give one row for each cell."""
        return x.with_feats(self.module(x.feats))


def pointwise(module: nn.Module) -> Pointwise:
    """Lift any module on features to sparse tensors, so that there need be no SparseLinear, SparseSiLU, SparseDropout.

    Args:
        module: takes (n, c) features, gives (n, c') features, row by row. One that mixes rows (batch norm) mixes cells of
            all samples; norms of one sample are `SparseGroupNorm` and `SparseInstanceNorm`.
    Returns:
        A module that takes and returns a SparseTensor.
    Cost: the module's.
    Source: none; TRELLIS.2 has one class for each activation and norm.
    Example:
        >>> from torch import nn
        >>> layers = nn.Sequential(SparseConv3d(16, 32), pointwise(nn.SiLU()), pointwise(nn.Linear(32, 8)))
        >>> layers(x).channels                                            # x: SparseTensor of 16 channels
        8
    """
    return Pointwise(module)
