"""Robots, snowmen, chess pieces. They look along +z."""

from __future__ import annotations

import numpy as np

from . import _colors as colors
from . import _finishes as finishes
from ._assembly import Assembly
from ._box import box
from ._chance import Chance
from ._extrude import extrude, regular
from ._lathe import ball, cylinder, ellipsoid, lathe, ring, smooth
from ._tube import tube


def robot(chance: Chance) -> Assembly:
    out, shell = Assembly(), finishes.metal(chance) if chance.likely(0.4) else finishes.paint(chance)
    trim, joint = finishes.plastic(chance), finishes.metal(chance)
    light = finishes.plain("lights", colors.vivid(chance), roughness=0.15)
    width, torso, depth = chance.between(0.26, 0.4, "width"), chance.between(0.26, 0.36, "torso"), chance.between(0.18, 0.26)
    base = 0.1
    kind = chance.pick(("legs", "tracks", "wheel"), "base")
    leg = chance.between(0.14, 0.28)
    if kind == "legs":
        base = leg
        out.add_pair("legs", joint, cylinder(0.04, leg, around=16).moved(0.28 * width, 0.03, 0))
        out.add_pair("feet", trim, box(0.14, 0.07, 0.2, edge=0.025).moved(0.28 * width, 0.035, 0.03))
    elif kind == "tracks":
        base = 0.15
        out.add_pair("tracks", finishes.rubber(chance), box(0.1, 0.15, 0.34, edge=0.07, steps=3).moved(width / 2, 0.075, 0))
    else:
        base = 0.22
        out.add("wheel", finishes.rubber(chance), ring(0.08, 0.05, around=28, across=12).turned("z", 90).moved(y=0.13))
        out.add("fork", joint, box(0.05, 0.12, 0.05).moved(y=0.2))
    body = (
        box(width, torso, depth, edge=chance.between(0.02, 0.07), steps=2)
        if chance.likely(0.7, "boxy")
        else cylinder(width / 2, torso, around=32).moved(y=-torso / 2)
    )
    out.add("torso", shell, body.moved(y=base + torso / 2))
    front = depth / 2 if chance.drawn["boxy"] else width / 2
    out.add("panel", trim, box(0.55 * width, 0.4 * torso, 0.04, edge=0.012).moved(y=base + 0.55 * torso, z=front))
    for k in range(chance.count(1, 3, "lights")):
        out.add("lights", light, ball(0.026, around=12).moved((k - 1) * 0.16 * width, base + 0.65 * torso, front + 0.02))
    shoulder = base + 0.82 * torso
    for sign in (-1, 1):
        angle = chance.between(-80, 30)
        reach = 0.85 * torso * np.array([sign * np.cos(np.radians(angle)) * 0.6, np.sin(np.radians(angle)), 0.3])
        start = np.array([sign * (width / 2 + 0.03), shoulder, 0.0])
        elbow = start + 0.55 * reach + (0, -0.02, 0)
        out.add(
            "arms",
            joint,
            ball(0.055).moved(*start),
            tube([start, elbow], 0.032, around=10),
            tube([elbow, start + reach], 0.032, around=10),
            ball(0.042).moved(*elbow),
        )
        out.add("hands", trim, box(0.09, 0.09, 0.09, edge=0.025).moved(*(start + reach)))
    top = base + torso
    out.add("neck", joint, cylinder(0.05, 0.06, around=16).moved(y=top - 0.005))
    head, tall = chance.between(0.2, 0.32, "head width"), chance.between(0.14, 0.22, "head height")
    y = top + 0.05 + tall / 2
    shape = chance.pick(("box", "dome", "can"), "head")
    if shape == "box":
        out.add("head", shell, box(head, tall, 0.8 * head, edge=0.03, steps=2).moved(y=y))
    elif shape == "dome":
        out.add("head", shell, ellipsoid(head / 2, 0.62 * tall, 0.4 * head, around=28, rows=16).moved(y=y))
    else:
        out.add("head", shell, cylinder(0.42 * head, tall, around=32).moved(y=y - tall / 2))
    eye = 0.4 * head
    if chance.likely(0.3, "visor"):
        out.add("eyes", light, box(0.6 * head, 0.06, 0.06, edge=0.02).moved(y=y + 0.01, z=eye))
    else:
        out.add_pair("eyes", light, cylinder(0.035, 0.05, around=20).turned("x", 90).moved(0.22 * head, y + 0.01, eye - 0.02))
    if chance.likely(0.6, "antenna"):
        out.add(
            "antenna",
            joint,
            cylinder(0.018, 0.12, around=8).moved(y=y + tall / 2 - 0.02),
            ball(0.035, around=12).moved(y=y + tall / 2 + 0.12),
        )
    return out


