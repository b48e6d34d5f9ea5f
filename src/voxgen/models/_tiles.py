"""Steps to finer levels cube by cube, in memory that grows with a cube and not with the whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.batching import counts_from_offsets
from voxgen.core.errors import EmptyResultWarning
from voxgen.ops.resample import Structure

from .sc_vae._outputs import bar
from .sc_vae._tiles import children_of
from .sc_vae.tiling import count_cubes, cubes


@dataclass(frozen=True, eq=False)
class Step:
    """What one step to a finer level gives: features, structure, and logits if it predicts."""

    x: SparseTensor
    structure: Structure
    logits: SparseTensor | None


def finest_pieces(
    run_step: Callable[..., Step | None],
    h: SparseTensor,
    given: Sequence[Structure] | None,
    size: int,
    halos: Sequence[int],
    progress: bool,
) -> Iterator[SparseTensor]:
    """What descends from each cube of h's cells at the finest level; cubes where nothing does are left out.

    Args:
        run_step: (level, part, structure or None, quiet=True) → Step, or None where a prediction keeps nothing.
        h: features that enter the first step.
        given: the structure of each step, or None for those that the steps make.
        size: side of a cube in cells of h.
        halos: cells around a cube, in those of each level, that are kept at it: on which the cube's result depends. The last is 0.
        progress: show a bar of cubes.
    """
    for rows, core in bar(cubes(h.grid, size, halos[0]), "tiles", count_cubes(h.grid, size), progress):
        low = h.grid.cells[rows[core][0]] // size * size
        part = SparseTensor(h.grid.select(rows), h.feats[rows])
        for level, width in enumerate(halos[1:]):
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
            yield part


def finer_grid(coarse: VoxelGrid, coords: Tensor, steps: int) -> VoxelGrid:
    """Sorted cells as a grid some steps finer than a given one."""
    factor = 2**steps
    x, y, z = (factor * r for r in coarse.resolution)
    return VoxelGrid.from_sorted(coords, resolution=(x, y, z), batch_size=coarse.batch_size, frame=coarse.frame.refine(factor))


def warn_of_lost(where: str, coarse: VoxelGrid, fine: VoxelGrid) -> None:
    """Warn of samples that have cells in the one grid and none in the other."""
    lost = ((counts_from_offsets(coarse.offsets) > 0) & (counts_from_offsets(fine.offsets) == 0)).nonzero().flatten().tolist()
    if lost:
        shown = ", ".join(map(str, lost[:10])) + (", …" if len(lost) > 10 else "")
        warnings.warn(f"{where}: the prediction keeps no cell of sample {shown}.", EmptyResultWarning, stacklevel=4)
