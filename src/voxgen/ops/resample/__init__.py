"""Between levels of a hierarchy of grids: pooling, subdivision, and moving children into channels and back."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from voxgen.core.aliases import Feats
from voxgen.core.checks import FLOATS, require_choice, require_same_device, require_tensor
from voxgen.core.errors import ShapeError
from voxgen.core.grid import VoxelGrid
from voxgen.ops._registry import Backend, Op
from voxgen.ops.grid_sets import ChildOrder

from ._structure import Structure, slot_order

RESAMPLE = Op(
    "resample",
    [
        Backend("torch", "voxgen.ops.resample._torch:resample"),
        Backend("reference", "voxgen.ops.resample._reference:resample"),
    ],
)

Pooling = Literal["mean", "mean_plus_one", "sum", "max"]
"""What pooling takes of a parent's children.

"mean_plus_one": their sum over their number plus one, as the published Direct3D-S2 and TRELLIS weights were trained: a lone
child is halved.
"""


def pool(feats: Feats, structure: Structure, how: Pooling = "mean", *, backend: str = "auto") -> Feats:
    """Features of children to their parents.

    Args:
        feats: (n, c) floats, one row a cell of `structure.children`.
        structure: see `Structure`.
        how: see `Pooling`.
        backend: see docs/backends.md.
    Returns:
        (p, c) of the dtype of feats, one row a cell of `structure.parents`; 0 for a parent without children.
        Differentiable; equal largest children share the gradient of "max" equally.
    Raises:
        ShapeError: another number of rows.   DtypeError: not floats.   DeviceError: feats and structure on different
        devices.   RangeError: an unknown `how`.
    Empty structures are legal.
    Source: TRELLIS.2's pooled blocks ("mean", "max"); Direct3D-S2, mean pooling of its released code ("mean_plus_one").
    Numerics: sums in float32, or float64 for float64, in the order of the children; rounded once. Deterministic.
    """
    require_choice("pool", "how", how, ("mean", "mean_plus_one", "sum", "max"))
    _check("pool", feats, structure, structure.children)
    engine = RESAMPLE.engine(backend, feats)
    if how == "max":
        return engine("max", feats, structure.links, 1)
    wide = feats if feats.dtype == torch.float64 else feats.float()
    total = engine("add", wide, structure.links, 1)
    if how != "sum":
        counts = structure.links.groups[1].diff()[:, None]
        total = total / (counts + 1 if how == "mean_plus_one" else counts.clamp_min(1))
    return total.to(feats.dtype)


def subdivide(feats: Feats, structure: Structure, *, backend: str = "auto") -> Feats:
    """Features of parents to all their children (nearest).

    Args:
        feats: (p, c) floats, one row a cell of `structure.parents`.
        structure, backend: as in `pool`.
    Returns:
        (n, c), one row a cell of `structure.children`. Differentiable.
    Raises: as `pool`.
    """
    _check("subdivide", feats, structure, structure.parents)
    return RESAMPLE.engine(backend, feats)("take", feats, structure.links, 1)


def space_to_channel(feats: Feats, structure: Structure, *, order: ChildOrder = "x_fastest", backend: str = "auto") -> Feats:
    """Features of all children of a parent side by side; zeros for children that are not there.

    Args:
        feats: (n, c) floats, one row a cell of `structure.children`.
        structure, backend: as in `pool`.
        order: which child's channels come first. "x_fastest": child s = x + fx·y + fx·fy·z is at s·c (TRELLIS.2).
    Returns:
        (p, s·c), one row a cell of `structure.parents`. Differentiable.
    Raises: as `pool`; RangeError for an unknown order.
    Source: S2C of TRELLIS.2's sparse residual autoencoding; differences: none.
    """
    _check("space_to_channel", feats, structure, structure.children)
    slots = slot_order(structure.factor, order, feats.device)
    placed = RESAMPLE.engine(backend, feats)("place", feats, structure.links, structure.num_slots)
    if order == "x_fastest":
        return placed
    return placed.view(len(placed), len(slots), feats.shape[1])[:, slots].flatten(1)


def channel_to_space(feats: Feats, structure: Structure, *, order: ChildOrder = "x_fastest", backend: str = "auto") -> Feats:
    """The inverse of `space_to_channel`: each child takes its part of its parent's channels.

    Args:
        feats: (p, s·c) floats, one row a cell of `structure.parents`; s is `structure.num_slots`.
        structure, order, backend: as in `space_to_channel`.
    Returns:
        (n, c), one row a cell of `structure.children`. Channels of children that are not there are dropped. Differentiable.
    Raises: as `pool`; ShapeError if s does not divide the channels; RangeError for an unknown order.
    Source: C2S of TRELLIS.2's sparse residual autoencoding; differences: the structure is an argument and not a cache.
    """
    _check("channel_to_space", feats, structure, structure.parents)
    count = structure.num_slots
    if feats.shape[1] % count:
        raise ShapeError(
            f"channel_to_space: the channels must be a multiple of the {count} children a parent can have; got {feats.shape[1]}."
        )
    slots = slot_order(structure.factor, order, feats.device)
    if order != "x_fastest":
        feats = feats.view(len(feats), count, feats.shape[1] // count)[:, slots.argsort()].flatten(1)
    return RESAMPLE.engine(backend, feats)("take", feats, structure.links, count)


def _check(where: str, feats: Tensor, structure: Structure, grid: VoxelGrid) -> None:
    name = "children" if grid is structure.children else "parents"
    require_tensor(where, "feats", feats, (len(grid), "c"), FLOATS, hint=f"One row for each cell of structure.{name}.")
    require_same_device(where, feats=feats, structure=structure.parent)


__all__ = ["Pooling", "Structure", "channel_to_space", "pool", "space_to_channel", "subdivide"]
