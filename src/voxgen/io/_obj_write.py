"""TriMesh → Wavefront OBJ with MTL and PNG files beside it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxgen.core import Material, Texture, TriMesh
from voxgen.core.material import linear_to_srgb

from ._attributes import display_color
from ._images import encode_png
from ._source import Begin, Note
from ._text import format_rows

_MAPS = (
    ("base_color", "map_Kd"),
    ("alpha", "map_d"),
    ("metallic", "map_Pm"),
    ("roughness", "map_Pr"),
    ("emissive", "map_Ke"),
    ("normal", "norm"),
)


def obj_files(mesh: TriMesh, path: Path, note: Note, begin: Begin) -> list[tuple[Path, bytes]]:
    """All files, in the order in which they are to appear: images, material library, mesh."""
    files: list[tuple[Path, bytes]] = []
    labels = _unique([m.name or "material" for m in mesh.materials])
    head = ["# voxgen\n"]
    if mesh.materials:
        library = path.with_name(f"{path.stem}.mtl")
        files += _library(mesh.materials, labels, library, begin)
        head.append(f"mtllib {library.name}\n")
    text = "".join([*head, *_vertices(mesh), *_faces(mesh, labels)])
    files.append((path, text.encode("utf-8", "replace")))
    _note_losses(mesh, note)
    return files


def _note_losses(mesh: TriMesh, note: Note) -> None:
    lost = ["the second uv set"] if mesh.uv1 is not None else []
    lost += [f"attribute {name!r}" for name in mesh.attributes if name not in ("color", "base_color", "alpha")]
    lost += ["occlusion maps"] if any(m.occlusion is not None for m in mesh.materials) else []
    textures = [t for m in mesh.materials for t in m.textures.values()]
    lost += ["samplers"] if any("mirror" in t.wrap or t.wrap[0] != t.wrap[1] or t.filter == "nearest" for t in textures) else []
    lost += ["alpha cutoffs"] if any(m.alpha_mode == "MASK" for m in mesh.materials) else []
    if lost:
        note(f"OBJ has no place for {', '.join(lost)}; save as .glb to keep everything")


def _unique(names: list[str]) -> list[str]:
    """Names without line breaks, each once."""
    seen: set[str] = set()
    found: list[str] = []
    for name in names:
        plain = " ".join(name.split())
        label, number = plain, 1
        while label in seen:
            number += 1
            label = f"{plain}_{number}"
        seen.add(label)
        found.append(label)
    return found


def _vertices(mesh: TriMesh) -> list[str]:
    columns = [mesh.vertices.numpy()]
    shown = display_color(mesh)
    if shown is not None:
        rgb = linear_to_srgb(shown[:, :3].nan_to_num().clamp(0, 1))
        columns.append(torch.cat([rgb, shown[:, 3:].clamp(0, 1)], 1).numpy())
    width = sum(c.shape[1] for c in columns)
    lines = [format_rows("v" + " %.9g" * width + "\n", *columns)]
    if mesh.uv is not None:
        lines.append(format_rows("vt %.9g %.9g\n", mesh.uv.numpy()))
    if mesh.normals is not None:
        lines.append(format_rows("vn %.9g %.9g %.9g\n", mesh.normals.numpy()))
    return lines


def _faces(mesh: TriMesh, labels: list[str]) -> list[str]:
    """Faces in their order; an o or usemtl line wherever the part or material changes."""
    corner = {(False, False): "%d", (True, False): "%d/%d", (False, True): "%d//%d", (True, True): "%d/%d/%d"}
    pattern = corner[mesh.uv is not None, mesh.normals is not None]
    pattern = f"f {pattern} {pattern} {pattern}\n"
    repeat = 1 + (mesh.uv is not None) + (mesh.normals is not None)
    rows = np.repeat(mesh.faces.numpy() + 1, repeat, axis=1)
    none = np.zeros(mesh.num_faces, np.int32)
    part = none if mesh.face_part is None else mesh.face_part.numpy()
    material = (none if mesh.materials else none - 1) if mesh.face_material is None else mesh.face_material.numpy()
    names = _unique(list(mesh.part_names))
    state = np.stack((part, material), 1)
    starts = [0, *(np.nonzero((state[1:] != state[:-1]).any(1))[0] + 1).tolist(), len(rows)]
    lines: list[str] = []
    last_part, last_material = None, -1
    for start, end in pairwise(starts):
        this_part, this_material = int(part[start]), int(material[start])
        if this_part != last_part and (last_part is not None or len(names) > 1 or names[this_part]):
            lines.append(f"o {names[this_part] if this_part >= 0 else ''}".rstrip() + "\n")
        if this_material != last_material:
            lines.append(f"usemtl {labels[this_material]}\n" if this_material >= 0 else "usemtl\n")
        last_part, last_material = this_part, this_material
        lines.append(format_rows(pattern, rows[start:end]))
    return lines


def _library(materials: tuple[Material, ...], labels: list[str], path: Path, begin: Begin) -> list[tuple[Path, bytes]]:
    """The images, and last the .mtl. MTL reads no channels out of an image, so each texture gets one of its own."""
    images: dict[object, tuple[Path, Tensor]] = {}
    lines: list[str] = ["# voxgen\n"]
    for label, material in zip(labels, materials, strict=True):
        m = material
        lines.append(f"newmtl {label}\n")
        lines.append("Kd {:.9g} {:.9g} {:.9g}\n".format(*m.base_color_factor))
        lines.append("Ke {:.9g} {:.9g} {:.9g}\n".format(*m.emissive_factor))
        lines.append(f"d {m.alpha_factor:.9g}\nPm {m.metallic_factor:.9g}\nPr {m.roughness_factor:.9g}\n")
        for slot, key in _MAPS:
            texture: Texture | None = getattr(m, slot)
            if texture is None or (slot == "alpha" and m.alpha_mode == "OPAQUE"):
                continue
            image = id(texture.image), texture.channels
            if image not in images:
                images[image] = path.with_name(f"{path.stem}_texture_{len(images)}.png"), _picked(texture)
            clamp = "-clamp on " if "clamp" in texture.wrap else ""
            lines.append(f"{key} {clamp}{images[image][0].name}\n")
    advance = begin(len(images))
    files: list[tuple[Path, bytes]] = []
    for file, image in images.values():
        files.append((file, encode_png(image)))
        advance()
    return [*files, (path, "".join(lines).encode("utf-8", "replace"))]


def _picked(texture: Texture) -> Tensor:
    channels = texture.channels[:1] if len(set(texture.channels)) == 1 else texture.channels
    return texture.image[:, :, list(channels)].cpu()
