"""Machines and parts of machines."""

from __future__ import annotations

import math

import numpy as np

from . import _colors as colors
from . import _finishes as finishes
from ._assembly import Assembly
from ._box import box
from ._chance import Chance
from ._extrude import extrude, regular
from ._lathe import cylinder, ellipsoid, lathe, ring, smooth
from ._part import Part
from ._tube import bent, tube


def _toothed(teeth: int, root: float, tip: float, slope: float) -> np.ndarray:
    """The outline of a gear wheel, (4 teeth, 2)."""
    step = 2 * math.pi / teeth
    share = np.array([-0.25 - slope, -0.25 + slope, 0.25 - slope, 0.25 + slope])
    angle = (np.arange(teeth)[:, None] * step + share * step).ravel()
    radius = np.tile([root, tip, tip, root], teeth)
    return radius[:, None] * np.stack((np.cos(angle), np.sin(angle)), 1)


def gear(chance: Chance) -> Assembly:
    out, steel = Assembly(), finishes.metal(chance)
    teeth, tip = chance.count(8, 18, "teeth"), 0.5
    root, slope = tip - chance.between(0.06, 0.11, "tooth depth"), chance.between(0.04, 0.1)
    thick, bore = chance.between(0.1, 0.25, "thickness"), chance.between(0.07, 0.14, "bore")
    outline = _toothed(teeth, root, tip, slope)
    inner = chance.between(0.5, 0.72) * root
    angle = np.arctan2(outline[:, 1], outline[:, 0])
    circle = np.stack((np.cos(angle), np.sin(angle)), 1)
    style = chance.pick(("full", "spokes", "step"), "body")
    rim = inner if style == "spokes" else bore
    out.add("wheel", steel, extrude(outline, thick, hole=rim * circle))
    hub = lathe([(bore, -0.5), (1.9 * bore, -0.5), (1.9 * bore, 0.5), (bore, 0.5)], around=32, closed=True).turned("x", 90)
    out.add("hub", finishes.metal(chance), hub.scaled(1, 1, thick * chance.between(1.1, 1.8)))
    if style == "spokes":
        for k in range(chance.count(3, 6, "spokes")):
            count = int(chance.drawn["spokes"])
            spoke = box(rim - 1.3 * bore, 0.09, 0.6 * thick).moved(x=(rim + 1.5 * bore) / 2).turned("z", 360 * k / count)
            out.add("spokes", steel, spoke)
    elif style == "step":
        small = _toothed(max(6, teeth // 2), 0.55 * root, 0.55 * tip, slope)
        turn = np.arctan2(small[:, 1], small[:, 0])
        hole = bore * np.stack((np.cos(turn), np.sin(turn)), 1)
        out.add("pinion", finishes.metal(chance), extrude(small, thick, hole=hole).moved(z=thick))
    if chance.likely(0.35, "axle"):
        axle = cylinder(0.93 * bore, chance.between(0.4, 0.9), around=24).turned("x", 90)
        out.add("axle", finishes.metal(chance), axle.moved(z=-float(axle.vertices[:, 2].mean())))
    return out.turned("x", -90) if chance.likely(0.25, "lying") else out


def bolt(chance: Chance) -> Assembly:
    """A screw with a thread of rings, perhaps with a nut."""
    out, steel = Assembly(), finishes.metal(chance)
    radius, length = chance.between(0.1, 0.17, "radius"), chance.between(0.55, 0.85, "length")
    head, tall = chance.between(1.6, 2.2) * radius, chance.between(0.1, 0.18)
    kind = chance.pick(("hexagon", "round", "cheese"), "head")
    if kind == "hexagon":
        out.add("head", steel, extrude(regular(6, head), tall).turned("x", 90).moved(y=length + tall / 2))
    elif kind == "round":
        dome = smooth([(head, 0), (0.85 * head, 0.55 * tall), (0.4 * head, 0.95 * tall)], 5)
        out.add("head", steel, lathe(np.concatenate(([(0, 0)], dome, [(0, tall)])), around=32).moved(y=length))
    else:
        out.add("head", steel, cylinder(head, tall, around=36).moved(y=length))
    turns = chance.count(6, 10, "threads")
    start = chance.between(0.0, 0.35) * length
    pitch = (length - start) / turns
    line = [(0.0, 0.0), (0.8 * radius, 0.0)]
    for k in range(turns):
        line += [(radius, (k + 0.5) * pitch), (0.78 * radius, (k + 1) * pitch)]
    out.add("shaft", steel, lathe([*line, (0.85 * radius, length), (0.0, length)], around=28))
    if chance.likely(0.5, "nut"):
        size, turn = 1.8 * radius, np.arange(24) * (2 * np.pi / 24)
        corner = size * math.cos(math.pi / 6) / np.cos((turn % (math.pi / 3)) - math.pi / 6)
        circle = np.stack((np.cos(turn), np.sin(turn)), 1)
        nut = extrude(corner[:, None] * circle, 0.9 * radius, hole=1.01 * radius * circle).turned("x", 90)
        out.add("nut", finishes.metal(chance), nut.moved(y=chance.between(0.15, 0.6) * (length - start)))
    if chance.likely(0.3, "washer"):
        washer = lathe([(radius, 0), (1.3 * head, 0), (1.3 * head, 0.04), (radius, 0.04)], around=36, closed=True)
        out.add("washer", finishes.metal(chance), washer.moved(y=length - 0.04))
    return out


def rocket(chance: Chance) -> Assembly:
    out, hull, trim = Assembly(), finishes.paint(chance, colors.light(chance)), finishes.plastic(chance)
    if chance.likely(0.4, "pattern"):
        picture = chance.pick(finishes.CLOTH[:2])(chance, colors.light(chance), colors.vivid(chance))
        hull = finishes.pictured("hull", picture, tile=0.5, roughness=chance.between(0.2, 0.5))
    radius, body, nose = chance.between(0.11, 0.2, "radius"), chance.between(0.4, 0.6, "body"), chance.between(0.2, 0.35, "nose")
    waist = chance.between(0.65, 1.0)
    base = 0.14
    belly = smooth([(waist * radius, 0), (radius, 0.45 * body), (0.95 * radius, body)], 6)
    out.add("body", hull, lathe(np.concatenate(([(0, 0)], belly, [(0, body)])), around=36).moved(y=base))
    tip = smooth([(0.95 * radius, 0), (0.7 * radius, 0.45 * nose), (0.3 * radius, 0.85 * nose), (0.01, nose)], 5)
    out.add("nose", trim, lathe(np.concatenate(([(0, 0)], tip, [(0, nose + 0.005)])), around=36).moved(y=base + body))
    bell = lathe([(0.45 * radius, 0.1), (0.75 * radius, 0.0), (0.6 * radius, 0.0), (0.3 * radius, 0.1)][::-1], around=28, closed=True)
    out.add("engine", finishes.metal(chance), bell.moved(y=base - 0.09))
    fins, reach, sweep = chance.count(3, 5, "fins"), chance.between(0.14, 0.26, "fin reach"), chance.between(0.05, 0.2)
    outline = np.array([(0.0, 0.0), (reach, -sweep), (reach, 0.1 - sweep), (0.0, 0.3)])
    for k in range(fins):
        fin = extrude(outline, 0.035).moved(x=waist * radius - 0.02, y=base + 0.03)
        out.add("fins", trim, fin.turned("y", 360 * k / fins - 90))
    window = chance.between(0.05, 0.07)
    for k in range(chance.count(0, 2, "windows")):
        y = base + body * (0.75 - 0.3 * k)
        disc = cylinder(window, 0.05, around=24).turned("x", 90).moved(y=y, z=radius - 0.03)
        out.add("windows", finishes.plain("pane", (0.25, 0.45, 0.7), roughness=0.1), disc.scaled(1, 1, 1).moved(z=0.012))
        out.add("frames", finishes.metal(chance), ring(window, 0.018, around=24, across=8).turned("x", 90).moved(y=y, z=radius + 0.01))
    if chance.likely(0.3, "boosters"):
        for sign in (-1, 1):
            tank = smooth([(0.07, 0), (0.07, 0.3), (0.05, 0.38), (0.01, 0.45)], 4)
            out.add(
                "boosters", hull, lathe(np.concatenate(([(0, 0)], tank, [(0, 0.455)])), around=24).moved(x=sign * (radius + 0.07), y=base)
            )
    return out


def _wheel(radius: float, width: float) -> tuple[Part, Part]:
    """Tyre and rim, their axis along x."""
    r, w = radius, width / 2
    tyre = lathe([(0.55 * r, -w), (0.92 * r, -w), (r, -0.7 * w), (r, 0.7 * w), (0.92 * r, w), (0.55 * r, w)], around=28, closed=True)
    rim = lathe([(0, -0.8 * w), (0.56 * r, -0.8 * w), (0.56 * r, 0.8 * w), (0.2 * r, 0.95 * w), (0, 0.95 * w)], around=20)
    return tyre.turned("z", -90), rim.turned("z", -90)


def car(chance: Chance) -> Assembly:
    """Its front looks along +z."""
    out = Assembly()
    hull = finishes.plain("lacquer", colors.any_color(chance), roughness=chance.between(0.1, 0.35), metallic=chance.between(0, 0.5))
    pane = finishes.plain("pane", (0.12, 0.16, 0.2), roughness=0.08, alpha=chance.pick((1.0, 1.0, 0.6)))
    kind = chance.pick(("sedan", "van", "truck", "racer"), "kind")
    length, width = 1.0, chance.between(0.4, 0.5, "width")
    radius, tall = chance.between(0.09, 0.13, "wheel"), chance.between(0.14, 0.2, "body height")
    low = 0.75 * radius
    edge = chance.between(0.02, 0.06)
    out.add("body", hull, box(width, tall, length, edge=edge, steps=2).moved(y=low + tall / 2))
    deck = low + tall
    if kind == "sedan":
        _cabin(out, hull, pane, width, deck, chance.between(0.14, 0.2), (-0.36, -0.22, 0.1, 0.26))
    elif kind == "van":
        _cabin(out, hull, pane, width, deck, chance.between(0.22, 0.32), (-0.49, -0.48, 0.28, 0.44))
    elif kind == "truck":
        _cabin(out, hull, pane, width, deck, chance.between(0.18, 0.25), (0.12, 0.13, 0.36, 0.44))
        load, wood = (
            chance.between(0.14, 0.34, "load"),
            finishes.timber(chance, planks=True) if chance.likely(0.5) else finishes.paint(chance),
        )
        if chance.likely(0.5, "box body"):
            out.add("load", wood, box(width, load + 0.06, 0.56, edge=0.015).moved(y=deck + load / 2 + 0.02, z=-0.21))
        else:
            for sign in (-1, 1):
                out.add("load", wood, box(0.035, 0.14, 0.56).moved(sign * (width / 2 - 0.02), deck + 0.06, -0.21))
                out.add("load", wood, box(width, 0.14, 0.035).moved(0, deck + 0.06, -0.21 + sign * 0.27))
            out.add("load", finishes.stone(chance), ellipsoid(0.13, 0.12, 0.2, around=16, rows=10).moved(y=deck + 0.05, z=-0.2))
    else:
        out.add("driver", finishes.plastic(chance), ellipsoid(0.09, 0.09, 0.09, around=20, rows=12).moved(y=deck + 0.07, z=-0.05))
        out.add("spoiler", hull, box(width, 0.035, 0.13, edge=0.012).moved(y=deck + 0.16, z=-0.43))
        out.add_pair("spoiler", hull, box(0.04, 0.16, 0.08).moved(0.35 * width, deck + 0.08, -0.43))
        stripe = finishes.paint(chance)
        out.add("stripe", stripe, box(0.3 * width, 0.03, 0.42, edge=0.01).moved(y=deck, z=0.25))
    tyre, rim = _wheel(radius, chance.between(0.08, 0.12))
    rubber, alloy = finishes.rubber(chance), finishes.metal(chance)
    for z in (-0.31 * length, 0.31 * length):
        out.add_pair("tyres", rubber, tyre.moved(width / 2, radius, z))
        out.add_pair("rims", alloy, rim.moved(width / 2, radius, z))
    lamp, tail = finishes.plain("lamp", (1.0, 0.96, 0.8), roughness=0.2), finishes.plain("tail lamp", (0.8, 0.08, 0.05), roughness=0.3)
    front = cylinder(0.045, 0.05, around=16).turned("x", 90)
    out.add_pair("lamps", lamp, front.moved(0.33 * width, low + 0.6 * tall, length / 2 - 0.03))
    out.add_pair("lamps", tail, box(0.08, 0.05, 0.04).moved(0.33 * width, low + 0.65 * tall, -length / 2))
    out.add("bumper", finishes.metal(chance), box(0.9 * width, 0.05, 0.05, edge=0.018).moved(y=low + 0.04, z=length / 2))
    return out


def _cabin(
    out: Assembly, hull: finishes.Finish, pane: finishes.Finish, width: float, deck: float, tall: float, line: tuple[float, ...]
) -> None:
    """Panes with a roof; `line` gives along z: the lower and upper end behind, the upper and lower end before."""
    lower, upper = 0.46 * width, 0.4 * width
    outline = np.array([(line[0], 0.0), (line[3], 0.0), (line[2], tall), (line[1], tall)])
    glass = extrude(outline, 2 * upper).turned("y", -90).moved(y=deck - 0.005)
    out.add("panes", pane, glass)
    roof = box(2 * upper + 0.03, 0.04, line[2] - line[1] + 0.03, edge=0.015).moved(y=deck + tall, z=(line[1] + line[2]) / 2)
    out.add("roof", hull, roof)
    for near, far in ((line[0], line[1]), (line[3], line[2])):
        out.add_pair("pillars", hull, tube([(lower, deck, near), (upper, deck + tall, far)], 0.024, around=8))
    middle = (line[1] + line[2]) / 2
    out.add_pair("pillars", hull, tube([(lower, deck, middle), (upper, deck + tall, middle)], 0.024, around=8))


def airplane(chance: Chance) -> Assembly:
    """Its nose looks along +z."""
    out, hull, trim = Assembly(), finishes.paint(chance, colors.light(chance)), finishes.plastic(chance)
    if chance.likely(0.5, "coloured"):
        hull = finishes.paint(chance)
    radius, span = chance.between(0.07, 0.11, "radius"), chance.between(0.8, 1.1, "span")
    chord, sweep = chance.between(0.16, 0.26, "chord"), chance.between(0.0, 0.22, "sweep")
    line = smooth([(0.25 * radius, -0.5), (0.8 * radius, -0.2), (radius, 0.1), (0.9 * radius, 0.3), (0.4 * radius, 0.46)], 6)
    body = lathe(np.concatenate(([(0, -0.5)], line, [(0, 0.5)])), around=28).turned("x", 90)
    out.add("body", hull, body)
    thick = 0.035
    half = np.array([(0.0, -chord / 2), (0.0, chord / 2), (-span / 2, 0.25 * chord - sweep), (-span / 2, -0.25 * chord - sweep)])
    wing = extrude(half, thick).turned("x", 90).scaled(1, 1, 1)
    rise = chance.pick((-0.4, 0.0, 0.9), "wing height") * radius
    out.add_pair("wings", trim, wing.moved(y=rise, z=0.06))
    if chance.likely(0.25, "biplane"):
        out.add_pair("wings", trim, wing.moved(y=rise + 0.24, z=0.08))
        out.add_pair(
            "struts",
            finishes.metal(chance),
            tube([(0.3 * span, rise, 0.0 - 0.5 * sweep), (0.3 * span, rise + 0.24, 0.02 - 0.5 * sweep)], 0.018, around=8),
        )
    tail = 0.36 * half
    out.add_pair("tail", trim, extrude(tail, thick).turned("x", 90).moved(z=-0.42))
    fin = np.array([(0.0, 0.0), (0.14, 0.0), (0.06, 0.2), (-0.02, 0.2)])
    out.add("tail", trim, extrude(fin, thick).turned("y", -90).scaled(1, 1, 1).moved(y=0.2 * radius, z=-0.48))
    if chance.likely(0.6, "propeller"):
        out.add("propeller", finishes.timber(chance), box(0.36, 0.05, 0.03, edge=0.01).turned("z", chance.between(0, 90)).moved(z=0.5))
        out.add("propeller", finishes.metal(chance), ellipsoid(0.035, 0.035, 0.05, around=16, rows=10).moved(z=0.51))
    else:
        nacelle = lathe([(0.03, -0.1), (0.055, -0.06), (0.06, 0.08), (0.045, 0.1), (0.04, 0.06), (0.03, -0.06)], around=24, closed=True)
        out.add_pair("engines", finishes.metal(chance), nacelle.turned("x", 90).moved(0.25 * span, rise - 0.07, 0.06 - 0.3 * sweep))
    pane = finishes.plain("pane", (0.12, 0.18, 0.25), roughness=0.08)
    out.add("cockpit", pane, ellipsoid(0.6 * radius, 0.5 * radius, 0.13, around=20, rows=12).moved(y=0.75 * radius, z=0.24))
    return out


def boat(chance: Chance) -> Assembly:
    """Its bow looks along +z; the hull is an open sheet."""
    from ._sheet import sheet

    out, wood = Assembly(), finishes.timber(chance, planks=True)
    hull = finishes.paint(chance) if chance.likely(0.5) else wood
    wide, deep = chance.between(0.3, 0.42, "width"), chance.between(0.14, 0.2, "depth")
    z = np.linspace(-0.5, 0.5, 25)
    share = ((z + 0.5) ** chance.between(1.5, 2.4, "bow")).clip(0, 1)
    half = 0.5 * wide * (1 - share**1.5) * np.where(z < -0.3, 1 - 1.4 * (z + 0.3) ** 2, 1.0)
    half[-1] = 0.004
    turn = np.linspace(-np.pi / 2, np.pi / 2, 17)[:, None]
    across = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.8
    lift = 0.06 * (2 * z) ** 2
    points = np.stack(np.broadcast_arrays(half * across, lift - deep * np.cos(turn) ** 0.8 * (1 - 0.5 * share**4), z), -1)
    out.add("hull", hull, sheet(points.transpose(1, 0, 2)[:, ::-1]))
    stern = np.concatenate((points[:, 0], points[:1, 0]))
    fan = np.stack((stern, np.broadcast_to(stern[:-1].mean(0), stern.shape)), 0)
    out.add("hull", hull, sheet(fan))
    for side in (0, -1):
        out.add("rail", wood, tube(points[side], 0.02, around=8))
    for at in (8, 13):
        out.add("benches", wood, box(2 * half[at] * 0.95, 0.03, 0.08).moved(y=-0.03 + lift[at], z=z[at]))
    if chance.likely(0.6, "sail"):
        mast = chance.between(0.55, 0.8, "mast")
        out.add("mast", finishes.timber(chance), cylinder(0.022, mast + deep, around=10).moved(y=-deep + 0.02, z=0.08))
        v, u = np.meshgrid(np.linspace(0, 1, 14), np.linspace(0, 1, 14), indexing="ij")
        reach = 0.46 * (1 - v)
        sail = np.stack((0.1 * np.sin(np.pi * u) * (1 - v), 0.12 + (mast - 0.16) * v, 0.05 - reach * u), -1)
        out.add("sail", finishes.cloth(chance, tile=0.4), sheet(sail))
        out.add("mast", finishes.timber(chance), tube([(0, 0.12, 0.08), (0, 0.12, -0.42)], 0.018, around=8))
    else:
        for sign in (-1, 1):
            oar = bent([(sign * 0.15, 0.1, 0.0), (sign * 0.4, 0.0, 0.02), (sign * 0.55, -0.1, 0.04)], 6)
            out.add("oars", wood, tube(oar, 0.018, around=8), box(0.1, 0.03, 0.07, edge=0.01).turned("z", -sign * 35).moved(*oar[-1]))
    return out


def train(chance: Chance) -> Assembly:
    """A steam locomotive; its front looks along +z."""
    out, hull, trim = Assembly(), finishes.paint(chance), finishes.metal(chance)
    dark, roof = finishes.plain("iron", colors.dark(chance), roughness=0.5, metallic=0.6), finishes.paint(chance)
    boiler, length = chance.between(0.12, 0.16, "boiler"), chance.between(0.42, 0.55, "length")
    low = chance.between(0.16, 0.2)
    width = 2.3 * boiler
    out.add("frame", dark, box(width, 0.07, length + 0.42, edge=0.015).moved(y=low, z=-0.04))
    axis = low + 0.02 + boiler
    out.add("boiler", hull, cylinder(boiler, length, around=32).turned("x", 90).moved(y=axis, z=-0.15))
    for k in range(chance.count(1, 3, "bands")):
        out.add("bands", trim, ring(boiler, 0.018, around=32, across=8).turned("x", 90).moved(y=axis, z=-0.05 + 0.15 * k))
    nose = length - 0.15
    out.add("nose", dark, cylinder(1.04 * boiler, 0.05, around=32).turned("x", 90).moved(y=axis, z=nose))
    out.add(
        "lamp",
        finishes.plain("lamp", (1.0, 0.95, 0.75), roughness=0.2),
        cylinder(0.045, 0.07, around=20).turned("x", 90).moved(y=axis + 0.05, z=nose + 0.04),
    )
    stack, flare = chance.between(0.12, 0.24, "chimney"), chance.between(0.8, 1.9)
    out.add("chimney", dark, cylinder(0.05, stack, top=0.05 * flare, around=24).moved(y=axis + 0.9 * boiler, z=nose - 0.1))
    out.add("dome", trim, ellipsoid(0.055, 0.08, 0.055, around=20, rows=12).moved(y=axis + boiler, z=0.05))
    cabin, back = chance.between(0.34, 0.42, "cabin"), -0.24
    out.add_pair("cabin", hull, box(0.04, 0.5 * cabin, 0.26).moved(width / 2 - 0.02, low + 0.25 * cabin, back))
    out.add("cabin", hull, box(width, 0.6 * cabin, 0.04).moved(y=low + 0.3 * cabin, z=back + 0.11))
    for sign in (-1, 1):
        out.add_pair("posts", hull, box(0.04, 0.55 * cabin, 0.04).moved(width / 2 - 0.02, low + 0.75 * cabin, back + sign * 0.11))
    out.add("roof", roof, box(width + 0.08, 0.05, 0.36, edge=0.02).moved(y=low + cabin + 0.03, z=back))
    tyre, rim = _wheel(chance.between(0.09, 0.11), 0.06)
    small, hub = _wheel(0.07, 0.06)
    color = finishes.paint(chance)
    for z in (-0.24, 0.0):
        out.add_pair("tyres", dark, tyre.moved(width / 2, 0.1, z))
        out.add_pair("rims", color, rim.moved(width / 2, 0.1, z))
    for z in (0.2, nose - 0.04):
        out.add_pair("tyres", dark, small.moved(width / 2, 0.07, z))
        out.add_pair("rims", color, hub.moved(width / 2, 0.07, z))
    out.add_pair("rods", trim, box(0.035, 0.035, 0.3).moved(width / 2 + 0.05, 0.1, -0.1))
    plow = np.array([(-0.12, 0.0), (0.12, 0.0), (0.05, 0.12), (-0.05, 0.12)])
    out.add("plow", color, extrude(plow, 0.05).turned("x", -25).moved(y=0.03, z=nose + 0.07))
    return out


def helicopter(chance: Chance) -> Assembly:
    """Its nose looks along +z."""
    out, hull, trim = Assembly(), finishes.paint(chance), finishes.metal(chance)
    pane = finishes.glass(chance) if chance.likely(0.4, "glass nose") else finishes.plain("pane", (0.12, 0.18, 0.25), roughness=0.08)
    wide, tall, long = chance.between(0.13, 0.17, "width"), chance.between(0.14, 0.19, "height"), chance.between(0.2, 0.28, "length")
    y = 0.16 + tall
    out.add("cabin", hull, ellipsoid(wide, tall, long, around=32, rows=18).moved(y=y))
    out.add("panes", pane, ellipsoid(0.92 * wide, 0.75 * tall, 0.6 * long, around=28, rows=14).moved(y=y + 0.1 * tall, z=0.5 * long))
    tail = chance.between(0.45, 0.6, "tail")
    out.add("boom", hull, tube([(0, y + 0.03, -0.6 * long), (0, y + 0.08, -tail)], [0.07, 0.03], around=14))
    fin = np.array([(0.0, -0.06), (0.1, -0.06), (0.03, 0.16), (-0.06, 0.16)])
    out.add("fin", hull, extrude(fin, 0.035).turned("y", -90).moved(y=y + 0.1, z=-tail))
    out.add("tail rotor", trim, box(0.03, 0.26, 0.035).turned("x", chance.between(0, 90)).moved(0.05, y + 0.12, -tail))
    top = y + tall + 0.07
    out.add(
        "mast",
        trim,
        cylinder(0.03, 0.12, around=14).moved(y=y + tall - 0.04),
        ellipsoid(0.05, 0.035, 0.05, around=16, rows=10).moved(y=top),
    )
    blades, reach, turn = chance.pick((2, 3, 4, 5), "blades"), chance.between(0.42, 0.58, "rotor"), chance.between(0, 90)
    blade = finishes.plain("blades", colors.dark(chance), roughness=0.5)
    for k in range(blades):
        out.add("blades", blade, box(reach, 0.035, 0.065, edge=0.012).moved(x=reach / 2).turned("y", turn + 360 * k / blades).moved(y=top))
    if chance.likely(0.7, "skids"):
        out.add_pair("skids", trim, tube([(0.14, 0.03, -0.2), (0.14, 0.02, 0.2), (0.14, 0.07, 0.27)], 0.022, around=8))
        for z in (-0.1, 0.12):
            out.add_pair("skids", trim, tube([(0.14, 0.03, z), (0.07, y - 0.8 * tall, z)], 0.02, around=8))
    else:
        tyre, rim = _wheel(0.06, 0.06)
        for x, z in ((0.13, -0.08), (-0.13, -0.08), (0.0, 0.18)):
            out.add("wheels", finishes.rubber(chance), tyre.moved(x, 0.06, z), rim.moved(x, 0.06, z))
            out.add("struts", trim, tube([(x, 0.06, z), (0.6 * x, y - 0.5 * tall, z)], 0.022, around=8))
    return out
