"""Which triangle each pixel sees, where in it, and how deep; and vertex values at those places.

Only the query for the visible triangle (`face_id`) depends on the engine and has no gradient. Barycentrics, depth and
interpolation follow from it in plain torch, the same for all engines, so gradients reach positions and attributes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core.aliases import Faces
from voxgen.core.checks import require_finite, require_int, require_same_device, require_tensor
from voxgen.core.errors import MeshError, ShapeError
from voxgen.ops._registry import Backend, Call, Op, cpu_only

from ._barycentrics import locate
from ._barycentrics import screen_derivatives as screen_derivatives
from ._barycentrics import screen_derivatives_at as screen_derivatives_at
from ._interpolate import interpolate as interpolate
from ._output import RasterOutput as RasterOutput

__all__ = ["RasterOutput", "interpolate", "rasterize", "screen_derivatives", "screen_derivatives_at"]

OP = Op(
    "rasterize",
    (
        Backend("numba", "voxgen.ops.rasterize._numba:visible_faces", (cpu_only,)),
        Backend("reference", "voxgen.ops.rasterize._reference:visible_faces"),
    ),
)
MAX_SIZE = 32768


def rasterize(
    positions: Tensor,
    faces: Faces,
    height: int,
    width: int,
    *,
    behind: Tensor | None = None,
    backend: str = "auto",
) -> RasterOutput:
    """Find the nearest triangle at the centre of every pixel.

    Clip space is that of `Camera.clip_matrices`: after division by w, x points right and y *down*, both from -1 to 1 over the
    image (row 0 is at y = -1), z goes from -1 at the near to 1 at the far plane. Pixel (row i, column j) is sampled at its
    centre, (j + 0.5, i + 0.5) in pixels. Faces are seen from both sides.

    Args:
        positions: (v, 4) or (b, v, 4) float32 or float64, clip space. Vertices with w <= 0 are legal: what lies outside
            -w <= z <= w (w > 0) is cut away exactly, pixel by pixel, so triangles through the near plane or through the eye
            are drawn where they are in front of it.
        faces: (f, 3) int32 or int64, the same for the whole batch.
        height, width: image size in pixels, 1 to 32768.
        behind: (b, h, w) int32, the `face_id` of an earlier call with the same positions and faces. Only what lies behind these
            faces is seen; pixels without a face stay empty. Repeated, this peels the layers of a scene in order of depth.
        backend: see docs/backends.md.
    Returns:
        RasterOutput with face_id (b, h, w) int32, -1 where there is nothing; barycentrics (b, h, w, 3), weights of the face's
        corners in space (perspective-correct), 0 where there is nothing; depth (b, h, w), z / w, 1 (the far plane) where
        there is nothing. The last two have the dtype of positions. b is 1 for (v, 4). Barycentrics and depth are
        differentiable in positions.
    Raises:
        ShapeError, DtypeError, DeviceError: arguments that do not fit each other.   RangeError: a size out of range, or positions
        that are not finite.   MeshError: a face that names a vertex that does not exist.
    Empty mesh, or nothing in view: an empty image.
    Numerics: coverage, depth order and barycentrics are computed in float64 without snapping vertices to a subpixel lattice. The smallest
        depth wins; equal depths go to the lowest face index. A centre exactly on an edge belongs to the triangle on the right of a slanted
        or below a horizontal edge (top-left rule), so two triangles that share an edge cover it exactly once. Triangles without area are
        not seen.
    Memory: `numba`, beside the result: 8 bytes a vertex, 8 bytes a pixel (16 with `behind`), and for each of 2²⁰ faces at a time
        4 bytes plus 4 for each band of rows (128 at most) that it touches. `reference`: about 200 MB, or 400 bytes a pixel of one
        view where that is more. For barycentrics and depth, about 300 bytes for each of 2²⁰ covered pixels at a time; for each
        covered pixel where a gradient is wanted.
    Source: homogeneous rasterisation, M. Olano and T. Greer, "Triangle scan conversion using 2D homogeneous coordinates", 1997. Meaning of
        the outputs as in nvdiffrast (Laine et al. 2020), except: -1 instead of 0 for no face, three barycentrics instead of two.
    Example:
        >>> corners = torch.tensor([[-1.0, -1, 0, 1], [1, -1, 0, 1], [-1, 1, 0, 1]])
        >>> rasterize(corners, torch.tensor([[0, 1, 2]]), 2, 2).face_id
        tensor([[[ 0, -1],
                 [-1, -1]]], dtype=torch.int32)
    """
    batch, faces = _checked(positions, faces)
    height = require_int("rasterize", "height", height, 1, MAX_SIZE)
    width = require_int("rasterize", "width", width, 1, MAX_SIZE)
    if behind is not None:
        require_tensor(
            "rasterize", "behind", behind, (len(batch), height, width), (torch.int32,), hint="Pass the face_id of an earlier call."
        )
        require_same_device("rasterize", positions=positions, behind=behind)
        if behind.numel() and int(behind.max()) >= len(faces):
            raise MeshError(f"rasterize: behind must name some of the {len(faces)} faces, or -1; got {int(behind.max())}.")
    if not len(faces) or not len(batch):
        face_id = torch.full((len(batch), height, width), -1, dtype=torch.int32, device=positions.device)
    else:
        face_id = OP.run(backend, Call.of(positions.detach()), batch.detach(), faces, height, width, behind)
    barycentrics, depth = locate(batch, faces, face_id)
    return RasterOutput(face_id, barycentrics, depth)


def _checked(positions: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Positions as (b, v, 4) and faces as int32, or an error."""
    where, floats = "rasterize", (torch.float32, torch.float64)
    if isinstance(positions, Tensor) and positions.ndim == 2:
        batch = require_tensor(where, "positions", positions, ("v", 4), floats)[None]
    else:
        batch = require_tensor(where, "positions", positions, ("b", "v", 4), floats, hint="One view may be (v, 4).")
    require_tensor(where, "faces", faces, ("f", 3), (torch.int32, torch.int64))
    require_same_device(where, positions=positions, faces=faces)
    count = batch.shape[1]
    if count > 2**31 - 1 or len(faces) > 2**31 - 1:
        raise ShapeError(f"rasterize: positions and faces must each have less than 2³¹ rows; got {count} and {len(faces)}.")
    if len(faces):
        low, high = int(faces.min()), int(faces.max())
        if low < 0 or high >= count:
            raise MeshError(f"rasterize: faces must index {count} vertices; got indices from {low} to {high}.")
    require_finite(where, "positions", batch.detach().reshape(-1, 4))
    return batch, faces.int()
