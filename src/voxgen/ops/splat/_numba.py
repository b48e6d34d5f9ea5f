"""Gaussians on the image, compiled for the CPU: forward and backward by hand, with threads, the same in every run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import get_num_threads
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._numba_blend import blend, blend_backward, sum_slots
from ._numba_project import SPOT_SIZE, project, project_backward
from ._numba_tiles import TILE, slot_starts, tile_lists
from ._view import View

_COMPENSATION = {"none": 0, "determinant": 1, "mip": 2}


def splat(means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, features: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """See `_reference.splat`."""
    inputs = [t.contiguous() for t in (means, rotations, scales, opacities, features)]
    return _Splat.apply(*inputs, view)  # pyright: ignore[reportReturnType]


def _numbers(view: View) -> Any:
    """The view as the kernels read it, see `_numba_project`."""
    k, p = view.intrinsics.detach(), view.preset
    values = [
        *view.rotation.detach().flatten().tolist(),
        *view.translation.detach().tolist(),
        *(float(v) for v in (k[0, 0], k[1, 1], k[0, 2], k[1, 2])),
        *view.low,
        *view.high,
        view.near,
        view.far,
        view.near_included,
        view.orthographic,
        p.blur,
        _COMPENSATION[p.compensation],
        p.depth_offset,
        *view.crop,
        p.alpha_max,
        p.strict_stop,
    ]
    return np.array(values, np.float64)


def _arrays(*tensors: Tensor) -> Any:
    return tuple(t.detach().numpy() for t in tensors)


class _Splat(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, means: Tensor, rotations: Tensor, scales: Tensor, opacities: Tensor, features: Tensor, view: View
    ) -> tuple[Tensor, Tensor]:
        arrays = _arrays(means, rotations, scales, opacities)
        numbers, threads, n = _numbers(view), get_num_threads(), len(means)
        _, _, width, height = view.crop
        spots, depth, box = np.zeros((n, SPOT_SIZE)), np.zeros(n, np.float32), np.zeros((n, 4), np.int32)
        project(*arrays, numbers, threads, spots, depth, box)  # pyright: ignore[reportCallIssue] (a star of unknown length)
        seen = np.nonzero((box[:, 1] >= box[:, 0]) & (box[:, 3] >= box[:, 2]))[0]
        order = seen[np.argsort(depth[seen], kind="stable")]
        lists = tile_lists(box, order, -(-width // TILE), -(-height // TILE)) if len(order) else None
        image, through = features.new_zeros(height, width, features.shape[1]), features.new_ones(height, width)
        last_pair = np.zeros((height, width), np.int64)
        if lists is not None:
            bounds, gaussian, _ = lists
            rows = features.detach().numpy()
            blend(spots, box, rows, bounds, gaussian, numbers, threads, image.numpy(), through.numpy(), last_pair)
        ctx.save_for_backward(means, rotations, scales, opacities, features, through)
        ctx.state = numbers, spots, box, lists, last_pair
        return image, 1 - through

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_image: Tensor, d_alpha: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        *saved, through = ctx.saved_tensors
        numbers, spots, box, lists, last_pair = ctx.state
        gradients = [torch.zeros_like(t) for t in saved]
        if lists is None:
            return *gradients, None
        features = saved[4].detach().numpy()
        bounds, gaussian, slot = lists
        threads = get_num_threads()
        d_slots = np.zeros((len(slot), SPOT_SIZE + features.shape[1]))
        upstream = d_image.contiguous().numpy(), d_alpha.contiguous().numpy()
        blend_backward(spots, box, features, bounds, gaussian, slot, numbers, threads, through.numpy(), last_pair, *upstream, d_slots)
        d_spots = np.zeros_like(spots)
        sum_slots(slot_starts(box), d_slots, d_spots, gradients[4].numpy())
        arrays = _arrays(*saved[:4])
        outputs = _arrays(*gradients[:4])
        project_backward(*arrays, numbers, threads, box, d_spots, *outputs)  # pyright: ignore[reportCallIssue]
        return *gradients, None
