"""The definition: every cell in the bounding box of every triangle is tested."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core.coords import pack_keys, unpack_keys
from voxgen.ops.dual_grid._prepare import touch_margin
from voxgen.ops.dual_grid._reference import touches
from voxgen.ops.voxelize._prepare import Scene


def covered_cells(scene: Scene) -> Tensor:
    """See `voxgen.ops.covered_cells.covered_cells`."""
    p, size, margin = scene.vertices[scene.faces.long()].double(), scene.sizes(), touch_margin(scene)
    limits = torch.tensor(scene.resolution, device=p.device)
    first = ((p.amin(1) / size - margin).floor().long()).clamp(min=0)
    end = torch.minimum((p.amax(1) / size + margin).floor().long() + 1, limits)
    shape = (end - first).clamp(min=0)
    counts = shape.prod(1)
    t = torch.arange(len(p), device=p.device).repeat_interleave(counts)
    at = torch.arange(len(t), device=p.device) - (counts.cumsum(0) - counts)[t]
    _, height, depth = shape[t].unbind(1)
    cell = first[t] + torch.stack((at // (height * depth), at // depth % height, at % depth), 1)
    hit = cell[touches(p[t], size, margin, cell)]
    keys = pack_keys(torch.nn.functional.pad(hit, (1, 0))).unique()
    return unpack_keys(keys)[:, 1:].contiguous()
