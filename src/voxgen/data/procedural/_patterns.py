"""Pictures for base colours: patterns that repeat without a seam, mixed from two or three colours."""

from __future__ import annotations

import math

import numpy as np

from ._chance import Chance

SIDE = 128
"""Texels along a side."""
Color = tuple[float, float, float]

BLACK: Color = (0.0, 0.0, 0.0)
WHITE: Color = (1.0, 1.0, 1.0)

_AT = (np.arange(SIDE) + 0.5) / SIDE
_V, _U = np.meshgrid(1 - _AT, _AT, indexing="ij")


def noise(chance: Chance, across: int, along: int, octaves: int = 3) -> np.ndarray:
    """(SIDE, SIDE) clouds in [0, 1], `across` and `along` of them on a side in the coarsest octave."""
    total = np.zeros((SIDE, SIDE))
    for octave in range(octaves):
        columns, rows = across << octave, along << octave
        values = chance.array(rows, columns)
        y, x = _AT * rows, _AT * columns
        i, j = y.astype(int), x.astype(int)
        fy, fx = (y - i)[:, None], x - j
        fy, fx = fy * fy * (3 - 2 * fy), fx * fx * (3 - 2 * fx)
        upper, lower = values[i % rows], values[(i + 1) % rows]
        total += 0.5**octave * (
            (upper[:, j % columns] * (1 - fx) + upper[:, (j + 1) % columns] * fx) * (1 - fy)
            + (lower[:, j % columns] * (1 - fx) + lower[:, (j + 1) % columns] * fx) * fy
        )
    return total / (2 - 0.5 ** (octaves - 1))


def mixed(first: Color, second: Color, share: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE, 3) in [0, 1]."""
    return np.asarray(first) * (1 - share[..., None]) + np.asarray(second) * share[..., None]


def _edge(distance: np.ndarray) -> np.ndarray:
    """1 where positive, with a border of about a texel for distances in shares of the side."""
    return (distance * SIDE / 1.5 + 0.5).clip(0, 1)


def stripes(chance: Chance, first: Color, second: Color, *, upright: bool = False) -> np.ndarray:
    """Rings about an upright part, or lines up along it."""
    count, width = chance.count(1, 4), chance.between(0.25, 0.6)
    at = (_U if upright else _V) * count % 1
    return mixed(first, second, _edge((width / 2 - np.abs(at - 0.5)) / count))


def checks(chance: Chance, first: Color, second: Color) -> np.ndarray:
    count = 2 * chance.count(1, 3)
    share = ((_U * count).astype(int) + (_V * count).astype(int)) % 2
    return mixed(first, second, share.astype(np.float64))


def dots(chance: Chance, first: Color, second: Color) -> np.ndarray:
    """In rows, every other row moved by half a step."""
    count, radius = 2 * chance.count(1, 2), chance.between(0.22, 0.36)
    row = (_V * count).astype(int)
    x, y = (_U * count + 0.5 * (row % 2)) % 1 - 0.5, _V * count % 1 - 0.5
    return mixed(first, second, _edge((radius - np.hypot(x, y)) / count))


def zigzag(chance: Chance, first: Color, second: Color) -> np.ndarray:
    count, teeth = chance.count(1, 3), 2 * chance.count(1, 3)
    wave = np.abs((_U * teeth) % 1 - 0.5) / teeth * 1.6
    at = ((_V + wave) * count) % 1
    return mixed(first, second, _edge((0.25 - np.abs(at - 0.5)) / count))


def gradient(chance: Chance, first: Color, second: Color) -> np.ndarray:
    """From the lower end to the upper; does not repeat along v."""
    power = chance.between(0.6, 1.6)
    return mixed(first, second, _V**power)


def clouds(chance: Chance, first: Color, second: Color) -> np.ndarray:
    cells = chance.count(3, 7)
    return mixed(first, second, ((noise(chance, cells, cells) - 0.5) * 2.2 + 0.5).clip(0, 1))


def patches(chance: Chance, first: Color, second: Color) -> np.ndarray:
    cells = chance.count(3, 6)
    return mixed(first, second, _edge((noise(chance, cells, cells, 2) - chance.between(0.42, 0.58)) * 0.3))


def wood(chance: Chance, first: Color, second: Color) -> np.ndarray:
    """Grain along v."""
    lines = chance.count(3, 6)
    bend = noise(chance, 3, 1, 2)
    grain = 0.5 + 0.5 * np.sin(2 * math.pi * (_U * lines + 1.3 * bend))
    fine = noise(chance, 24, 2, 2)
    return mixed(first, second, (0.7 * grain**1.5 + 0.45 * (fine - 0.3)).clip(0, 1))


def bricks(chance: Chance, first: Color, second: Color) -> np.ndarray:
    """Of the second colour, with joints of the first."""
    columns, rows = 3, 6
    row = (_V * rows).astype(int)
    x = (_U * columns + 0.5 * (row % 2)) % columns
    tone = 0.75 + 0.35 * chance.array(rows, columns)[row, x.astype(int)]
    joint = np.minimum(np.minimum(x % 1, 1 - x % 1) / columns, np.minimum(_V * rows % 1, 1 - _V * rows % 1) / rows)
    return mixed(first, second, _edge(joint - 0.012)) * np.where(joint > 0.012, tone, 1.0)[..., None]


def shingles(chance: Chance, first: Color, second: Color) -> np.ndarray:
    """Rows of tiles with shaded lower ends."""
    columns, rows = 4, 4
    row = (_V * rows).astype(int)
    x = (_U * columns + 0.5 * (row % 2)) % columns
    tone = chance.array(rows, columns)[row, x.astype(int)]
    down = _V * rows % 1
    gap = _edge(0.01 - np.minimum(x % 1, 1 - x % 1) / columns)
    return mixed(first, second, (0.3 * tone + 0.7 * down).clip(0, 1)) * (1 - 0.45 * gap[..., None])


def planks(chance: Chance, first: Color, second: Color) -> np.ndarray:
    """Boards along v, each of its own tone."""
    boards = chance.count(3, 5)
    x = _U * boards
    tone = 0.8 + 0.3 * chance.array(boards)[x.astype(int)]
    gap = _edge(0.012 - np.minimum(x % 1, 1 - x % 1) / boards)
    return wood(chance, first, second) * tone[..., None] * (1 - 0.6 * gap[..., None])


def texels(picture: np.ndarray) -> np.ndarray:
    """(h, w, 3) in [0, 1] → uint8."""
    return (255 * picture.clip(0, 1)).round().astype(np.uint8)
