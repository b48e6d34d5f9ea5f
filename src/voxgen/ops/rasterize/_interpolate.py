"""Vertex values at the places that a rasterisation found."""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core.aliases import Faces
from voxgen.core.checks import FLOATS, require_same_device, require_tensor
from voxgen.core.errors import MeshError, ShapeError

from ._barycentrics import take_rows
from ._output import RasterOutput


def interpolate(attributes: Tensor, faces: Faces, raster: RasterOutput) -> Tensor:
    """Mix the values of each pixel's three corners by its barycentrics.

    Args:
        attributes: (v, c) or, one set a view, (b, v, c), any float dtype.
        faces: (f, 3) int32 or int64, as given to `rasterize`.
        raster: result of `rasterize`, b views.
    Returns:
        (b, h, w, c) in the dtype of attributes, 0 where there is nothing. Differentiable in attributes and, through the
        barycentrics, in the positions.
    Raises:
        ShapeError, DtypeError, DeviceError: arguments that do not fit each other.   MeshError: attributes or faces with fewer rows
        than the raster names.
    Memory: about 3 c + 3 numbers for each covered pixel beside the result.
    """
    place, corner, values = _corner_values("interpolate", attributes, faces, raster)
    weights = raster.barycentrics[place].to(attributes.dtype)
    mixed = (take_rows(values, corner) * weights[..., None]).sum(1)
    return attributes.new_zeros(*raster.face_id.shape, attributes.shape[-1]).index_put(place, mixed)


def interpolate_derivatives(attributes: Tensor, faces: Faces, raster: RasterOutput, slopes: Tensor) -> Tensor:
    """How interpolated values change from pixel to pixel: with uv as attributes, the footprint of a pixel in a texture.

    Args:
        attributes, faces, raster: as in `interpolate`.
        slopes: (b, h, w, 3, 2) of `screen_derivatives` for this raster.
    Returns:
        (b, h, w, c, 2) d value / d (column, row) in the dtype of attributes, 0 where there is nothing. Differentiable in attributes
        and, through the slopes, in the positions. Flattened over the last two axes it is nvdiffrast's attribute differential.
    Raises: as `interpolate`.
    """
    where = "interpolate_derivatives"
    require_tensor(where, "slopes", slopes, (*raster.face_id.shape, 3, 2), hint="Use screen_derivatives(positions, faces, raster).")
    place, corner, values = _corner_values(where, attributes, faces, raster)
    mixed = take_rows(values, corner).transpose(1, 2) @ slopes[place].to(attributes.dtype)
    return attributes.new_zeros(*raster.face_id.shape, attributes.shape[-1], 2).index_put(place, mixed)


def _corner_values(where: str, attributes: Tensor, faces: Tensor, raster: RasterOutput) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """The covered pixels, the rows (n, 3) of their corners, and the values as rows (r, c); checks included."""
    views = len(raster.face_id)
    if isinstance(attributes, Tensor) and attributes.ndim == 3:
        require_tensor(where, "attributes", attributes, (views, "v", "c"), FLOATS)
    else:
        require_tensor(where, "attributes", attributes, ("v", "c"), FLOATS, hint="One set a view may be (b, v, c).")
    require_tensor(where, "faces", faces, ("f", 3), (torch.int32, torch.int64))
    require_same_device(where, attributes=attributes, faces=faces, face_id=raster.face_id)
    if raster.barycentrics.shape != (*raster.face_id.shape, 3):
        raise ShapeError(
            f"{where}: raster must be a result of rasterize; got face_id {tuple(raster.face_id.shape)} "
            f"and barycentrics {tuple(raster.barycentrics.shape)}."
        )
    view, row, column = (raster.face_id >= 0).nonzero(as_tuple=True)
    face = raster.face_id[view, row, column].long()
    if len(face) and int(face.max()) >= len(faces):
        raise MeshError(f"{where}: faces must be those given to rasterize; the raster names face {int(face.max())} of {len(faces)}.")
    corner = faces[face].long()
    if len(face) and int(corner.max()) >= attributes.shape[-2]:
        raise MeshError(f"{where}: attributes must have a row for each vertex; got {attributes.shape[-2]} for index {int(corner.max())}.")
    if attributes.ndim == 3:
        corner = corner + (view * attributes.shape[1])[:, None]
    return (view, row, column), corner, attributes.flatten(0, -2)
