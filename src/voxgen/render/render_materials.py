"""Maps of what meshes' materials say, without light: targets of losses on materials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from voxgen.core import Camera, TriMesh
from voxgen.core.material import linear_to_srgb

from .geometry import check_camera, check_meshes, check_sample
from .hits import View
from .surface import SurfaceReader

_CHUNK = 1 << 18
"""Hits read at a time, about 1 kB each."""


@dataclass(frozen=True, eq=False)
class MaterialImages:
    """v images of h × w pixels, at the pixels' centres; zero where no surface is.

    Args:
        mask: (v, h, w) bool, where a face is seen.
        position: (v, h, w, 3) world position of what is seen.
        base_color: (v, h, w, 3) in [0, 1], sRGB-encoded.
        metallic, roughness, alpha: (v, h, w) in [0, 1]; alpha is 1 where the alpha mode is OPAQUE.
    """

    mask: Tensor
    position: Tensor
    base_color: Tensor
    metallic: Tensor
    roughness: Tensor
    alpha: Tensor


def render_materials(
    meshes: TriMesh | Sequence[TriMesh],
    camera: Camera,
    *,
    sample: Tensor | None = None,
    backend: str = "auto",
    progress: bool = False,
) -> MaterialImages:
    """Render base colour, metallic, roughness and alpha of the nearest face, unlit, with the positions where they were read.

    Args:
        meshes, camera, sample, backend, progress: as `render_geometry`.
    Returns:
        MaterialImages in the meshes' dtype. Textures are read in the level that fits the pixel; nothing is antialiased. A
        transparent face hides what lies behind it. Differentiable as `render_mesh`.
    Raises:
        As `render_geometry`, and ShapeError or DtypeError for attributes that cannot be materials.
    Warns:
        MeshWarning: textures, but no texture coordinates; these are then (0, 0).
    Source: TRELLIS.2 (arXiv 2512.14692), render terms of the material SC-VAE. Differences: factors, textures and vertex colours
        multiply in linear light.
    """
    where = "render_materials"
    check_camera(where, camera)
    batch = check_meshes(where, meshes, camera, ())
    shown = check_sample(where, sample, len(batch), len(camera)).tolist()
    readers: dict[int, SurfaceReader] = {}
    images = [batch[0].vertices.new_zeros(0, camera.height, camera.width, 10)]
    for view, index in enumerate(tqdm(shown, desc="views", disable=not progress, leave=False)):
        if index not in readers:
            readers[index] = SurfaceReader(where, batch[index], "flat", two_sided=True)
        images.append(_one_view(batch[index], camera[view], readers[index], backend)[None])
    found = torch.cat(images)
    return MaterialImages(found[..., 9] > 0, found[..., :3], found[..., 3:6], found[..., 6], found[..., 7], found[..., 8])


def _one_view(mesh: TriMesh, camera: Camera, reader: SurfaceReader, backend: str) -> Tensor:
    """(h, w, 10): position, base colour, metallic, roughness, alpha, whether there is anything."""
    view = View.of(mesh, camera)
    raster = view.rasterize(mesh.faces, None, backend)
    hits = view.hits(raster, mesh.faces, torch.arange(mesh.num_faces, device=mesh.device))
    if not len(hits):
        return mesh.vertices.new_zeros(camera.height, camera.width, 10)
    rows = []
    for part in hits.chunks(_CHUNK):
        s = reader.read(view, part)
        color = linear_to_srgb(s.base_color.clamp(0, 1))
        rows.append(torch.cat((s.position, color, s.metallic, s.roughness, s.alpha, torch.ones_like(s.alpha)), 1))
    return hits.scatter(torch.cat(rows), camera.height, camera.width)
