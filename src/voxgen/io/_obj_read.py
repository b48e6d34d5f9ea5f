"""Wavefront OBJ → TriMesh.

Read here and not through trimesh, because that sorts polygons by their number of corners and faces by material; voxgen
keeps the file's order of vertices and faces.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from voxgen.core import Material, TriMesh
from voxgen.core.frame import UpAxis

from ._assemble import Block, assemble, check_indices, fans, float32, split_vertices
from ._attributes import linear_color
from ._mtl import read_mtl
from ._source import Begin, Source
from ._text import decode_text, parse_table, ragged_rows


@dataclass
class _Statements:
    """The lines of the file by kind, without their keyword."""

    positions: list[str] = field(default_factory=list)
    uvs: list[str] = field(default_factory=list)
    normals: list[str] = field(default_factory=list)
    faces: list[str] = field(default_factory=list)
    relative: dict[int, tuple[int, int, int]] = field(default_factory=dict)  # lines read before a polygon that counts backwards
    changes: list[tuple[int, str, str]] = field(default_factory=list)  # polygon from which an o, g or usemtl counts
    libraries: list[str] = field(default_factory=list)
    known: int = 0


def read_obj(source: Source, up: UpAxis | None, begin: Begin) -> TriMesh:
    """An .obj file and the .mtl files it names.

    Vertices are the file's, in its order. Where corners of a vertex have different texture coordinates, copies follow behind
    the last one. Normals never split a vertex: where they differ between its corners they are left out, with a note.
    """
    found = _statements(source)
    if not found.known:
        raise source.error("this is not an OBJ file: no line of it is one that OBJ knows")
    table = parse_table(source, found.positions, "vertex", 3, 8)
    if not found.faces:
        raise source.mesh_error(f"the mesh must have at least one face; the file has {len(table)} vertices and no face")
    counts = np.array([len(line.split()) for line in found.faces])
    corners = _corners(source, found, counts, (len(table), len(found.uvs), len(found.normals)))
    check_indices(source, corners[:, 0], len(table), "vertex indices (counted from 0)")
    for column, name, rows in ((1, "texture", found.uvs), (2, "normal", found.normals)):
        given = corners[:, column]
        check_indices(source, given[given >= 0], len(rows), f"{name} indices (counted from 0)")
    if (counts < 3).any():
        source.warn(f"{int((counts < 3).sum())} polygons with fewer than three corners are left out")
    triangles, polygon = fans(counts)
    block = _block(source, table, corners, triangles, found)
    block.face_part, names = _labels(found.changes, "o" if any(kind == "o" for _, kind, _ in found.changes) else "g", polygon)
    block.face_material, used = _labels(found.changes, "usemtl", polygon)
    materials: list[Material] = []
    if used != [""]:
        materials, place = _materials(source, found.libraries, used, begin)
        block.face_material = place[block.face_material]
    else:
        block.face_material = -1
    return assemble(source, [block], materials=materials, part_names=names, up=up or "y")


def _statements(source: Source) -> _Statements:
    found = _Statements()
    positions, uvs, normals, faces = found.positions, found.uvs, found.normals, found.faces
    text = decode_text(source.data)
    if "\\" in text:
        text = text.replace("\\\r\n", " ").replace("\\\n", " ")
    for line in io.StringIO(text):
        words = line.split(None, 1)
        if not words:
            continue
        key, rest = words[0], words[1] if len(words) > 1 else ""
        if "#" in line:
            if key[0] == "#":
                found.known += 1
                continue
            if key in ("v", "vt", "vn", "f"):
                rest = rest.partition("#")[0]
        if key == "v":
            positions.append(rest)
        elif key == "f":
            if "-" in rest:
                found.relative[len(faces)] = len(positions), len(uvs), len(normals)
            faces.append(rest)
        elif key == "vt":
            uvs.append(rest)
        elif key == "vn":
            normals.append(rest)
        elif key in ("o", "g", "usemtl"):
            found.changes.append((len(faces), key, rest.strip()))
        elif key == "mtllib":
            found.libraries.append(rest.strip())
        elif key in ("p", "l", "curv", "curv2", "surf"):
            source.warn("points, lines and free-form surfaces are ignored: polygons are read")
        elif key not in ("s", "vp"):
            continue
        found.known += 1
    return found


def _fields(text: str, corners: int) -> list[int] | None:
    """Which of vertex, uv, normal all corners name; None if they do not all name the same."""
    bare = text.encode().translate(None, b"0123456789-")
    slashes = bare.count(b"/")
    if slashes == 0:
        return [0]
    if slashes == corners and b"//" not in bare:
        return [0, 1]
    if slashes == 2 * corners and b"///" not in bare:
        return {0: [0, 1, 2], corners: [0, 2]}.get(text.count("//"))
    return None


def _corners(source: Source, found: _Statements, counts: np.ndarray, totals: tuple[int, int, int]) -> np.ndarray:
    """(c, 3) int64: vertex, uv and normal of each corner, counted from 0; -1 where a corner has none."""
    text = "\n".join(line.strip() for line in found.faces)
    named = _fields(text, int(counts.sum()))
    if named is None or "/ " in text or "/\n" in text or text.endswith("/"):
        words = [word.split("/") for word in text.split()]
        if any(len(word) > 3 or not word[0] for word in words):
            bad = next("/".join(word) for word in words if len(word) > 3 or not word[0])
            raise source.error(f"a corner must be v, v/vt, v//vn or v/vt/vn; found {bad[:40]!r}")
        lines = [" ".join(part or "0" for part in (*word, "0", "0")[:3]) for word in words]
        table = ragged_rows(source, lines, np.full(len(lines), 3), "corner").reshape(-1, 3)
    else:
        numbers = ragged_rows(source, text.replace("/", " ").split("\n"), counts * len(named), "face")
        table = np.zeros((len(numbers) // len(named), 3), np.int64)
        table[:, named] = numbers.reshape(-1, len(named))
    if (table[:, 0] == 0).any():
        raise source.mesh_error("vertex indices of OBJ start at 1, and a face uses 0")
    if found.relative:
        seen = np.tile(np.array(totals), (len(counts), 1))
        seen[list(found.relative)] = list(found.relative.values())
        table = np.where(table < 0, np.repeat(seen, counts, axis=0) + table + 1, table)
        if (table < 0).any() or (table[:, 0] == 0).any():
            raise source.mesh_error("a face counts back beyond the first vertex")
    return table - 1


def _block(source: Source, table: np.ndarray, corners: np.ndarray, triangles: np.ndarray, found: _Statements) -> Block:
    count, vertex = len(table), corners[:, 0]
    uv: np.ndarray | None = None
    origin = np.arange(count)
    if found.uvs and (corners[:, 1] >= 0).any():
        vertex, corner_of = split_vertices(corners[:, 0], corners[:, 1] + 1, count)
        used = corner_of >= 0
        origin = np.where(np.arange(len(corner_of)) < count, np.arange(len(corner_of)), corners[corner_of, 0])
        values = float32(parse_table(source, found.uvs, "texture coordinate", 1, 3)[:, :2])
        values = np.concatenate((values, np.zeros((1, values.shape[1]), np.float32)))  # the last row serves corners without any
        uv = np.zeros((len(origin), 2), np.float32)
        uv[used, : values.shape[1]] = values[corners[corner_of[used], 1]]
        uv[np.isnan(uv[:, 1]), 1] = 0.0
    block = Block(float32(table[origin, :3]), vertex[triangles], uv=uv)
    block.normals = _normals(source, corners, vertex, len(origin), found.normals)
    color = table[:, 3:] if table.shape[1] in (6, 7) else table[:, 4:] if table.shape[1] == 8 else None
    if color is not None and np.isfinite(color[:, :3]).all():
        rows = np.nan_to_num(color[origin], nan=1.0)
        scale = 255.0 if rows.max() > 1 else 1.0
        block.attributes["color"] = linear_color(rows / scale)
    elif color is not None:
        source.warn("colours are left out: not all vertices have one")
    return block


def _normals(source: Source, corners: np.ndarray, vertex: np.ndarray, count: int, rows: list[str]) -> np.ndarray | None:
    """(count, 3) if every vertex that is used has one normal at all its corners, else None."""
    if not rows or not (corners[:, 2] >= 0).all():
        return None
    given = float32(parse_table(source, rows, "normal", 3, 3))
    normals = np.zeros((count, 3), np.float32)
    normals[vertex] = given[corners[:, 2]]
    if not np.array_equal(normals[vertex], given[corners[:, 2]]):
        source.warn("normals are left out: they differ between the corners of a vertex, and voxgen keeps one a vertex")
        return None
    return normals


def _labels(changes: Sequence[tuple[int, str, str]], kind: str, polygon: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(t,) int32 index of each triangle's label, and the labels in the order of their first triangle ("" before any)."""
    starts = [0] + [start for start, key, _ in changes if key == kind]
    labels = [""] + [label for _, key, label in changes if key == kind]
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    of_change = np.array([numbers[label] for label in labels])
    of_triangle = of_change[np.searchsorted(starts, polygon, side="right") - 1]
    used, first, inverse = np.unique(of_triangle, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    names = list(numbers)
    return rank[inverse.reshape(-1)], [names[i] for i in used[order]]


def _materials(source: Source, libraries: Sequence[str], used: Sequence[str], begin: Begin) -> tuple[list[Material], np.ndarray]:
    """The materials that faces use, and the index of each label among them (-1 for the label "")."""
    known: dict[str, Material] = {}
    for line in libraries:
        for name in [line] if source.find(line) or not line.split() else line.split():
            data = source.read_beside(name)
            if data is None:
                source.warn(f"material file {name[:200]!r} is missing; its materials are plain")
            else:
                known = read_mtl(source, data, name, begin) | known
    materials: list[Material] = []
    place: list[int] = []
    for label in used:
        place.append(len(materials) if label else -1)
        if label:
            if label not in known and not libraries:
                source.warn("the file names no material file; its materials are plain")
            materials.append(known.get(label) or dataclasses.replace(Material.plain(), name=label))
    return materials, np.array(place, np.int32)
