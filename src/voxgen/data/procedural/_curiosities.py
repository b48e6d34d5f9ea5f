"""What belongs to no other file: a bird in a cage, cake, clocks, fish, swords, hats."""

from __future__ import annotations

import math

import numpy as np

from . import _colors as colors
from . import _finishes as finishes
from . import _patterns as patterns
from ._assembly import Assembly
from ._box import box
from ._chance import Chance
from ._extrude import extrude, regular
from ._finishes import Finish
from ._lathe import cylinder, ellipsoid, lathe, ring, smooth
from ._tube import tube


def _bird(chance: Chance) -> Assembly:
    """About 0.3 long, its breast at the origin."""
    out, coat, beak = Assembly(), finishes.paint(chance, colors.vivid(chance)), finishes.plain("beak", (0.95, 0.6, 0.1), roughness=0.5)
    wing, dark = finishes.paint(chance), finishes.plain("eyes", (0.05, 0.05, 0.06), roughness=0.2)
    out.add(
        "bird",
        coat,
        ellipsoid(0.085, 0.09, 0.13, around=20, rows=12).turned("x", -20),
        ellipsoid(0.07, 0.07, 0.07, around=20, rows=12).moved(y=0.12, z=0.08),
    )
    out.add("beak", beak, cylinder(0.03, 0.07, top=0.0, around=12).turned("x", 90).moved(y=0.115, z=0.14))
    out.add_pair("eyes", dark, ellipsoid(0.018, 0.018, 0.018, around=10, rows=8).moved(0.04, 0.145, 0.13))
    out.add_pair("wings", wing, ellipsoid(0.025, 0.06, 0.11, around=14, rows=10).turned("x", -25).moved(0.085, 0.0, -0.02))
    out.add("tail", wing, box(0.07, 0.03, 0.14, edge=0.012).turned("x", 20).moved(y=-0.05, z=-0.17))
    out.add_pair("legs", beak, cylinder(0.016, 0.1, around=8).moved(0.035, -0.15, 0))
    return out


def birdcage(chance: Chance) -> Assembly:
    """Bars, which meet in a dome, around a bird."""
    out, bars = Assembly(), finishes.metal(chance) if chance.likely(0.6) else finishes.paint(chance)
    radius, tall, dome = chance.between(0.3, 0.4, "radius"), chance.between(0.45, 0.6, "height"), chance.between(0.2, 0.35, "dome")
    count = chance.count(10, 16, "bars")
    out.add("floor", finishes.timber(chance) if chance.likely(0.5) else bars, cylinder(1.08 * radius, 0.06, around=40))
    angle = np.linspace(0, np.pi / 2, 9)
    line = np.concatenate(
        ([(radius, 0.04, 0), (radius, 0.5 * tall, 0)], np.stack((radius * np.cos(angle), tall + dome * np.sin(angle), 0 * angle), 1))
    )
    for k in range(count):
        out.add("bars", bars, tube(line[:-1], 0.019, around=8).turned("y", 360 * (k + 0.5) / count))
    for height in (0.5 * tall, tall):
        out.add("rings", bars, ring(radius, 0.02, around=40, across=8).moved(y=height))
    out.add(
        "top",
        bars,
        ellipsoid(0.09, 0.05, 0.09, around=20, rows=10).moved(y=tall + dome),
        ring(0.07, 0.02, around=24, across=8).turned("x", 90).moved(y=tall + dome + 0.1),
    )
    perch = chance.between(0.2, 0.3)
    out.add("perch", finishes.timber(chance), cylinder(0.022, 2 * radius, around=10).moved(y=-radius).turned("z", 90).moved(y=perch))
    out.include(_bird(chance).turned("y", chance.between(-40, 40)), scale=chance.between(0.9, 1.15), y=perch + 0.19)
    return out


