"""EarlyPruningUpsampler: predict which children exist before making features for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, require_same_device, require_tensor
from voxgen.core.errors import RangeError
from voxgen.ops.resample import Structure

from ._checks import require_cells, require_input
from ._residual_resample import CHILDREN, ResidualUpsample


@dataclass(frozen=True)
class Upsampled:
    x: SparseTensor
    structure: Structure
    logits: Float[Tensor, "p 8"]


class EarlyPruningUpsampler(nn.Module):
    def __init__(self, channels: int, out_channels: int, upsample: nn.Module | None = None, threshold: float = 0.0) -> None:
        super().__init__()
        self.predict = nn.Linear(channels, CHILDREN)
        self.upsample = ResidualUpsample(channels, out_channels) if upsample is None else upsample
        self.threshold = threshold

    def forward(
        self,
        x: SparseTensor,
        *,
        structure: Structure | None = None,
        mask: Bool[Tensor, "p 8"] | Float[Tensor, "p 8"] | None = None,
    ) -> Upsampled:
        where = "EarlyPruningUpsampler"
        require_input(where, x, self.predict.in_features, self.predict.weight)
        if structure is not None and mask is not None:
            raise RangeError(f"{where}: structure and mask both say which children exist; give at most one of them.")
        if structure is not None:
            require_cells(where, "structure.parents", structure.parents, x)
        logits = self.predict(x.feats)
        if structure is None:
            structure = Structure.of_mask(x.grid, self._decide(where, x, logits if mask is None else mask))
        return Upsampled(self.upsample(x, structure), structure, logits)

    def _decide(self, where: str, x: SparseTensor, mask: Tensor) -> Tensor:
        require_tensor(where, "mask", mask, (len(x), CHILDREN), (torch.bool, *FLOATS), hint="One row a cell of x, one column a child.")
        require_same_device(where, x=x.feats, mask=mask)
        return mask if mask.dtype == torch.bool else mask > self.threshold
