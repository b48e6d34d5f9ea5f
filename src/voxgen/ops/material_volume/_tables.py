"""Surfaces and vertex rows as flat arrays, for the compiled engine."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._record import CHANNELS, columns
from ._shading import Shading, Surface

SLOTS = tuple(CHANNELS)
BASE_COLOR, METALLIC, ROUGHNESS, EMISSIVE, ALPHA, NORMAL = range(6)
MODES = {"OPAQUE": 0, "MASK": 1, "BLEND": 2}


class Tables(NamedTuple):
    """One row a lookup, a level, a surface; all texels behind each other in two buffers.

    lookups: (l, 10) int64: first level, levels, channels, first row of `decode` (-1 for floats), wrap u, wrap v, nearest,
    uv set, base only, where its values go among those of its surface.   cutoffs: (l,) of masks, NaN for others.
    levels: (k, 3) int64: offset in `bytes` (level 0 of byte images) or `floats`, height, width.
    surface_lookups: (s + 1,) bounds in `lookups`.   places: (s, 6) where a property's values are, -1 without texture.
    modes: (s, 2): alpha mode, whether the alpha texture gives shares.   normal_uv: (s,) the uv set of the normal map.
    factors: (s, 11): base colour, metallic, roughness, emissive, alpha, cutoff, normal scale.
    uv: (2, v, 2).   normals: (v, 3).   color: (v, 4).   replaced: (v, r); the last three without rows if there are none.
    replaced_places, result_places: (6,) first column of each property, -1 for none.
    """

    lookups: np.ndarray
    cutoffs: np.ndarray
    levels: np.ndarray
    bytes: np.ndarray
    floats: np.ndarray
    decode: np.ndarray
    surface_lookups: np.ndarray
    places: np.ndarray
    modes: np.ndarray
    normal_uv: np.ndarray
    factors: np.ndarray
    surface: np.ndarray
    uv: np.ndarray
    normals: np.ndarray
    color: np.ndarray
    replaced: np.ndarray
    replaced_places: np.ndarray
    result_places: np.ndarray


def width_of(shading: Shading) -> int:
    """Columns of the result."""
    return sum(CHANNELS[name] for name in shading.channels)


def flatten(shading: Shading) -> Tables:
    """See `Tables`."""
    texels = _Texels()
    lookups, cutoffs, bounds, places = [], [], [0], []
    for surface in shading.surfaces:
        at, starts = 0, []
        for k in surface.lookups:
            first, decode = texels.add(k.pyramid.levels, k.pyramid.decode)
            channels = k.pyramid.channels
            lookups.append([first, len(k.pyramid.levels), channels, decode, *k.wrap, k.nearest, k.uv_set, k.base_only, at])
            cutoffs.append(math.nan if k.pyramid.cutoff is None else k.pyramid.cutoff)
            starts.append(at)
            at += channels
        bounds.append(len(lookups))
        found = surface.places
        places.append([starts[found[s][0]] + found[s][1] if s in found else -1 for s in SLOTS])
    replaced, at = [-1] * len(SLOTS), 0
    for name, rows in shading.replaced.items():
        replaced[SLOTS.index(name)] = at
        at += rows.shape[1]
    result = columns(shading.channels)
    count = len(shading.uv[0])
    return Tables(
        np.array(lookups, np.int64).reshape(-1, 10),
        np.array(cutoffs, np.float64),
        np.array(texels.levels, np.int64).reshape(-1, 3),
        _joined(texels.bytes, np.uint8),
        _joined(texels.floats, np.float32),
        np.concatenate([np.zeros((0, 256), np.float32), *texels.decode]),
        np.array(bounds, np.int64),
        np.array(places, np.int64),
        np.array([[MODES[s.material.alpha_mode], _gives_shares(s)] for s in shading.surfaces], np.int64),
        np.array([s.lookups[s.places["normal"][0]].uv_set if "normal" in s.places else 0 for s in shading.surfaces], np.int64),
        np.array([_factors(s) for s in shading.surfaces], np.float64),
        shading.surface.numpy(),
        np.stack([uv.numpy() for uv in shading.uv]),
        _rows(shading.normals, 3),
        _rows(shading.color, 4),
        np.concatenate([np.zeros((count, 0)), *[rows.numpy() for rows in shading.replaced.values()]], 1),
        np.array(replaced, np.int64),
        np.array([result[name].start if name in result else -1 for name in SLOTS], np.int64),
    )


class _Texels:
    """Collects levels; a pyramid that several lookups use is stored once."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, int]] = {}
        self.levels: list[tuple[int, int, int]] = []
        self.bytes: list[np.ndarray] = []
        self.floats: list[np.ndarray] = []
        self.decode: list[np.ndarray] = []
        self.sizes = {"bytes": 0, "floats": 0}

    def add(self, levels: tuple[Tensor, ...], decode: Tensor | None) -> tuple[int, int]:
        """(row of its first level, first row of its decode table)."""
        if id(levels) not in self.known:
            row = -1
            if decode is not None:
                row = sum(map(len, self.decode))
                self.decode.append(decode.numpy())
            self.known[id(levels)] = len(self.levels), row
            for level in levels:
                kind = "bytes" if level.dtype == torch.uint8 else "floats"
                self.levels.append((self.sizes[kind], level.shape[0], level.shape[1]))
                getattr(self, kind).append(level.numpy().reshape(-1))
                self.sizes[kind] += level.numel()
        return self.known[id(levels)]


def _joined(pieces: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *pieces])


def _rows(rows: Tensor | None, width: int) -> np.ndarray:
    return np.zeros((0, width)) if rows is None else rows.contiguous().numpy()


def _gives_shares(surface: Surface) -> bool:
    return "alpha" in surface.places and surface.lookups[surface.places["alpha"][0]].pyramid.cutoff is not None


def _factors(surface: Surface) -> list[float]:
    m = surface.material
    single = (m.metallic_factor, m.roughness_factor)
    return [*m.base_color_factor, *single, *m.emissive_factor, m.alpha_factor, m.alpha_cutoff, m.normal_scale]
