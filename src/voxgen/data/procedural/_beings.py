"""People and animals, of simple bodies. They look along +z."""

from __future__ import annotations

import numpy as np

from . import _colors as colors
from . import _finishes as finishes
from ._assembly import Assembly
from ._box import box
from ._chance import Chance
from ._lathe import ball, cylinder, ellipsoid, lathe, ring, smooth
from ._sheet import sheet
from ._tube import tube


def _face(out: Assembly, chance: Chance, radius: float, y: float, z: float = 0.0) -> None:
    """Eyes, and perhaps a nose, on a head about (0, y, z)."""
    white, black = finishes.plain("eyes", (0.95, 0.95, 0.95), roughness=0.2), finishes.plain("pupils", (0.05, 0.05, 0.06), roughness=0.2)
    size, apart = chance.between(0.17, 0.24) * radius, 0.36 * radius
    out.add_pair("eyes", white, ball(size).moved(apart, y + 0.15 * radius, z + 0.86 * radius))
    out.add_pair("pupils", black, ball(0.62 * size, around=12).moved(apart, y + 0.15 * radius, z + 0.86 * radius + 0.55 * size))


def character(chance: Chance) -> Assembly:
    out = Assembly()
    skin = finishes.plain("skin", colors.skin(chance), roughness=0.6)
    shirt, trousers = finishes.cloth(chance, tile=0.3), finishes.paint(chance)
    shoes, hair = (
        finishes.plain("shoes", colors.dark(chance), roughness=0.5),
        finishes.plain("hair", chance.pick((colors.dark, colors.timber, colors.vivid))(chance), roughness=0.9),
    )
    head, torso = chance.between(0.13, 0.2, "head"), chance.between(0.24, 0.34, "torso")
    width, leg = chance.between(0.12, 0.18, "shoulders"), chance.between(0.25, 0.4, "legs")
    stout, limb = chance.between(0.8, 1.25, "stoutness"), chance.between(0.045, 0.06)
    hip = 0.06 + leg
    stance = chance.between(0.0, 0.05)
    out.add_pair("legs", trousers, tube([(0.07 + stance, 0.05, 0), (0.065, hip + 0.02, 0)], [limb, 1.15 * limb]))
    out.add_pair("shoes", shoes, box(0.11, 0.08, 0.17, edge=0.035, steps=2).moved(0.07 + stance, 0.04, 0.025))
    dress = chance.likely(0.25, "dress")
    if dress:
        profile = smooth([(0.2, hip - 0.6 * leg), (0.13, hip), (0.8 * width, hip + 0.5 * torso), (0.75 * width, hip + torso)], 5)
        out.add(
            "dress",
            shirt,
            lathe(np.concatenate(([(0, hip - 0.6 * leg)], profile, [(0, hip + torso + 0.01)])), around=28).scaled(1, 1, 0.75),
        )
    else:
        body = smooth(
            [(0.1 * stout, hip - 0.03), (0.11 * stout, hip + 0.3 * torso), (width, hip + 0.85 * torso), (0.55 * width, hip + torso)], 5
        )
        out.add("shirt", shirt, lathe(np.concatenate(([(0, hip - 0.03)], body, [(0, hip + torso + 0.01)])), around=28).scaled(1, 1, 0.7))
        if chance.likely(0.5, "belt"):
            out.add("belt", shoes, ring(0.1 * stout, 0.025, around=28, across=8).scaled(1, 1, 0.72).moved(y=hip + 0.01))
    shoulder = hip + 0.87 * torso
    raise_left, raise_right = (chance.pick((-70.0, -60.0, -20.0, 20.0, 50.0), name) for name in ("left arm", "right arm"))
    sleeve = chance.likely(0.5, "long sleeves")
    for sign, lift in ((1, raise_left), (-1, raise_right)):
        reach = 0.9 * torso * np.array([np.cos(np.radians(lift)), np.sin(np.radians(lift)), 0.15])
        start = np.array([width, shoulder, 0.0])
        hand = start + reach
        points = np.stack((start, (start + hand) / 2 + (0.01, -0.02, 0), hand)) * (sign, 1, 1)
        out.add("arms", shirt if sleeve else skin, tube(points, [0.95 * limb, 0.85 * limb, 0.75 * limb], around=10))
        out.add("hands", skin, ball(0.95 * limb).moved(*(points[-1])))
        if not sleeve:
            out.add("sleeves", shirt, ball(1.25 * limb).moved(*points[0]))
    top = hip + torso
    out.add("neck", skin, cylinder(0.05, 0.08, around=12).moved(y=top - 0.02))
    y = top + 0.03 + head
    out.add("head", skin, ellipsoid(0.93 * head, head, 0.93 * head, around=28, rows=16).moved(y=y))
    _face(out, chance, 0.95 * head, y)
    style = chance.pick(("hair", "hair", "cap", "hat", "helmet", "bun"), "headgear")
    cap = finishes.plastic(chance)
    dome = smooth([(1.04, 0.15), (1.0, 0.4), (0.75, 0.8), (0.3, 1.05), (0.02, 1.1)], 4) * head
    cut = lathe(np.concatenate(([(0, 0.15 * head)], dome, [(0, 1.1 * head)])), around=28)
    if style in ("hair", "bun"):
        out.add("hair", hair, cut.turned("x", -22).moved(y=y))
        if style == "bun":
            out.add("hair", hair, ball(0.42 * head).moved(y=y + 1.1 * head, z=-0.4 * head))
        if chance.likely(0.4, "long hair"):
            out.add(
                "hair", hair, ellipsoid(0.85 * head, 1.1 * head, 0.45 * head, around=20, rows=12).moved(y=y - 0.35 * head, z=-0.7 * head)
            )
    elif style == "cap":
        out.add(
            "cap",
            cap,
            cut.scaled(1, 0.9, 1).moved(y=y + 0.1 * head),
            box(1.1 * head, 0.03, 0.9 * head, edge=0.012).moved(y=y + 0.3 * head, z=1.1 * head),
        )
    elif style == "hat":
        tall = chance.between(0.5, 1.2) * head
        out.add(
            "hat",
            cap,
            cylinder(0.75 * head, tall, top=0.7 * head, around=28).moved(y=y + 0.6 * head),
            cylinder(1.25 * head, 0.03, around=32).moved(y=y + 0.58 * head),
        )
    else:
        out.add("helmet", finishes.metal(chance), cut.scaled(1.06, 1.06, 1.06).moved(y=y))
        out.add("crest", cap, ellipsoid(0.05, 0.3 * head, 0.7 * head, around=16, rows=10).moved(y=y + 1.1 * head))
    if chance.likely(0.25, "cape"):
        v, u = np.meshgrid(np.linspace(0, 1, 10), np.linspace(-1, 1, 10), indexing="ij")
        spread = 0.9 * width * (1.6 - 0.6 * v)
        cape = np.stack((-u * spread, 0.12 + (shoulder - 0.1) * v, -0.7 * width - 0.14 * (1 - v) - 0.03 * np.cos(6 * u) * (1 - v)), -1)
        out.add("cape", finishes.cloth(chance, tile=0.4), sheet(cape))
    return out


