"""Things to furnish rooms with. Designs are about one unit high; no leg is thinner than 0.04."""

from __future__ import annotations

import numpy as np

from . import _colors as colors
from . import _finishes as finishes
from ._assembly import Assembly
from ._box import box
from ._chance import Chance
from ._extrude import extrude, regular
from ._finishes import Finish
from ._lathe import cylinder, ellipsoid, lathe, ring, smooth
from ._part import Part
from ._sheet import sheet
from ._tube import bent, tube


def _frame(chance: Chance) -> Finish:
    """What legs are made of."""
    kind = chance.pick(("timber", "timber", "metal", "paint"), "frame")
    return {"timber": finishes.timber, "metal": finishes.metal, "paint": finishes.paint}[kind](chance)


def _leg(kind: str, x: float, z: float, height: float, width: float, splay: float) -> Part:
    """From (x, 0, z) up to `height`; its foot stands out by `splay`."""
    foot = (x * (1 + splay), 0.0, z * (1 + splay))
    if kind == "square":
        return box(width, height, width, edge=0.15 * width).moved(x, height / 2, z)
    if kind == "turned":
        profile = smooth([(0.35, 0.0), (0.5, 0.05), (0.3, 0.12), (0.55, 0.4), (0.62, 0.7), (0.35, 0.8), (0.6, 0.88), (0.6, 1.0)], 3)
        closed = np.concatenate(([(0.0, 0.0)], profile, [(0.0, 1.0)])) * (width, height)
        return lathe(closed, around=16).moved(x, 0, z)
    return tube([foot, (x, height, z)], [0.42 * width, 0.6 * width], around=12)


def chair(chance: Chance) -> Assembly:
    out, frame = Assembly(), _frame(chance)
    width, depth = chance.between(0.42, 0.6, "width"), chance.between(0.4, 0.55, "depth")
    seat, back = chance.between(0.38, 0.55, "seat height"), chance.between(0.35, 0.65, "back height")
    thick, leg = chance.between(0.04, 0.1), chance.between(0.045, 0.075)
    kind, splay = chance.pick(("square", "turned", "round"), "legs"), chance.between(0, 0.25)
    cushion = finishes.cloth(chance) if chance.likely(0.6, "cushion") else frame
    x, z = width / 2 - leg / 2, depth / 2 - leg / 2
    if chance.likely(0.15, "swivel chair"):
        out.add("foot", frame, cylinder(0.03, seat, around=12))
        for k in range(5):
            arm = tube([(0, 0.06, 0), (0, 0.03, 0.8 * depth)], [0.035, 0.025], around=8).turned("y", 72 * k)
            out.add("foot", frame, arm, ellipsoid(0.04, 0.04, 0.04, around=12, rows=8).moved(z=0.8 * depth, y=0.03).turned("y", 72 * k))
    else:
        out.add_pair("legs", frame, _leg(kind, x, z, seat, leg, splay))
        out.add_pair("legs", frame, _leg(kind, x, -z, seat, leg, splay))
        if chance.likely(0.4, "stretchers"):
            bar = chance.between(0.25, 0.5) * seat
            out.add_pair("stretchers", frame, box(0.04, 0.04, 2 * z).moved(x, bar, 0))
            out.add("stretchers", frame, box(2 * x, 0.04, 0.04).moved(0, bar, 0))
    out.add("seat", cushion, box(width, thick, depth, edge=0.4 * thick, steps=2).moved(y=seat + thick / 2))
    lean, top = chance.between(4, 14, "lean"), seat + thick
    style = chance.pick(("slats", "panel", "ladder", "frame"), "back")
    rest = Assembly()
    if style == "panel":
        rest.add("back", cushion, box(width, back, 0.06, edge=0.025, steps=2).moved(y=back / 2))
    else:
        rest.add_pair("back", frame, box(leg, back, leg, edge=0.01).moved(x, back / 2, 0))
        rest.add("back", frame, box(width, 0.08, 0.05, edge=0.015).moved(y=back))
        if style == "slats":
            count = chance.count(2, 5, "slats")
            for k in range(count):
                rest.add("back", frame, box(0.045, back, 0.035).moved(x=(2 * x - leg) * ((k + 1) / (count + 1) - 0.5), y=back / 2))
        elif style == "ladder":
            for k in range(chance.count(2, 3, "rungs")):
                rest.add("back", frame, box(width - leg, 0.06, 0.035, edge=0.01).moved(y=back * (0.3 + 0.22 * k)))
        else:
            rest.add("back", cushion, box(width - leg, 0.6 * back, 0.04, edge=0.015).moved(y=0.6 * back))
    out.include(rest.turned("x", -lean), y=top - 0.02, z=-z)
    if chance.likely(0.3, "armrests"):
        height = top + chance.between(0.15, 0.24)
        out.add_pair("arms", frame, box(leg, height - top, leg).moved(x, (height + top) / 2, 0.7 * z))
        out.add_pair("arms", frame, box(leg, 0.04, 2 * z + 0.05, edge=0.012).moved(x, height, 0))
    return out


