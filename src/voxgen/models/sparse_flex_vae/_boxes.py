"""The chunked decode of TripoSF's release, cell for cell (compat)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from voxgen.core import SparseTensor
from voxgen.core.checks import require_int
from voxgen.core.coords import pack_keys, unpack_keys
from voxgen.core.errors import RangeError
from voxgen.models._tiles import Step, finer_grid
from voxgen.models.sc_vae._outputs import bar

from ._tiles import empty_rows
from .config import STEPS
from .records import EmittedFlex

FEW, MANY = 4, 8
"""Boxes along an axis, below and from `LARGE` latents on."""
LARGE = 150_000
PADDING = 4
"""Latents around a box that are decoded with it."""
MULTIPLE = 4
"""Of which the side of a box must be a multiple."""
BEYOND = 3
"""Cells of the result beyond a box's upper bounds that it emits too."""


def emit_boxes(
    where: str,
    run_step: Callable[[int, SparseTensor], Step | None],
    run_head: Callable[[Tensor], Tensor],
    h: SparseTensor,
    boxes: int | None,
    progress: bool,
) -> EmittedFlex:
    """All boxes, x slowest; in a box the rows of the original: by latent, then child, then its child, z fastest."""
    count = (FEW if len(h) < LARGE else MANY) if boxes is None else require_int(where, "boxes", boxes, 1)
    sides = [n // count for n in h.grid.resolution]
    if any(side == 0 or side % MULTIPLE for side in sides):
        raise RangeError(
            f"{where}: boxes must have sides of a multiple of {MULTIPLE} latents; {count} boxes along {h.grid.resolution} have {sides}. "
            f"Give other boxes, or decode with tile=."
        )
    side = torch.tensor(sides, dtype=torch.int32, device=h.device)
    cells = h.grid.cells
    coords, features = [h.coords[:0]], [empty_rows(run_head, h)]
    for place in bar(list(product(range(count), repeat=3)), "boxes", count**3, progress):
        low = torch.tensor(place, dtype=torch.int32, device=h.device) * side
        rows = ((cells >= low - PADDING) & (cells < low + side + PADDING)).all(1).nonzero().flatten()
        part: SparseTensor | None = SparseTensor(h.grid.select(rows), h.feats[rows])
        for level in range(STEPS):
            step = run_step(level, part) if part is not None and len(part) else None
            part = None if step is None else step.x
        if part is None:
            continue
        scale = 2**STEPS
        found = part.grid.cells
        inside = ((found >= scale * low) & (found < scale * (low + side) + BEYOND)).all(1).nonzero().flatten()
        emitted = inside[_order(part.coords[inside])]
        coords.append(part.coords[emitted])
        features.append(run_head(part.feats[emitted]))
    every = torch.cat(coords)
    grid = finer_grid(h.grid, unpack_keys(pack_keys(every).unique()), STEPS)
    return EmittedFlex(every, torch.cat(features), grid)


def _order(coords: Tensor) -> Tensor:
    """Rows by latent, then by the child that each step has made: z fastest, x slowest."""
    cells = coords[:, 1:].long()
    coarse = torch.cat([coords[:, :1], (cells >> STEPS).int()], 1)
    keys = pack_keys(coarse).unique(return_inverse=True)[1]
    for level in reversed(range(STEPS)):
        x, y, z = ((cells >> level) & 1).unbind(1)
        keys = keys << 3 | x << 2 | y << 1 | z
    return keys.argsort()
