"""Surfaces and vertex rows as flat arrays, for the compiled engine."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._record import CHANNELS, columns
from ._shading import Shading, Surface


class Texels(NamedTuple):
    """All textures; a row a lookup and a row a level.

    lookups: (l, 10) int64: first level, levels, channels, first row of `decode` (-1 for floats), wrap u, wrap v, nearest,
    uv set, base only, where its values go among those of its surface.   cutoffs: (l,) of masks, NaN for others.
    levels: (k, 3) int64: offset in `bytes` (level 0 of byte images) or `floats`, height, width.
    decode: (d, 256) what bytes mean.
    """

    lookups: np.ndarray
    cutoffs: np.ndarray
    levels: np.ndarray
    bytes: np.ndarray
    floats: np.ndarray
    decode: np.ndarray


class Looks(NamedTuple):
    """What the columns of the result are on each surface: texture value × (factor or vertex value) × vertex colour.

    lookups: (s + 1,) int64 bounds in `Texels.lookups`.   source: (s, c) int64, texture value of a column, -1 for none.
    factor: (s, c).   cut: (s, c), value below which a column is 0, and 1 from there on; -inf for none.
    rows: (s, c, 2) int64, columns of the vertex rows that stand for the factor and that multiply; -1 for none.
    bumps: (s, 3): place of the normal map among the texture values (-1 for none), its uv set, its scale.
    """

    lookups: np.ndarray
    source: np.ndarray
    factor: np.ndarray
    cut: np.ndarray
    rows: np.ndarray
    bumps: np.ndarray


class Corners(NamedTuple):
    """surface: (f,) int64 of each face.   uv: (2, v, 2).   rows: (v, r).   normals: (v, 3), or without rows."""

    surface: np.ndarray
    uv: np.ndarray
    rows: np.ndarray
    normals: np.ndarray


def flatten(shading: Shading) -> tuple[Texels, Looks, Corners]:
    """See the records."""
    collected = _Levels()
    lookups, cutoffs, bounds, starts = [], [], [0], []
    for surface in shading.surfaces:
        at = 0
        for k in surface.lookups:
            first, decode = collected.add(k.pyramid.levels, k.pyramid.decode)
            channels = k.pyramid.channels
            lookups.append([first, len(k.pyramid.levels), channels, decode, *k.wrap, k.nearest, k.uv_set, k.base_only, at])
            cutoffs.append(math.nan if k.pyramid.cutoff is None else k.pyramid.cutoff)
            starts.append(at)
            at += channels
        bounds.append(len(lookups))
    texels = Texels(
        np.array(lookups, np.int64).reshape(-1, 10),
        np.array(cutoffs, np.float64),
        np.array(collected.levels, np.int64).reshape(-1, 3),
        _joined(collected.bytes, np.uint8),
        _joined(collected.floats, np.float32),
        np.concatenate([np.zeros((0, 256), np.float32), *collected.decode]),
    )
    vertex = {**shading.replaced, **({} if shading.color is None else {"color": shading.color})}
    begins = dict(zip(vertex, np.cumsum([0, *(rows.shape[1] for rows in vertex.values())]).tolist(), strict=False))
    looks = _looks(shading, begins, np.array(bounds, np.int64), starts)
    count = len(shading.uv[0])
    corners = Corners(
        shading.surface.numpy(),
        np.stack([uv.numpy() for uv in shading.uv]),
        np.concatenate([np.zeros((count, 0)), *(rows.numpy() for rows in vertex.values())], 1),
        np.zeros((0, 3)) if shading.normals is None else shading.normals.contiguous().numpy(),
    )
    return texels, looks, corners


def _looks(shading: Shading, begins: dict[str, int], bounds: np.ndarray, starts: list[int]) -> Looks:
    places = columns(shading.channels)
    shape = (len(shading.surfaces), sum(CHANNELS[name] for name in shading.channels))
    source, rows = np.full(shape, -1, np.int64), np.full((*shape, 2), -1, np.int64)
    factor, cut, bumps = np.ones(shape), np.full(shape, -math.inf), np.zeros((shape[0], 3))
    for s, surface in enumerate(shading.surfaces):
        m = surface.material

        def place(slot: str, s: int = s, surface: Surface = surface) -> int:
            if slot not in surface.places:
                return -1
            lookup, first = surface.places[slot]
            return starts[bounds[s] + lookup] + first

        factors = {
            "base_color": m.base_color_factor,
            "metallic": (m.metallic_factor,),
            "roughness": (m.roughness_factor,),
            "emissive": m.emissive_factor,
            "alpha": (m.alpha_factor,),
        }
        for name, values in factors.items():
            if name not in places:
                continue
            replaced = name in shading.replaced
            if name == "alpha" and not replaced and m.alpha_mode == "OPAQUE":
                continue
            shares = name == "alpha" and _gives_shares(surface)
            for k, value in enumerate(values):
                c = places[name].start + k
                source[s, c] = place(name) + k if place(name) >= 0 else -1
                factor[s, c] = 1.0 if shares else value
                rows[s, c, 0] = begins[name] + k if replaced else -1
                if "color" in begins and not shares and (name == "base_color" or (name == "alpha" and not replaced)):
                    rows[s, c, 1] = begins["color"] + (k if name == "base_color" else 3)
            if name == "alpha" and m.alpha_mode == "MASK" and not shares:
                cut[s, places[name].start] = m.alpha_cutoff
        uv_set = surface.lookups[surface.places["normal"][0]].uv_set if "normal" in surface.places else 0
        bumps[s] = place("normal"), uv_set, m.normal_scale
    return Looks(bounds, source, factor, cut, rows, bumps)


class _Levels:
    """Collects levels; a pyramid that several lookups use is stored once."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, int]] = {}
        self.levels: list[tuple[int, int, int]] = []
        self.bytes: list[np.ndarray] = []
        self.floats: list[np.ndarray] = []
        self.decode: list[np.ndarray] = []

    def add(self, levels: tuple[Tensor, ...], decode: Tensor | None) -> tuple[int, int]:
        """(row of its first level, first row of its decode table)."""
        if id(levels) not in self.known:
            row = -1
            if decode is not None:
                row = sum(map(len, self.decode))
                self.decode.append(decode.numpy())
            self.known[id(levels)] = len(self.levels), row
            for level in levels:
                pieces = self.bytes if level.dtype == torch.uint8 else self.floats
                self.levels.append((sum(map(len, pieces)), level.shape[0], level.shape[1]))
                pieces.append(level.numpy().reshape(-1))
        return self.known[id(levels)]


def _joined(pieces: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *pieces])


def _gives_shares(surface: Surface) -> bool:
    """Whether the alpha texture is a mask whose lookups are shares already."""
    return "alpha" in surface.places and surface.lookups[surface.places["alpha"][0]].pyramid.cutoff is not None
