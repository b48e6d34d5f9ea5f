"""The visible triangle by nvdiffrast's CUDA rasteriser (0.3.3 or later; not on the package registry, non-commercial licence).

Only its triangle ids are used; barycentrics and depth follow from them as for every engine. It moves vertices to the nearest 1/16 of
a pixel and depths to its own steps, so that ids differ from ours at edges and where surfaces meet, and the barycentrics
of such a pixel may lie a little outside 0 … 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from voxgen.core.errors import CapacityError
from voxgen.ops._registry import Call, Reasons

from ._query import Query, View

MAX_FACES = 1 << 24
"""Its ids are float32 numbers, exact up to here."""

_CONTEXTS: dict[torch.device, Any] = {}
"""One of its contexts a device, which hold buffers that grow with use."""


def nvdiffrast_serves(call: Call) -> Reasons:
    """CUDA, without peeling, and only where ids need not be those of the reference at edges."""
    reasons = [] if call.device.type == "cuda" else [f"runs on cuda, the tensors lie on {call.device}"]
    if call.facts.get("peels", False):
        reasons.append("cannot look behind given faces")
    if call.facts.get("exact", False):
        reasons.append("moves vertices to 1/16 of a pixel, so its ids are not exact")
    return tuple(reasons)


def visible_faces(query: Query) -> Tensor:
    """See `Query`: (b, rows, columns) int32 index of the nearest face, -1 for none."""
    import nvdiffrast.torch as dr  # pyright: ignore[reportMissingImports]

    device = query.positions.device
    if device not in _CONTEXTS:
        _CONTEXTS[device] = dr.RasterizeCudaContext(device=device)
    return torch.stack([_one_view(dr, _CONTEXTS[device], view, query) for view in query.views()])


def _one_view(dr: Any, context: Any, view: View, query: Query) -> Tensor:
    window = query.window
    if view.count > MAX_FACES:
        raise CapacityError(f"rasterize: nvdiffrast counts up to {MAX_FACES} faces; got {view.count}. Lower max_faces.")
    if view.count == 0:
        return torch.full((window.rows, window.columns), -1, dtype=torch.int32, device=query.positions.device)
    faces = query.faces[view.first : view.first + view.count].contiguous()
    found, _ = dr.rasterize(context, view.positions.float()[None].contiguous(), faces, (window.height, window.width), grad_db=False)
    ids = found[0, window.top : window.top + window.rows, window.left : window.left + window.columns, 3].int()
    return torch.where(ids > 0, ids - 1 + view.first, -1)
