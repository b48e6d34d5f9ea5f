"""Pixels of one view that see a face, and what the vertices say there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from voxgen.core import Camera, TriMesh
from voxgen.ops.rasterize import RasterOutput, rasterize, screen_derivatives_at


@dataclass(frozen=True, eq=False)
class Hits:
    """n pixels.

    Args:
        row, column: (n,) int64 where in the image.
        face: (n,) int64 index into the mesh's faces.
        corner: (n, 3) int64 the vertices of these faces.
        weights: (n, 3) their barycentrics.
    """

    row: Tensor
    column: Tensor
    face: Tensor
    corner: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.face)

    def corners(self, rows: Tensor) -> Tensor:
        """Values of the vertices (v, c) at each face's corners, (n, 3, c)."""
        return rows.index_select(0, self.corner.flatten()).reshape(*self.corner.shape, rows.shape[1])

    def mix(self, rows: Tensor) -> Tensor:
        """Values of the vertices (v, c), interpolated, (n, c)."""
        weights = self.weights.to(rows.dtype)
        return torch.nn.functional.embedding_bag(self.corner, rows, per_sample_weights=weights, mode="sum")  # many times as fast as a sum

    def chunks(self, size: int) -> Iterator[Hits]:
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))

    def take(self, part: slice | Tensor) -> Hits:
        return Hits(self.row[part], self.column[part], self.face[part], self.corner[part], self.weights[part])

    def scatter(self, values: Tensor, height: int, width: int, fill: float = 0.0) -> Tensor:
        """(n, ...) values → (h, w, ...) image."""
        image = values.new_full((height, width, *values.shape[1:]), fill)
        return image.index_put((self.row, self.column), values)


@dataclass(frozen=True, eq=False)
class View:
    """A mesh before one camera.

    Args:
        camera: of one view, at the size at which pixels are drawn.
        positions: (v, 4) clip space.
    """

    mesh: TriMesh
    camera: Camera
    positions: Tensor

    @staticmethod
    def of(mesh: TriMesh, camera: Camera) -> View:
        matrix = camera.clip_matrices()[0].to(mesh.vertices)
        return View(mesh, camera, mesh.vertices @ matrix[:, :3].T + matrix[:, 3])

    def rasterize(self, faces: Tensor, behind: Tensor | None, backend: str) -> RasterOutput:
        return rasterize(self.positions, faces, self.camera.height, self.camera.width, behind=behind, backend=backend)

    def hits(self, raster: RasterOutput, faces: Tensor, index: Tensor) -> Hits:
        """The pixels that see one of `faces`, which are the mesh's faces number `index`."""
        row, column = (raster.face_id[0] >= 0).nonzero(as_tuple=True)
        local = raster.face_id[0, row, column].long()
        return Hits(row, column, index[local], faces[local].long(), raster.barycentrics[0, row, column])

    def footprints(self, hits: Hits, rows: Tensor) -> Tensor:
        """How values of the faces' corners (n, 3, c) change to the next pixel right and down, (n, c, 2)."""
        slopes = screen_derivatives_at(hits.corners(self.positions), hits.row, hits.column, self.camera.height, self.camera.width)
        return rows.transpose(1, 2) @ slopes.to(rows.dtype)

    def toward_viewer(self, positions: Tensor) -> Tensor:
        """(n, 3) unit directions from points of the world to the eye."""
        if self.camera.orthographic:
            return -self.camera.forward.to(positions).expand_as(positions)
        return torch.nn.functional.normalize(self.camera.positions.to(positions) - positions, dim=1)

    def face_normals(self, hits: Hits) -> Tensor:
        """(n, 3) unit normals of the faces, as they are wound; zero for faces without area."""
        a, b, c = hits.corners(self.mesh.vertices).unbind(1)
        return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1, eps=1e-30)
