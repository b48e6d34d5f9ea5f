"""Things that hold other things. Walls are at least 0.03 thick where they are not meant as sheets."""

from __future__ import annotations

import numpy as np

from . import _colors as colors
from . import _finishes as finishes
from ._assembly import Assembly
from ._box import box
from ._chance import Chance
from ._finishes import Finish
from ._lathe import cylinder, ellipsoid, lathe, ring, smooth, walled
from ._part import Part
from ._tube import bent, tube


def _pot(profile: np.ndarray, *, around: int = 40, wall: float = 0.0) -> Part:
    """A vessel of this outside, its bottom closed: a sheet, or with a wall."""
    outside = np.concatenate(([(0.0, profile[0, 1])], profile))
    return lathe(walled(outside, wall) if wall else outside, around=around)


def vase(chance: Chance) -> Assembly:
    """Mostly an open sheet."""
    out = Assembly()
    foot, belly = chance.between(0.12, 0.24, "foot"), chance.between(0.18, 0.38, "belly")
    neck, lip = chance.between(0.07, 0.2, "neck"), chance.between(0.1, 0.28, "lip")
    low, high = chance.between(0.25, 0.5, "belly height"), chance.between(0.68, 0.85, "neck height")
    profile = smooth([(foot, 0), (0.5 * (foot + belly), 0.4 * low), (belly, low), (neck, high), (lip, 1.0)], 8)
    around = chance.pick((48, 48, 48, 6, 8), "sides")
    body = _pot(profile, around=around, wall=0.035 if chance.likely(0.3, "thick") else 0.0)
    out.add("body", finishes.glass(chance) if chance.likely(0.12) else finishes.glaze(chance, tile=chance.between(0.4, 0.9)), body)
    if chance.likely(0.3, "handles"):
        x = 0.5 * (belly + neck)
        handle = bent([(neck, high, 0), (neck + 0.22, high + 0.06, 0), (belly + 0.24, low + 0.1, 0), (0.9 * belly, low + 0.05, 0)], 16)
        out.add_pair("handles", finishes.glaze(chance), tube(handle, 0.028 + 0.02 * x, around=10))
    if chance.likely(0.35, "flowers"):
        _flowers(out, chance, min(lip, neck), 0.9)
    return out


def _flowers(out: Assembly, chance: Chance, spread: float, base: float) -> None:
    stem, petals = finishes.plain("stem", colors.leaf(chance), roughness=0.7), finishes.plain("petals", colors.petal(chance), roughness=0.7)
    heart = finishes.plain("heart", (0.95, 0.75, 0.15), roughness=0.8)
    for _ in range(chance.count(1, 4)):
        angle, tall = 360 * chance.between(0, 1), chance.between(0.25, 0.5)
        end = (0.5 * spread + chance.between(0.0, 0.2), base + tall, 0.0)
        curve = bent([(0, base - 0.5, 0), (0.1 * spread, base, 0), end], 8)
        out.add("stems", stem, tube(curve, 0.018, around=8).turned("y", angle))
        size = chance.between(0.07, 0.11)
        for leaf in range(6):
            petal = ellipsoid(0.6 * size, 0.25 * size, 0.35 * size, around=12, rows=6).moved(x=0.75 * size).turned("y", 60 * leaf)
            out.add("petals", petals, petal.moved(*end).turned("y", angle))
        out.add("hearts", heart, ellipsoid(0.45 * size, 0.35 * size, 0.45 * size, around=12, rows=8).moved(*end).turned("y", angle))


def bottle(chance: Chance) -> Assembly:
    out = Assembly()
    radius, shoulder = chance.between(0.13, 0.24, "radius"), chance.between(0.45, 0.7, "shoulder")
    neck, slope = chance.between(0.045, 0.08, "neck"), chance.between(0.06, 0.2, "slope")
    body = finishes.glass(chance) if chance.likely(0.5, "glass") else finishes.plastic(chance)
    curve = smooth([(radius, shoulder), (0.75 * radius + 0.25 * neck, shoulder + 0.55 * slope), (neck, shoulder + slope), (neck, 0.9)], 5)
    profile = np.concatenate(([(0, 0), (0.85 * radius, 0), (radius, 0.03)], curve, [(0, 0.9)]))
    out.add("body", body, lathe(profile, around=36))
    label = finishes.pictured(
        "label",
        chance.pick(finishes.GLAZE)(chance, colors.light(chance), colors.vivid(chance)),
        tile=chance.between(0.3, 0.6),
        roughness=0.8,
    )
    low, high = chance.between(0.1, 0.2), chance.between(0.3, 0.42)
    band = [(radius - 0.01, low), (radius + 0.012, low), (radius + 0.012, high), (radius - 0.01, high)]
    out.add("label", label, lathe(band, around=36, closed=True))
    if chance.likely(0.5, "drink") and body.material.alpha_mode == "BLEND":
        level, inner = chance.between(0.25, 0.9) * shoulder, radius - 0.03
        drink = finishes.plain("drink", chance.pick((colors.vivid, colors.deep))(chance), roughness=0.2)
        out.add("drink", drink, cylinder(inner, level, around=28).moved(y=0.03))
    cap = chance.pick((finishes.metal, finishes.plastic, finishes.timber))(chance)
    out.add("cap", cap, cylinder(neck + chance.between(0.005, 0.02), chance.between(0.07, 0.14), around=24).moved(y=0.87))
    return out