def cake(chance: Chance) -> Assembly:
    out, tiers = Assembly(), chance.count(1, 3, "tiers")
    plate = chance.between(0.42, 0.5)
    out.add(
        "plate",
        finishes.glaze(chance),
        lathe([(0, 0), (0.6 * plate, 0), (1.2 * plate, 0.03), (1.2 * plate, 0.07), (0.6 * plate, 0.04), (0, 0.04)], around=40),
    )
    y, radius = 0.04, 0.88 * plate
    cream = finishes.plain("cream", chance.pick((colors.light, colors.petal, colors.soft))(chance), roughness=0.6)
    batters = [
        finishes.pictured("cake", patterns.stripes(chance, colors.clay(chance), colors.light(chance)), tile=None, roughness=0.9),
        finishes.paint(chance, colors.soft(chance)),
    ]
    for tier in range(tiers):
        tall = chance.between(0.16, 0.26)
        out.add("cake", chance.pick(batters), cylinder(radius, tall, around=40).moved(y=y))
        y += tall
        out.add(
            "cream",
            cream,
            lathe([(0, -0.04), (radius + 0.02, -0.04), (radius + 0.02, 0.005), (radius - 0.02, 0.03), (0, 0.03)], around=40).moved(y=y),
        )
        drops, size = chance.count(8, 14, "drops"), chance.between(0.03, 0.045)
        for k in range(drops):
            out.add(
                "cream",
                cream,
                ellipsoid(size, size * (1.2 + k % 3), size, around=12, rows=8)
                .moved(y=y - size, z=radius + 0.005)
                .turned("y", 360 * k / drops),
            )
        if tier + 1 < tiers:
            radius *= chance.between(0.62, 0.75)
    kind = chance.pick(("candles", "cherries", "strawberry"), "topping")
    red = finishes.plain("fruit", (0.8, 0.06, 0.1), roughness=0.2)
    count = chance.count(3, 8, "toppings")
    if kind == "strawberry":
        berry = smooth([(0.03, 0), (0.08, 0.09), (0.085, 0.15), (0.03, 0.19)], 4)
        out.add("fruit", red, lathe(np.concatenate(([(0, 0)], berry, [(0, 0.19)])), around=20).turned("x", 180).moved(y=y + 0.2))
    for k in range(count if kind != "strawberry" else 0):
        if kind == "cherries":
            out.add(
                "fruit", red, ellipsoid(0.05, 0.05, 0.05, around=16, rows=10).moved(y=y + 0.06, z=0.7 * radius).turned("y", 360 * k / count)
            )
        else:
            wax, flame = finishes.plastic(chance), finishes.plain("flame", (1.0, 0.75, 0.25), roughness=0.6)
            out.add("candles", wax, cylinder(0.022, 0.18, around=10).moved(y=y + 0.02, z=0.6 * radius).turned("y", 360 * k / count))
            out.add(
                "flames",
                flame,
                ellipsoid(0.024, 0.04, 0.024, around=10, rows=8).moved(y=y + 0.23, z=0.6 * radius).turned("y", 360 * k / count),
            )
    return out


