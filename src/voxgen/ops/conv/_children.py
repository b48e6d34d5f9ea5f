"""A convolution whose output channels are children: computed only for the children that exist."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.aliases import Feats
from voxgen.core.checks import FLOATS, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.ops.neighbors import NeighborTable
from voxgen.ops.resample import Structure, channel_to_space


def sparse_conv_children(
    feats: Feats,
    weight: Float[Tensor, "K ci s*co"] | Float[Tensor, "ci s*co"],
    bias: Float[Tensor, " s*co"] | None,
    table: NeighborTable,
    structure: Structure,
    *,
    backend: str = "auto",
) -> Float[Tensor, "n co"]:
    """`channel_to_space(sparse_conv(feats, weight, bias, table), structure)`, without what the second step would drop.

    Near a surface about half of all children exist. Without gradients, each child's part of the channels is computed for
    the parents that have this child: half the operations, and no tensor of all children's channels. Where a gradient is
    wanted, the two steps are taken one after the other.

    Args:
        feats: (p, ci) floats, one row a cell of `table.in_grid`.
        weight: (K, ci, s·co), or (ci, s·co) where K is 1; the channels of child s lie at s·co, as in `channel_to_space`.
        bias: (s·co,) or None.
        table: outputs are the cells of `structure.parents`.
        structure: which children exist.
        backend: of the convolution, see docs/backends.md.
    Returns:
        (n, co), one row a cell of `structure.children`. Differentiable.
    Raises:
        ShapeError: channels that are no multiple of the children.   RangeError: the table's outputs are not the parents.
        Others as `sparse_conv`.
    Source: the first convolution of TRELLIS.2's C2S block; differences: parts for children that are dropped are not computed.
    Numerics: as `sparse_conv`; with numba the same bits as the two steps.
    """
    from . import sparse_conv

    where, slots = "sparse_conv_children", structure.num_slots
    if weight.ndim == 2:
        weight = weight[None]
    require_tensor(where, "weight", weight, (table.volume, "ci", "s·co"), FLOATS)
    if weight.shape[2] % slots:
        raise ShapeError(
            f"{where}: the output channels must be a multiple of the {slots} children a parent can have; got {weight.shape[2]}."
        )
    if len(table) != len(structure.parents):
        raise RangeError(f"{where}: table must lead to the {len(structure.parents)} cells of structure.parents; it leads to {len(table)}.")
    tensors = [t for t in (feats, weight, bias) if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return channel_to_space(sparse_conv(feats, weight, bias, table, backend=backend), structure)
    width = weight.shape[2] // slots
    result = feats.new_empty(0, width)
    for slot in range(slots):
        children = (structure.slot == slot).nonzero()[:, 0]
        part = slice(slot * width, (slot + 1) * width)
        own = table.restricted(structure.parent[children])
        rows = sparse_conv(feats, weight[:, :, part], bias if bias is None else bias[part], own, backend=backend)
        if slot == 0:  # under autocast the dtype is the convolution's
            result = rows.new_empty(len(structure.children), width)
        result.index_copy_(0, children, rows)
        del rows, own  # not held while the next part is made
    return result
