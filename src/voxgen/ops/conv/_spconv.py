"""Sparse convolution by spconv's native algorithm, from our own table: only its products are used, not its maps."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.ops.neighbors import NeighborTable

from .layouts import to_layout


def conv(feats: Tensor, weight: Tensor, bias: Tensor | None, table: NeighborTable) -> Tensor:
    """See `sparse_conv`."""
    from spconv.core import ConvAlgo  # pyright: ignore[reportMissingImports]
    from spconv.pytorch.functional import indice_conv  # pyright: ignore[reportMissingImports]

    if len(feats) == 0 or len(table) == 0:
        from ._reference import conv as convolve_by_definition

        return convolve_by_definition(feats, weight, bias, table)
    pairs, counts = table.relation.derived(("spconv pairs", table.is_transposed), lambda: _pairs(table.table))
    filters = to_layout(weight, "trellis2", table.key.kernel_size)  # its layout for every size, where its functions are called
    out = indice_conv(feats.contiguous(), filters, pairs, counts, len(table), ConvAlgo.Native)
    return out if bias is None else out + bias


def _pairs(table: Tensor) -> tuple[Tensor, Tensor]:
    """(2, K, n) int32 input and output rows of each offset's pairs, the present ones first, and (K,) int32 their number."""
    columns = table.T.contiguous()
    present = columns >= 0
    order = torch.sort((~present).to(torch.uint8), dim=1, stable=True).indices
    used = present.gather(1, order)
    sources = torch.where(used, columns.gather(1, order), -1)
    targets = torch.where(used, order.int(), -1)
    return torch.stack((sources, targets)).contiguous(), present.sum(1, dtype=torch.int32)