def _handle(reach: float, low: float, high: float, wall: float, thick: float) -> Part:
    """A loop on the right of a wall that stands at x = `wall`."""
    curve = bent([(wall, high, 0), (wall + 1.3 * reach, high + 0.02, 0), (wall + 1.3 * reach, low - 0.04, 0), (wall, low, 0)], 16)
    return tube(curve, thick, around=10)


def cup(chance: Chance) -> Assembly:
    out, body = Assembly(), finishes.glaze(chance, tile=chance.between(0.4, 0.8))
    lip, foot = chance.between(0.3, 0.42, "lip"), chance.between(0.18, 0.36, "foot")
    tall, bulge = chance.between(0.45, 0.9, "height"), chance.between(-0.04, 0.08)
    profile = smooth([(foot, 0), (0.5 * (foot + lip) + bulge, 0.4 * tall), (lip + 0.4 * bulge, 0.75 * tall), (lip, tall)], 6)
    out.add("body", body, _pot(profile, wall=chance.between(0.032, 0.05)))
    side = 0.5 * (foot + lip) + bulge
    handle = body if chance.likely(0.6) else finishes.glaze(chance)
    turn = chance.pick((0.0, 0.0, 180.0, 35.0))
    out.add(
        "handle",
        handle,
        _handle(chance.between(0.15, 0.28), 0.28 * tall, 0.78 * tall, side - 0.01, chance.between(0.028, 0.045)).turned("y", turn),
    )
    if chance.likely(0.5, "drink"):
        drink = finishes.plain("drink", chance.pick(((0.25, 0.14, 0.08), (0.55, 0.3, 0.1), (0.9, 0.85, 0.75))), roughness=0.15)
        level = chance.between(0.6, 0.85) * tall
        inside = float(np.interp(level, profile[:, 1], profile[:, 0])) - 0.02
        out.add("drink", drink, lathe([(inside, level), (0, level)], around=40))
    if chance.likely(0.35, "saucer"):
        plate = chance.between(1.3, 1.6) * lip
        out.add(
            "saucer",
            body,
            lathe([(0, -0.03), (0.5 * plate, -0.03), (plate, 0.03), (plate, 0.065), (0.5 * plate, 0.01), (0, 0.01)], around=40),
        )
    return out


def goblet(chance: Chance) -> Assembly:
    out = Assembly()
    body = chance.pick((finishes.metal, finishes.metal, finishes.glass, finishes.glaze))(chance)
    foot, stem = chance.between(0.18, 0.28, "foot"), chance.between(0.03, 0.05, "stem")
    bowl, lip, low = chance.between(0.2, 0.34, "bowl"), chance.between(0.18, 0.34, "lip"), chance.between(0.35, 0.55, "stem height")
    knot = chance.between(stem, 0.09, "knot")
    outside = smooth(
        [
            (foot, 0),
            (0.9 * foot, 0.03),
            (stem, 0.1),
            (knot, 0.5 * low),
            (stem, 0.9 * low),
            (0.8 * bowl, low + 0.12),
            (bowl, 0.75),
            (lip, 1.0),
        ],
        6,
    )
    depth = low + 0.1
    inside = smooth([(lip - 0.03, 1.0), (bowl - 0.03, 0.76), (0.75 * bowl - 0.02, depth + 0.06), (0, depth)], 6)
    out.add("body", body, lathe(np.concatenate(([(0, 0)], outside, inside)), around=40))
    if chance.likely(0.4, "band"):
        height = chance.between(0.75, 0.9)
        radius = float(np.interp(height, outside[-12:, 1], outside[-12:, 0]))
        out.add("band", finishes.metal(chance), ring(radius, 0.028, around=40, across=10).moved(y=height))
    if chance.likely(0.5, "gems"):
        gem, count = finishes.plastic(chance), chance.count(4, 8, "gem count")
        for k in range(count):
            stone = ellipsoid(0.045, 0.055, 0.035, around=12, rows=8).moved(y=0.75, z=bowl).turned("y", 360 * k / count)
            out.add("gems", gem, stone)
    return out


