"""The demo's picture: the source and its reconstructions, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from voxgen.core import Camera, TriMesh
from voxgen.metrics import compare_surfaces
from voxgen.render import Panel, ScaleBar, camera_for_bounds, compose_figure, render_mesh, render_scalar

from ._round_trip import RoundTrip


def picture(source: TriMesh, results: Sequence[RoundTrip], title: str, size: int) -> Tensor:
    """First row: source and reconstructions with their materials. Second row: distance to the source, in voxels of the finest.

    Returns:
        (h, w, 3) uint8.
    """
    low, high = source.bounds()
    camera = camera_for_bounds(low, high, up=source.up, elevation=22, azimuth=35, margin=0.92, width=size, height=size)
    finest = results[-1]
    side = float((high - low).max())
    voxel = side / finest.resolution
    shaded = [Panel(_shade(source, camera), "source", (f"{source.num_faces:,} triangles", ""))]
    errors: list[Panel | ScaleBar] = [ScaleBar(0.0, 0.5, label=f"distance to the source, in voxels of {finest.resolution}³")]
    for result in results:
        notes = (f"{result.voxels:,} voxels", f"Chamfer {result.chamfer * result.resolution:.3f} voxels")
        shaded.append(Panel(_shade(result.mesh, camera), f"{result.resolution}³", notes))
        distance = compare_surfaces(result.mesh.vertices, source, samples=1).a_to_b.distances
        image = render_scalar(result.mesh, camera, (distance / voxel).float(), low=0.0, high=0.5, supersample=2).color[0]
        errors.append(Panel(image, "", (f"largest {float(distance.max()) / side * result.resolution:.2f} of its voxels",)))
    caption = (
        "Above: rendered with the materials that the voxels carry. Below: distance of each vertex to the nearest point of the source, "
        "all surfaces counted; the scale is the same in all pictures."
    )
    return compose_figure([shaded, errors], title=title, caption=caption)


def _shade(mesh: TriMesh, camera: Camera) -> Tensor:
    with torch.no_grad():
        return render_mesh(mesh, camera, supersample=2).color[0]