def clock(chance: Chance) -> Assembly:
    """An alarm clock or one to stand on a shelf; it looks along +z."""
    out, body, trim = Assembly(), chance.pick((finishes.timber, finishes.metal, finishes.paint))(chance), finishes.metal(chance)
    face, hand = finishes.plain("dial", colors.light(chance), roughness=0.4), finishes.plain("hands", colors.dark(chance), roughness=0.4)
    radius, depth = 0.36, chance.between(0.16, 0.28, "depth")
    kind = chance.pick(("alarm clock", "square", "house"), "case")
    if kind == "alarm clock":
        out.add("case", body, cylinder(0.44, depth, around=44).moved(y=-depth / 2).turned("x", 90))
        out.add_pair("feet", trim, tube([(0.25, -0.3, 0), (0.36, -0.52, 0)], 0.035, around=10))
        out.add_pair("bells", trim, ellipsoid(0.16, 0.1, 0.13, around=24, rows=12).turned("z", -35).moved(0.27, 0.43, 0))
        out.add("hammer", trim, cylinder(0.025, 0.2, around=10).moved(y=0.38), box(0.12, 0.05, 0.05, edge=0.015).moved(y=0.58))
    elif kind == "square":
        out.add("case", body, box(0.95, 0.95, depth, edge=chance.between(0.02, 0.15), steps=3))
        out.add_pair("feet", trim, box(0.12, 0.06, depth, edge=0.015).moved(0.32, -0.49, 0))
    else:
        wall, rise = 0.44, chance.between(0.25, 0.45)
        outline = np.array([(-wall, -0.5), (wall, -0.5), (wall, 0.42), (0, 0.42 + rise), (-wall, 0.42)])
        out.add("case", body, extrude(outline, depth))
        slope, run = math.degrees(math.atan2(rise, wall)), math.hypot(wall, rise)
        roof = box(run + 0.1, 0.05, depth + 0.14).moved(x=run / 2 + 0.04).turned("z", -slope).moved(y=0.44 + rise)
        out.add_pair("roof", finishes.timber(chance), roof)
        out.add("base", body, box(1.0, 0.06, depth + 0.08).moved(y=-0.5))
    front = depth / 2
    out.add("dial", face, cylinder(radius, 0.05, around=44).turned("x", 90).moved(z=front - 0.01))
    out.add("rim", trim, ring(radius, 0.032, around=44, across=10).turned("x", 90).moved(z=front + 0.025))
    for k in range(12):
        mark = box(0.037, 0.075 if k % 3 == 0 else 0.045, 0.045).moved(y=0.28).turned("z", 30 * k).moved(z=front + 0.04)
        out.add("marks", hand, mark)
    for length, turn in ((0.19, chance.between(0, 360, "hour")), (0.27, chance.between(0, 360, "minute"))):
        out.add("hands", hand, box(0.035, length, 0.045).moved(y=length / 2 - 0.02).turned("z", -turn).moved(z=front + 0.05))
    out.add("hands", trim, cylinder(0.035, 0.06, around=14).turned("x", 90).moved(z=front + 0.02))
    return out


def fish(chance: Chance) -> Assembly:
    """It swims along +x, so that its side is seen from the front; on a stand or alone."""
    out = Assembly()
    first, second = colors.vivid(chance), colors.any_color(chance)
    picture = chance.pick((patterns.stripes, patterns.gradient, patterns.dots, patterns.patches))(chance, first, second)
    scales = finishes.pictured(
        "scales", picture, tile=chance.pick((None, 0.5)), roughness=chance.between(0.2, 0.5), metallic=chance.pick((0.0, 0.0, 0.6))
    )
    fin, dark = (
        finishes.plain("fins", chance.pick((first, second, colors.vivid(chance))), roughness=0.5),
        finishes.plain("pupils", (0.05, 0.05, 0.06), roughness=0.1),
    )
    tall, wide = chance.between(0.14, 0.3, "height"), chance.between(0.09, 0.14, "width")
    line = smooth([(0.16, -0.42), (0.6, -0.2), (1.0, 0.1), (0.8, 0.32), (0.3, 0.46)], 6)
    body = lathe(np.concatenate(([(0, -0.44)], line, [(0, 0.48)])), around=28).scaled(wide, 1, tall).turned("x", 90).turned("y", 90)
    out.add("body", scales, body)
    tail, spread = chance.between(0.16, 0.26), chance.between(0.14, 0.24, "tail")
    outline = np.array([(-0.4, -0.03), (-0.4 - tail, -spread), (-0.4 - 0.7 * tail, 0.0), (-0.4 - tail, spread), (-0.4, 0.03)])[::-1]
    out.add("fins", fin, extrude(outline, 0.04))
    crest = chance.between(0.08, 0.2, "crest")
    out.add("fins", fin, extrude(np.array([(-0.22, 0.0), (0.2, 0.0), (0.1, crest), (-0.2, 0.7 * crest)]), 0.04).moved(y=0.85 * tall))
    out.add("fins", fin, extrude(np.array([(-0.18, 0.0), (-0.2, -0.6 * crest), (0.0, 0.0)]), 0.04).moved(y=-0.8 * tall))
    side = ellipsoid(0.1, 0.025, 0.055, around=16, rows=8).turned("x", 50).turned("z", 20)
    for sign in (1.0, -1.0):
        out.add("fins", fin, side.scaled(1, 1, sign).moved(0.05, -0.3 * tall, sign * 0.95 * wide))
        eye = (0.3, 0.25 * tall, sign * 0.78 * wide)
        out.add(
            "eyes", finishes.plain("eyes", (0.95, 0.95, 0.9), roughness=0.15), ellipsoid(0.045, 0.045, 0.03, around=16, rows=10).moved(*eye)
        )
        out.add("pupils", dark, ellipsoid(0.025, 0.025, 0.02, around=12, rows=8).moved(eye[0], eye[1], eye[2] + sign * 0.02))
    if chance.likely(0.4, "stand"):
        out.add(
            "stand", finishes.timber(chance), cylinder(0.025, 0.4, around=10).moved(y=-0.5), cylinder(0.24, 0.05, around=32).moved(y=-0.53)
        )
    return out


