"""STL, binary and ASCII: triangles without shared vertices."""

from __future__ import annotations

import struct

import numpy as np

from voxgen.core import TriMesh
from voxgen.core.frame import UpAxis

from ._assemble import Block, assemble, float32
from ._source import Note, Source
from ._text import decode_text, parse_table

_FACET = np.dtype([("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_HEAD = 84


def read_stl(source: Source, up: UpAxis | None) -> TriMesh:
    """An .stl file; three vertices for each triangle, as the file has them. Facet normals are left out: corners define them."""
    data = source.data
    count = struct.unpack_from("<I", data, 80)[0] if len(data) >= _HEAD else 0
    needed = _HEAD + count * _FACET.itemsize
    exact = len(data) >= _HEAD and len(data) == needed
    if not exact and data.lstrip()[:5].lower() == b"solid" and b"facet" in data:
        return _read_ascii(source, up)
    if len(data) < needed or len(data) < _HEAD:
        raise source.error(f"the file is truncated: a binary STL of {count:,} triangles has {needed:,} bytes, this one {len(data):,}")
    if len(data) > needed:
        source.warn(f"{len(data) - needed} bytes behind the declared triangles are ignored")
    points = np.frombuffer(data, _FACET, count, _HEAD)["corners"].reshape(-1, 3)
    return assemble(source, [_soup(points)], up=up or "y")


def _soup(points: np.ndarray) -> Block:
    return Block(float32(points), np.arange(len(points)).reshape(-1, 3))


def _read_ascii(source: Source, up: UpAxis | None) -> TriMesh:
    """Each `solid` is a part."""
    names: list[str] = []
    solids: list[list[str]] = []
    open_solid, corners = False, -1
    for number, line in enumerate(decode_text(source.data).splitlines(), 1):
        words = line.split(None, 1)
        key = words[0].lower() if words else ""
        if key == "solid":
            open_solid = True
            names.append(line.strip()[5:].strip())
            solids.append([])
        elif key == "endsolid":
            open_solid = False
        elif key == "outer" and open_solid:
            corners = len(solids[-1])
        elif key == "vertex" and open_solid:
            solids[-1].append(words[1] if len(words) > 1 else "")
        elif key == "endloop" and (not open_solid or len(solids[-1]) != corners + 3):
            raise source.error(f"line {number}: a loop must have three vertices inside a solid")
    if open_solid or any(len(s) % 3 for s in solids):
        raise source.error("the file is truncated: its last solid has no end")
    blocks = [_soup(parse_table(source, s, "vertex", 3, 3)) for s in solids]
    for index, block in enumerate(blocks):
        block.face_part = index
    return assemble(source, blocks, part_names=names or [""], up=up or "y")


def stl_pieces(mesh: TriMesh, note: Note) -> list[bytes]:
    """The bytes of a binary .stl."""
    facets = np.zeros(mesh.num_faces, _FACET)
    facets["corners"] = mesh.corners().numpy()
    facets["normal"] = mesh.face_normals().numpy()
    kept_back = [name for name, there in _extras(mesh).items() if there]
    if kept_back:
        note(f"STL has triangles only, and no place for {', '.join(kept_back)}; save as .glb to keep everything")
    return [b"voxgen".ljust(80, b" "), struct.pack("<I", mesh.num_faces), facets.tobytes()]


def _extras(mesh: TriMesh) -> dict[str, bool]:
    return {
        "materials": bool(mesh.materials),
        "texture coordinates": mesh.uv is not None or mesh.uv1 is not None,
        "normals": mesh.normals is not None,
        "attributes": bool(mesh.attributes),
        "parts": mesh.num_parts > 1,
    }
