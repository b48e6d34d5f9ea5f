"""Compiled CPU engine, and the lookups that other compiled engines build on."""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from ._pyramid import TexturePyramid


def sample(pyramid: TexturePyramid, uv: Tensor, level: Tensor, wrap: Tensor, nearest: bool, v_up: bool = True) -> Tensor:
    """See `voxgen.ops.texture._reference.sample`."""
    place = uv.detach().double()
    points = (place if v_up else place * place.new_tensor((1.0, -1.0)) + place.new_tensor((0.0, 1.0))).contiguous().numpy()
    last = len(pyramid.levels) - 1
    position = level.double().nan_to_num(0.0).clamp(0, last).numpy()
    codes = wrap.contiguous().numpy()
    result = np.zeros((len(points), pyramid.channels), np.float64)
    decode = np.zeros((0, 256), np.float32) if pyramid.decode is None else pyramid.decode.contiguous().numpy()
    cutoff = math.nan if pyramid.cutoff is None else pyramid.cutoff
    for k in range(last + 1):
        texels = pyramid.levels[k].detach().contiguous()
        height, width, channels = texels.shape
        kind = (nearest and k == 0, cutoff if k == 0 else math.nan)
        first = 0 if texels.dtype == torch.uint8 else -1
        _add_level(texels.numpy().reshape(-1), height, width, channels, decode, first, points, position, k, codes, *kind, result)
    return torch.from_numpy(result).to(uv.dtype)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _add_level(texels, height, width, channels, decode, first, uv, position, level, wrap, nearest, cutoff, result):
    """Add the share that one level has in each sample."""
    blocks = (len(uv) + 1023) // 1024
    for block in prange(blocks):
        values = np.empty(channels, np.float64)
        for i in range(block * 1024, min(len(uv), block * 1024 + 1024)):
            share = 1 - abs(position[i] - level)
            if share > 0:
                values[:] = 0
                u, v = uv[i, 0], uv[i, 1]
                add_lookup(texels, 0, height, width, channels, decode, first, u, v, wrap[i, 0], wrap[i, 1], nearest, 1.0, values, 0)
                for c in range(channels):
                    if not math.isnan(cutoff):
                        values[c] = 1.0 if values[c] >= cutoff else 0.0
                    result[i, c] += share * values[c]


@njit(cache=True, nogil=True, error_model="numpy")
def wrapped(index, size, code):
    """Index of a texel along one axis after wrapping: 0 repeat, 1 clamp, 2 mirror, 3 none (-1 outside)."""
    if 0 <= index < size:
        return index
    if code == 3:
        return -1
    if code == 0:
        return index % size
    if code == 1:
        return 0 if index < 0 else size - 1
    index %= 2 * size
    return index if index < size else 2 * size - 1 - index


@njit(cache=True, nogil=True, error_model="numpy")
def add_lookup(texels, at, height, width, channels, decode, first, u, v, wrap_u, wrap_v, nearest, share, out, place):
    """Add `share` times the value of a texture level at (u, v) to out[place : place + channels].

    Args:
        texels: flat buffer with the level at texels[at : at + height * width * channels]; uint8 or float.
        decode: (k, 256); row first + c says what the bytes of channel c mean. first = -1 takes the texels as they are.
        nearest: take one texel instead of mixing four.
    """
    x, y = u * width, (1 - v) * height
    if nearest:
        column = wrapped(math.floor(x), width, wrap_u)
        row = wrapped(math.floor(y), height, wrap_v)
        if column < 0 or row < 0:
            return
        texel = at + (row * width + column) * channels
        for c in range(channels):
            out[place + c] += share * _value(texels[texel + c], decode, first, c)
        return
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    right_share, bottom_share = x - 0.5 - left, y - 0.5 - top
    above, below = share * (1 - bottom_share), share * bottom_share
    w00, w01, w10, w11 = above * (1 - right_share), above * right_share, below * (1 - right_share), below * right_share
    column0, column1 = wrapped(left, width, wrap_u), wrapped(left + 1, width, wrap_u)
    row0, row1 = wrapped(top, height, wrap_v), wrapped(top + 1, height, wrap_v)
    if column0 < 0:
        column0, w00, w10 = 0, 0.0, 0.0
    if column1 < 0:
        column1, w01, w11 = 0, 0.0, 0.0
    if row0 < 0:
        row0, w00, w01 = 0, 0.0, 0.0
    if row1 < 0:
        row1, w10, w11 = 0, 0.0, 0.0
    i00, i01 = at + (row0 * width + column0) * channels, at + (row0 * width + column1) * channels
    i10, i11 = at + (row1 * width + column0) * channels, at + (row1 * width + column1) * channels
    for c in range(channels):
        upper = w00 * _value(texels[i00 + c], decode, first, c) + w01 * _value(texels[i01 + c], decode, first, c)
        lower = w10 * _value(texels[i10 + c], decode, first, c) + w11 * _value(texels[i11 + c], decode, first, c)
        out[place + c] += upper + lower


@njit(cache=True, nogil=True, error_model="numpy")
def _value(texel, decode, first, channel):
    return texel if first < 0 else decode[first + channel, int(texel)]
