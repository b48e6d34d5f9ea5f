"""The definition: for each offset, the rows that it meets times its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.ops.neighbors import NeighborTable


def conv(feats: Tensor, weight: Tensor, bias: Tensor | None, table: NeighborTable) -> Tensor:
    """See `sparse_conv`."""
    wide = torch.float64 if feats.dtype == torch.float64 else torch.float32
    rows = torch.cat((feats.to(wide), feats.new_zeros(1, feats.shape[1], dtype=wide)))  # row −1 is that of an absent cell
    out = torch.zeros(len(table), weight.shape[2], dtype=wide, device=feats.device)
    for k in range(table.volume):
        out = out + rows[table.table[:, k].long()] @ weight[k].to(wide)
    if bias is not None:
        out = out + bias.to(wide)
    return out.to(feats.dtype)