def sword(chance: Chance) -> Assembly:
    """It stands on its pommel."""
    out, steel, trim, grip = (
        Assembly(),
        finishes.metal(chance),
        finishes.metal(chance),
        chance.pick((finishes.timber, finishes.rubber, finishes.paint))(chance),
    )
    length, width, thick = chance.between(0.55, 0.75, "blade"), chance.between(0.045, 0.09, "width"), chance.between(0.022, 0.032)
    taper, hilt = chance.between(0.5, 1.0, "taper"), chance.between(0.16, 0.24, "hilt")
    ends = np.array([(width, 0.0), (width * taper, 0.82 * length), (0.004, length)])
    blade = lathe([(0, 0), *map(tuple, ends), (0, length + 0.004)], around=4).scaled(1, 1, thick / width)
    out.add("blade", steel, blade.moved(y=hilt + 0.03))
    span, curve = chance.between(0.13, 0.24, "guard"), chance.between(-0.05, 0.09)
    guard = tube(
        [(-span, hilt + curve, 0), (-0.5 * span, hilt + 0.02, 0), (0.5 * span, hilt + 0.02, 0), (span, hilt + curve, 0)], 0.032, around=12
    )
    out.add("guard", trim, guard)
    if chance.likely(0.5, "knobs"):
        out.add_pair("guard", trim, ellipsoid(0.045, 0.045, 0.045, around=16, rows=10).moved(x=span, y=hilt + curve))
    out.add("grip", grip, cylinder(0.036, hilt, around=16))
    for k in range(chance.count(0, 4, "rings")):
        out.add("rings", trim, ring(0.036, 0.017, around=20, across=8).moved(y=hilt * (0.2 + 0.2 * k)))
    out.add("pommel", trim, ellipsoid(0.06, 0.055, 0.06, around=20, rows=12))
    if chance.likely(0.5, "gem"):
        out.add("gem", finishes.plastic(chance), ellipsoid(0.035, 0.035, 0.04, around=14, rows=10).moved(y=hilt + 0.02, z=0.02))
    if chance.likely(0.4, "stone"):
        rock = finishes.stone(chance)
        out.add("stone", rock, ellipsoid(0.2, 0.14, 0.2, around=10, rows=6).moved(y=hilt + length - 0.02))
        return out.turned("x", 180)
    return out


