"""The demo's picture: the source, what comes back from every representation, and where it differs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from voxgen.core import Camera, Material, TriMesh
from voxgen.metrics import compare_surfaces
from voxgen.render import Panel, ScaleBar, camera_for_bounds, compose_figure, render_gaussians, render_mesh, render_scalar
from voxgen.render.views import NEUTRAL
from voxgen.representations import GaussianSplats

from ._representations import Representation
from ._round_trip import RoundTrip
from ._tiny_vae import Trained


def picture(
    source: TriMesh,
    results: Sequence[RoundTrip],
    others: Sequence[Representation],
    splats: GaussianSplats,
    trained: Trained | None,
    title: str,
    size: int,
) -> Tensor:
    """First row: source and O-Voxels with their materials. Second: their distance to the source, in voxels of the finest. Third: the
    other representations and what the tiny VAE makes, in grey.

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
        shaded.append(Panel(_shade(result.mesh, camera), f"O-Voxel {result.resolution}³", notes))
        distance = compare_surfaces(result.mesh.vertices, source, samples=1).a_to_b.distances
        image = render_scalar(result.mesh, camera, (distance / voxel).float(), low=0.0, high=0.5, supersample=2).color[0]
        errors.append(Panel(image, "", (f"largest {float(distance.max()) / side * result.resolution:.2f} of its voxels",)))
    rows: list[Sequence[Panel | ScaleBar]] = [shaded, errors]
    grey = [
        Panel(_grey(other.mesh, camera), f"{other.name} {finest.resolution}³", (f"{other.cells:,} cells", other.note))
        for other in others
        if other.mesh is not None
    ]
    if len(splats):
        with torch.no_grad():
            image = render_gaussians(splats, camera, background=NEUTRAL).color[0].clamp(0, 1)
        grey.append(Panel(image, f"Gaussians {finest.resolution}³", (f"{len(splats):,} Gaussians, unlit", "")))
    if trained is not None and trained.mesh is not None:
        own = camera_for_bounds(*trained.mesh.bounds(), up=source.up, elevation=22, azimuth=35, margin=0.92, width=size, height=size)
        notes = (f"{trained.steps:,} steps in {trained.seconds:.0f} s", f"Chamfer {trained.chamfer:.3f} voxels")
        grey.append(Panel(_grey(trained.mesh, own), f"tiny VAE {trained.resolution}³", notes))
    if grey:
        rows.append(grey)
    caption = (
        "First row: rendered with the materials that the voxels carry. Second: distance of each vertex to the nearest point of the source, "
        "all surfaces counted; one scale for all. Third: shapes from the other representations, Gaussians, and a shape from the "
        "latent of a tiny autoencoder that was trained on this mesh alone."
    )
    return compose_figure(rows, title=title, caption=caption)


def _grey(mesh: TriMesh, camera: Camera) -> Tensor:
    """The shape alone, whatever its materials."""
    clay = Material("clay", (0.42, 0.45, 0.5), metallic_factor=0.0, roughness_factor=0.8)
    plain = TriMesh(mesh.vertices, mesh.faces, materials=(clay,), up=mesh.up)
    with torch.no_grad():
        return render_mesh(plain, camera, supersample=2, normals="flat").color[0]


def _shade(mesh: TriMesh, camera: Camera) -> Tensor:
    with torch.no_grad():
        return render_mesh(mesh, camera, supersample=2).color[0]
