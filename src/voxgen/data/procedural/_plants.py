"""Trees, flowers in pots, cacti, mushrooms."""

from __future__ import annotations

import math

import numpy as np

from . import _colors as colors
from . import _finishes as finishes
from . import _patterns as patterns
from ._assembly import Assembly
from ._chance import Chance
from ._finishes import Finish
from ._lathe import cylinder, ellipsoid, lathe, smooth
from ._part import Part
from ._sheet import sheet
from ._tube import bent, tube


def _bark(chance: Chance) -> Finish:
    color = colors.timber(chance)
    return finishes.pictured("bark", patterns.wood(chance, colors.shaded(color, 0.7), colors.shaded(color, 0.4)), tile=0.4, roughness=0.95)


def tree(chance: Chance) -> Assembly:
    out, bark, green = Assembly(), _bark(chance), finishes.leaves(chance)
    kind = chance.pick(("broad", "broad", "fir", "palm", "poplar"), "kind")
    trunk = chance.between(0.04, 0.07, "trunk")
    if kind == "fir":
        tiers, wide = chance.count(3, 5, "tiers"), chance.between(0.26, 0.4, "width")
        low, step = chance.between(0.14, 0.25), 0.8 / tiers
        out.add("trunk", bark, cylinder(trunk, low + 0.1, around=16))
        for k in range(tiers):
            size = wide * (1 - 0.72 * k / tiers)
            out.add("crown", green, cylinder(size, 1.55 * step, top=0.0, around=28).moved(y=low + k * step))
        return out
    if kind == "palm":
        lean, tall = chance.between(-0.2, 0.2), chance.between(0.65, 0.85)
        stem = bent([(0, 0, 0), (0.2 * lean, 0.5 * tall, 0), (lean, tall, 0)], 10)
        out.add("trunk", bark, tube(stem, np.linspace(1.1 * trunk, 0.75 * trunk, 11), around=14))
        count = chance.count(6, 9, "leaves")
        for k in range(count):
            out.add(
                "leaves",
                green,
                _frond(chance.between(0.35, 0.48), chance.between(0.1, 0.3), 0.07).turned("y", 360 * k / count).moved(lean, tall, 0),
            )
        if chance.likely(0.5, "coconuts"):
            nut = finishes.plain("coconut", (0.35, 0.22, 0.12), roughness=0.9)
            for k in range(3):
                out.add(
                    "coconuts",
                    nut,
                    ellipsoid(0.05, 0.055, 0.05, around=14, rows=10).moved(x=0.06, y=-0.05).turned("y", 120 * k).moved(lean, tall, 0),
                )
        return out
    tall = chance.between(0.35, 0.55, "trunk height")
    out.add("trunk", bark, cylinder(1.3 * trunk, tall + 0.1, top=0.7 * trunk, around=16))
    if kind == "poplar":
        crown = ellipsoid(chance.between(0.14, 0.2), 0.42, chance.between(0.14, 0.2), around=28, rows=20)
        out.add("crown", green, crown.moved(y=0.3 + 0.42))
        return out
    for k in range(chance.count(3, 7, "clumps")):
        size, angle = chance.between(0.15, 0.25), 137.5 * k
        away = 0.0 if k == 0 else chance.between(0.1, 0.2)
        lift = tall + 0.18 + (0.14 if k == 0 else chance.between(-0.05, 0.12))
        clump = ellipsoid(1.1 * size, 0.9 * size, 1.1 * size, around=24, rows=14).moved(x=away, y=lift).turned("y", angle)
        out.add("crown", green, clump)
        if k:
            out.add(
                "trunk",
                bark,
                tube([(0, 0.75 * tall, 0), (0.8 * away, lift - 0.5 * size, 0)], [0.6 * trunk, 0.35 * trunk], around=8).turned("y", angle),
            )
    if chance.likely(0.35, "fruit"):
        fruit = finishes.plain("fruit", colors.petal(chance), roughness=0.4)
        for k in range(8):
            turn, lift = math.radians(137.5 * k), tall + 0.05 + 0.04 * k
            place = (0.3 * math.sin(turn), lift, 0.3 * math.cos(turn))
            out.add("fruit", fruit, ellipsoid(0.035, 0.035, 0.035, around=12, rows=8).moved(*place))
    return out


