"""The steps to finer levels cube by cube, and joining the pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from voxgen.core import SparseTensor
from voxgen.core.coords import pack_keys
from voxgen.models._tiles import Step, finer_grid, finest_pieces, warn_of_lost
from voxgen.ops.resample import Structure

from .config import STEPS, Norm
from .records import DecodedFlex

HALOS = {"per_voxel": (2, 1, 0), "group": (4, 8, 0)}
"""Cells around a cube, in those of each level, that go through its steps. A step convolves twice at the fine level, so it needs
⌈(h + 2) / 2⌉ coarse cells where the next needs h; after the last nothing more is needed. Group norms see all that there is, so no
halo gives the whole's numbers; theirs is the release's, kept to the end."""


def decode_tiles(
    run_step: Callable[..., Step | None],
    run_head: Callable[[Tensor], Tensor],
    h: SparseTensor,
    given: Sequence[Structure] | None,
    size: int,
    norm: Norm,
    progress: bool,
) -> DecodedFlex:
    """The rest of a decode in cubes of this side, each with its halo."""
    coords, features = [h.coords[:0]], []
    for part in finest_pieces(run_step, h, given, size, HALOS[norm], progress):
        coords.append(part.coords)
        features.append(run_head(part.feats))
    cells = torch.cat(coords)
    order = pack_keys(cells).argsort()
    grid = given[-1].children if given is not None else finer_grid(h.grid, cells[order], STEPS)
    if given is None:
        warn_of_lost("SparseFlexDecoder", h.grid, grid)
    rows = torch.cat(features)[order] if features else None
    return DecodedFlex(SparseTensor(grid, empty_rows(run_head, h) if rows is None else rows), tuple(given or ()))


def empty_rows(run_head: Callable[[Tensor], Tensor], h: SparseTensor) -> Tensor:
    """(0, 53): what the last layer gives where nothing is left."""
    return run_head(h.feats.new_zeros(0, h.channels // 8))
