"""Maps of meshes that losses compare: coverage, depth, normals, positions, attributes; outlines differentiable too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor
from tqdm import tqdm

from voxgen.core import Camera, TriMesh
from voxgen.core.checks import FLOATS, describe, require_choice, require_finite, require_int, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, MeshError, RangeError, ShapeError
from voxgen.ops.rasterize import MAX_SIZE

from ._geometry_pass import Depth, FaceNormals, GeometryPass, NormalSpace
from .output import GeometryMaps
from .views import interpolable

_PIXELS = 1 << 21
"""Samples drawn at a time, where there are several views."""
_ROWS = 1 << 22
"""Vertices projected at a time, where there are several views."""


def render_geometry(
    meshes: TriMesh | Sequence[TriMesh],
    camera: Camera,
    *,
    sample: Tensor | None = None,
    depth: Depth = "z",
    normals: FaceNormals = "face",
    normal_space: NormalSpace = "world",
    face_camera: bool = False,
    supersample: int = 1,
    antialias: bool = True,
    outline_walk: int = 32,
    attributes: Sequence[str] = (),
    depth_background: float = 0.0,
    max_faces: int = 10_000_000,
    backend: str = "auto",
    progress: bool = False,
) -> GeometryMaps:
    """Render what meshes look like without light: the maps that render losses compare, differentiable in the geometry.

    One mesh from many views, or a batch of different meshes with the views of each. Faces are seen from both sides. What lies
    before the near plane or behind the far plane is cut away exactly, so a camera may stand inside an object.

    Args:
        meshes: one mesh, or one for each sample of a batch, of one float dtype. Meshes without faces give background.
        camera: v views.
        sample: (v,) int64, the mesh that each view shows; None: all views show the only mesh, or view i shows mesh i.
        depth: "z": distance along the optical axis. "ray": distance from the eye (from the camera's plane where it is orthographic).
        normals: "face": of the triangle, as it is wound. "vertex": those of the vertices, interpolated, of unit length.
        normal_space: axes of the normals: those of the "world", or of the "camera" (x right, y down, z away from it).
        face_camera: turn normals round that point away from the eye, as is done for targets, whose winding may be anything.
        supersample: s × s samples a pixel, whose mean is taken.
        antialias: blend pixels along outlines by the area that they share (`voxgen.ops.antialias`). Without it outlines get
            no gradient and the mask is 0 or 1.
        outline_walk: up to how many triangles behind the one that a pixel sees are searched for the outline against the background
            (`walk` of `antialias`). 0: as published, which finds few outlines of finely meshed round objects.
        attributes: what else to interpolate: names of each mesh's attributes, "uv", "uv1" or "position" (world).
        depth_background: depth where nothing is seen. Other than 0 (infinity for `carve_by_depth`) only without blending:
            antialias=False, supersample=1.
        max_faces: faces drawn at a time; larger meshes are drawn in parts, with the same result.
        backend: engine of `rasterize`.
        progress: show a bar over the views.
    Returns:
        GeometryMaps in the meshes' dtype. Differentiable in vertices, normals and attributes of the meshes and in the camera's
        tensors; the visible triangle is taken as given, and outlines move by `antialias`.
    Raises:
        MeshError: a face that names a vertex that does not exist, a vertex that is not finite, no mesh, or an attribute that a mesh
        does not have.   RangeError: an option out of range, a view of a mesh that does not exist, camera matrices that are not
        finite or not invertible.   ShapeError, DtypeError,
        DeviceError: meshes, sample and camera that do not fit each other.
    No view: maps of no view. Nothing in view: background, with a gradient of zero.
    Memory: about 0.7 kB for each sample that sees a face, for all views where gradients are wanted, else for 2²¹ samples at a time.
    Source: mesh renderer of TRELLIS (arXiv 2412.01506), which TripoSF and Focusing train with. Differences: `outline_walk`; an empty
        mesh gives maps of the usual shape; samples are averaged over the pixel, not by a filter of twice its width.
    Example:
        >>> maps = render_geometry(mesh, orbit_cameras(4, width=64, height=64), supersample=2)
        >>> maps.mask.shape, maps.normal.shape
        (torch.Size([4, 64, 64]), torch.Size([4, 64, 64, 3]))
    """
    where = "render_geometry"
    require_choice(where, "depth", depth, get_args(Depth))
    require_choice(where, "normals", normals, get_args(FaceNormals))
    require_choice(where, "normal_space", normal_space, get_args(NormalSpace))
    supersample = require_int(where, "supersample", supersample, 1, 16)
    outline_walk = require_int(where, "outline_walk", outline_walk, 0, 64)
    max_faces = require_int(where, "max_faces", max_faces, 1)
    if max(camera.width, camera.height) * supersample > MAX_SIZE:
        size = f"{camera.width} × {camera.height} × {supersample}"
        raise RangeError(f"{where}: image size times supersample must be at most {MAX_SIZE}; got {size}.")
    _check_background(where, depth_background, antialias, supersample)
    check_camera(where, camera)
    batch = check_meshes(where, meshes, camera, attributes)
    shown = check_sample(where, sample, len(batch), len(camera))
    draw = GeometryPass(
        depth,
        normals,
        normal_space,
        face_camera,
        supersample,
        antialias,
        outline_walk,
        tuple(attributes),
        depth_background,
        max_faces,
        backend,
    )
    width = draw.channels(batch[0])
    parts: list[tuple[Tensor, Tensor]] = []
    order: list[int] = []
    with tqdm(total=len(camera), desc="views", disable=not progress, leave=False) as bar:
        for index in shown.unique().tolist():
            views = (shown == index).nonzero()[:, 0]
            pixels = camera.width * camera.height * supersample**2
            mesh = batch[index]
            if normals == "vertex":
                mesh = mesh.replace(normals=mesh.vertex_normals())  # once for all views
            step = max(1, min(_PIXELS // pixels, _ROWS // max(1, mesh.num_vertices)))
            for some in views.split(step):
                parts.append(draw(mesh, camera if len(some) == len(camera) else camera[some]))
                order += some.tolist()
                bar.update(len(some))
    if not parts:
        image = batch[0].vertices.new_zeros(0, camera.height, camera.width, sum(width.values()))
        face_id = image.new_zeros(0, camera.height * supersample, camera.width * supersample, dtype=torch.int32)
    elif len(parts) == 1:
        image, face_id = parts[0]
    else:
        image, face_id = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    if order != sorted(order):
        back = torch.tensor(order, device=image.device).argsort()
        image, face_id = image.index_select(0, back), face_id.index_select(0, back)
    maps = dict(zip(width, image.split(list(width.values()), -1), strict=True))
    return GeometryMaps(
        maps.pop("mask")[..., 0], maps.pop("depth")[..., 0], maps.pop("normal"), face_id, {n.removeprefix("."): m for n, m in maps.items()}
    )


def _check_background(where: str, value: float, antialias: bool, supersample: int) -> None:
    if math.isnan(value):
        raise RangeError(f"{where}: depth_background must be a number; got NaN.")
    if value != 0 and (antialias or supersample > 1):
        raise RangeError(
            f"{where}: depth_background other than 0 needs antialias=False and supersample=1, which do not mix depths with it; "
            f"got {value} with antialias={antialias}, supersample={supersample}."
        )


def check_camera(where: str, camera: Camera) -> None:
    """Raise RangeError for views that show nothing whatever the mesh: matrices that are not finite, or not invertible."""
    for name in ("world_to_camera", "intrinsics"):
        matrices: Tensor = getattr(camera, name).detach()
        require_finite(where, f"camera.{name}", matrices)
        flat = torch.linalg.det(matrices[:, :3, :3].double()) == 0
        if bool(flat.any()):
            view = int(flat.nonzero()[0])
            raise RangeError(f"{where}: camera.{name} must be invertible; that of view {view} is {matrices[view].tolist()}.")


def check_meshes(where: str, meshes: TriMesh | Sequence[TriMesh], camera: Camera, attributes: Sequence[str]) -> list[TriMesh]:
    batch = [meshes] if isinstance(meshes, TriMesh) else list(meshes)
    if not batch:
        raise MeshError(f"{where}: meshes must hold at least one mesh; a sample without surface is a mesh without faces.")
    if isinstance(attributes, str):
        raise DtypeError(f"{where}: attributes must be a sequence of names; got the text {attributes!r}. Write ({attributes!r},).")
    rows = interpolable(batch[0])
    for i, mesh in enumerate(batch):
        name = "mesh" if isinstance(meshes, TriMesh) else f"meshes[{i}]"
        if not isinstance(mesh, TriMesh):
            raise DtypeError(f"{where}: {name} must be a TriMesh; got {describe(mesh)}.")
        if mesh.num_faces:
            mesh.validate(f"{where}: {name}")
        require_same_device(where, camera=camera.world_to_camera, **{name: mesh.vertices})
        if mesh.vertices.dtype != batch[0].vertices.dtype:
            raise DtypeError(f"{where}: all meshes must have one dtype; got {batch[0].vertices.dtype} and {mesh.vertices.dtype}.")
        own = interpolable(mesh)
        for wanted in attributes:
            if wanted not in own:
                raise MeshError(f"{where}: {name} has no attribute {wanted!r}; it has {', '.join(own)}.")
            if own[wanted].dtype not in FLOATS:
                raise DtypeError(f"{where}: attribute {wanted!r} of {name} must be float; got {describe(own[wanted])}.")
            if own[wanted].shape[1] != rows[wanted].shape[1]:
                raise ShapeError(f"{where}: {wanted!r} must have one width in all meshes; {name} has {describe(own[wanted])}.")
    return batch


def check_sample(where: str, sample: Tensor | None, meshes: int, views: int) -> Tensor:
    if sample is None:
        if meshes not in (1, views):
            raise ShapeError(f"{where}: {meshes} meshes and {views} views need sample, (v,) int64: which mesh each view shows.")
        return torch.arange(views) if meshes == views else torch.zeros(views, dtype=torch.int64)
    require_tensor(where, "sample", sample, (views,), (torch.int64,))
    if views and (int(sample.min()) < 0 or int(sample.max()) >= meshes):
        got = f"from {int(sample.min())} to {int(sample.max())}"
        raise RangeError(f"{where}: sample must name some of the {meshes} meshes, 0 to {meshes - 1}; got values {got}.")
    return sample.cpu()
