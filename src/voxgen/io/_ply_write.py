"""TriMesh → binary little-endian PLY."""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor

from voxgen.core import TriMesh

from ._attributes import color_bytes, display_color, plan, spell_property, to_json
from ._ply_read import COLORS, RECORD, UV1_NAMES, UV_NAMES
from ._source import Note

_TYPES = {
    torch.uint8: "uchar", torch.int8: "char", torch.bool: "uchar", torch.int16: "short", torch.int32: "int",
    torch.float64: "double", torch.int64: "double",
}  # fmt: skip
_CODES = {"uchar": "<u1", "char": "<i1", "short": "<i2", "int": "<i4", "float": "<f4", "double": "<f8"}
_RESERVED = {n for names in (*COLORS, *UV_NAMES, *UV1_NAMES, ("x", "y", "z", "nx", "ny", "nz")) for n in names}


def ply_pieces(mesh: TriMesh, note: Note) -> list[bytes]:
    """The bytes of a .ply in pieces, in order."""
    record: dict[str, object] = {}
    columns: list[tuple[str, str, np.ndarray]] = []

    def add(names: str | tuple[str, ...], kind: str, rows: np.ndarray) -> None:
        columns.extend((name, kind, rows[:, i]) for i, name in enumerate(names.split() if isinstance(names, str) else names))

    add("x y z", "float", mesh.vertices.numpy())
    for names, rows in (("nx ny nz", mesh.normals), ("s t", mesh.uv), ("s1 t1", mesh.uv1)):
        if rows is not None:
            add(names, "float", rows.numpy())
    shown = display_color(mesh)
    if shown is not None:
        encoded = color_bytes(shown)
        add(("red", "green", "blue", "alpha")[: encoded.shape[1]], "uchar", encoded)
    records = plan(mesh.attributes, 1, _RESERVED, spell_property)
    for entry in records:
        add(entry.keys, *_stored(entry.name, mesh.attributes[entry.name], note))
    if records:
        record["attributes"] = to_json(records)
    face: list[tuple[str, str, np.ndarray]] = []
    if mesh.face_part is not None or mesh.part_names != ("",):
        record["parts"] = list(mesh.part_names)
    if mesh.face_part is not None:
        face.append(("part", "int", mesh.face_part.numpy()))
    if mesh.materials:
        note("PLY has no place for materials; save as .glb to keep everything")

    lines = ["ply", "format binary_little_endian 1.0", "comment written by voxgen"]
    if record:
        lines.append(f"comment {RECORD}{json.dumps(record)}")
    lines.append(f"element vertex {mesh.num_vertices}")
    lines += [f"property {kind} {name}" for name, kind, _ in columns]
    lines += [f"element face {mesh.num_faces}", "property list uchar int vertex_indices"]
    lines += [f"property {kind} {name}" for name, kind, _ in face]
    header = "\n".join([*lines, "end_header", ""]).encode("utf-8", "replace")

    vertex = _table([(name, _CODES[kind], values) for name, kind, values in columns], mesh.num_vertices)
    count = np.full(mesh.num_faces, 3, np.uint8)
    indices = mesh.faces.numpy()
    corners = [("count", "<u1", count), *((f"corner {i}", "<i4", indices[:, i]) for i in range(3))]
    faces = _table([*corners, *((name, _CODES[kind], values) for name, kind, values in face)], mesh.num_faces)
    return [header, vertex.tobytes(), faces.tobytes()]


def _table(columns: list[tuple[str, str, np.ndarray]], count: int) -> np.ndarray:
    table = np.empty(count, [(name, code) for name, code, _ in columns])
    for name, _, values in columns:
        table[name] = values
    return table


def _stored(name: str, values: Tensor, note: Note) -> tuple[str, np.ndarray]:
    """PLY's type for an attribute, and its rows in it. PLY has no integers of 64 bits: they go as double, exact up to 2^53."""
    kind = _TYPES.get(values.dtype, "float")
    rows = values.double() if kind == "double" else values.float() if kind == "float" else values
    if values.dtype == torch.int64 and not torch.equal(rows.long(), values):
        note(f"attribute {name!r} is rounded to 53 bits")
    return kind, rows.numpy()