def _frond(length: float, drop: float, width: float) -> Part:
    """A bent leaf along x: an open sheet."""
    t, s = np.linspace(0, 1, 9)[:, None], np.linspace(-1, 1, 5)[None]
    broad = width * np.sin(np.pi * (0.08 + 0.9 * t)) ** 0.7
    y = 0.6 * drop * np.sin(np.pi * 0.7 * t) - 1.3 * drop * t**2 - 0.25 * broad * np.abs(s)
    return sheet(np.stack(np.broadcast_arrays(length * t, y, broad * s), -1))


def _planter(out: Assembly, chance: Chance) -> float:
    """A pot with soil; the height of the soil."""
    lip, foot, tall = chance.between(0.18, 0.28, "pot"), chance.between(0.12, 0.2), chance.between(0.22, 0.36, "pot height")
    outside = np.array(
        [(0, 0), (foot, 0), (0.5 * (foot + lip), 0.5 * tall), (lip, 0.82 * tall), (1.1 * lip, 0.83 * tall), (1.1 * lip, tall)]
    )
    wall = 0.035
    profile = np.concatenate((outside, [(1.1 * lip - wall, tall), (lip - wall, 0.8 * tall), (foot - wall, wall), (0, wall)]))
    out.add("pot", finishes.glaze(chance, tile=0.5), lathe(profile, around=36))
    soil = finishes.plain("soil", (0.2, 0.13, 0.09), roughness=1.0)
    out.add("soil", soil, cylinder(lip - 0.02, 0.04, around=28).moved(y=0.84 * tall - 0.04))
    return 0.84 * tall


def plant(chance: Chance) -> Assembly:
    """In a pot: leaves, a flower, a cactus or a little ball tree."""
    out = Assembly()
    soil = _planter(out, chance)
    green = finishes.leaves(chance, tile=0.3)
    kind = chance.pick(("leaves", "leaves", "flower", "cactus", "topiary"), "kind")
    if kind == "leaves":
        count, rows = chance.count(5, 8, "leaves"), chance.count(1, 3, "rows")
        for row in range(rows):
            for k in range(count):
                leaf = _frond(chance.between(0.25, 0.42) * (1 - 0.2 * row), 0.12, chance.between(0.06, 0.1))
                leaf = leaf.turned("z", 28 + 22 * row + chance.between(-8, 8)).moved(x=0.02)
                out.add("leaves", green, leaf.turned("y", 360 * (k + 0.5 * row) / count).moved(y=soil + 0.03))
        out.add("stem", green, cylinder(0.04, 0.1, around=10).moved(y=soil - 0.01))
    elif kind == "flower":
        stem, tall = finishes.plain("stem", colors.leaf(chance), roughness=0.7), chance.between(0.35, 0.55, "stem")
        petal, heart = (
            finishes.plain("petals", colors.petal(chance), roughness=0.7),
            finishes.plain("heart", (0.92, 0.7, 0.12), roughness=0.9),
        )
        out.add("stem", stem, cylinder(0.024, tall, around=10).moved(y=soil - 0.02))
        for k in range(chance.count(2, 4, "leaves")):
            leaf = _frond(0.22, 0.08, 0.06).turned("z", 30).turned("y", 137.5 * k).moved(y=soil + 0.06 + 0.07 * k)
            out.add("leaves", green, leaf)
        count, size = chance.count(5, 10, "petals"), chance.between(0.1, 0.15, "petal")
        head = Assembly()
        for k in range(count):
            head.add(
                "petals",
                petal,
                ellipsoid(0.035, 0.8 * size, 0.4 * size, around=14, rows=10).turned("y", 90).moved(y=size).turned("z", 360 * k / count),
            )
        head.add("heart", heart, ellipsoid(0.5 * size, 0.5 * size, 0.05, around=20, rows=10).moved(z=0.02))
        out.include(head.turned("x", -chance.between(10, 50)), y=soil + tall, z=0.03)
    elif kind == "cactus":
        skin = finishes.pictured(
            "cactus", patterns.stripes(chance, colors.leaf(chance), colors.leaf(chance), upright=True), tile=0.15, roughness=0.8
        )
        tall, thick = chance.between(0.35, 0.6, "height"), chance.between(0.08, 0.12)
        column = smooth([(thick, 0), (1.05 * thick, 0.6 * tall), (0.8 * thick, 0.9 * tall), (0.25 * thick, tall)], 5)
        out.add("cactus", skin, lathe(np.concatenate(([(0, 0)], column, [(0, 1.02 * tall)])), around=28).moved(y=soil - 0.02))
        for sign in chance.pick(((1,), (-1,), (1, -1), ())):
            height = chance.between(0.3, 0.55) * tall + soil
            arm = bent(
                [(0.5 * thick * sign, height, 0), (2.4 * thick * sign, height - 0.02, 0), (2.3 * thick * sign, height + 0.22, 0)], 10
            )
            out.add(
                "cactus",
                skin,
                tube(arm, 0.45 * thick, around=14),
                ellipsoid(0.45 * thick, 0.45 * thick, 0.45 * thick, around=14, rows=10).moved(*arm[-1]),
            )
        if chance.likely(0.5, "blossom"):
            out.add(
                "blossom",
                finishes.plain("petals", colors.petal(chance), roughness=0.6),
                ellipsoid(0.05, 0.04, 0.05, around=14, rows=8).moved(y=soil + tall),
            )
    else:
        tall, size = chance.between(0.2, 0.35, "stem"), chance.between(0.18, 0.26, "ball")
        out.add("stem", _bark(chance), cylinder(0.03, tall + 0.05, around=10).moved(y=soil - 0.02))
        for k in range(chance.count(1, 2, "balls")):
            ball = size * (1 - 0.3 * k)
            out.add("crown", green, ellipsoid(ball, ball, ball, around=28, rows=16).moved(y=soil + tall + size + 1.5 * size * k))
    return out