def sofa(chance: Chance) -> Assembly:
    out, cover = Assembly(), finishes.cloth(chance, tile=chance.between(0.3, 0.6))
    seats = chance.count(1, 3, "seats")
    pillow = cover if chance.likely(0.5) else finishes.cloth(chance)
    place, depth = chance.between(0.4, 0.5), chance.between(0.5, 0.65, "depth")
    base, seat = chance.between(0.05, 0.14), chance.between(0.14, 0.2)
    arm, back = chance.between(0.1, 0.18, "arm width"), chance.between(0.3, 0.5, "back height")
    width = seats * place + 2 * arm
    feet = _frame(chance)
    for sign in (-1, 1):
        out.add_pair("feet", feet, cylinder(0.025, base, top=0.035, around=12).moved(width / 2 - 0.06, 0, sign * (depth / 2 - 0.06)))
    out.add("base", cover, box(width, seat, depth, edge=0.03, steps=2).moved(y=base + seat / 2))
    rise = base + seat
    side = box(arm, chance.between(0.14, 0.24) + seat, depth, edge=chance.between(0.02, 0.06), steps=3)
    out.add_pair("arms", cover, side.moved(width / 2 - arm / 2, base + 0.5 * float(np.ptp(side.vertices[:, 1])), 0))
    out.add("back", cover, box(width, back + seat, 0.14, edge=0.05, steps=3).moved(y=base + (back + seat) / 2, z=-depth / 2 + 0.07))
    soft = chance.between(0.02, 0.045)
    for k in range(seats):
        middle = (k - (seats - 1) / 2) * place
        out.add("cushions", pillow, box(place - 0.01, 0.1, depth - 0.15, edge=soft, steps=3).moved(middle, rise + 0.045, 0.07))
        if chance.likely(0.7):
            lean = box(place - 0.03, 0.8 * back, 0.1, edge=soft, steps=3).turned("x", -12)
            out.add("cushions", pillow, lean.moved(middle, rise + 0.42 * back + 0.06, -depth / 2 + 0.18))
    return out


def table(chance: Chance) -> Assembly:
    out, frame = Assembly(), _frame(chance)
    height, thick = chance.between(0.35, 0.75, "height"), chance.between(0.045, 0.09)
    width, depth = chance.between(0.7, 1.2, "width"), chance.between(0.5, 0.8, "depth")
    top = finishes.glass(chance) if chance.likely(0.15, "glass top") else finishes.timber(chance, planks=chance.likely(0.5))
    leg = chance.between(0.05, 0.09)
    shape = chance.pick(("rectangle", "rectangle", "round", "hexagon"), "top")
    if shape == "rectangle":
        out.add("top", top, box(width, thick, depth, edge=0.3 * thick).moved(y=height))
    else:
        depth = width
        plate = extrude(regular(40 if shape == "round" else 6, width / 2, turn=np.pi / 6), thick).turned("x", 90)
        out.add("top", top, plate.moved(y=height))
    under = height - thick / 2
    support = chance.pick(("legs", "legs", "pedestal", "trestle"), "support")
    if support == "pedestal":
        foot = chance.between(0.2, 0.32) * width
        profile = smooth([(foot, 0.0), (foot, 0.04), (0.06, 0.12), (leg, 0.5 * under), (0.05, 0.8 * under), (0.16, under)], 5)
        out.add("pedestal", frame, lathe(np.concatenate(([(0, 0)], profile, [(0, under)])), around=28))
    elif support == "trestle":
        for sign in (-1, 1):
            x = sign * 0.36 * width
            out.add_pair("trestles", frame, box(leg, under, leg).moved(x, under / 2, 0.0))
            out.add(
                "trestles",
                frame,
                box(leg, 0.05, 0.75 * depth, edge=0.012).moved(x, 0.025, 0),
                box(leg, 0.05, 0.7 * depth).moved(x, under - 0.025, 0),
            )
        out.add("trestles", frame, box(0.72 * width, 0.06, 0.045).moved(y=0.4 * under))
    else:
        kind, splay = chance.pick(("square", "turned", "round"), "legs"), chance.between(0, 0.2)
        share = 0.46 if shape == "rectangle" else 0.31
        for sign in (-1, 1):
            out.add_pair("legs", frame, _leg(kind, share * width - leg / 2, sign * (share * depth - leg / 2), under, leg, splay))
        if chance.likely(0.4, "lower shelf"):
            shelf = box(2 * share * width - leg, 0.04, 2 * share * depth - leg)
            out.add("shelf", frame, shelf.moved(y=chance.between(0.2, 0.4) * under))
    if chance.likely(0.35, "bowl on it"):
        side = chance.between(0.08, 0.15)
        profile = np.array([(0, 0), (0.5, 0), (0.8, 0.3), (1, 0.7), (0.88, 0.7), (0.7, 0.36), (0.4, 0.12), (0, 0.12)]) * side
        out.add("bowl", finishes.glaze(chance), lathe(profile, around=28).moved(y=height + thick / 2))
    return out


