"""From the arrays that a reader finds to one TriMesh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from voxgen.core import Material, TriMesh
from voxgen.core.errors import CapacityError
from voxgen.core.frame import UpAxis
from voxgen.core.memory import require_memory

from ._source import Source


@dataclass
class Block:
    """Vertices and the faces on them; a file has one, or one for each part.

    Args:
        vertices: (v, 3).   faces: (f, 3) integer, into this block's vertices.
        normals, uv, uv1, attributes: rows for the vertices, or None; uv with v up.
        face_part, face_material: (f,), or one number for all faces.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray | None = None
    uv: np.ndarray | None = None
    uv1: np.ndarray | None = None
    attributes: dict[str, np.ndarray] = field(default_factory=dict)
    face_part: np.ndarray | int = 0
    face_material: np.ndarray | int = -1

    @property
    def nbytes(self) -> int:
        """Memory of its arrays."""
        arrays = (self.vertices, self.faces, self.normals, self.uv, self.uv1, *self.attributes.values())
        return sum(a.nbytes for a in arrays if a is not None)


def float32(values: np.ndarray) -> np.ndarray:
    """To float32; what is too large becomes infinite, and is found by `assemble`."""
    return values.astype(np.float32)


def check_indices(source: Source, indices: np.ndarray, count: int, what: str) -> None:
    """Raise MeshError unless all indices lie in [0, count). To be done before blocks are joined and before arrays are indexed."""
    bad = (indices < 0) | (indices >= count)
    if bad.any():
        first = int(indices[bad][0])
        raise source.mesh_error(f"{what} must lie in [0, {count}); {int(bad.sum())} do not, the first is {first}")


def fans(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut polygons in fans (0, k, k + 1), in their order.

    Args:
        counts: (p,) corners of each polygon; fewer than three give no triangle.
    Returns:
        (t, 3) positions of the triangles' corners in the list of all corners, and (t,) the polygon of each.
    """
    starts = np.cumsum(counts) - counts
    triangles = np.maximum(counts - 2, 0)
    polygon = np.repeat(np.arange(len(counts)), triangles)
    step = np.arange(len(polygon)) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    first = starts[polygon]
    return np.stack((first, first + step + 1, first + step + 2), 1), polygon


def split_vertices(corner_vertex: np.ndarray, corner_key: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Give each corner a vertex of its own key: a vertex whose corners disagree is repeated behind the last one.

    Args:
        corner_vertex: (c,) vertex of each corner.   corner_key: (c,) whatever must be equal at all corners of a vertex, >= 0.
        count: number of vertices. All of them keep their place, used or not.
    Returns:
        (c,) new vertex of each corner, and (n,) for each new vertex a corner that uses it, -1 for unused ones; n >= count.
    """
    pairs = corner_vertex.astype(np.int64) * (int(corner_key.max(initial=0)) + 1) + corner_key
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    order = np.argsort(first)  # pairs by their first corner
    vertex = corner_vertex[first[order]]
    original = np.full(count, len(first))
    np.minimum.at(original, vertex, np.arange(len(vertex)))  # the first pair of a vertex keeps its number
    repeated = original[vertex] != np.arange(len(vertex))
    number = np.where(repeated, count + np.cumsum(repeated) - 1, vertex)
    of_pair = np.empty(len(first), np.int64)
    of_pair[order] = number
    corner_of = np.full(count + int(repeated.sum()), -1)
    corner_of[number] = first[order]
    return of_pair[inverse.reshape(-1)], corner_of


def assemble(
    source: Source,
    blocks: Sequence[Block],
    *,
    materials: Sequence[Material] = (),
    part_names: Sequence[str] = ("",),
    up: UpAxis = "y",
) -> TriMesh:
    """Join blocks in one mesh and look at its values.

    Fields that only some blocks have are filled for the others: normals computed, uv 0, "color" 1 (it multiplies), other
    attributes 0, the last with a note.

    Raises:
        MeshError: no faces, an index out of range, a vertex that is not finite.   CapacityError: too many vertices.
    """
    total, triangles = sum(len(b.vertices) for b in blocks), sum(len(b.faces) for b in blocks)
    if triangles == 0:
        raise source.mesh_error(f"the mesh must have at least one face; the file has {total} vertices and no face")
    if max(total, triangles) >= 2**31:
        raise CapacityError(
            f"load_mesh: {source.path}: a mesh may have at most 2^31 - 1 vertices and faces; got {total:,} and {triangles:,}."
        )
    remedy = "Load a smaller file, or free memory."
    require_memory(f"load_mesh: {source.path}", 100 * total + 50 * triangles, "cpu", remedy)  # joined, and twice on the way
    shifts = np.cumsum([0] + [len(b.vertices) for b in blocks])
    for block in blocks:
        check_indices(source, block.faces, len(block.vertices), "face indices")
    mesh = TriMesh(
        vertices=_joined([float32(b.vertices) for b in blocks]),
        faces=_joined([(b.faces + shift).astype(np.int32) for b, shift in zip(blocks, shifts[:-1], strict=True)]),
        normals=_optional(blocks, lambda b: b.normals, _area_weighted_normals),
        uv=_optional(blocks, lambda b: b.uv, lambda b: np.zeros((len(b.vertices), 2), np.float32)),
        uv1=_optional(blocks, lambda b: b.uv1, lambda b: np.zeros((len(b.vertices), 2), np.float32)),
        attributes=_attributes(source, blocks),
        materials=tuple(materials),
        face_material=_joined([_per_face(b, b.face_material) for b in blocks]) if materials else None,
        part_names=tuple(part_names),
        face_part=_joined([_per_face(b, b.face_part) for b in blocks]) if len(part_names) > 1 else None,
        up=up,
    )
    mesh.validate(f"load_mesh: {source.path}")
    return _finite(source, mesh)


def _joined(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))  # always a copy: what was read may be a view of the file