def mushroom(chance: Chance) -> Assembly:
    out, cap, tall = Assembly(), chance.between(0.3, 0.48, "cap"), chance.between(0.35, 0.65, "stem")
    thick, bulge = chance.between(0.08, 0.14, "thickness"), chance.between(1.0, 1.5)
    stem = smooth([(bulge * thick, 0), (1.1 * thick, 0.25 * tall), (0.85 * thick, 0.7 * tall), (0.95 * thick, tall + 0.02)], 5)
    out.add(
        "stem",
        finishes.plain("stem", colors.light(chance), roughness=0.8),
        lathe(np.concatenate(([(0, 0)], stem, [(0, tall + 0.02)])), around=28),
    )
    dome = chance.between(0.16, 0.34, "dome")
    upper = smooth([(cap, 0), (0.97 * cap, 0.35 * dome), (0.7 * cap, 0.78 * dome), (0.3 * cap, 0.98 * dome), (0.02, dome)], 6)
    top = chance.pick((colors.vivid, colors.clay, colors.timber))(chance)
    spotted = chance.likely(0.6, "spots")
    skin = finishes.plain("cap", top, roughness=chance.between(0.25, 0.7))
    under = [(0, 0.35 * dome), (0.3 * cap, 0.3 * dome), (0.9 * cap, 0.01 - 0.02)]
    out.add("cap", skin, lathe(np.concatenate((under, upper, [(0, dome)])), around=40).moved(y=tall))
    if spotted:
        white = finishes.plain("spots", (0.95, 0.93, 0.88), roughness=0.8)
        count = chance.count(6, 12, "spot count")
        for k in range(count):
            share = math.sqrt((k + 0.5) / count) * 0.85
            y = float(np.interp(share * cap, upper[::-1, 0], upper[::-1, 1]))
            size = chance.between(0.035, 0.06)
            out.add(
                "spots",
                white,
                ellipsoid(size, 0.025, size, around=14, rows=8)
                .turned("z", -50 * share**2)
                .moved(x=share * cap, y=tall + y)
                .turned("y", 137.5 * k),
            )
    if chance.likely(0.4, "collar"):
        collar = lathe([(0.7 * thick, 0.04), (1.5 * thick, -0.06), (1.55 * thick, -0.03), (0.7 * thick, 0.09)], around=28, closed=True)
        out.add("collar", finishes.plain("collar", colors.light(chance), roughness=0.9), collar.moved(y=0.7 * tall))
    if chance.likely(0.4, "young one"):
        small = Assembly()
        small.add("stem", finishes.plain("stem", colors.light(chance), roughness=0.8), cylinder(thick, 0.6 * tall, around=20))
        small.add("cap", skin, ellipsoid(0.6 * cap, 0.7 * dome, 0.6 * cap, around=28, rows=14).moved(y=0.6 * tall))
        out.include(small, scale=0.6, x=0.75 * cap, z=0.3 * cap)
    return out