def shelf(chance: Chance) -> Assembly:
    out, frame = Assembly(), _frame(chance)
    width, height, depth = chance.between(0.5, 0.9, "width"), chance.between(0.8, 1.2, "height"), chance.between(0.22, 0.35, "depth")
    rows, columns, board = chance.count(2, 5, "rows"), chance.count(1, 2, "columns"), chance.between(0.035, 0.05)
    out.add_pair("sides", frame, box(board, height, depth).moved(width / 2 - board / 2, height / 2, 0))
    if chance.likely(0.7, "back"):
        out.add("back", finishes.timber(chance), box(width, height, 0.035).moved(0, height / 2, -depth / 2 + 0.0175))
    step = (height - board) / rows
    for k in range(rows + 1):
        out.add("boards", frame, box(width - 2 * board, board, depth).moved(y=board / 2 + k * step))
    if columns == 2:
        out.add("sides", frame, box(board, height, depth).moved(y=height / 2))
    covers = [chance.pick((finishes.paint, finishes.cloth))(chance) for _ in range(4)]
    room = (width - (columns + 1) * board) / columns
    for k in range(rows):
        for column in range(columns):
            left, floor = -width / 2 + board + column * (room + board), board + k * step
            kind = chance.pick(("books", "books", "box", "vase", "empty"))
            if kind == "books":
                _books(out, chance, covers, left, floor, chance.between(0.5, 0.98) * room, step - board, depth)
            elif kind == "box":
                size = min(0.7 * room, 0.7 * (step - board))
                out.add(
                    "things", chance.pick(covers), box(size, size, 0.7 * depth, edge=0.02).moved(left + room / 2, floor + size / 2, 0.02)
                )
            elif kind == "vase":
                tall = 0.8 * (step - board)
                profile = smooth([(0.2, 0), (0.4, 0.3), (0.22, 0.75), (0.28, 1.0)], 5) * (min(tall, 0.8 * room, depth), tall)
                out.add(
                    "things",
                    finishes.glaze(chance),
                    lathe(np.concatenate(([(0, 0)], profile)), around=24).moved(left + room / 2, floor, 0.03),
                )
    return out


def _books(
    out: Assembly, chance: Chance, covers: list[Finish], left: float, floor: float, room: float, height: float, depth: float
) -> None:
    """A row of books from the left."""
    x = left
    while True:
        thick, tall = chance.between(0.04, 0.08), chance.between(0.6, 0.95) * height
        if x + thick > left + room:
            return
        out.add("books", chance.pick(covers), box(0.94 * thick, tall, 0.75 * depth).moved(x + thick / 2, floor + tall / 2, 0.03))
        x += thick


