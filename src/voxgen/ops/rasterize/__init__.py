"""Which triangle each pixel sees, where in it, and how deep; and vertex values at those places.

Only the query for the visible triangle (`face_id`) depends on the engine and has no gradient. Barycentrics, depth and
interpolation follow from it in plain torch, the same for all engines, so gradients reach positions and attributes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from voxgen.core.aliases import Faces
from voxgen.core.checks import describe, require_finite, require_int, require_same_device, require_tensor
from voxgen.core.errors import MeshError, RangeError, ShapeError
from voxgen.ops._registry import Backend, Op, cpu_only, module, triton_device

from ._barycentrics import locate
from ._barycentrics import screen_derivatives as screen_derivatives
from ._barycentrics import screen_derivatives_at as screen_derivatives_at
from ._barycentrics import take_rows as take_rows
from ._barycentrics import to_screen as to_screen
from ._interpolate import interpolate as interpolate
from ._interpolate import interpolate_derivatives as interpolate_derivatives
from ._nearest import nearest_faces
from ._nvdiffrast import nvdiffrast_serves
from ._output import RasterOutput as RasterOutput
from ._query import Query
from ._query import Window as Window

__all__ = [
    "RasterOutput",
    "Window",
    "interpolate",
    "interpolate_derivatives",
    "rasterize",
    "screen_derivatives",
    "screen_derivatives_at",
    "take_rows",
    "to_screen",
]

OP = Op(
    "rasterize",
    (
        Backend("numba", "voxgen.ops.rasterize._numba:visible_faces", (cpu_only,)),
        Backend("triton", "voxgen.ops.rasterize._triton:visible_faces", (triton_device,)),
        Backend("torch", "voxgen.ops.rasterize._torch:visible_faces"),
        Backend("nvdiffrast", "voxgen.ops.rasterize._nvdiffrast:visible_faces", (module("nvdiffrast"), nvdiffrast_serves)),
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
    ranges: Tensor | None = None,
    behind: Tensor | None = None,
    window: tuple[int, int, int, int] | None = None,
    max_faces: int = 10_000_000,
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
        ranges: (b, 2) int64 or int32, for each view the first face that it draws and how many; None draws all in each view. With
            positions (v, 4) this makes b images of b different meshes that lie one behind the other in `positions` and `faces`
            (a packed batch). The values are read on the CPU.
        behind: (b, h, w) int32, the `face_id` of an earlier call with the same positions and faces. Only what lies behind these
            faces is seen; pixels without a face stay empty. Repeated, this peels the layers of a scene in order of depth.
        window: (top, left, rows, columns) in pixels: draw this part of the height × width image only, with the same bits as in the
            whole. The result (and `behind`) then has `rows` × `columns` pixels.
        max_faces: views of more faces are drawn in sections of this many, which bounds the memory and changes no bit.
        backend: see docs/backends.md.
    Returns:
        RasterOutput with face_id (b, h, w) int32, index into `faces`, -1 where there is nothing; barycentrics (b, h, w, 3), weights
        of the face's corners in space (perspective-correct), 0 where there is nothing; depth (b, h, w), z / w, 1 (the far plane)
        where there is nothing. The last two have the dtype of positions. b is 1 for (v, 4) without ranges. Barycentrics and depth
        are differentiable in positions.
    Raises:
        ShapeError, DtypeError, DeviceError: arguments that do not fit each other.   RangeError: a size or a range out of range, a window
        that is not in the image, or positions that are not finite.   MeshError: a face that names a vertex that does not exist.
    Empty mesh, empty range, or nothing in view: an empty image.
    Numerics: coverage, depth order and barycentrics are computed in float64 without snapping vertices to a subpixel lattice. The smallest
        depth wins; equal depths go to the lowest face index. A centre exactly on an edge belongs to the triangle on the right of a slanted
        or below a horizontal edge (top-left rule), so two triangles that share an edge cover it exactly once. Triangles without area are
        not seen. All engines give the same bits but "nvdiffrast", which snaps vertices to 1/16 pixel.
    Memory: `numba`, beside the result: 8 bytes a vertex, 8 bytes a pixel (20 more with `behind`), and for each of 2²⁰ faces at a time
        12 bytes plus 12 for each band of rows (128 at most) that it touches. `torch`: about 500 MB, and 60 bytes a face. `reference`:
        about 200 MB, or 400 bytes a pixel of one view where that is more. For barycentrics and depth, about 300 bytes for each of
        2²⁰ covered pixels at a time; for each covered pixel where a gradient is wanted.
    Source: homogeneous rasterisation, M. Olano and T. Greer, "Triangle scan conversion using 2D homogeneous coordinates", 1997. Meaning of
        the outputs as in nvdiffrast (Laine et al. 2020), except: -1 instead of 0 for no face, three barycentrics instead of two, ids
        always int32, ids of a range count from the first of all faces there too.
    Example:
        >>> corners = torch.tensor([[-1.0, -1, 0, 1], [1, -1, 0, 1], [-1, 1, 0, 1]])
        >>> rasterize(corners, torch.tensor([[0, 1, 2]]), 2, 2).face_id
        tensor([[[ 0, -1],
                 [-1, -1]]], dtype=torch.int32)
    """
    where = "rasterize"
    batch, faces = _checked(positions, faces)
    whole = (require_int(where, "height", height, 1, MAX_SIZE), require_int(where, "width", width, 1, MAX_SIZE))
    pixels = Window.whole(*whole) if window is None else _checked_window(*whole, window)
    parts = _checked_ranges(positions, len(faces), ranges)
    max_faces = require_int(where, "max_faces", max_faces, 1)
    if behind is not None:
        shape = (len(parts), pixels.rows, pixels.columns)
        require_tensor(where, "behind", behind, shape, (torch.int32,), hint="Pass the face_id of an earlier call.")
        require_same_device(where, positions=positions, behind=behind)
        if behind.numel() and int(behind.max()) >= len(faces):
            raise MeshError(f"rasterize: behind must name some of the {len(faces)} faces, or -1; got {int(behind.max())}.")
    if not sum(count for _, count in parts):
        face_id = torch.full((len(parts), pixels.rows, pixels.columns), -1, dtype=torch.int32, device=positions.device)
    else:
        engine = OP.engine(backend, positions.detach(), peels=behind is not None)
        face_id = nearest_faces(engine, Query(batch.detach(), faces, parts, pixels), behind, max_faces)
    barycentrics, depth = locate(batch, faces, face_id, pixels)
    return RasterOutput(face_id, barycentrics, depth, None if window is None else pixels)


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
        low, high = (int(bound) for bound in faces.aminmax())
        if low < 0 or high >= count:
            raise MeshError(f"rasterize: faces must index {count} vertices; got indices from {low} to {high}.")
    require_finite(where, "positions", batch.detach().reshape(-1, 4))
    return batch, faces.int()


