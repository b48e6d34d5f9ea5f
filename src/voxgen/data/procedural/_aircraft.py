"""What flies; aircraft look along +z."""

from __future__ import annotations

import numpy as np

from . import _colors as colors
from . import _finishes as finishes
from ._assembly import Assembly
from ._box import box
from ._chance import Chance
from ._extrude import extrude
from ._lathe import cylinder, ellipsoid, lathe, ring, smooth
from ._tube import tube
from ._vehicles import wheel


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
        out.add("windows", finishes.plain("pane", (0.25, 0.45, 0.7), roughness=0.1), disc.moved(z=0.012))
        out.add("frames", finishes.metal(chance), ring(window, 0.018, around=24, across=8).turned("x", 90).moved(y=y, z=radius + 0.01))
    if chance.likely(0.3, "boosters"):
        for sign in (-1, 1):
            tank = smooth([(0.07, 0), (0.07, 0.3), (0.05, 0.38), (0.01, 0.45)], 4)
            out.add(
                "boosters", hull, lathe(np.concatenate(([(0, 0)], tank, [(0, 0.455)])), around=24).moved(x=sign * (radius + 0.07), y=base)
            )
    return out


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
    wing = extrude(half, thick).turned("x", 90)
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
    out.add("tail", trim, extrude(fin, thick).turned("y", -90).moved(y=0.2 * radius, z=-0.48))
    if chance.likely(0.6, "propeller"):
        out.add("propeller", finishes.timber(chance), box(0.36, 0.05, 0.03, edge=0.01).turned("z", chance.between(0, 90)).moved(z=0.5))
        out.add("propeller", finishes.metal(chance), ellipsoid(0.035, 0.035, 0.05, around=16, rows=10).moved(z=0.51))
    else:
        nacelle = lathe([(0.03, -0.1), (0.055, -0.06), (0.06, 0.08), (0.045, 0.1), (0.04, 0.06), (0.03, -0.06)], around=24, closed=True)
        out.add_pair("engines", finishes.metal(chance), nacelle.turned("x", 90).moved(0.25 * span, rise - 0.07, 0.06 - 0.3 * sweep))
    pane = finishes.plain("pane", (0.12, 0.18, 0.25), roughness=0.08)
    out.add("cockpit", pane, ellipsoid(0.6 * radius, 0.5 * radius, 0.13, around=20, rows=12).moved(y=0.75 * radius, z=0.24))
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
        tyre, rim = wheel(0.06, 0.06)
        for x, z in ((0.13, -0.08), (-0.13, -0.08), (0.0, 0.18)):
            out.add("wheels", finishes.rubber(chance), tyre.moved(x, 0.06, z), rim.moved(x, 0.06, z))
            out.add("struts", trim, tube([(x, 0.06, z), (0.6 * x, y - 0.5 * tall, z)], 0.022, around=8))
    return out
