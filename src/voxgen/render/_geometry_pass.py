"""One mesh before some views: from vertices to one image that holds all maps as channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from voxgen.core import Camera, TriMesh
from voxgen.ops.antialias import antialias
from voxgen.ops.rasterize import RasterOutput, rasterize

from .views import enlarged, interpolable

Depth = Literal["z", "ray"]
FaceNormals = Literal["face", "vertex"]
NormalSpace = Literal["world", "camera"]


@dataclass(frozen=True)
class GeometryPass:
    """The options of `render_geometry`."""

    depth: Depth
    normals: FaceNormals
    normal_space: NormalSpace
    face_camera: bool
    supersample: int
    antialias: bool
    outline_walk: int
    attributes: tuple[str, ...]
    depth_background: float
    max_faces: int
    backend: str

    def channels(self, mesh: TriMesh) -> dict[str, int]:
        """Channels of the image by name, in order; attributes behind a dot."""
        rows = interpolable(mesh)
        return {"mask": 1, "depth": 1, "normal": 3} | {f".{name}": rows[name].shape[1] for name in self.attributes}

    def __call__(self, mesh: TriMesh, camera: Camera) -> tuple[Tensor, Tensor]:
        """(b, h, w, channels) image and (b, s h, s w) int32 faces of the samples."""
        with torch.autocast(mesh.device.type, enabled=False):  # half types do not tell neighbouring pixels apart
            return self._draw(mesh, camera)

    def _draw(self, mesh: TriMesh, camera: Camera) -> tuple[Tensor, Tensor]:
        s = self.supersample
        fine = enlarged(camera, s)
        clip = fine.clip_matrices().to(mesh.vertices)
        positions = mesh.vertices @ clip[:, :, :3].transpose(1, 2) + clip[:, None, :, 3]
        raster = rasterize(positions, mesh.faces, fine.height, fine.width, max_faces=self.max_faces, backend=self.backend)
        image = self._values(mesh, camera, raster)
        if self.antialias and mesh.num_faces:
            image = antialias(image, raster, positions, mesh.faces, walk=self.outline_walk)
        if s > 1:
            image = image.reshape(len(camera), camera.height, s, camera.width, s, -1).mean((2, 4))
        if self.normal_space == "camera":  # turning commutes with blending, and here it is one product a view
            turn = camera.world_to_camera[:, :3, :3].to(image).transpose(1, 2)
            normal = (image[..., 2:5].flatten(1, 2) @ turn).reshape(*image.shape[:3], 3)
            image = torch.cat((image[..., :2], normal, image[..., 5:]), -1)
        return image, raster.face_id

    def _values(self, mesh: TriMesh, camera: Camera, raster: RasterOutput) -> Tensor:
        """(b, h, w, channels) before blending: the samples that see a face, then background."""
        seen = (raster.face_id.flatten() >= 0).nonzero()[:, 0]
        corner = mesh.faces.index_select(0, raster.face_id.flatten().index_select(0, seen).long()).long()
        weights = raster.barycentrics.reshape(-1, 3).index_select(0, seen)
        view = seen // raster.face_id[0].numel()
        corners = mesh.vertices.index_select(0, corner.flatten()).reshape(-1, 3, 3)
        position = (corners * weights[..., None]).sum(1)
        normal = _face_normals(corners) if self.normals == "face" else _unit(_mix(mesh.vertex_normals(), corner, weights))
        from_eye = _viewing_rays(position, camera, view)
        if self.face_camera:
            normal = torch.where((normal.detach() * from_eye.detach()).sum(1, keepdim=True) < 0, normal, -normal)
        rows = interpolable(mesh)
        values = [torch.ones_like(weights[:, :1]), self._depth(position, camera, view, from_eye), normal]
        values += [position if name == "position" else _mix(rows[name], corner, weights) for name in self.attributes]
        found = torch.cat(values, 1)
        background = found.new_zeros(raster.face_id.numel(), found.shape[1])
        if self.depth_background:
            background[:, 1] = self.depth_background
        return background.index_copy(0, seen, found).reshape(*raster.face_id.shape, -1)

    def _depth(self, position: Tensor, camera: Camera, view: Tensor, from_eye: Tensor) -> Tensor:
        if self.depth == "ray" and not camera.orthographic:
            return from_eye.norm(dim=1, keepdim=True)
        row = camera.world_to_camera[:, 2].to(position).index_select(0, view)
        return (position * row[:, :3]).sum(1, keepdim=True) + row[:, 3:]


def _viewing_rays(position: Tensor, camera: Camera, view: Tensor) -> Tensor:
    """(n, 3) from the eye to the points; for parallel views their direction."""
    if camera.orthographic:
        return camera.forward.to(position).index_select(0, view)
    return position - camera.positions.to(position).index_select(0, view)


def _mix(rows: Tensor, corner: Tensor, weights: Tensor) -> Tensor:
    """Values of the vertices (v, c) at corners (n, 3), weighted."""
    return embedding_bag(corner, rows.to(weights), per_sample_weights=weights, mode="sum")


def _face_normals(corners: Tensor) -> Tensor:
    """(n, 3, 3) corners → (n, 3) unit normals as the faces are wound. Sides are scaled first, or those of tiny faces would underflow."""
    a, b, c = corners.unbind(1)
    sides = torch.stack((b - a, c - a))
    size = sides.detach().abs().amax((0, 2)).clamp(min=torch.finfo(corners.dtype).tiny)
    one, other = (sides / size[:, None]).unbind(0)
    return _unit(torch.linalg.cross(one, other))


def _unit(vectors: Tensor) -> Tensor:
    """Unit length; zero, with a gradient of zero, where there is no direction."""
    square = vectors.square().sum(1, keepdim=True)
    some = square > 0
    return torch.where(some, vectors, 0) * torch.where(some, square, 1).rsqrt()
