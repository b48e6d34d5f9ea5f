"""Houses, towers, windmills. Their doors look along +z."""

from __future__ import annotations

import numpy as np

from . import _colors as colors
from . import _finishes as finishes
from . import _patterns as patterns
from ._assembly import Assembly
from ._box import box
from ._chance import Chance
from ._extrude import extrude, extrude_band
from ._finishes import Finish
from ._lathe import cylinder, lathe, ring
from ._part import Part


def _wall(chance: Chance) -> Finish:
    kind = chance.pick(("plaster", "bricks", "bricks", "planks", "stone"), "walls")
    if kind == "plaster":
        return finishes.paint(chance, chance.pick((colors.light, colors.soft))(chance))
    if kind == "bricks":
        picture = patterns.bricks(chance, colors.stone(chance), colors.clay(chance))
        return finishes.pictured("bricks", picture, tile=chance.between(0.3, 0.5), roughness=0.9)
    return finishes.timber(chance, planks=True) if kind == "planks" else finishes.stone(chance, tile=0.4)


def _roof(chance: Chance) -> Finish:
    color = chance.pick((colors.clay, colors.dark, colors.deep, colors.timber))(chance)
    picture = patterns.shingles(chance, color, colors.shaded(color, 0.55))
    return finishes.pictured("shingles", picture, tile=chance.between(0.25, 0.4), roughness=0.85)


def _window(
    out: Assembly, pane: Finish, frame: Finish, width: float, height: float, x: float, y: float, z: float, turn: float = 0.0
) -> None:
    """On a wall that looks along +z before it is turned about the y axis."""
    parts = [box(width + 0.05, height + 0.05, 0.045), box(width, height, 0.06)]
    for part, finish, name in ((parts[0], frame, "frames"), (parts[1], pane, "panes")):
        out.add(name, finish, part.moved(x, y, z).turned("y", turn))
    out.add(
        "frames", frame, box(0.035, height, 0.08).moved(x, y, z).turned("y", turn), box(width, 0.035, 0.08).moved(x, y, z).turned("y", turn)
    )


def house(chance: Chance) -> Assembly:
    out, wall, roof = Assembly(), _wall(chance), _roof(chance)
    frame, pane = finishes.paint(chance, colors.light(chance)), finishes.plain("pane", (0.2, 0.32, 0.45), roughness=0.08)
    width, depth = chance.between(0.55, 0.95, "width"), chance.between(0.5, 0.75, "depth")
    floors = chance.count(1, 2, "floors")
    tall = floors * chance.between(0.3, 0.38)
    rise, eave = chance.between(0.2, 0.42, "roof height"), chance.between(0.04, 0.09)
    out.add("walls", wall, box(width, tall, depth).moved(y=tall / 2))
    if chance.likely(0.75, "gable"):
        gable = extrude(np.array([(-width / 2, 0), (width / 2, 0), (0, rise)]), depth)
        out.add("walls", wall, gable.moved(y=tall))
        run = np.hypot(width / 2, rise)
        slope = float(np.degrees(np.arctan2(rise, width / 2)))
        slab = box(run + eave + 0.02, 0.045, depth + 2 * eave)
        out.add_pair("roof", roof, slab.moved(x=(run + eave) / 2).turned("z", -slope).moved(y=tall + rise + 0.015))
    else:
        half = np.array([(width / 2 + eave), (depth / 2 + eave)])
        hip = lathe([(0, 0), (np.sqrt(2), 0), (0, rise)], around=4).turned("y", 45).scaled(half[0], 1, half[1])
        out.add("roof", roof, _faceted(hip.vertices[hip.faces]).moved(y=tall))
    door = finishes.timber(chance, planks=True) if chance.likely(0.5) else finishes.paint(chance, colors.deep(chance))
    at = chance.pick((0.0, -0.22, 0.22), "door place") * width
    out.add("door", frame, box(0.19, 0.27, 0.045).moved(at, 0.135, depth / 2))
    out.add("door", door, box(0.15, 0.25, 0.07).moved(at, 0.125, depth / 2))
    size = chance.between(0.1, 0.14)
    for floor in range(floors):
        y = (floor + 0.55) * tall / floors
        for x in (-0.3 * width, 0.3 * width):
            if floor or abs(x - at) > 0.2:
                _window(out, pane, frame, size, 1.2 * size, x, y, depth / 2)
            _window(out, pane, frame, size, 1.2 * size, x * depth / width, y, width / 2, 90)
            _window(out, pane, frame, size, 1.2 * size, x * depth / width, y, width / 2, -90)
            _window(out, pane, frame, size, 1.2 * size, x, y, depth / 2, 180)
    if chance.likely(0.6, "chimney"):
        chimney = box(0.1, 0.3, 0.1).moved(chance.pick((-1, 1)) * 0.25 * width, tall + 0.62 * rise, chance.between(-0.2, 0.2) * depth)
        out.add("chimney", _wall(chance), chimney)
    if chance.likely(0.4, "porch"):
        out.add("porch", roof, box(0.36, 0.04, 0.2).turned("x", 12).moved(at, 0.34, depth / 2 + 0.1))
        for side in (-0.15, 0.15):
            out.add("posts", frame, box(0.04, 0.32, 0.04).moved(at + side, 0.16, depth / 2 + 0.17))
    if chance.likely(0.5, "garden"):
        grass = finishes.pictured("grass", patterns.clouds(chance, colors.leaf(chance), colors.leaf(chance)), tile=0.4, roughness=1.0)
        out.add("garden", grass, box(width + 0.35, 0.04, depth + 0.35, edge=0.01).moved(y=-0.02))
    return out