def hat(chance: Chance) -> Assembly:
    """An open shell with a brim, or a cone."""
    out, felt = Assembly(), chance.pick((finishes.cloth, finishes.paint, finishes.cloth))(chance)
    band = finishes.paint(chance)
    head, brim = 0.28, chance.between(0.4, 0.6, "brim")
    kind = chance.pick(("bowler", "top hat", "witch", "cowboy", "party"), "kind")
    tall = chance.between(0.28, 0.55, "height")
    if kind == "party":
        tall += 0.3
        out.add("hat", felt, lathe([(head, 0.0), (0.5 * head, 0.5 * tall), (0.0, tall)], around=40))
        out.add("pompom", band, ellipsoid(0.08, 0.08, 0.08, around=20, rows=12).moved(y=tall))
        return out
    crown: dict[str, list[tuple[float, float]]] = {
        "bowler": [(head, 0.03), (1.02 * head, 0.4 * tall), (0.8 * head, 0.8 * tall), (0.3 * head, tall)],
        "top hat": [(head, 0.03), (0.95 * head, 0.5 * tall), (1.05 * head, tall + 0.1)],
        "witch": [(head, 0.03), (0.7 * head, 0.4 * tall), (0.3 * head, tall + 0.1), (0.05, tall + 0.3)],
        "cowboy": [(head, 0.03), (0.95 * head, 0.5 * tall), (0.8 * head, 0.8 * tall), (0.3 * head, 0.72 * tall)],
    }
    line = smooth(crown[kind], 6)
    curl = chance.between(-0.02, 0.12, "curl")
    edge = smooth([(brim, curl), (0.6 * brim + 0.4 * head, 0.0), (head, 0.03)], 5)[:-1]
    shell = lathe(np.concatenate((edge, line, [(0.0, line[-1, 1])])), around=44)
    out.add("hat", felt, shell.scaled(1, 1, chance.between(1.0, 1.2) if kind == "cowboy" else 1.0))
    if kind != "cowboy":
        out.add(
            "band", band, lathe([(head + 0.015, 0.02), (head + 0.02, 0.1), (head - 0.03, 0.1), (head - 0.03, 0.02)], around=44, closed=True)
        )
    if chance.likely(0.35, "buckle"):
        out.add("buckle", finishes.metal(chance), box(0.12, 0.1, 0.04, edge=0.012).moved(y=0.07, z=head + 0.02))
    return out


def ice_cream(chance: Chance) -> Assembly:
    """A waffle cone, or a cup, with scoops."""
    out = Assembly()
    waffle = finishes.pictured("waffle", patterns.checks(chance, (0.82, 0.6, 0.33), (0.7, 0.47, 0.22)), tile=0.25, roughness=0.8)
    scoop, count = chance.between(0.19, 0.24, "scoop"), chance.count(1, 3, "scoops")
    if chance.likely(0.7, "cone"):
        top = 0.55
        out.add("cone", waffle, lathe([(0.015, 0), (0.2, top), (0.215, top + 0.02), (0.2, top + 0.04)], around=32))
    else:
        top = 0.3
        out.add(
            "cup",
            finishes.glass(chance) if chance.likely(0.5) else finishes.glaze(chance),
            lathe([(0, 0), (0.16, 0), (0.26, top), (0.225, top), (0.13, 0.035), (0, 0.035)], around=36),
        )
    y = top + 0.4 * scoop
    for k in range(count):
        flavor = (
            colors.petal(chance) if chance.likely(0.4) else chance.pick((colors.light, colors.soft, colors.clay, colors.timber))(chance)
        )
        picture = patterns.clouds(chance, flavor, colors.shaded(flavor, 0.8))
        cream: Finish = finishes.pictured("ice", picture, tile=0.4, roughness=0.6)
        size = scoop * (1 - 0.08 * k)
        out.add(
            "scoops",
            cream,
            ellipsoid(size, 0.92 * size, size, around=28, rows=16).moved(y=y),
            ring(0.88 * size, 0.04, around=28, across=8).moved(y=y - 0.45 * size),
        )
        y += 1.35 * size
    end = y - 0.45 * scoop
    kind = chance.pick(("cherry", "wafer", "plain"), "topping")
    if kind == "cherry":
        out.add(
            "cherry",
            finishes.plain("cherry", (0.75, 0.04, 0.08), roughness=0.15),
            ellipsoid(0.07, 0.065, 0.07, around=20, rows=12).moved(y=end + 0.02),
        )
    elif kind == "wafer":
        out.add("wafer", waffle, extrude(regular(3, 0.16, turn=-math.pi / 2), 0.04).moved(x=0.08, y=end + 0.08))
    return out
