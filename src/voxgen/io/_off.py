"""OFF: the text form, with optional texture coordinates, colours and normals (STCNOFF)."""

from __future__ import annotations

import re

import numpy as np

from voxgen.core import TriMesh
from voxgen.core.frame import UpAxis

from ._assemble import Block, assemble, check_indices, fans, float32
from ._attributes import color_bytes, display_color, linear_color
from ._source import Note, Source
from ._text import decode_text, format_rows, parse_table, ragged_rows


def read_off(source: Source, up: UpAxis | None) -> TriMesh:
    """An .off file. Colours of vertices are sRGB, 0..255 or, with a decimal point, 0..1; those of faces are not read."""
    text = decode_text(source.data)
    if "#" in text:
        text = re.sub(r"#[^\n]*", "", text)
    head = re.match(r"\s*(ST)?(C)?(N)?(4)?(n)?OFF", text)
    if head is None:
        raise source.error("this is not an OFF file: it must start with OFF")
    if head[4] or head[5] or re.match(r"\s*BINARY", text[head.end() :]):
        raise source.error("only three-dimensional OFF in text form is read; convert the file")
    lines = [line for line in text[head.end() :].splitlines() if line.strip()]
    counts = lines[0].split()[:2] if lines else []
    if len(counts) != 2 or not all(c.isdecimal() and len(c) < 16 for c in counts):
        raise source.error("behind OFF must stand the numbers of vertices and faces")
    vertices, faces = map(int, counts)
    if len(lines) - 1 < vertices + faces:
        raise source.error(
            f"the file is truncated: it declares {vertices:,} vertices and {faces:,} faces, and {len(lines) - 1:,} lines follow"
        )
    rows = lines[1 : 1 + vertices]
    table = parse_table(source, rows, "vertex", 3, 12)
    block = Block(float32(table[:, :3]), np.zeros((0, 3), np.int64))
    _fill(source, block, table[:, 3:], rows, normals=bool(head[3]), color=bool(head[2]), uv=bool(head[1]))
    _faces(source, block, lines[1 + vertices : 1 + vertices + faces])
    return assemble(source, [block], up=up or "y")


def _fill(source: Source, block: Block, rest: np.ndarray, rows: list[str], *, normals: bool, color: bool, uv: bool) -> None:
    """Columns behind the position: normal, colour, texture coordinates, as the keyword says; colour without C is usual too."""
    if normals and rest.shape[1] >= 3:
        block.normals, rest = float32(rest[:, :3]), rest[:, 3:]
    if uv and rest.shape[1] >= 2:
        block.uv, rest = float32(rest[:, -2:]), rest[:, :-2]
    if rest.shape[1] not in (3, 4) or not np.isfinite(rest[:, :3]).all():
        if color or rest.shape[1]:
            source.warn("colours are left out: vertices do not all have three or four numbers for one")
        return
    first = 3 + 3 * normals
    fractions = any("." in word for row in rows[:100] for word in row.split()[first : first + rest.shape[1]])
    block.attributes["color"] = linear_color(np.nan_to_num(rest, nan=1.0) / (1.0 if fractions else 255.0))


def _faces(source: Source, block: Block, lines: list[str]) -> None:
    heads = [line.split(None, 1)[0] for line in lines]
    if not all(head.isdecimal() and len(head) < 10 for head in heads):
        bad = next(head for head in heads if not head.isdecimal() or len(head) >= 10)
        raise source.error(f"a face must start with its number of corners; one starts with {bad[:40]!r}")
    counts = np.array(list(map(int, heads)), np.int64)
    words = np.array([len(line.split()) for line in lines], np.int64)
    short = np.nonzero(words < counts + 1)[0]
    if len(short):
        raise source.error(f"face number {short[0] + 1} declares {counts[short[0]]} corners, and {words[short[0]] - 1} numbers follow")
    if (words > counts + 1).any():
        source.warn("colours of faces are not read")
    numbers = ragged_rows(source, lines, counts + 1, "face")
    flat = np.delete(numbers, np.cumsum(counts + 1) - counts - 1)
    check_indices(source, flat, len(block.vertices), "vertex indices")
    if (counts < 3).any():
        source.warn(f"{int((counts < 3).sum())} polygons with fewer than three corners are left out")
    block.faces = flat[fans(counts)[0]]


def off_pieces(mesh: TriMesh, note: Note) -> list[bytes]:
    """The bytes of an .off."""
    columns, pattern, keyword = [mesh.vertices.numpy()], "%.9g %.9g %.9g", "OFF"
    if mesh.normals is not None:
        columns.append(mesh.normals.numpy())
        pattern, keyword = pattern + " %.9g %.9g %.9g", "N" + keyword
    shown = display_color(mesh)
    if shown is not None:
        encoded = color_bytes(shown)
        columns.append(encoded)
        pattern, keyword = pattern + " %d" * encoded.shape[1], "C" + keyword
    if mesh.uv is not None:
        columns.append(mesh.uv.numpy())
        pattern, keyword = pattern + " %.9g %.9g", "ST" + keyword
    lost = ["materials"] if mesh.materials else []
    lost += ["the second uv set"] if mesh.uv1 is not None else []
    lost += ["parts"] if mesh.num_parts > 1 else []
    lost += [f"attribute {name!r}" for name in mesh.attributes if name not in ("color", "base_color", "alpha")]
    if lost:
        note(f"OFF has no place for {', '.join(lost)}; save as .glb to keep everything")
    body = format_rows(f"{pattern}\n", *columns) + format_rows("3 %d %d %d\n", mesh.faces.numpy())
    return [f"{keyword}\n{mesh.num_vertices} {mesh.num_faces} 0\n{body}".encode("ascii")]
