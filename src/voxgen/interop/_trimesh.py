"""Meshes of trimesh."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from voxgen.core import Material, TriMesh
from voxgen.core.checks import describe, require_choice
from voxgen.core.errors import DtypeError, MeshError, MeshWarning
from voxgen.core.frame import UpAxis

if TYPE_CHECKING:
    import trimesh


def from_trimesh(mesh: Any, *, up: UpAxis = "y", dtype: torch.dtype = torch.float32) -> TriMesh:
    """A `trimesh.Trimesh` or `trimesh.Scene` as a TriMesh.

    Args:
        mesh: a mesh, or a scene whose meshes are brought to its world by their transforms, one part each.
        up: which axis points up. trimesh does not know; files of glTF have "y". A label: nothing is rotated.
        dtype: of the positions; trimesh has float64.
    Returns:
        Vertices, faces, uv, vertex attributes of numbers, and the material with its textures, row by row as in trimesh; nothing is
        merged. Vertex colours become the attribute "color", numbers as they are over 255 (linear, as glTF means them).
        Normals are not taken: trimesh computes them from the faces if a file had none, and does not say so.
    Raises:
        DtypeError: neither a mesh nor a scene.   MeshError: a scene without meshes.
    Warns:
        MeshWarning: point clouds, paths, or materials for single faces, which are left out.
    """
    import trimesh

    require_choice("from_trimesh", "up", up, ("y", "z"))
    if isinstance(mesh, trimesh.Trimesh):
        return _one(mesh, "", up, dtype)
    if not isinstance(mesh, trimesh.Scene):
        raise DtypeError(f"from_trimesh: mesh must be a trimesh.Trimesh or trimesh.Scene; got {describe(mesh)}.")
    parts = []
    for node in mesh.graph.nodes_geometry:
        matrix, name = mesh.graph[node]
        geometry = mesh.geometry[name]
        if isinstance(geometry, trimesh.Trimesh):
            placed = _one(geometry, str(node), up, torch.float64).transformed(torch.tensor(matrix, dtype=torch.float64))
            parts.append(placed.replace(vertices=placed.vertices.to(dtype)))
        else:
            warnings.warn(f"from_trimesh: {name!r} is a {type(geometry).__name__} and is left out.", MeshWarning, stacklevel=2)
    if not parts:
        raise MeshError("from_trimesh: the scene must hold at least one mesh; it holds none.")
    return TriMesh.concatenate(parts)


def to_trimesh(mesh: TriMesh, *, up: UpAxis = "y") -> trimesh.Trimesh:
    """A TriMesh as one `trimesh.Trimesh`, row by row; nothing is merged.

    Args:
        mesh: of at most one material; parts are joined.
        up: which axis points up in the result; the mesh is rotated if its own is another. "y" is what glTF files have.
    Returns:
        With uv and material (textures as Pillow images), or with vertex colours if there is an attribute "color" and no material;
        other attributes become vertex attributes. Not differentiable.
    Raises:
        MeshError: faces of several materials, or textures of one packed image that differ in size.
    Warns:
        MeshWarning: what trimesh has no place for is left out: a second uv set, wrap and filter of textures, normal scale and
        occlusion strength, emission above 1; colour factors are rounded to 1/255.
    """
    used = _materials_used(mesh)
    if len(used) > 1:
        raise MeshError(f"to_trimesh: a trimesh.Trimesh has one material; this mesh uses {len(used)}. Use to_trimesh_scene.")
    return _convert(mesh.with_up(up), used[0] if used else -1)


def to_trimesh_scene(mesh: TriMesh, *, up: UpAxis = "y") -> trimesh.Scene:
    """A TriMesh as a `trimesh.Scene` with one mesh for each part and material, named by the part.

    Args and what is left out: as `to_trimesh`. Vertices that a part does not use are dropped from it.
    """
    import trimesh

    turned = mesh.with_up(up)
    scene = trimesh.Scene()
    parts = turned.face_part if turned.face_part is not None else torch.zeros(turned.num_faces, dtype=torch.int32)
    materials = _face_materials(turned)
    for part in parts.unique().tolist():
        name = turned.part_names[part] if part >= 0 else ""
        for index in materials[parts == part].unique().tolist():
            piece = turned.select_faces((parts == part) & (materials == index))
            scene.add_geometry(_convert(piece, index), geom_name=name or "part", node_name=name or None)
    return scene


def _face_materials(mesh: TriMesh) -> Tensor:
    if mesh.face_material is not None:
        return mesh.face_material
    return torch.full((mesh.num_faces,), 0 if mesh.materials else -1, dtype=torch.int32, device=mesh.device)


def _materials_used(mesh: TriMesh) -> list[int]:
    return _face_materials(mesh).unique().tolist()


def _convert(mesh: TriMesh, index: int) -> trimesh.Trimesh:
    import trimesh
    from trimesh.visual import ColorVisuals, TextureVisuals

    from ._trimesh_material import to_pbr

    lost = ["the second uv set"] if mesh.uv1 is not None else []
    material = mesh.materials[index] if index >= 0 else None
    visual: Any = None
    shown = None
    if mesh.uv is not None or material is not None:
        pbr, dropped = to_pbr(material) if material is not None else (None, [])
        lost += dropped
        visual = TextureVisuals(uv=None if mesh.uv is None else _array(mesh.uv), material=pbr)
    elif "color" in mesh.attributes:
        shown = "color"
        visual = ColorVisuals(vertex_colors=_array((mesh.attributes["color"].clamp(0, 1) * 255).round().to(torch.uint8)))
    if lost:
        warnings.warn(f"to_trimesh: left out: {', '.join(lost)}.", MeshWarning, stacklevel=3)
    return trimesh.Trimesh(
        vertices=_array(mesh.vertices),
        faces=_array(mesh.faces.long()),
        vertex_normals=None if mesh.normals is None else _array(mesh.normals),
        vertex_attributes={n: _array(t) for n, t in mesh.attributes.items() if n != shown},
        visual=visual,
        process=False,
    )


def _one(mesh: trimesh.Trimesh, name: str, up: UpAxis, dtype: torch.dtype) -> TriMesh:
    from ._trimesh_material import from_material

    count = len(mesh.vertices)
    attributes = {}
    for key, value in mesh.vertex_attributes.items():
        rows = torch.tensor(value)
        if len(rows) == count and rows.ndim <= 2:
            attributes[key] = rows.reshape(count, -1)
    uv, materials = None, ()
    visual: Any = mesh.visual
    if visual.kind == "texture":
        if visual.uv is not None and len(visual.uv) == count:
            uv = torch.tensor(visual.uv, dtype=torch.float32)
        materials: tuple[Material, ...] = from_material(visual.material)
    elif visual.kind == "vertex":
        attributes["color"] = torch.tensor(visual.vertex_colors, dtype=torch.float32) / 255
    elif visual.kind == "face":
        warnings.warn("from_trimesh: colours of single faces are left out.", MeshWarning, stacklevel=3)
    vertices = torch.tensor(mesh.vertices, dtype=dtype).reshape(-1, 3)
    faces = torch.tensor(mesh.faces, dtype=torch.int32).reshape(-1, 3)
    return TriMesh(vertices, faces, uv=uv, attributes=attributes, materials=materials, part_names=(name,), up=up)


def _array(t: Tensor) -> Any:
    return t.detach().cpu().numpy()
