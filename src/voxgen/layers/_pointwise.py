"""Any module on features as a layer on sparse tensors."""

from __future__ import annotations

from torch import nn

from voxgen.core import SparseTensor


class Pointwise(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.with_feats(self.module(x.feats))


def pointwise(module: nn.Module) -> Pointwise:
    return Pointwise(module)
