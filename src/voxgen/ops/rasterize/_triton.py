"""Z-buffer on GPUs: pairs of a face and a pixel of its box, in two passes of atomic minima.

A 64-bit word holds a float64 depth or a shortened depth beside an index. The first decides as the reference does: one pass finds the
smallest depth of each pixel, the next the lowest face that has it. Minima do not depend on the order, so results never change.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from voxgen.ops.block_attention._triton import on_device

from ._barycentrics import to_screen
from ._bounds import boxes_of
from ._query import Query, View, Window
from ._triton_kernels import nearest_kernel

BLOCK, INTERPRETED_BLOCK = 256, 1 << 14
"""Pairs of a program. The interpreter pays by the program."""
_LAUNCH = 1 << 30
"""Pairs of one launch: grids are limited to 2³¹ programs."""


def visible_faces(query: Query) -> Tensor:
    """See `Query`: (b, rows, columns) int32 index of the nearest face, -1 for none."""
    return torch.stack([_one_view(view, query.faces, query.window) for view in query.views()])


def _one_view(view: View, faces: Tensor, window: Window) -> Tensor:
    boxes = boxes_of(view, faces, window)
    pairs = boxes.pairs
    best = torch.full((window.pixels,), 2**63 - 1, dtype=torch.int64, device=faces.device)
    best_id = torch.full((window.pixels,), 2**31 - 1, dtype=torch.int32, device=faces.device)
    peel = view.lowest_depth is not None and view.lowest_id is not None
    lowest_depth = view.lowest_depth.contiguous() if view.lowest_depth is not None else best.double()[:1]
    lowest_id = view.lowest_id.contiguous() if view.lowest_id is not None else best_id[:1]
    corners = faces.index_select(0, boxes.face).long().sort(dim=1).values
    screen = torch.stack(to_screen(view.positions, window.height, window.width), -1)
    block = BLOCK if faces.device.type == "cuda" else INTERPRETED_BLOCK
    steps = max(1, len(boxes.face).bit_length())
    # fused multiply-add rounds differently
    constants: dict[str, Any] = {"STEPS": steps, "BLOCK": block, "PEEL": peel, "enable_fp_fusion": False}
    with on_device(faces):
        for by_depth in (True, False):
            for start in range(0, pairs, _LAUNCH):
                nearest_kernel[(triton.cdiv(min(_LAUNCH, pairs - start), block),)](
                    screen,
                    corners,
                    boxes.face,
                    boxes.ends,
                    boxes.top,
                    boxes.left,
                    boxes.columns,
                    lowest_depth,
                    lowest_id,
                    best,
                    best_id,
                    len(boxes.face),
                    start,
                    pairs,
                    window.top,
                    window.left,
                    window.columns,
                    **{**constants, "BY_DEPTH": by_depth},
                )
    return torch.where(best_id == 2**31 - 1, -1, best_id).view(window.rows, window.columns)