def _per_face(block: Block, value: np.ndarray | int) -> np.ndarray:
    return np.broadcast_to(np.asarray(value, np.int32), len(block.faces))


def _optional(blocks: Sequence[Block], get: Callable[[Block], np.ndarray | None], fill: Callable[[Block], np.ndarray]) -> Tensor | None:
    found = [get(b) for b in blocks]
    if all(value is None for value in found):
        return None
    return _joined([fill(b) if value is None else float32(value) for b, value in zip(blocks, found, strict=True)])


def _area_weighted_normals(block: Block) -> np.ndarray:
    mesh = TriMesh(torch.from_numpy(float32(block.vertices)), torch.from_numpy(block.faces.astype(np.int64)))
    return mesh.vertex_normals().numpy()


def _attributes(source: Source, blocks: Sequence[Block]) -> dict[str, Tensor]:
    names = dict.fromkeys(name for b in blocks for name in b.attributes)
    joined: dict[str, Tensor] = {}
    for name in names:
        found = [b.attributes[name] for b in blocks if name in b.attributes]
        width, dtype = max(a.shape[1] for a in found), np.result_type(*found)
        dtype = {"uint16": np.dtype(np.int32), "uint32": np.dtype(np.int64)}.get(
            dtype.name, dtype
        )  # torch has few operations on unsigned types
        neutral = 1 if name == "color" else 0
        if len(found) < len(blocks) and name != "color":
            source.warn(f"attribute {name!r} is missing in {len(blocks) - len(found)} of {len(blocks)} parts and counts as 0 there")
        rows = []
        for block in blocks:
            full = np.full((len(block.vertices), width), neutral, dtype)
            if name in block.attributes:
                full[:, : block.attributes[name].shape[1]] = block.attributes[name]
            rows.append(full)
        joined[name] = _joined(rows)
    return joined


def _finite(source: Source, mesh: TriMesh) -> TriMesh:
    """Leave out normals, and set uv to 0, where they are not finite, and say so: sampling at NaN has no meaning."""
    if mesh.normals is not None and not bool(torch.isfinite(mesh.normals).all()):
        source.warn("normals are left out, because some are not finite")
        mesh = mesh.replace(normals=None)
    for name in ("uv", "uv1"):
        uv: Tensor | None = getattr(mesh, name)
        if uv is not None and not bool(torch.isfinite(uv).all()):
            bad = ~torch.isfinite(uv).all(1)
            source.warn(f"{name} is set to 0 at {int(bad.sum())} vertices where it is not finite")
            mesh = mesh.replace(**{name: torch.where(bad[:, None], 0.0, uv)})
    return mesh
