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

HALO = 3
"""Cells of the latent around a cube on which its result depends. A step convolves at the coarse level and once at the fine one, so
it needs 1 + (h + 1) / 2 cells where the next needs h: 2.625 after three steps."""


@dataclass(frozen=True, eq=False)
class Steps:
    """What the steps to finer levels give: features, structures, and logits where they predict.

    Attributes:
        emptied: whether a prediction left nothing, so that x is that of a coarser level.
    """

    x: SparseTensor
    structures: tuple[Structure, ...]
    logits: tuple[SparseTensor, ...]
    emptied: bool = False


def decode_tiles(
    run_steps: Callable[..., Steps],
    run_head: Callable[[Tensor], Tensor],
    h: SparseTensor,
    given: Sequence[Structure] | None,
    size: int,
    features: bool,
    progress: bool,
) -> DecodedSDF:
    """The rest of a decode in cubes of this side, each with its halo; of each only what descends from the cube itself is kept."""
    coords: list[Tensor] = []
    values: list[Tensor] = []
    kept_features: list[Tensor] = []
    for rows, core in bar(cubes(h.grid, size, HALO), "tiles", count_cubes(h.grid, size), progress):
        part = SparseTensor(h.grid.select(rows), h.feats[rows])
        steps = run_steps(part, _local(given, part.grid, rows), tile=True)
        if steps.emptied:
            continue
        for structure in steps.structures:
            core = core[structure.parent.long()]
        kept = core.nonzero().flatten()
        coords.append(steps.x.coords[kept])
        feats = steps.x.feats[kept]
        values.append(run_head(feats))
        if features:
            kept_features.append(feats)
    if not coords:  # no cell at all, or none that a prediction kept
        nothing = run_steps(
            SparseTensor(h.grid.select(torch.zeros(len(h), dtype=torch.bool, device=h.device)), h.feats[:0]), None, tile=False
        )
        coords, values, kept_features = [nothing.x.coords], [run_head(nothing.x.feats)], [nothing.x.feats]
    cells = torch.cat(coords)
    order = pack_keys(cells).argsort()
    grid = given[-1].children if given is not None else _finest(h.grid, cells[order])
    if given is None:
        _warn_of_lost(h.grid, grid)
    made = SparseTensor(grid, torch.cat(kept_features)[order]) if features else None
    return DecodedSDF(SparseTensor(grid, torch.cat(values)[order]), tuple(given or ()), (), made)


def _local(given: Sequence[Structure] | None, parents: VoxelGrid, rows: Tensor) -> list[Structure] | None:
    """The parts of the structures below some rows of the coarsest level."""
    if given is None:
        return None
    result: list[Structure] = []
    for structure in given:
        rows = children_of(structure, rows)
        result.append(Structure.between(parents, structure.children.select(rows)))
        parents = result[-1].children
    return result


def _finest(coarse: VoxelGrid, coords: Tensor) -> VoxelGrid:
    factor = 2**STEPS
    x, y, z = (factor * r for r in coarse.resolution)
    return VoxelGrid.from_sorted(coords, resolution=(x, y, z), batch_size=coarse.batch_size, frame=coarse.frame.refine(factor))


def _warn_of_lost(coarse: VoxelGrid, fine: VoxelGrid) -> None:
    lost = ((counts_from_offsets(coarse.offsets) > 0) & (counts_from_offsets(fine.offsets) == 0)).nonzero().flatten().tolist()
    if lost:
        shown = ", ".join(map(str, lost[:10])) + (", …" if len(lost) > 10 else "")
        warnings.warn(f"SparseSDFDecoder: the prediction keeps no cell of sample {shown}.", EmptyResultWarning, stacklevel=4)
