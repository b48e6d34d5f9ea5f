"""What all pictures of a mesh share: views one after the other, supersampling, background, and the images of its geometry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from voxgen.core import Camera, TriMesh
from voxgen.core.aliases import Float3
from voxgen.core.checks import require_choice, require_int, require_same_device
from voxgen.core.errors import RangeError
from voxgen.core.material import linear_to_srgb, srgb_to_linear
from voxgen.ops.rasterize import MAX_SIZE, interpolate

from .hits import View
from .layers import Paint, draw
from .output import Encoding, RenderOutput
from .surface import SurfaceReader

NEUTRAL: Float3 = (0.925, 0.93, 0.94)
"""A light grey that leaves both dark and bright objects readable."""


@dataclass(frozen=True)
class Picture:
    """The options that `render_mesh` and `render_scalar` have in common, as documented there."""

    background: Float3
    supersample: int
    encoding: Encoding
    attributes: tuple[str, ...]
    backend: str
    progress: bool


def check_request(where: str, mesh: TriMesh, camera: Camera, picture: Picture) -> None:
    """Raise the errors that `render_mesh` documents, before any work."""
    if mesh.num_faces:
        mesh.validate(where)
    if len(camera) == 0:
        raise RangeError(f"{where}: camera must have at least one view; it has none.")
    require_same_device(where, vertices=mesh.vertices, camera=camera.world_to_camera)
    require_int(where, "supersample", picture.supersample, 1, 16)
    largest = max(camera.width, camera.height) * picture.supersample
    if largest > MAX_SIZE:
        raise RangeError(f"{where}: image size times supersample must be at most {MAX_SIZE}; got {largest}.")
    require_choice(where, "encoding", picture.encoding, ("srgb", "linear"))
    if len(picture.background) != 3 or not all(0 <= c <= 1 for c in picture.background):
        raise RangeError(f"{where}: background must be three numbers in [0, 1]; got {picture.background}.")
    for name in picture.attributes:
        require_choice(where, "attributes", name, tuple(interpolable(mesh)))


def draw_views(
    mesh: TriMesh,
    camera: Camera,
    reader: SurfaceReader,
    paint: Paint,
    picture: Picture,
    transparent: Tensor | None = None,
    layers: int = 0,
) -> RenderOutput:
    """Draw each view. `transparent` and `layers` as in `layers.draw`; None: no face is transparent."""
    if transparent is None:
        transparent = torch.zeros(mesh.num_faces, dtype=torch.bool, device=mesh.device)
    background = srgb_to_linear(mesh.vertices.new_tensor(picture.background))
    images: list[dict[str, Tensor]] = []
    for index in tqdm(range(len(camera)), "views", disable=not picture.progress, leave=False):
        single = camera[index]
        fine = View.of(mesh, enlarged(single, picture.supersample))
        light, opacity = (_shrink(t, picture.supersample) for t in draw(fine, paint, transparent, layers, picture.backend))
        color = light + (1 - opacity) * background
        if picture.encoding == "srgb":
            color = linear_to_srgb(color.clamp(0, 1))
        images.append({"color": color, "mask": opacity[..., 0], **_geometry(View.of(mesh, single), reader, picture)})
    stacked = {name: torch.stack([image[name] for image in images]) for name in images[0]}
    fields = ("color", "mask", "depth", "normal", "face_id")
    rest = {name.removeprefix("attribute "): image for name, image in stacked.items() if name not in fields}
    return RenderOutput(*(stacked[name] for name in fields), attributes=rest, encoding=picture.encoding)


def _geometry(view: View, reader: SurfaceReader, picture: Picture) -> dict[str, Tensor]:
    """Depth, normal, face and attributes of the nearest face at each pixel's centre."""
    mesh, size = view.mesh, (view.camera.height, view.camera.width)
    raster = view.rasterize(mesh.faces, None, picture.backend)
    hits = view.hits(raster, mesh.faces, torch.arange(mesh.num_faces, device=mesh.device))
    depth = view.camera.to_camera(hits.mix(mesh.vertices))[0, :, 2]
    found = {
        "depth": hits.scatter(depth, *size, fill=torch.inf),
        "normal": hits.scatter(reader.shading_normal(view, hits), *size),
        "face_id": raster.face_id[0],
    }
    rows = interpolable(mesh)
    return found | {f"attribute {name}": interpolate(rows[name], mesh.faces, raster)[0] for name in picture.attributes}


def interpolable(mesh: TriMesh) -> dict[str, Tensor]:
    rows = {"position": mesh.vertices, **mesh.attributes}
    return rows | {name: uv for name, uv in (("uv", mesh.uv), ("uv1", mesh.uv1)) if uv is not None}


def enlarged(camera: Camera, factor: int) -> Camera:
    """The same view with `factor` times the pixels along each side."""
    k = camera.intrinsics * torch.tensor([factor, factor, 1.0]).to(camera.intrinsics)[:, None]
    return Camera(camera.world_to_camera, k, camera.width * factor, camera.height * factor, camera.near, camera.far, camera.orthographic)


def _shrink(image: Tensor, factor: int) -> Tensor:
    """(h s, w s, c) → (h, w, c) means."""
    height, width, channels = image.shape
    return image.reshape(height // factor, factor, width // factor, factor, channels).mean((1, 3))
