"""Parts in glTF: each part is a mesh of its own, with its own vertices.

A TriMesh may have parts that share vertices, and faces of several parts and materials in any order. The file then also
says which vertex and face of the TriMesh each of its own was, so that loading gives the same arrays again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from voxgen.core import TriMesh

from ._assemble import Block
from ._gltf_buffers import Buffers
from ._json import Item
from ._source import Source

VERTEX_ORDER, FACE_ORDER = "vertex_order", "face_order"


@dataclass
class Part:
    """What becomes one node.

    Args:
        vertices: (n,) indices into the TriMesh's vertices, ascending.
        primitives: material (-1 for none) and (k, 3) faces into `vertices`.
    """

    name: str
    vertices: np.ndarray
    primitives: list[tuple[int, np.ndarray]]


def split_in_parts(mesh: TriMesh) -> tuple[list[Part], np.ndarray | None, np.ndarray | None]:
    """The parts that have faces, and the original vertex and face of each in the file (None where the order is kept)."""
    faces = mesh.faces.numpy()
    none = np.zeros(len(faces), np.int32)
    part = none if mesh.face_part is None else mesh.face_part.numpy()
    material = (none if mesh.materials else none - 1) if mesh.face_material is None else mesh.face_material.numpy()
    group = part.astype(np.int64) * (len(mesh.materials) + 2) + material + 1
    kinds, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    ranked = np.lexsort((first, part[first]))  # by part, inside a part by first use
    rank = np.empty(len(kinds), np.int64)
    rank[ranked] = np.arange(len(kinds))
    face_order = np.argsort(rank[inverse.reshape(-1)], kind="stable")
    sizes = np.bincount(rank[inverse.reshape(-1)], minlength=len(kinds))
    pieces = np.split(face_order, np.cumsum(sizes)[:-1])
    of_part: dict[int, list[np.ndarray]] = {}
    for piece in pieces:
        of_part.setdefault(int(part[piece[0]]), []).append(piece)

    blocks = _vertices_of_parts(faces, mesh.num_vertices, [np.concatenate(p) for p in of_part.values()])
    parts: list[Part] = []
    local = np.zeros(mesh.num_vertices, np.int64)
    for (number, mine), vertices in zip(of_part.items(), blocks, strict=True):
        local[vertices] = np.arange(len(vertices))
        name = mesh.part_names[number] if number >= 0 else ""
        parts.append(Part(name, vertices, [(int(material[piece[0]]), local[faces[piece]]) for piece in mine]))
    vertex_order = np.concatenate(blocks)
    kept = np.array_equal(vertex_order, np.arange(mesh.num_vertices))
    return parts, None if kept else vertex_order, None if np.array_equal(face_order, np.arange(len(faces))) else face_order


def _vertices_of_parts(faces: np.ndarray, count: int, face_sets: list[np.ndarray]) -> list[np.ndarray]:
    """The vertices each part uses; one that nobody uses goes with the used one before it."""
    if len(face_sets) == 1:
        return [np.arange(count)]
    owner = np.full(count, -1)
    used = [np.unique(faces[rows]) for rows in face_sets]
    for number, vertices in enumerate(used):
        owner[vertices] = number
    unused = owner < 0
    before = np.maximum.accumulate(np.where(unused, -1, np.arange(count)))
    owner = np.where(before < 0, 0, owner[before])
    return [np.union1d(vertices, np.nonzero(unused & (owner == number))[0]) for number, vertices in enumerate(used)]


def restore_order(source: Source, root: Item, buffers: Buffers, blocks: list[Block]) -> list[Block]:
    """Undo `split_in_parts`, if the file says how; else, or if it was edited since, the blocks as they are."""
    extras = root.value.get("extras")
    record = extras.get("voxgen") if isinstance(extras, dict) else None
    if not isinstance(record, dict) or not blocks:
        return blocks
    vertex_order = _order(record.get(VERTEX_ORDER), buffers, sum(len(b.vertices) for b in blocks))
    face_order = _order(record.get(FACE_ORDER), buffers, sum(len(b.faces) for b in blocks))
    if vertex_order is None and face_order is None:
        if VERTEX_ORDER in record or FACE_ORDER in record:
            source.warn("the file was edited after voxgen wrote it: vertices and faces come in its own order")
        return blocks
    source.claim(sum(b.nbytes for b in blocks), "the order of vertices and faces")
    joined = _restored(blocks, vertex_order, face_order)
    if joined is None:
        source.warn("the file was edited after voxgen wrote it: vertices and faces come in its own order")
        return blocks
    return [joined]


def _order(number: object, buffers: Buffers, count: int) -> np.ndarray | None:
    """The order array, if it is there and has an entry for each element."""
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(buffers.accessors):
        return None
    order = buffers.array(number, "the order of vertices and faces")
    if order.shape != (count, 1) or order.dtype.kind != "u":
        return None
    return order[:, 0].astype(np.int64)


def _covers(order: np.ndarray, exactly: bool) -> bool:
    """True if the entries are 0 .. n - 1 without a gap (and each once)."""
    n = int(order.max()) + 1
    if n > len(order) or (exactly and n < len(order)):
        return False
    return bool((np.bincount(order, minlength=n) > 0).all())


def _restored(blocks: list[Block], vertex_order: np.ndarray | None, face_order: np.ndarray | None) -> Block | None:
    names, fields = _shape(blocks[0])
    if any(_shape(block) != (names, fields) for block in blocks):
        return None
    shifts = np.cumsum([0] + [len(b.vertices) for b in blocks])
    faces = np.concatenate([b.faces + shift for b, shift in zip(blocks, shifts[:-1], strict=True)])
    part = np.concatenate([np.broadcast_to(b.face_part, len(b.faces)) for b in blocks])
    material = np.concatenate([np.broadcast_to(b.face_material, len(b.faces)) for b in blocks])
    if face_order is not None:
        if not _covers(face_order, exactly=True):
            return None
        place = np.argsort(face_order)
        faces, part, material = faces[place], part[place], material[place]
    joined = Block(np.concatenate([b.vertices for b in blocks]), faces, face_part=part, face_material=material)
    for field in fields:
        setattr(joined, field, np.concatenate([getattr(b, field) for b in blocks]))
    joined.attributes = {name: np.concatenate([b.attributes[name] for b in blocks]) for name in names}
    return joined if vertex_order is None else _merged(joined, vertex_order)


def _shape(block: Block) -> tuple[dict[str, tuple[int, np.dtype]], list[str]]:
    """Which attributes a block has, their width and type, and which of the other fields."""
    attributes = {name: (rows.shape[1], rows.dtype) for name, rows in block.attributes.items()}
    return attributes, [field for field in ("normals", "uv", "uv1") if getattr(block, field) is not None]


def _merged(block: Block, order: np.ndarray) -> Block | None:
    """Bring vertices in their order, the copies of a shared one together; None if the copies differ."""
    if not _covers(order, exactly=False):
        return None
    first = np.empty(int(order.max()) + 1, np.int64)
    first[order[::-1]] = np.arange(len(order))[::-1]

    def merged(rows: np.ndarray) -> np.ndarray | None:
        kept = rows[first]
        same = np.array_equal(kept[order], rows, equal_nan=rows.dtype.kind == "f")
        return kept if same else None

    fields = {f: merged(getattr(block, f)) for f in ("vertices", "normals", "uv", "uv1") if getattr(block, f) is not None}
    attributes = {name: merged(rows) for name, rows in block.attributes.items()}
    if any(rows is None for rows in (*fields.values(), *attributes.values())):
        return None
    return dataclasses.replace(block, faces=order[block.faces], attributes=attributes, **fields)
