"""The two public functions: checks, choice of format, progress, warnings."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.atomic import atomic_write, atomic_write_together
from voxgen.core.checks import describe, require_choice
from voxgen.core.errors import DtypeError, FileFormatError, FileWarning, MeshError
from voxgen.core.frame import UpAxis

from ._source import Begin, Note, Source

LOADABLE = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
SAVEABLE = LOADABLE


def load_mesh(path: str | os.PathLike[str], *, up: UpAxis | None = None, progress: bool = False) -> TriMesh:
    """Read a mesh file into one TriMesh: every part, with its materials, textures and vertex attributes.

    Vertices and faces keep the file's order; nothing is merged, repaired or scaled. Polygons are cut in fans (0, k, k + 1).

    - **glb, gltf**: the default scene with its transforms (computed in float64, rounded once; mirroring ones flip the
      winding), each node with a mesh a part, an instanced mesh once for each node. Metallic-roughness materials complete
      with samplers, both uv sets, alpha modes, emissive strength; KHR_texture_transform is applied to uv. `_NAME` becomes
      attributes["name"]. Not read: skins, morph targets, points, lines, cameras, lights, tangents, other material
      extensions (with a warning where something is lost).
    - **obj + mtl**: vertices as in the file; where corners of a vertex have different texture coordinates, copies follow
      behind the last vertex. Parts are `o`, or `g` where there is no `o`. MTL: Kd, Ke, d, Tr, Pr, Pm and their maps, norm.
    - **ply**: ASCII and binary; further properties become attributes, `name_0`, `name_1`, ... one of several columns.
    - **stl**: three vertices a triangle.   **off**: with texture coordinates, colours and normals, if there are any.

    Colours: attributes["color"] is linear, (v, 3) or (v, 4) float32 in 0..1, and multiplies the base colour. glTF stores it
    linear; the colours of PLY, OBJ and OFF are taken as sRGB-encoded and decoded (not their alpha).

    Args:
        path: the file; its suffix chooses the format.
        up: which axis points up in the file; only a label, nothing is rotated. None means "y", which glTF prescribes and
            the other formats leave open.
        progress: show a bar.
    Returns:
        TriMesh on the CPU: vertices float32 (as stored; doubles are rounded), faces int32, uv with v up (glTF's v points
        down and is flipped; files that voxgen wrote give back exactly the uv they were made from). A texture's image is
        uint8, or float32 in 0..1 where the file has 16 bits; row 0 is the top. Textures of one image share one tensor.
    Raises:
        FileFormatError: unknown suffix; a damaged, truncated or hostile file; a required extension (such as Draco or meshopt
            compression) that is not supported.
        MeshError: a sound file without faces, with an index out of range, or with a vertex that is not finite.
        CapacityError: the file declares more than a file of its size can hold, or than fits in memory.
        OSError: the file is missing or cannot be read.
    Warns:
        FileWarning: a texture or material file is missing, or something in the file is not read; once for each.
    Source: glTF 2.0 specification; axes and colour spaces as in docs/conventions.md.
    Example:
        >>> mesh = voxgen.io.load_mesh("asset.glb")
        >>> mesh.part_names, [m.name for m in mesh.materials]
    """
    where = "load_mesh"
    file = _path(where, path)
    if up is not None:
        require_choice(where, "up", up, ("y", "z"))
    suffix = _suffix(where, file, LOADABLE)
    source = Source(file)
    with _progress(f"load {file.name}", progress) as begin, _quiet():
        if suffix in (".glb", ".gltf"):
            from ._gltf_read import read_gltf

            mesh = read_gltf(source, up, begin)
        elif suffix == ".obj":
            from ._obj_read import read_obj

            mesh = read_obj(source, up, begin)
        elif suffix == ".ply":
            from ._ply_read import read_ply

            mesh = read_ply(source, up, begin)
        elif suffix == ".stl":
            from ._stl import read_stl

            mesh = read_stl(source, up)
        else:
            from ._off import read_off

            mesh = read_off(source, up)
    for text in source.warnings:
        warnings.warn(f"{where}: {file}: {text}.", FileWarning, stacklevel=2)
    return mesh


def save_mesh(mesh: TriMesh, path: str | os.PathLike[str], *, overwrite: bool = True, progress: bool = False) -> None:
    """Write a mesh; the suffix chooses the format.

    Loading the file gives the same vertices, faces and uv, bit for bit (STL: the same triangles), as far as the mesh is
    float32, in which all formats store it; only parts without faces are not kept.

    - **.glb** keeps everything: parts as nodes, materials with textures as PNG (packed as glTF wants them; images that
      already are get written once and unchanged, float32 ones with 16 bits), all attributes. glTF is Y-up: a Z-up mesh is
      rotated by `with_up("y")`, (x, y, z) → (x, z, -y). "color" is COLOR_0. For programs that know no other, the attributes
      "base_color" and "alpha" are also written, linear, as COLOR_0 (unless a textured or coloured material would be
      multiplied by it), and faces without a material get one to be seen by, which is not loaded again.
    - **.gltf** is the same with everything in one JSON file.
    - **.ply** (binary): all attributes, colours also as sRGB bytes; no materials. **.obj**: with `stem.mtl` and
      `stem_texture_0.png`, ...; no second uv set, of attributes only the colour. **.stl**: triangles only. **.off**: with normals,
      uv and colour in bytes. These four are written as they are, whichever axis is up, and warn about what they leave out.

    The file appears when it is complete, under a temporary name before; an error on the way, such as a full disk, leaves the
    old file as it was. An OBJ's files are all complete before the first appears; the .obj comes last.

    Args:
        mesh: any device; float64 is rounded to float32.
        path: the file; its folder must exist.
        overwrite: False raises where a file exists already.
        progress: show a bar.
    Raises:
        MeshError: no faces, an index out of range, a vertex that is not finite.   FileFormatError: unknown suffix.
        CapacityError: more than the format can hold.   OSError: the file cannot be written (see `core.atomic`).
    Warns:
        FileWarning: the format has no place for something that the mesh has.
    Example:
        >>> voxgen.io.save_mesh(mesh, "out.glb")
    """
    where = "save_mesh"
    if not isinstance(mesh, TriMesh):
        raise DtypeError(f"{where}: mesh must be a TriMesh; got {describe(mesh)}.")
    file = _path(where, path)
    suffix = _suffix(where, file, SAVEABLE)
    notes: list[str] = []
    plain = _prepared(where, mesh, "y" if suffix in (".glb", ".gltf") else mesh.up)
    with _progress(f"save {file.name}", progress) as begin, _quiet():
        if suffix == ".obj":
            from ._obj_write import obj_files

            files = obj_files(plain, file, notes.append, begin)
            atomic_write_together(files, overwrite=overwrite)
        else:
            pieces = _pieces(where, plain, suffix, notes.append, begin)
            with atomic_write(file, overwrite=overwrite) as out:
                for piece in pieces:
                    out.write(piece)
    for text in dict.fromkeys(notes):
        warnings.warn(f"{where}: {file}: {text}.", FileWarning, stacklevel=2)


def _quiet() -> np.errstate:
    """Numbers of a file may be anything; those that matter are looked at when the mesh is complete."""
    return np.errstate(over="ignore", invalid="ignore")


def _pieces(where: str, mesh: TriMesh, suffix: str, note: Note, begin: Begin) -> list[bytes]:
    if suffix in (".glb", ".gltf"):
        from ._gltf_write import glb_pieces, gltf_pieces

        return (glb_pieces if suffix == ".glb" else gltf_pieces)(mesh, where, note, begin)
    if suffix == ".ply":
        from ._ply_write import ply_pieces

        return ply_pieces(mesh, note)
    if suffix == ".stl":
        from ._stl import stl_pieces

        return stl_pieces(mesh, note)
    from ._off import off_pieces

    return off_pieces(mesh, note)


def _path(where: str, path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise DtypeError(f"{where}: path must be a text or a path; got {describe(path)}.")
    return Path(os.fsdecode(path))


def _suffix(where: str, path: Path, known: tuple[str, ...]) -> str:
    suffix = path.suffix.lower()
    if suffix not in known:
        raise FileFormatError(f"{where}: the name must end in one of {', '.join(known)}; got {path.name!r}.")
    return suffix


def _prepared(where: str, mesh: TriMesh, up: UpAxis) -> TriMesh:
    """The mesh on the CPU in float32 without gradients, checked before anything is written."""
    mesh.validate(where)

    def plain(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.detach().cpu().float().contiguous()

    turned = mesh.with_up(up)
    prepared = turned.replace(
        vertices=plain(turned.vertices),
        faces=turned.faces.cpu(),
        normals=plain(turned.normals),
        uv=plain(turned.uv),
        uv1=plain(turned.uv1),
        attributes={name: values.detach().cpu().contiguous() for name, values in turned.attributes.items()},
        face_material=None if turned.face_material is None else turned.face_material.cpu(),
        face_part=None if turned.face_part is None else turned.face_part.cpu(),
    )
    if not bool(torch.isfinite(prepared.vertices).all()):
        raise MeshError(f"{where}: vertices must fit float32, in which files store them; some are too large.")
    return prepared


@contextmanager
def _progress(label: str, shown: bool) -> Iterator[Begin]:
    """Gives what announces a number of steps (images to decode or encode) and then gives the function to call after each."""
    from tqdm import tqdm

    with tqdm(total=1, desc=label, unit="step", disable=not shown) as bar:

        def begin(steps: int) -> Callable[[], object]:
            bar.total += steps
            bar.refresh()
            return bar.update

        yield begin
        bar.update()
