"""Decoding cube by cube, and joining the pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.coords import pack_keys
from voxgen.ops.resample import Structure

from ._outputs import DecoderOutput, bar, warn_of_emptied
from .tiling import Tiling, count_cubes, cubes, halo

if TYPE_CHECKING:
    from .decoder import SCDecoder


@dataclass
class _Pieces:
    """What all cubes give at one level: cells, and logits of the step from it."""

    coords: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)


def decode_tiles(
    decoder: SCDecoder, h: SparseTensor, given: Sequence[Structure] | None, tiling: Tiling, before: DecoderOutput, progress: bool
) -> DecoderOutput:
    """The rest of a decode. `h` enters the level that is cut; `before` holds what the levels above have given."""
    first = tiling.first_level(len(decoder.blocks))
    levels = [_Pieces() for _ in decoder.blocks]
    heads: list[Tensor] = []
    pieces = cubes(h.grid, tiling.size, halo(decoder.config, first))
    for rows, core in bar(pieces, "tiles", count_cubes(h.grid, tiling.size), progress):
        end = _decode_cube(decoder, SparseTensor(h.grid.select(rows), h.feats[rows]), rows, core, given, first, levels)
        if end is not None:
            heads.append(end)
    return _join(decoder, h.grid, given, first, levels, heads, before)


def _decode_cube(
    decoder: SCDecoder, h: SparseTensor, rows: Tensor, core: Tensor, given: Sequence[Structure] | None, first: int, levels: list[_Pieces]
) -> Tensor | None:
    """Decode one cube, note what descends from its core at each level, and return the last layer's output there, if there is any.

    `rows` are the cube's cells in the grid that is cut, `core` says which of them are no halo.
    """
    for level in range(first, decoder.num_steps):
        levels[level].coords.append(h.coords[core])
        h = decoder.run_blocks(level, h)
        local = None
        if given is not None:
            rows = children_of(given[level], rows)
            local = Structure.between(h.grid, given[level].children.select(rows))
        elif decoder.config.pred_subdiv:
            logits, mask = decoder.predict(level, h)
            if not bool(mask.any()):
                levels[level].logits.append(logits[core])
                return None
        h, structure, scores = decoder.run_step(level, h, local)
        if scores is not None:
            levels[level].logits.append(scores.feats[core])
        core = core[structure.parent.long()]
        if not bool(core.any()):
            return None
    h = decoder.run_blocks(decoder.num_steps, h)
    levels[decoder.num_steps].coords.append(h.coords[core])
    kept = core.nonzero().flatten()
    return decoder.run_head(SparseTensor(h.grid.select(kept), h.feats[kept])).feats


def children_of(structure: Structure, parents: Tensor) -> Tensor:
    """Rows of the children of some parents, ascending."""
    rows = structure.table[parents].flatten()
    return rows[rows >= 0].long().sort().values


def _join(
    decoder: SCDecoder,
    grid: VoxelGrid,
    given: Sequence[Structure] | None,
    first: int,
    levels: list[_Pieces],
    heads: list[Tensor],
    before: DecoderOutput,
) -> DecoderOutput:
    """One output from all cubes. Cores do not overlap, so every cell comes from one cube."""
    structures, logits = list(before.structures), list(before.logits)
    for level in range(first, decoder.num_steps + 1):
        pieces = levels[level]
        coords = torch.cat(pieces.coords) if pieces.coords else grid.coords[:0]
        order = pack_keys(coords).argsort()
        if level > first:
            finer = given[level - 1].children if given is not None else _finer(grid, coords[order])
            if given is None:
                structures.append(Structure.between(grid, finer))
                warn_of_emptied("SCDecoder", structures[-1], level - 1, partly_only=False)
            grid = finer
        if level < decoder.num_steps and decoder.config.pred_subdiv:
            like = before.head.feats.new_zeros(0, 8)
            logits.append(SparseTensor(grid, (torch.cat(pieces.logits) if pieces.logits else like)[order]))
    if heads:
        head = torch.cat(heads)[pack_keys(torch.cat(levels[-1].coords)).argsort()]
    else:
        head = decoder.output_layer.weight.new_zeros(0, decoder.config.out_channels)
    head = SparseTensor(grid, head)
    return DecoderOutput(head, tuple(logits), tuple(given) if given is not None else tuple(structures))


def _finer(coarse: VoxelGrid, coords: Tensor) -> VoxelGrid:
    x, y, z = (2 * r for r in coarse.resolution)
    return VoxelGrid.from_sorted(coords, resolution=(x, y, z), batch_size=coarse.batch_size, frame=coarse.frame.refine(2))
