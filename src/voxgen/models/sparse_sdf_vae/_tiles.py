"""The steps to finer levels cube by cube, and joining the pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxgen.core import SparseTensor
from voxgen.core.coords import pack_keys
from voxgen.models._tiles import Step, finer_grid, finest_pieces, warn_of_lost
from voxgen.ops.resample import Structure

from .config import STEPS
from .records import DecodedSDF

HALOS = (3, 3, 2, 0)
"""Cells around a cube, in those of each level, on which its result depends. A step convolves at the coarse level and once at the fine
one, so it needs 1 + ⌈(h + 1) / 2⌉ cells where the next needs h; after the last nothing more is needed."""


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
    for part in finest_pieces(run_step, h, given, size, HALOS, progress):
        coords.append(part.coords)
        values.append(run_head(part.feats))
        if features:
            kept.append(part.feats)
    cells = torch.cat(coords)
    order = pack_keys(cells).argsort()
    grid = given[-1].children if given is not None else finer_grid(h.grid, cells[order], STEPS)
    if given is None:
        warn_of_lost("SparseSDFDecoder", h.grid, grid)
    made = SparseTensor(grid, torch.cat(kept)[order]) if features else None
    return DecodedSDF(SparseTensor(grid, torch.cat(values)[order]), tuple(given or ()), (), made)
