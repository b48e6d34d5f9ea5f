"""Pictures of a mesh with its materials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from voxgen.core import Camera, TriMesh
from voxgen.core.aliases import Float3
from voxgen.core.checks import require_choice, require_int
from voxgen.core.material import srgb_to_linear

from .hits import Hits, View
from .output import Encoding, RenderOutput
from .shading import Lighting, lambert, metallic_roughness, soft_clip
from .surface import Normals, SurfaceReader
from .views import NEUTRAL, Picture, check_request, draw_views

Shading = Literal["pbr", "lambert", "albedo", "normal"]


def render_mesh(
    mesh: TriMesh,
    camera: Camera,
    *,
    shading: Shading = "pbr",
    lighting: Lighting | None = None,
    background: Float3 = NEUTRAL,
    supersample: int = 1,
    layers: int = 4,
    normals: Normals = "map",
    two_sided: bool = True,
    encoding: Encoding = "srgb",
    attributes: Sequence[str] = (),
    backend: str = "auto",
    progress: bool = False,
) -> RenderOutput:
    """Render a mesh with its materials from every view of a camera.

    Textures (bilinear, from the reduced level that fits the pixel), factors and vertex attributes count as `TriMesh` and
    `Material` describe them; faces without a material look like `Material.plain()`. Faces are seen from both sides. There are no
    shadows, reflections of other surfaces or refraction: glass lets through what is behind it in proportion to 1 - alpha.

    Args:
        mesh: any mesh; one without faces gives the background.
        camera: v views.
        shading: "pbr": glTF's metallic-roughness model. "lambert": base colour as a matt surface. "albedo": base colour, without
            light. "normal": (normal + 1) / 2 in world axes, without transparency.
        lighting: lights and surroundings; None takes `Lighting()`, `Lighting.surrounded(...)` a picture of the surroundings. The sky
            is where `mesh.up` points.
        background: sRGB-encoded colour in 0..1.
        supersample: s × s samples a pixel for color and mask.
        layers: how many transparent surfaces (alpha modes MASK and BLEND) one behind the other are mixed, before the opaque one.
            Further ones are left out.
        normals: "map": vertex normals, turned by normal textures. "smooth": vertex normals. "flat": the faces' own.
        two_sided: turn normals to the side from which the face is seen.
        encoding: "srgb": color is what to show, highlights bent into 0..1. "linear": color is linear light as computed.
        attributes: what else to interpolate: names of mesh.attributes, "uv", "uv1" or "position".
        backend: engine of `rasterize`.
        progress: show a bar over the views.
    Returns:
        RenderOutput. Everything but face_id is differentiable in vertices, attributes and textures; the visible triangle is taken as
        given, so outlines and the parts hidden behind them get no gradient.
    Raises:
        MeshError: a face that names a vertex that does not exist, or a vertex that is not finite.   RangeError: an option out of range,
        or an attribute that does not exist.   ShapeError, DtypeError: attributes that cannot be colours.   DeviceError.
    Warns:
        MeshWarning: textures, but no texture coordinates; these are then (0, 0).
    Memory: about 130 bytes for each pixel × supersample² of one view, 1 kB for each of 2¹⁸ hits at a time, and what
        `rasterize` takes; views are drawn one after the other. Many times this where gradients are wanted.
    Source: glTF 2.0 appendix B; depth peeling: C. Everitt, "Interactive order-independent transparency", 2001.
    Example:
        >>> render_mesh(mesh, camera_for_bounds(*mesh.bounds()), supersample=2).color.shape
        torch.Size([1, 512, 512, 3])
    """
    where = "render_mesh"
    require_choice(where, "shading", shading, ("pbr", "lambert", "albedo", "normal"))
    require_choice(where, "normals", normals, ("map", "smooth", "flat"))
    layers = require_int(where, "layers", layers, 0, 64)
    picture = Picture(background, supersample, encoding, tuple(attributes), backend, progress)
    check_request(where, mesh, camera, picture)
    reader = SurfaceReader(where, mesh, normals, two_sided)
    light = Lighting() if lighting is None else lighting
    level = mesh.vertices.new_tensor(((1, 0, 0), (0, 1, 0), (0, 0, 1)) if mesh.up == "y" else ((1, 0, 0), (0, 0, 1), (0, -1, 0)))

    def paint(view: View, hits: Hits) -> tuple[Tensor, Tensor]:
        if shading == "normal":
            normal = reader.shading_normal(view, hits)
            return srgb_to_linear((normal + 1) / 2), torch.ones_like(normal[:, :1])
        surface = reader.read(view, hits)
        axes = view.camera.world_to_camera[0, :3, :3].to(surface.position)
        if shading == "albedo":
            color = surface.base_color
        elif shading == "lambert":
            color = lambert(surface, light, axes, level)
        else:
            color = metallic_roughness(surface, view.toward_viewer(surface.position), light, axes, level)
        return (soft_clip(color) if encoding == "srgb" and shading in ("pbr", "lambert") else color), surface.alpha

    no_face = torch.zeros(mesh.num_faces, dtype=torch.bool, device=mesh.device)
    transparent = no_face if shading == "normal" else reader.may_be_transparent()
    return draw_views(mesh, camera, reader, paint, picture, transparent, layers)
