"""Joining of meshes whose fields differ."""

from __future__ import annotations

import torch
from torch import Tensor

from .errors import MeshError
from .mesh import TriMesh


def concatenate(meshes: list[TriMesh]) -> TriMesh:
    """See `TriMesh.concatenate`."""
    first = meshes[0]
    for mesh in meshes:
        if mesh.up != first.up:
            raise MeshError("TriMesh.concatenate: up axes must agree; turn the meshes with `with_up` before.")
        if set(mesh.attributes) != set(first.attributes):
            raise MeshError(
                "TriMesh.concatenate: all meshes must have the same attributes; "
                f"got {sorted(first.attributes)} and {sorted(mesh.attributes)}."
            )
    vertex_shift, material_shift, part_shift = 0, 0, 0
    faces: list[Tensor] = []
    face_material: list[Tensor] = []
    face_part: list[Tensor] = []
    for mesh in meshes:
        faces.append(mesh.faces.long() + vertex_shift)
        own = mesh.face_material
        if own is None:
            own = torch.full((mesh.num_faces,), 0 if mesh.materials else -1, dtype=torch.int32, device=mesh.device)
        face_material.append(torch.where(own < 0, own, own + material_shift))
        part = mesh.face_part
        if part is None:
            part = torch.zeros(mesh.num_faces, dtype=torch.int32, device=mesh.device)
        face_part.append(part + part_shift)
        vertex_shift += mesh.num_vertices
        material_shift += len(mesh.materials)
        part_shift += mesh.num_parts
    return TriMesh(
        vertices=torch.cat([m.vertices for m in meshes]),
        faces=torch.cat(faces),
        normals=torch.cat([m.vertex_normals() for m in meshes]) if any(m.normals is not None for m in meshes) else None,
        uv=_uv([m.uv for m in meshes], meshes),
        uv1=_uv([m.uv1 for m in meshes], meshes),
        attributes={name: torch.cat([m.attributes[name] for m in meshes]) for name in first.attributes},
        materials=tuple(material for m in meshes for material in m.materials),
        face_material=torch.cat(face_material),
        part_names=tuple(name for m in meshes for name in m.part_names),
        face_part=torch.cat(face_part),
        up=first.up,
    )


def _uv(sets: list[Tensor | None], meshes: list[TriMesh]) -> Tensor | None:
    if all(uv is None for uv in sets):
        return None
    return torch.cat([m.vertices.new_zeros(m.num_vertices, 2) if uv is None else uv for uv, m in zip(sets, meshes, strict=True)])