def _checked_ranges(positions: Tensor, faces: int, ranges: Tensor | None) -> tuple[tuple[int, int], ...]:
    """First face and number of faces of each view, or an error."""
    views = len(positions) if positions.ndim == 3 else 1
    if ranges is None:
        return ((0, faces),) * views
    where = "rasterize"
    length = views if positions.ndim == 3 else "b"
    require_tensor(where, "ranges", ranges, (length, 2), (torch.int32, torch.int64), hint="One row a view: first face, number of faces.")
    parts = tuple((int(first), int(count)) for first, count in ranges.tolist())
    for view, (first, count) in enumerate(parts):
        if first < 0 or count < 0 or first + count > faces:
            raise RangeError(
                f"rasterize: ranges must lie in the {faces} faces; row {view} = [{first}, {count}] asks for faces {first} to "
                f"{first + count}. Give the first face and how many, not the end."
            )
    return parts


def _checked_window(height: int, width: int, window: tuple[int, int, int, int]) -> Window:
    """The window, or an error."""
    where = "rasterize"
    if not isinstance(window, (tuple, list)) or len(window) != 4:
        raise ShapeError(f"{where}: window must be (top, left, rows, columns); got {describe(window)}.")
    top = require_int(where, "window[0] (top)", window[0], 0, height - 1)
    left = require_int(where, "window[1] (left)", window[1], 0, width - 1)
    rows = require_int(where, "window[2] (rows)", window[2], 1, height - top)
    return Window(height, width, top, left, rows, require_int(where, "window[3] (columns)", window[3], 1, width - left))
