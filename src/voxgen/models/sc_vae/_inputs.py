"""Checks of what goes into the networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from voxgen.core import SparseTensor
from voxgen.core.checks import FLOATS, describe, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.ops.lookup import lookup_cells
from voxgen.ops.resample import Structure


def require_structures(where: str, z: SparseTensor, structures: Sequence[Structure], count: int) -> None:
    """Raise unless there is one structure a step, the first begins at z's cells and each next where the one before ends."""
    if len(structures) != count:
        raise ShapeError(f"{where}: structure must have {count} entries, one for each step to a finer level; got {len(structures)}.")
    cells = z.grid
    for i, structure in enumerate(structures):
        if not isinstance(structure, Structure):
            raise DtypeError(f"{where}: structure[{i}] must be a Structure; got {describe(structure)}.")
        if structure.factor != (2, 2, 2):
            raise RangeError(f"{where}: structure[{i}] must halve the cells; its factor is {structure.factor}.")
        if not structure.parents.same_cells(cells):
            raise RangeError(
                f"{where}: structure[{i}].parents must be the {len(cells)} cells that enter this step; it has {len(structure.parents)} "
                f"cells, or others. Structures run from coarse to fine, as an encoder returns them."
            )
        cells = structure.children


def follow_guide(where: str, z: SparseTensor, guide: Sequence[Tensor | SparseTensor], count: int) -> tuple[Structure, ...]:
    """The structures that masks or logits describe, level by level. Logits count as yes above 0.

    Raises:
        ShapeError: not one entry a step, or rows that do not fit.   RangeError: a SparseTensor that lacks one of the level's
        cells, or NaN.   DtypeError, DeviceError: not masks or logits, or elsewhere.
    """
    if len(guide) != count:
        raise ShapeError(f"{where}: guide must have {count} entries, one for each step to a finer level; got {len(guide)}.")
    structures: list[Structure] = []
    grid = z.grid
    for i, entry in enumerate(guide):
        name = f"guide[{i}]"
        rows = entry
        if isinstance(entry, SparseTensor):
            require_same_device(where, z=grid.coords, **{name: entry.feats})
            found = lookup_cells(entry.grid, grid.coords)
            if bool((found < 0).any()):
                cell = grid.coords[found < 0][0].tolist()
                raise RangeError(
                    f"{where}: {name} must cover the {len(grid)} cells of its level; {int((found < 0).sum())} have no row in it, the "
                    f"first is [batch, x, y, z] = {cell}. Do the guide and the latent belong to one shape?"
                )
            rows = entry.feats[found.long()]
        mask = require_tensor(
            where, name, rows, (len(grid), 8), (torch.bool, *FLOATS), hint="One row a cell of the level, in the grid's order."
        )
        require_same_device(where, z=grid.coords, **{name: mask})
        if mask.dtype != torch.bool:
            require_logits(where, name, mask)
            mask = mask > 0
        structures.append(Structure.of_mask(grid, mask))
        grid = structures[-1].children
    return tuple(structures)


def require_logits(where: str, name: str, logits: Tensor) -> None:
    """Raise RangeError if there is a NaN: it would count as "no child" without a word. Infinity is a decision."""
    bad = logits.isnan().any(1)
    if bool(bad.any()):
        raise RangeError(
            f"{where}: {name} must not be NaN; {int(bad.sum())} of {len(bad)} rows are. Non-finite weights or inputs, or float16 that "
            f"overflowed? Try torso_dtype 'bfloat16' or 'float32'."
        )
