"""The steps to finer levels cube by cube, and joining the pieces."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.batching import counts_from_offsets
from voxgen.core.coords import pack_keys
from voxgen.core.errors import EmptyResultWarning
from voxgen.models.sc_vae._outputs import bar
from voxgen.models.sc_vae._tiles import children_of
from voxgen.models.sc_vae.tiling import count_cubes, cubes
from voxgen.ops.resample import Structure

from .config import STEPS
from .records import DecodedSDF

HALOS = (3, 3, 2, 0)
"""Cells around a cube, in those of each level, on which its result depends. A step convolves at the coarse level and once at the fine
one, so it needs 1 + ⌈(h + 1) / 2⌉ cells where the next needs h; after the last nothing more is needed."""


@dataclass(frozen=True, eq=False)
class Step:
    """What one step to a finer level gives: features, structure, and logits if it predicts."""

    x: SparseTensor
    structure: Structure
    logits: SparseTensor | None


def decode_tiles(
    run_step: Callable[..., Step | None],
    run_head: Callable[[Tensor], Tensor],
    h: SparseTensor,
    given: Sequence[Structure] | None,
    size: int,
    channels: int,
    features: bool,
    progress: bool,
) -> DecodedSDF:
    """The rest of a decode in cubes of this side, each with its halo, which shrinks from level to level to nothing."""
    nothing = h.feats.new_zeros(0, channels)
    coords, values, kept = [h.coords[:0]], [run_head(nothing)], [nothing]
    for rows, core in bar(cubes(h.grid, size, HALOS[0]), "tiles", count_cubes(h.grid, size), progress):
        low = h.grid.cells[rows[core][0]] // size * size
        part = SparseTensor(h.grid.select(rows), h.feats[rows])
        for level, width in enumerate(HALOS[1:]):
            local = None
            if given is not None:
                rows = children_of(given[level], rows)
                local = Structure.between(part.grid, given[level].children.select(rows))
            step = run_step(level, part, local, quiet=True)
            if step is None:
                break
            low, side = 2 * low, size << level + 1
            cells = step.x.grid.cells
            near = ((cells >= low - width) & (cells < low + side + width)).all(1).nonzero().flatten()
            part, rows = SparseTensor(step.x.grid.select(near), step.x.feats[near]), rows[near] if given is not None else rows
        else:
            coords.append(part.coords)
            values.append(run_head(part.feats))
            if features:
                kept.append(part.feats)
    cells = torch.cat(coords)
    order = pack_keys(cells).argsort()
    grid = given[-1].children if given is not None else _finest(h.grid, cells[order])
    if given is None:
        _warn_of_lost(h.grid, grid)
    made = SparseTensor(grid, torch.cat(kept)[order]) if features else None
    return DecodedSDF(SparseTensor(grid, torch.cat(values)[order]), tuple(given or ()), (), made)


def _finest(coarse: VoxelGrid, coords: Tensor) -> VoxelGrid:
    factor = 2**STEPS
    x, y, z = (factor * r for r in coarse.resolution)
    return VoxelGrid.from_sorted(coords, resolution=(x, y, z), batch_size=coarse.batch_size, frame=coarse.frame.refine(factor))


def _warn_of_lost(coarse: VoxelGrid, fine: VoxelGrid) -> None:
    lost = ((counts_from_offsets(coarse.offsets) > 0) & (counts_from_offsets(fine.offsets) == 0)).nonzero().flatten().tolist()
    if lost:
        shown = ", ".join(map(str, lost[:10])) + (", …" if len(lost) > 10 else "")
        warnings.warn(f"SparseSDFDecoder: the prediction keeps no cell of sample {shown}.", EmptyResultWarning, stacklevel=4)