def chess_piece(chance: Chance) -> Assembly:
    out = Assembly()
    body = chance.pick((finishes.timber, finishes.paint, finishes.stone, finishes.metal))(chance)
    kind = chance.pick(("pawn", "rook", "bishop", "queen", "king", "knight"), "piece")
    foot, waist = chance.between(0.2, 0.28, "foot"), chance.between(0.07, 0.12, "waist")
    tall = {"pawn": 0.55, "rook": 0.55, "knight": 0.35, "bishop": 0.65, "queen": 0.75, "king": 0.75}[kind] * chance.between(0.85, 1.1)
    base = smooth(
        [(foot, 0.05), (0.95 * foot, 0.11), (0.7 * foot, 0.15), (1.2 * waist, 0.25), (waist, 0.75 * tall), (1.25 * waist, 0.95 * tall)], 6
    )
    collar = [(1.75 * waist, 0.96 * tall), (1.75 * waist, tall), (0.0, tall)]
    out.add("body", body, lathe(np.concatenate(([(0, 0), (foot, 0)], base, collar)), around=40))
    if chance.likely(0.4, "felt"):
        out.add("felt", finishes.plain("felt", colors.deep(chance), roughness=1.0), cylinder(1.02 * foot, 0.035, around=40))
    if kind == "pawn":
        out.add("head", body, ball(1.7 * waist, around=32).moved(y=tall + 1.4 * waist))
    elif kind == "rook":
        r, wall = 1.9 * waist, 0.045
        out.add("head", body, lathe([(0, 0), (r, 0), (r, 0.14), (r - wall, 0.14), (r - wall, 0.05), (0, 0.05)], around=40).moved(y=tall))
        for k in range(chance.count(4, 6, "merlons")):
            count = int(chance.drawn["merlons"])
            out.add("merlons", body, box(0.8 * r * 4 / count, 0.09, wall).moved(y=tall + 0.17, z=r - wall / 2).turned("y", 360 * k / count))
    elif kind == "bishop":
        mitre = smooth([(0.9, 0), (1.5, 0.8), (1.0, 1.9), (0.2, 2.6)], 6) * waist
        out.add(
            "head",
            body,
            lathe(np.concatenate(([(0, 0)], mitre, [(0, 2.62 * waist)])), around=36).moved(y=tall),
            ball(0.45 * waist).moved(y=tall + 2.8 * waist),
        )
    elif kind in ("queen", "king"):
        flare = smooth([(1.1 * waist, 0), (1.3 * waist, 0.1), (1.9 * waist, 0.2)], 5)
        out.add(
            "head",
            body,
            lathe(np.concatenate(([(0, 0)], flare, [(1.5 * waist, 0.2), (0.8 * waist, 0.24), (0, 0.25)])), around=36).moved(y=tall),
        )
        gold = body if chance.likely(0.6) else finishes.metal(chance)
        if kind == "queen":
            for k in range(8):
                out.add("crown", gold, ball(0.36 * waist, around=12).moved(y=tall + 0.22, z=1.7 * waist).turned("y", 45 * k))
            out.add("crown", gold, ball(0.6 * waist).moved(y=tall + 0.28))
        else:
            out.add(
                "cross",
                gold,
                box(0.05, 0.18, 0.045, edge=0.01).moved(y=tall + 0.32),
                box(0.13, 0.05, 0.045, edge=0.01).moved(y=tall + 0.34),
            )
    else:
        outline = np.array(
            [
                (-0.12, 0.0),
                (0.14, 0.0),
                (0.1, 0.14),
                (0.13, 0.2),
                (0.27, 0.17),
                (0.29, 0.25),
                (0.13, 0.38),
                (0.06, 0.46),
                (-0.02, 0.42),
                (-0.13, 0.26),
            ]
        )
        out.add("head", body, extrude(outline, 0.13, middle=(-0.02, 0.3)).turned("y", -90).moved(y=tall - 0.01))
        out.add("mane", body, extrude(regular(24, 0.1), 0.16).turned("y", -90).moved(y=tall + 0.2))
    return out


def snowman(chance: Chance) -> Assembly:
    out, snow = Assembly(), finishes.plain("snow", colors.light(chance), roughness=0.9)
    coal, carrot = finishes.plain("coal", (0.06, 0.06, 0.07), roughness=0.7), finishes.plain("carrot", (0.95, 0.5, 0.12), roughness=0.6)
    sizes = [chance.between(0.26, 0.34), chance.between(0.19, 0.25), chance.between(0.13, 0.18)]
    y, centers = 0.0, []
    for size in sizes:
        y += size * 0.85
        centers.append(y)
        out.add("snow", snow, ball(size, around=28).moved(y=y))
        y += size * 0.8
    head, at = sizes[2], centers[2]
    out.add_pair("eyes", coal, ball(0.028, around=12).moved(0.4 * head, at + 0.25 * head, 0.88 * head))
    nose = cylinder(0.035, chance.between(0.1, 0.2), top=0.0, around=14).turned("x", 90)
    out.add("nose", carrot, nose.moved(y=at, z=0.92 * head))
    for k in range(chance.count(2, 4, "buttons")):
        out.add(
            "buttons",
            coal,
            ball(0.03, around=12).moved(y=centers[1] + (0.5 - 0.4 * k) * sizes[1], z=sizes[1] * np.sqrt(1 - (0.5 - 0.4 * k) ** 2)),
        )
    scarf = finishes.cloth(chance, tile=0.25)
    out.add(
        "scarf",
        scarf,
        ring(0.85 * head, 0.045, around=32, across=12).moved(y=at - 0.85 * head),
        box(0.1, 0.24, 0.04, edge=0.015).moved(0.09, at - 1.5 * head, sizes[1] + 0.01),
    )
    twig = finishes.timber(chance)
    lift = chance.between(-0.1, 0.25)
    out.add_pair("arms", twig, tube([(0.9 * sizes[1], centers[1], 0), (sizes[1] + 0.3, centers[1] + lift, 0.05)], [0.024, 0.02], around=8))
    hat = finishes.plain("hat", chance.pick((colors.dark, colors.deep, colors.vivid))(chance), roughness=0.8)
    kind = chance.pick(("hat", "bucket", "none"), "headgear")
    if kind == "hat":
        out.add(
            "hat",
            hat,
            cylinder(0.7 * head, chance.between(0.12, 0.26), around=28).moved(y=at + 0.75 * head),
            cylinder(1.15 * head, 0.045, around=32).moved(y=at + 0.72 * head),
        )
    elif kind == "bucket":
        out.add("hat", finishes.metal(chance), cylinder(0.85 * head, 0.22, top=0.6 * head, around=28).moved(y=at + 0.55 * head))
    return out
