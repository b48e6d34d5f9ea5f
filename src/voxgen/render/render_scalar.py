"""Pictures of a mesh coloured by a number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from voxgen.core import Camera, TriMesh
from voxgen.core.aliases import Float3
from voxgen.core.checks import require_choice, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.core.material import srgb_to_linear

from .colormaps import ColorMap, apply_colormap
from .hits import Hits, View
from .output import RenderOutput
from .surface import Normals, SurfaceReader
from .views import NEUTRAL, Picture, check_request, draw_views


def render_scalar(
    mesh: TriMesh,
    camera: Camera,
    values: Tensor,
    *,
    low: float | None = None,
    high: float | None = None,
    colormap: ColorMap = "heat",
    relief: float = 0.35,
    background: Float3 = NEUTRAL,
    supersample: int = 1,
    normals: Normals = "smooth",
    attributes: Sequence[str] = (),
    backend: str = "auto",
    progress: bool = False,
) -> RenderOutput:
    """Render a mesh coloured by one number a vertex or a face, such as an error.

    Args:
        mesh, camera, background, supersample, normals, attributes, backend, progress: as `render_mesh`.
        values: (v,) for vertices, interpolated before they are coloured, or (f,) for faces; where v = f, vertices. NaN is grey.
        low, high: values at the ends of the colour map; None takes the smallest and the largest finite value.
        colormap: name, see `apply_colormap`.
        relief: how much light and shade darken the colours, 0 (not at all: the colours are exactly those of the scale) to 1.
    Returns:
        RenderOutput, sRGB-encoded.
    Raises:
        ShapeError: values has another length.   RangeError: low is not below high.   Others as `render_mesh`.
    """
    where = "render_scalar"
    require_tensor(where, "values", values, ("n",))
    if len(values) not in (mesh.num_vertices, mesh.num_faces):
        raise ShapeError(
            f"{where}: values must have one row for each of {mesh.num_vertices} vertices or {mesh.num_faces} faces; got {len(values)}."
        )
    if not values.is_floating_point():
        raise DtypeError(f"{where}: values must be float; got {values.dtype}. Convert them with .float().")
    require_same_device(where, vertices=mesh.vertices, values=values)
    if not 0 <= relief <= 1:
        raise RangeError(f"{where}: relief must lie in [0, 1]; got {relief}.")
    require_choice(where, "normals", normals, ("map", "smooth", "flat"))
    picture = Picture(background, supersample, "srgb", tuple(attributes), backend, progress)
    check_request(where, mesh, camera, picture)
    bottom, top = value_range(values, low, high)
    reader = SurfaceReader(where, mesh.replace(attributes={}, materials=(), face_material=None), normals, two_sided=True)
    per_vertex = len(values) == mesh.num_vertices

    def paint(view: View, hits: Hits) -> tuple[Tensor, Tensor]:
        number = hits.mix(values[:, None])[:, 0] if per_vertex else values[hits.face]
        color = srgb_to_linear(apply_colormap(number, bottom, top, colormap).to(mesh.vertices))
        position, _, _ = reader.geometry(view, hits)
        slant = (reader.shading_normal(view, hits) * view.toward_viewer(position)).sum(1, keepdim=True).clamp(0, 1)
        return color * (1 - relief * (1 - slant)), torch.ones_like(slant)

    return draw_views(mesh, camera, reader, paint, picture)


def value_range(values: Tensor, low: float | None, high: float | None) -> tuple[float, float]:
    """The ends of a colour scale for these values, as `render_scalar` takes them; for the scale bar beside its picture.

    Args:
        values: any shape; NaN and infinity do not count.
        low, high: the ends; None takes the smallest and the largest value, or a scale of length 1 where these are no range.
    Raises:
        RangeError: low is not below high, or one is not finite.
    """
    finite = values[torch.isfinite(values)]
    bottom = low if low is not None else float(finite.min()) if len(finite) else 0.0
    top = high if high is not None else float(finite.max()) if len(finite) else bottom
    if bottom >= top and high is None:
        top = bottom + 1
    elif bottom >= top and low is None:
        bottom = top - 1
    if not (math.isfinite(bottom) and math.isfinite(top) and bottom < top):
        raise RangeError(f"render_scalar: low must be below high, both finite; got {low} and {high}.")
    return bottom, top
