"""A convolution of features that all children have from their parent, at less than a third of the products."""

from __future__ import annotations

import dataclasses
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.aliases import Feats
from voxgen.core.checks import FLOATS, require_tensor
from voxgen.core.errors import RangeError
from voxgen.ops.neighbors import NeighborTable, neighbor_table
from voxgen.ops.neighbors._relation import Relation
from voxgen.ops.resample import Structure, subdivide

_SHARES = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
"""[place of the child][place of the parent][offset], along one axis: which offsets of a child lead into which of two parents."""


def sparse_conv_subdivided(
    feats: Feats, weight: Float[Tensor, "27 ci co"], bias: Float[Tensor, " co"] | None, structure: Structure, *, backend: str = "auto"
) -> Float[Tensor, "n co"]:
    """`sparse_conv(subdivide(feats, structure), weight, bias, table)` on the children, kernel 3³.

    Where every parent has all its children, the 27 cells around a child lie in 8 parents, and those of one parent have the same
    features. So a child's result is a sum of 8 products, with weights that are sums over the offsets that lead into one
    parent: 64 products a parent in place of up to 216, and neither rows nor a neighbour table of the children are made. Otherwise
    the two steps are taken one after the other.

    Args:
        feats: (p, ci) floats, one row a cell of `structure.parents`.
        weight: (27, ci, co), offsets x slowest.   bias: (co,) or None.
        structure: of factor 2.
        backend: of the convolution, see docs/backends.md.
    Returns:
        (n, co), one row a cell of `structure.children`. Differentiable.
    Raises:
        RangeError: a structure of another factor.   ShapeError, DtypeError, DeviceError: as `sparse_conv`.
    Empty structures are legal.   Batch: other samples have no influence.
    Memory: without gradients the result and an eighth of it; with them three times the result.
    Source: none; Direct3D-S2's up block and TRELLIS.2's pooled one take the two steps.
    Numerics: sums of weights in float32 (float64 for float64), rounded once to the dtype of the weight; then as `sparse_conv`.
    """
    from . import sparse_conv

    where = "sparse_conv_subdivided"
    if structure.factor != (2, 2, 2):
        raise RangeError(f"{where}: structure must be of factor 2 along each axis; got factor {structure.factor}.")
    parents, children = structure.parents, structure.children
    require_tensor(where, "feats", feats, (len(parents), "ci"), FLOATS, hint="One row for each cell of structure.parents.")
    require_tensor(where, "weight", weight, (27, feats.shape[1], "co"), FLOATS, hint="(27, ci, co), offsets x slowest.")
    if len(children) != 8 * len(parents):
        return sparse_conv(subdivide(feats, structure), weight, bias, neighbor_table(children), backend=backend)
    kernel = weight.to(torch.promote_types(weight.dtype, torch.float32)).unflatten(0, (3, 3, 3))
    shares = _SHARES.to(kernel)

    def children_at(slot: int, table: NeighborTable) -> Tensor:
        x, y, z = slot % 2, slot // 2 % 2, slot // 4
        own = torch.einsum("ai,bj,ck,ijkno->abcno", shares[x], shares[y], shares[z], kernel).flatten(0, 2).to(weight.dtype)
        return sparse_conv(feats, own, bias, table, backend=backend)

    tables = _tables(structure)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (feats, weight, bias)):
        rows = torch.cat([children_at(slot, table) for slot, table in enumerate(tables)])
        return rows.index_select(0, structure.slot.long() * len(parents) + structure.parent.long())
    result = feats.new_empty(0, weight.shape[2])
    for slot, table in enumerate(tables):
        rows = children_at(slot, table)
        if slot == 0:  # under autocast the dtype is the convolution's
            result = rows.new_empty(len(children), weight.shape[2])
        result.index_copy_(0, structure.table[:, slot].long(), rows)
        del rows  # not held while the next part is made
    return result


def _tables(structure: Structure) -> list[NeighborTable]:
    """For each child (slot, x fastest) the 8 parents around it; kept on the grid of the parents."""
    parents = structure.parents

    def build() -> list[Relation]:
        around = neighbor_table(parents).table
        relations = []
        for z, y, x in product(range(2), repeat=3):
            columns = [(i * 3 + j) * 3 + k for i, j, k in product((x, x + 1), (y, y + 1), (z, z + 1))]
            relations.append(Relation(around[:, columns].contiguous(), len(parents), symmetric=False))
        return relations

    key = dataclasses.replace(neighbor_table(parents).key, kernel_size=(2, 2, 2))
    return [
        NeighborTable(parents, parents, dataclasses.replace(key, padding=(1 - slot % 2, 1 - slot // 2 % 2, 1 - slot // 4)), relation)
        for slot, relation in enumerate(parents.cached(("subdivided",), build))
    ]