def lamp(chance: Chance) -> Assembly:
    out, body = Assembly(), chance.pick((finishes.metal, finishes.glaze, finishes.timber))(chance)
    shade = finishes.cloth(chance) if chance.likely(0.7) else finishes.plain("shade", colors.soft(chance), roughness=0.8)
    kind = chance.pick(("table lamp", "table lamp", "floor lamp", "desk lamp"), "kind")
    if kind == "desk lamp":
        foot, rod = chance.between(0.16, 0.24), chance.between(0.022, 0.03)
        elbow, head = (0.0, chance.between(0.4, 0.5), -0.2), (0.0, chance.between(0.75, 0.9), 0.1)
        out.add("foot", body, lathe([(0, 0), (foot, 0), (foot, 0.03), (0.7 * foot, 0.06), (0, 0.06)], around=28))
        out.add("arm", body, tube([(0, 0.05, 0), elbow], rod), tube([elbow, head], rod))
        out.add(
            "arm",
            body,
            ellipsoid(0.04, 0.04, 0.04, around=16, rows=10).moved(*elbow),
            ellipsoid(0.04, 0.04, 0.04, around=16, rows=10).moved(*head),
        )
        size = chance.between(0.18, 0.25)
        bell = lathe(smooth([(1.0, 0.0), (0.85, 0.3), (0.45, 0.65), (0.2, 0.75)], 5) * size, around=28).turned(
            "x", chance.between(-55, -25)
        )
        out.add("shade", finishes.paint(chance), bell.moved(head[0], head[1] - 0.12, head[2] + 0.1))
        return out
    stem, foot = (0.45, chance.between(0.13, 0.2)) if kind == "table lamp" else (1.0, chance.between(0.16, 0.24))
    if kind == "table lamp":
        belly = chance.between(0.08, 0.2, "belly")
        profile = smooth([(foot, 0), (foot, 0.03), (0.05, 0.08), (belly, 0.2), (0.6 * belly, 0.32), (0.04, 0.42), (0.025, 0.5)], 5)
        out.add("body", body, lathe(np.concatenate(([(0, 0)], profile, [(0, 0.5)])), around=32))
    else:
        out.add("body", body, lathe([(0, 0), (foot, 0), (foot, 0.03), (0.03, 0.06), (0.025, stem + 0.1), (0, stem + 0.1)], around=24))
    wide, tall = chance.between(0.2, 0.32, "shade width"), chance.between(0.2, 0.34, "shade height")
    narrow = chance.between(0.45, 1.0, "shade taper") * wide
    out.add(
        "shade",
        shade,
        lathe(
            [(wide, stem), (0.55 * wide + 0.45 * narrow, stem + 0.45 * tall), (narrow, stem + tall)], around=chance.pick((6, 40, 40, 40))
        ),
    )
    out.add(
        "bulb",
        finishes.plain("bulb", (1.0, 0.95, 0.8), roughness=0.3),
        ellipsoid(0.06, 0.07, 0.06, around=16, rows=10).moved(y=stem + 0.13),
    )
    return out


def bed(chance: Chance) -> Assembly:
    out, frame = Assembly(), _frame(chance)
    width, length = chance.between(0.5, 0.85, "width"), 1.0
    low, head = chance.between(0.1, 0.2), chance.between(0.35, 0.6, "head height")
    foot = low + chance.between(0.08, 0.2, "foot height")
    sheets, cover = finishes.plain("sheet", colors.light(chance), roughness=0.9), finishes.cloth(chance)
    out.add("frame", frame, box(width, 0.08, length, edge=0.015).moved(y=low))
    for z, tall in ((-length / 2, head), (length / 2, foot)):
        out.add_pair("posts", frame, _leg(chance.pick(("square", "turned")), width / 2 - 0.03, z, tall, 0.06, 0.0))
        out.add("boards", frame, box(width - 0.06, tall - low - 0.04, 0.04, edge=0.012).moved(y=(tall + low - 0.04) / 2, z=z))
    out.add("mattress", sheets, box(width - 0.03, 0.13, length - 0.05, edge=0.04, steps=3).moved(y=low + 0.1))
    out.add("cover", cover, box(width, 0.1, 0.64 * length, edge=0.035, steps=3).moved(y=low + 0.135, z=0.16 * length))
    pillows = 2 if width > 0.66 else 1
    for k in range(pillows):
        size = 0.8 * width / pillows
        pillow = box(size, 0.08, 0.18, edge=0.038, steps=3).moved((k - (pillows - 1) / 2) * size * 1.1, low + 0.195, -0.36 * length)
        out.add("pillows", sheets, pillow)
    return out


def umbrella(chance: Chance) -> Assembly:
    """An open sheet over a stick with a crook."""
    out, stick = Assembly(), _frame(chance)
    ribs, radius, bulge = chance.count(6, 10, "ribs"), chance.between(0.42, 0.55, "radius"), chance.between(0.18, 0.32, "height")
    colorings = [finishes.paint(chance), finishes.paint(chance)] if ribs % 2 == 0 and chance.likely(0.6) else [finishes.cloth(chance)]
    share, turn = np.linspace(1, 0, 9), np.linspace(0, 2 * np.pi / ribs, 7)
    for k in range(ribs):
        angle = 2 * np.pi * k / ribs + turn
        sag = 1 - 0.1 * np.sin(np.linspace(0, np.pi, 7))[None] * share[:, None]
        r = radius * share[:, None] * sag
        y = np.broadcast_to(0.95 - bulge * share[:, None] ** 2, r.shape)
        gore = np.stack((r * np.sin(angle), y, r * np.cos(angle)), -1)
        out.add("canopy", colorings[k % len(colorings)], sheet(gore))
    out.add("stick", stick, cylinder(0.022, 0.9, around=12).moved(y=0.1))
    hook = bent([(0, 0.12, 0), (0, -0.06, 0), (0.14, -0.06, 0), (0.13, 0.07, 0)], 14)
    out.add("stick", stick, tube(hook, 0.025, around=10), cylinder(0.025, 0.08, top=0.0, around=12).moved(y=0.94))
    out.add("rim", stick, ring(0.05, 0.02, around=16, across=8).moved(y=0.75))
    return out