def teapot(chance: Chance) -> Assembly:
    out, body = Assembly(), chance.pick((finishes.glaze, finishes.glaze, finishes.metal))(chance)
    belly, tall, lip = chance.between(0.32, 0.42, "belly"), chance.between(0.4, 0.65, "height"), chance.between(0.14, 0.22, "lid")
    profile = smooth([(0.6 * belly, 0), (0.95 * belly, 0.25 * tall), (belly, 0.5 * tall), (0.8 * belly, 0.82 * tall), (lip, tall)], 6)
    out.add("body", body, lathe(np.concatenate(([(0, 0)], profile, [(0, tall)])), around=40))
    trim = body if chance.likely(0.6) else finishes.metal(chance)
    dome = smooth([(lip, 0), (0.8 * lip, 0.05), (0.3 * lip, 0.085), (0.04, 0.09)], 4)
    out.add(
        "lid",
        trim,
        lathe(np.concatenate(([(0, 0)], dome, [(0, 0.09)])), around=32).moved(y=tall),
        ellipsoid(0.05, 0.045, 0.05, around=16, rows=10).moved(y=tall + 0.12),
    )
    reach = chance.between(0.18, 0.34, "spout")
    spout = bent(
        [(0.8 * belly, 0.25 * tall, 0), (belly + reach, 0.3 * tall, 0), (belly + 0.3 * reach, 0.8 * tall, 0), (belly + reach, tall, 0)], 16
    )
    out.add("spout", body, tube(spout, np.linspace(0.1, 0.04, 17), around=16))
    if chance.likely(0.35, "handle above"):
        arch = bent([(0.7 * belly, 0.85 * tall, 0), (belly, tall + 0.5, 0), (-belly, tall + 0.5, 0), (-0.7 * belly, 0.85 * tall, 0)], 18)
        out.add("handle", trim, tube(arch, 0.032, around=10))
    else:
        out.add("handle", trim, _handle(chance.between(0.2, 0.3), 0.25 * tall, 0.85 * tall, 0.85 * belly, 0.035).mirrored)
    return out


def bowl(chance: Chance) -> Assembly:
    """Open, with fruit in it or empty."""
    out, body = Assembly(), chance.pick((finishes.glaze, finishes.glaze, finishes.timber, finishes.metal))(chance)
    foot, tall = chance.between(0.15, 0.28, "foot"), chance.between(0.22, 0.45, "height")
    profile = smooth([(foot, 0), (foot + 0.5 * (0.5 - foot), 0.25 * tall), (0.46, 0.65 * tall), (0.5, tall)], 6)
    out.add("bowl", body, _pot(profile, around=48, wall=0.0 if chance.likely(0.5, "sheet") else 0.03))
    fruits = [(0.86, 0.2, 0.15), (0.95, 0.6, 0.12), (0.55, 0.72, 0.2), (0.93, 0.85, 0.3), (0.5, 0.2, 0.45)]
    kinds = [finishes.plain("fruit", chance.pick(fruits), roughness=chance.between(0.3, 0.6)) for _ in range(3)]
    count = chance.count(0, 6, "fruits")
    for k in range(count):
        size = chance.between(0.11, 0.15)
        away = 0.0 if k == 5 else 0.22
        fruit = ellipsoid(size, size * chance.between(0.85, 1.2), size, around=20, rows=12)
        out.add("fruit", chance.pick(kinds), fruit.moved(x=away, y=0.45 * tall + size * (0.9 if k < 5 else 1.9)).turned("y", 72 * k + 15))
    return out


def basket(chance: Chance) -> Assembly:
    """Rings and staves around what lies in it: a cage that is open above."""
    out, weave = Assembly(), finishes.timber(chance)
    bottom, top, tall = chance.between(0.25, 0.35, "bottom"), chance.between(0.32, 0.45, "top"), chance.between(0.4, 0.65, "height")
    rows, staves = chance.count(3, 5, "rings"), chance.count(8, 14, "staves")
    out.add("bottom", weave, cylinder(bottom, 0.035, around=36))
    for k in range(1, rows + 1):
        share = k / rows
        out.add("rings", weave, ring(bottom + (top - bottom) * share, 0.022, around=40, across=8).moved(y=tall * share))
    for k in range(staves):
        stave = tube([(bottom, 0.02, 0), (top, tall, 0)], 0.02, around=8).turned("y", 360 * k / staves)
        out.add("staves", weave, stave)
    if chance.likely(0.6, "handle"):
        arch = bent([(top, tall, 0), (top, tall + 0.75, 0), (-top, tall + 0.75, 0), (-top, tall, 0)], 20)
        out.add("handle", weave, tube(arch, 0.028, around=10))
    for _ in range(chance.count(1, 3, "balls")):
        size, angle = chance.between(0.12, 0.17), chance.between(0, 360)
        ball = ellipsoid(size, size, size, around=20, rows=12).moved(x=0.4 * bottom, y=0.05 + size).turned("y", angle)
        out.add("balls", _ball(chance), ball)
    return out


