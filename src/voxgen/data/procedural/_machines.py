"""Parts of machines."""

from __future__ import annotations

import math

import numpy as np

from . import _finishes as finishes
from ._assembly import Assembly
from ._box import box
from ._chance import Chance
from ._extrude import extrude, regular
from ._lathe import cylinder, lathe, smooth


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
