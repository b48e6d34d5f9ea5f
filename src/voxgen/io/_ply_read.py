"""PLY → TriMesh: ASCII and both binary orders, polygons, per-corner texture coordinates, any further vertex properties."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

import numpy as np

from voxgen.core import Material, Texture, TriMesh
from voxgen.core.frame import UpAxis

from ._assemble import Block, assemble, check_indices, fans, float32, split_vertices
from ._attributes import from_json, gather, is_display_copy, linear_color
from ._images import decode_images
from ._ply_body import Column, Values, read_body
from ._source import Begin, Source

TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
RECORD = "voxgen "
UV_NAMES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))
UV1_NAMES = (("s1", "t1"), ("texture_u1", "texture_v1"))
COLORS = (("red", "green", "blue", "alpha"), ("diffuse_red", "diffuse_green", "diffuse_blue", "diffuse_alpha"), ("r", "g", "b", "a"))


@dataclass
class Header:
    order: str = ""
    columns: dict[str, list[Column]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    textures: list[str] = field(default_factory=list)
    record: dict[str, object] = field(default_factory=dict)
    size: int = 0


def read_ply(source: Source, up: UpAxis | None, begin: Begin) -> TriMesh:
    """A .ply file with vertices and faces, and the textures that its `TextureFile` comments name."""
    header = _header(source)
    body = read_body(source, source.data[header.size :], header.order, header.columns, header.counts)
    vertex, face = body.get("vertex", {}), body.get("face", {})
    if any(axis not in vertex or isinstance(vertex[axis], tuple) for axis in "xyz"):
        raise source.error("the file has no vertex element with x, y and z")
    scalars = {name: values[:, None] for name, values in vertex.items() if isinstance(values, np.ndarray)}
    if len(scalars) < len(vertex):
        source.warn("list properties of vertices are not read")
    points = _take(scalars, ("x", "y", "z"))
    corners = next((face[name] for name in ("vertex_indices", "vertex_index") if name in face), None)
    if not isinstance(corners, tuple) or not len(corners[0]):
        raise source.mesh_error(f"the mesh must have at least one face; the file has {len(points)} vertices and no face")
    counts, flat = corners
    check_indices(source, flat, len(points), "vertex indices")
    if (counts < 3).any():
        source.warn(f"{int((counts < 3).sum())} polygons with fewer than three corners are left out")
    triangles, polygon = fans(counts)
    block = Block(float32(points), flat.astype(np.int64)[triangles])
    if {"nx", "ny", "nz"} <= set(scalars):
        block.normals = float32(_take(scalars, ("nx", "ny", "nz")))
    for target, choices in (("uv", UV_NAMES), ("uv1", UV1_NAMES)):
        for names in choices:
            if getattr(block, target) is None and set(names) <= set(scalars):
                setattr(block, target, float32(_take(scalars, names)))
    block.attributes = _attributes(source, scalars, header)
    _corner_uv(source, block, face, counts, flat, triangles)
    materials = _materials(source, header, begin)
    names = header.record.get("parts")
    parts = [str(n) for n in names] if isinstance(names, list) and names else [""]
    block.face_part = _per_triangle(face.get("part"), polygon, len(parts), 0)
    block.face_material = _per_triangle(face.get("texnumber"), polygon, len(materials), 0 if materials else -1)
    if "red" in face or "r" in face:
        source.warn("colours of faces are not read")
    return assemble(source, [block], materials=materials, part_names=parts, up=up or "y")


def _header(source: Source) -> Header:
    data = source.data
    end = re.search(rb"(?:^|\n)end_header[ \t]*(?:\r\n|\n|\r)", data[: 1 << 20])
    if not data.startswith(b"ply") or end is None:
        raise source.error("this is not a PLY file: it must start with 'ply' and have a line 'end_header'")
    header = Header(size=end.end())
    current = ""
    for line in data[: end.start()].decode("latin-1").splitlines()[1:]:
        words = line.split()
        match words:
            case ["format", order, *_]:
                header.order = order
            case ["element", name, count] if count.isdecimal() and len(count) < 16:
                current = name
                header.columns[name], header.counts[name] = [], int(count)
            case ["property", "list", length, item, name] if TYPES.get(length, "f")[0] != "f" and item in TYPES and current:
                header.columns[current].append(Column(name, TYPES[item], TYPES[length]))
            case ["property", kind, name] if kind in TYPES and current:
                header.columns[current].append(Column(name, TYPES[kind]))
            case ["comment", "TextureFile", *_]:
                header.textures.append(line.split(None, 2)[2].strip() if len(words) > 2 else "")
            case ["comment", *_]:
                _note_record(header, line.partition("comment")[2].strip())
            case [] | ["obj_info", *_]:
                continue
            case _:
                raise source.error(f"the header line {line[:80]!r} is not one that PLY knows")
    if header.order not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise source.error(f"the format must be ascii, binary_little_endian or binary_big_endian; it is {header.order!r}")
    for name, columns in header.columns.items():
        if len({c.name for c in columns}) < len(columns):
            raise source.error(f"element {name!r} has two properties of one name")
    return header


def _note_record(header: Header, comment: str) -> None:
    """Keep what voxgen wrote for itself; any other comment, and a damaged record, is only a comment."""
    if comment.startswith(RECORD):
        try:
            record = json.loads(comment[len(RECORD) :])
        except (ValueError, RecursionError):
            return
        if isinstance(record, dict):
            header.record = record


def _take(scalars: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    return np.concatenate([scalars.pop(name) for name in names], axis=1)


def _attributes(source: Source, scalars: dict[str, np.ndarray], header: Header) -> dict[str, np.ndarray]:
    """What voxgen wrote by its record; else colour, and scalars, of which `name_0`, `name_1`, ... are one attribute."""
    found = gather(source, from_json(header.record.get("attributes")), scalars)
    for names in COLORS:
        present = tuple(n for n in names if n in scalars)
        if present[:3] == names[:3] and len({scalars[n].dtype for n in present}) == 1:
            color = _take(scalars, present)
            top = np.iinfo(color.dtype).max if color.dtype.kind in "iu" else 1.0
            if not is_display_copy(found):
                found["color"] = linear_color(color.astype(np.float64) / top)
            break
    for name in list(scalars):
        stem, _, number = name.rpartition("_")
        if name in scalars and number == "0" and stem and f"{stem}_1" in scalars:
            width = next(i for i in range(len(scalars) + 1) if f"{stem}_{i}" not in scalars)
            found.setdefault(stem, _take(scalars, tuple(f"{stem}_{i}" for i in range(width))))
    return found | {name: values for name, values in scalars.items() if name not in found}


def _corner_uv(source: Source, block: Block, face: dict[str, Values], counts: np.ndarray, flat: np.ndarray, triangles: np.ndarray) -> None:
    """Texture coordinates of corners (a list of 2 n numbers a face): split vertices where their corners differ."""
    given = face.get("texcoord")
    if not isinstance(given, tuple) or block.uv is not None:
        return
    lengths, values = given
    if not np.array_equal(lengths, 2 * counts):
        source.warn("texture coordinates of faces are left out: not every corner has a pair")
        return
    pairs = np.ascontiguousarray(float32(values).reshape(-1, 2)) + np.float32(0)  # -0 and 0 are one
    _, key = np.unique(pairs.view(np.int64), return_inverse=True)
    count = len(block.vertices)
    vertex, corner_of = split_vertices(flat.astype(np.int64), key.reshape(-1), count)
    used = corner_of >= 0
    origin = np.arange(len(corner_of))
    origin[count:] = flat[corner_of[count:]]
    uv = np.zeros((len(origin), 2), np.float32)
    uv[used] = pairs[corner_of[used]]
    block.faces, block.uv, block.vertices = vertex[triangles], uv, block.vertices[origin]
    block.normals = None if block.normals is None else block.normals[origin]
    block.attributes = {name: rows[origin] for name, rows in block.attributes.items()}


def _per_triangle(values: Values | None, polygon: np.ndarray, count: int, default: int) -> np.ndarray | int:
    """A number of each face, for its triangles; the default unless all are below `count`."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu" or int(values.max()) >= count or int(values.min()) < -1:
        return default
    return values[polygon].astype(np.int32)


def _materials(source: Source, header: Header, begin: Begin) -> list[Material]:
    contents: dict[str, bytes] = {}
    for name in header.textures:
        data = source.read_beside(name)
        if data is None:
            source.warn(f"texture file {name[:200]!r} is missing; its materials have their factors only")
        else:
            contents[name] = data
    images = dict(zip(contents, decode_images(source, list(contents.items()), begin(len(contents))), strict=True))
    materials: list[Material] = []
    for name in header.textures:
        image = images.get(name)
        channels = (0, 1, 2) if image is not None and image.shape[2] > 2 else (0, 0, 0)
        texture = None if image is None else Texture(image, channels, srgb=True, name=name)
        materials.append(Material(name, base_color=texture, metallic_factor=0.0, roughness_factor=0.5, double_sided=True))
    return materials
