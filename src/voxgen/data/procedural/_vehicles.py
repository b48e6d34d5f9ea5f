"""What rolls and swims. It looks along +z."""

from __future__ import annotations

import numpy as np

from . import _colors as colors
from . import _finishes as finishes
from ._assembly import Assembly
from ._box import box
from ._chance import Chance
from ._extrude import extrude
from ._lathe import cylinder, ellipsoid, lathe, ring
from ._part import Part
from ._sheet import sheet
from ._tube import bent, tube


def wheel(radius: float, width: float) -> tuple[Part, Part]:
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
    tyre, rim = wheel(radius, chance.between(0.08, 0.12))
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


def boat(chance: Chance) -> Assembly:
    """Its bow looks along +z; the hull is an open sheet."""
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
    tyre, rim = wheel(chance.between(0.09, 0.11), 0.06)
    small, hub = wheel(0.07, 0.06)
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