def _ball(chance: Chance) -> Finish:
    picture = chance.pick(finishes.CLOTH)(chance, colors.vivid(chance), colors.light(chance))
    return finishes.pictured("ball", picture, tile=0.5, roughness=chance.between(0.3, 0.7))


def crate(chance: Chance) -> Assembly:
    """An open box of boards with things in it."""
    out, wood = Assembly(), finishes.timber(chance, planks=True)
    width, depth, tall = chance.between(0.6, 1.0, "width"), chance.between(0.5, 0.8, "depth"), chance.between(0.2, 0.45, "height")
    board, rows = 0.04, chance.count(2, 4, "boards")
    gap = chance.between(0.75, 1.0, "gap")
    out.add("floor", wood, box(width, board, depth).moved(y=board / 2))
    step = tall / rows
    for k in range(rows):
        y = (k + 0.5) * step
        for sign in (-1, 1):
            out.add("boards", wood, box(width, gap * step, board).moved(0, y, sign * (depth / 2 - board / 2)))
            side = box(board, gap * step, depth - 2 * board).moved(sign * (width / 2 - board / 2), y, 0)
            out.add("boards", wood, side)
    for sign in (-1, 1):
        out.add_pair("posts", finishes.timber(chance), box(0.06, tall, 0.06).moved(width / 2 - 0.07, tall / 2, sign * (depth / 2 - 0.07)))
    for k in range(chance.count(1, 4, "things")):
        size = chance.between(0.12, 0.2) * min(1.0, depth / 0.7)
        x, z = (0.22 * side * s for side, s in zip((width, depth), ((-1, -1), (1, 1), (1, -1), (-1, 1))[k], strict=True))
        kind = chance.pick(("ball", "box", "can"))
        if kind == "ball":
            out.add("things", _ball(chance), ellipsoid(size, size, size, around=20, rows=12).moved(x, board + size, z))
        elif kind == "box":
            out.add("things", finishes.cloth(chance), box(1.3 * size, 2 * size, 1.3 * size, edge=0.02).moved(x, board + size, z))
        else:
            out.add("things", finishes.metal(chance), cylinder(0.7 * size, 3 * size, around=24).moved(x, board, z))
    return out


def lantern(chance: Chance) -> Assembly:
    """A cage, or glass, around a candle: what is inside is another body."""
    out, frame = Assembly(), finishes.metal(chance) if chance.likely(0.6) else finishes.paint(chance)
    radius, tall, sides = chance.between(0.22, 0.32, "radius"), chance.between(0.5, 0.75, "height"), chance.pick((4, 6, 8), "sides")
    for y, thick in ((0.0, 0.07), (tall, 0.05)):
        out.add("plates", frame, cylinder(1.12 * radius, thick, around=40).moved(y=y))
    roof = chance.between(0.15, 0.3, "roof")
    out.add("roof", frame, cylinder(1.2 * radius, roof, top=0.05, around=40).moved(y=tall + 0.05))
    for k in range(sides):
        bar = tube([(radius, 0.05, 0), (radius, tall + 0.02, 0)], 0.025, around=8)
        out.add("bars", frame, bar.turned("y", 360 * (k + 0.5) / sides))
    out.add("ring", frame, ring(0.09, 0.022, around=24, across=10).turned("x", 90).moved(y=tall + roof + 0.12))
    if chance.likely(0.45, "glass"):
        out.add("glass", finishes.glass(chance), lathe([(0.9 * radius, 0.07), (0.9 * radius, tall)], around=36))
    candle, flame = chance.between(0.07, 0.12), finishes.plain("flame", (1.0, 0.75, 0.25), roughness=0.6)
    height = chance.between(0.3, 0.6) * tall
    out.add("candle", finishes.plain("wax", colors.light(chance), roughness=0.5), cylinder(candle, height, around=24).moved(y=0.07))
    drop = smooth([(0.03, 0), (0.045, 0.04), (0.02, 0.1)], 4)
    out.add("flame", flame, lathe(np.concatenate(([(0, 0)], drop, [(0, 0.14)])), around=16).moved(y=0.07 + height))
    return out