def animal(chance: Chance) -> Assembly:
    """Four legs, a head, ears and a tail."""
    out = Assembly()
    coat = finishes.pictured(
        "fur",
        finishes.patterns.patches(
            chance,
            chance.pick((colors.timber, colors.light, colors.gray, colors.clay))(chance),
            chance.pick((colors.light, colors.dark, colors.timber))(chance),
        ),
        tile=chance.between(0.5, 1.0),
        roughness=0.9,
    )
    bare = finishes.plain("skin", chance.pick((colors.skin, colors.dark, colors.light))(chance), roughness=0.7)
    length, belly = chance.between(0.5, 0.7, "length"), chance.between(0.12, 0.2, "belly")
    leg, limb = chance.between(0.16, 0.36, "legs"), chance.between(0.038, 0.055)
    y = leg + 0.75 * belly
    out.add("body", coat, ellipsoid(belly, 0.95 * belly, length / 2, around=28, rows=16).moved(y=y))
    for z in (-0.3 * length, 0.3 * length):
        out.add_pair("legs", coat, tube([(0.6 * belly, 0.02, z), (0.55 * belly, y, z)], [limb, 1.3 * limb]))
        out.add_pair("paws", bare, ellipsoid(1.15 * limb, 0.04, 1.5 * limb, around=16, rows=8).moved(0.6 * belly, 0.04, z + 0.02))
    head, neck = chance.between(0.11, 0.16, "head"), chance.between(0.02, 0.3, "neck")
    at = np.array([0.0, y + 0.5 * belly + neck, 0.46 * length + 0.3 * neck])
    out.add("neck", coat, tube([(0, y, 0.33 * length), at], [0.6 * belly, 0.6 * head]))
    out.add("head", coat, ellipsoid(head, 0.95 * head, 1.05 * head, around=28, rows=16).moved(*at))
    snout = chance.between(0.3, 0.8, "snout") * head
    out.add(
        "snout",
        bare,
        ellipsoid(0.5 * head, 0.42 * head, 0.4 * head + snout, around=20, rows=12).moved(0, at[1] - 0.25 * head, at[2] + 0.6 * head),
    )
    eyes = finishes.plain("eyes", (0.05, 0.05, 0.06), roughness=0.15)
    out.add_pair("eyes", eyes, ball(0.17 * head, around=12).moved(0.45 * head, at[1] + 0.3 * head, at[2] + 0.82 * head))
    ears = chance.pick(("pointed", "round", "long", "horns"), "ears")
    if ears == "pointed":
        out.add_pair(
            "ears",
            coat,
            cylinder(0.35 * head, 0.8 * head, top=0.0, around=12).turned("z", -18).moved(0.5 * head, at[1] + 0.6 * head, at[2]),
        )
    elif ears == "round":
        out.add_pair(
            "ears", coat, ellipsoid(0.42 * head, 0.42 * head, 0.2 * head, around=20, rows=12).moved(0.75 * head, at[1] + 0.75 * head, at[2])
        )
    elif ears == "long":
        out.add_pair(
            "ears",
            coat,
            ellipsoid(0.22 * head, 0.85 * head, 0.2 * head, around=16, rows=12)
            .turned("z", chance.between(-150, -5))
            .moved(0.6 * head, at[1] + 0.7 * head, at[2] - 0.1 * head),
        )
    else:
        out.add_pair(
            "horns",
            bare,
            tube(
                [(0.4 * head, at[1] + 0.6 * head, at[2]), (0.9 * head, at[1] + 1.0 * head, at[2]), (0.8 * head, at[1] + 1.6 * head, at[2])],
                [0.04, 0.03, 0.012],
                around=10,
            ),
        )
    lift = chance.between(-0.1, 0.25)
    tail = [
        (0, y + 0.3 * belly, -0.45 * length),
        (0, y + 0.3 * belly + lift, -0.6 * length),
        (0, y + 1.6 * lift + 0.3 * belly, -0.62 * length),
    ]
    out.add("tail", coat, tube(tail, [0.035, 0.032, 0.03], around=10), ball(0.045).moved(*tail[-1]))
    return out