def _faceted(corners: np.ndarray) -> Part:
    """Triangles (f, 3, 3) with normals of their own."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    vertices = corners.reshape(-1, 3)
    level = np.abs(normal[:, 1:2]) > 0.99
    along = np.where(level, [[1.0, 0.0, 0.0]], np.cross([[0.0, 1.0, 0.0]], normal))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    up = np.cross(normal, along)
    uv = np.stack([(corners * axis[:, None]).sum(-1) for axis in (along, up)], -1).reshape(-1, 2)
    return Part(vertices, np.arange(len(vertices)).reshape(-1, 3), np.repeat(normal, 3, 0), uv)


def tower(chance: Chance) -> Assembly:
    """Round or square, with battlements or a roof."""
    out, wall, roof = Assembly(), finishes.stone(chance, tile=0.3), _roof(chance)
    if chance.likely(0.5, "bricks"):
        wall = finishes.pictured("bricks", patterns.bricks(chance, colors.stone(chance), colors.stone(chance)), tile=0.3, roughness=0.95)
    radius, tall = chance.between(0.16, 0.26, "radius"), chance.between(0.6, 0.85, "height")
    foot, head = chance.between(1.0, 1.35, "foot") * radius, chance.between(1.05, 1.35, "head") * radius
    top = 0.16
    line = [(0, 0), (foot, 0), (radius, 0.25 * tall), (radius, 0.9 * tall), (head, tall), (head, tall + top), (0, tall + top)]
    out.add("walls", wall, lathe(line, around=36))
    end = tall + top
    if chance.likely(0.5, "roof"):
        rise = chance.between(0.3, 0.55)
        out.add("roof", roof, cylinder(1.18 * head, rise, top=0.0, around=36).moved(y=end))
        if chance.likely(0.6, "flag"):
            out.add("flag", finishes.metal(chance), cylinder(0.025, 0.28, around=8).moved(y=end + rise - 0.04))
            out.add("flag", finishes.cloth(chance, tile=0.15), box(0.2, 0.13, 0.045).moved(x=0.1, y=end + rise + 0.17))
    else:
        count = chance.count(6, 10, "merlons")
        for k in range(count):
            merlon = box(0.55 * 2 * np.pi * head / count, 0.12, 0.06).moved(y=end + 0.05, z=head - 0.03)
            out.add("merlons", wall, merlon.turned("y", 360 * (k + 0.5) / count))
    dark = finishes.plain("openings", (0.08, 0.07, 0.07), roughness=0.9)
    out.add("door", finishes.timber(chance, planks=True), box(0.16, 0.26, 0.1).moved(y=0.13, z=0.5 * (foot + radius) + 0.01))
    for k in range(chance.count(2, 6, "windows")):
        slit = box(0.06, 0.13, 0.06).moved(y=tall * (0.45 + 0.1 * (k % 4)), z=radius - 0.005).turned("y", 137.5 * k)
        out.add("windows", dark, slit)
    if chance.likely(0.5, "bands"):
        out.add("bands", finishes.stone(chance), ring(radius, 0.03, around=36, across=8).moved(y=0.6 * tall))
    return out


def windmill(chance: Chance) -> Assembly:
    out, wall, wood = Assembly(), _wall(chance), finishes.timber(chance)
    foot, top, tall = chance.between(0.2, 0.28, "foot"), chance.between(0.13, 0.17, "top"), chance.between(0.55, 0.7, "height")
    out.add("tower", wall, cylinder(foot, tall, top=top, around=chance.pick((6, 8, 36), "sides")))
    out.add("cap", _roof(chance), cylinder(1.15 * top, chance.between(0.14, 0.24), top=0.02, around=32).moved(y=tall))
    out.add("door", wood, box(0.14, 0.22, 0.08).moved(y=0.11, z=foot - 0.035))
    out.add("axle", wood, cylinder(0.035, 0.2, around=16).turned("x", 90).moved(y=tall - 0.02, z=top - 0.08))
    blades, reach, turn = chance.pick((4, 4, 6), "blades"), chance.between(0.35, 0.48, "reach"), chance.between(0, 90)
    cloth = finishes.cloth(chance, tile=0.2) if chance.likely(0.5) else finishes.paint(chance)
    for k in range(blades):
        arm, sail = box(0.035, reach, 0.035).moved(y=reach / 2), box(0.1, 0.7 * reach, 0.03).moved(x=0.055, y=0.62 * reach)
        for part, finish, name in ((arm, wood, "arms"), (sail, cloth, "sails")):
            out.add(name, finish, part.turned("z", turn + 360 * k / blades).moved(y=tall - 0.02, z=top + 0.11))
    pane = finishes.plain("pane", (0.2, 0.3, 0.4), roughness=0.1)
    out.add("windows", pane, box(0.08, 0.1, 0.06).moved(y=0.62 * tall, z=0.4 * foot + 0.6 * top))
    return out


def bridge(chance: Chance) -> Assembly:
    """Spans along x."""
    out, stone = Assembly(), finishes.stone(chance, tile=0.3) if chance.likely(0.6) else _wall(chance)
    arches, width = chance.count(1, 3, "arches"), chance.between(0.2, 0.3, "width")
    tall, pier = chance.between(0.22, 0.36, "height"), 0.07
    span = (1.0 - pier) / arches
    for k in range(arches):
        left = -0.5 + pier / 2 + k * span
        angle = np.linspace(np.pi, 0, 17)
        half = (span - pier) / 2
        lower = np.stack((left + span / 2 + half * np.cos(angle), min(half, tall - 0.06) * np.sin(angle)), 1)
        upper = np.stack((lower[:, 0], np.full(17, tall)), 1)
        out.add("arches", stone, extrude_band(lower, upper, width))
    for k in range(arches + 1):
        out.add("piers", stone, box(pier, tall, width).moved(x=-0.5 + pier / 2 + k * span, y=tall / 2))
    out.add(
        "deck", finishes.timber(chance, planks=True) if chance.likely(0.4) else stone, box(1.1, 0.05, width + 0.05).moved(y=tall + 0.025)
    )
    rail = finishes.metal(chance) if chance.likely(0.4) else finishes.timber(chance)
    for sign in (-1, 1):
        z = sign * (width / 2)
        out.add("rails", rail, box(1.1, 0.035, 0.035).moved(y=tall + 0.17, z=z))
        for k in range(7):
            out.add("rails", rail, box(0.035, 0.13, 0.035).moved(x=-0.5 + k / 6, y=tall + 0.1, z=z))
    return out


def castle(chance: Chance) -> Assembly:
    """Four towers, walls between them, a gate, and a keep in the court."""
    out, wall, roof = Assembly(), finishes.stone(chance, tile=0.3), _roof(chance)
    if chance.likely(0.5, "bricks"):
        wall = finishes.pictured("bricks", patterns.bricks(chance, colors.stone(chance), colors.stone(chance)), tile=0.25, roughness=0.95)
    half, radius = chance.between(0.34, 0.42, "size"), chance.between(0.08, 0.12, "tower radius")
    tall, tower_height, pointed = chance.between(0.22, 0.3, "wall"), chance.between(0.36, 0.5, "tower"), chance.likely(0.6, "roofs")
    dark = finishes.plain("openings", (0.08, 0.07, 0.07), roughness=0.9)
    for side in range(4):
        parts = [box(2 * half, tall, 0.06).moved(y=tall / 2)]
        parts += [box(0.07, 0.06, 0.06).moved(x=(k - 2) * 0.3 * half, y=tall + 0.02) for k in range(5)]
        out.add("walls", wall, *(part.moved(z=half).turned("y", 90 * side) for part in parts))
    for x in (-half, half):
        for z in (-half, half):
            out.add(
                "towers",
                wall,
                lathe(
                    [
                        (0, 0),
                        (1.1 * radius, 0),
                        (radius, 0.1),
                        (radius, tower_height),
                        (1.2 * radius, tower_height + 0.03),
                        (1.2 * radius, tower_height + 0.09),
                        (0, tower_height + 0.09),
                    ],
                    around=24,
                ).moved(x=x, z=z),
            )
            if pointed:
                out.add(
                    "roofs", roof, cylinder(1.3 * radius, chance.between(0.18, 0.3), top=0.0, around=24).moved(x, tower_height + 0.09, z)
                )
            else:
                for k in range(5):
                    out.add(
                        "merlons",
                        wall,
                        box(0.06, 0.07, 0.05).moved(y=tower_height + 0.11, z=1.2 * radius - 0.025).turned("y", 72 * k).moved(x=x, z=z),
                    )
    out.add("gate", finishes.timber(chance, planks=True), box(0.17, 0.7 * tall, 0.1).moved(y=0.35 * tall, z=half))
    keep, rise = chance.between(0.22, 0.32, "keep"), chance.between(0.35, 0.6, "keep height")
    out.add("keep", wall, box(keep, rise, keep).moved(y=rise / 2, z=-0.1))
    for side in range(4):
        out.add("windows", dark, box(0.05, 0.1, 0.05).moved(y=0.75 * rise, z=keep / 2 - 0.01).turned("y", 90 * side).moved(z=-0.1))
    if chance.likely(0.5, "keep roof"):
        hip = lathe([(0, 0), (0.8 * keep, 0), (0, 0.9 * keep)], around=4).turned("y", 45)
        out.add("roofs", roof, _faceted(hip.vertices[hip.faces]).moved(y=rise, z=-0.1))
    else:
        for k in range(4):
            for x in (-0.5, 0.0, 0.5):
                out.add(
                    "merlons",
                    wall,
                    box(0.07, 0.07, 0.05).moved(x=x * 0.75 * keep, y=rise + 0.02, z=keep / 2 - 0.025).turned("y", 90 * k).moved(z=-0.1),
                )
    if chance.likely(0.6, "flag"):
        out.add("flag", finishes.metal(chance), cylinder(0.02, 0.45, around=8).moved(y=rise, z=-0.1))
        out.add("flag", finishes.cloth(chance, tile=0.15), box(0.17, 0.11, 0.04).moved(x=0.09, y=rise + 0.39, z=-0.1))
    ground = finishes.pictured("grass", patterns.clouds(chance, colors.leaf(chance), colors.leaf(chance)), tile=0.4, roughness=1.0)
    out.add("ground", ground, box(2 * half + 0.06, 0.04, 2 * half + 0.06).moved(y=0.01))
    return out
