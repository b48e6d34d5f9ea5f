"""Make the pictures of the page on differentiable rendering: python docs/figures/make_render_figures.py

geometry_maps.png: mask, depth and normals of a mesh; outlines with and without antialiasing; light from surroundings; a ball that
masks alone have turned into a cube.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from voxgen import demo
from voxgen.core import Material, TriMesh
from voxgen.render import (
    EnvironmentLight,
    Lighting,
    Panel,
    apply_colormap,
    camera_for_bounds,
    compose_figure,
    random_cameras,
    render_geometry,
    render_mesh,
    save_png,
)
from voxgen.testing.shapes import box, rotated, sphere, torus

HERE = Path(__file__).parent
SIZE = 288


def enlarged(image: Tensor, factor: int) -> Tensor:
    """(h, w) → (h factor, w factor, 3), pixel by pixel."""
    return image.repeat_interleave(factor, 0).repeat_interleave(factor, 1)[..., None].expand(-1, -1, 3)


def maps_row() -> list[Panel]:
    mesh = demo.procedural_asset()
    camera = camera_for_bounds(*mesh.bounds(), elevation=24, azimuth=30, margin=0.92, width=SIZE, height=SIZE)
    maps = render_geometry(mesh, camera, normal_space="camera", face_camera=True, supersample=2)
    seen = maps.mask[0] > 0.99
    low, high = float(maps.depth[0][seen].min()), float(maps.depth[0][seen].max())
    depth = torch.where(maps.mask[0][..., None] > 0.99, apply_colormap(maps.depth[0], low, high, "sea"), 1.0)
    return [
        Panel(maps.mask[0][..., None].expand(-1, -1, 3), "mask"),
        Panel(depth, "depth"),
        Panel((maps.normal[0] * torch.tensor([1.0, -1.0, -1.0]) + 1) / 2, "normals in camera axes"),
    ]


def outline_row() -> list[Panel]:
    mesh = rotated(torus(around=48, across=24))
    camera = camera_for_bounds(*mesh.bounds(), elevation=60, margin=0.8, width=36, height=36)
    plain = render_geometry(mesh, camera, antialias=False).mask[0]
    published = render_geometry(mesh, camera, outline_walk=0).mask[0]
    walked = render_geometry(mesh, camera).mask[0]
    titles = ("without antialias", "antialias as published", "antialias, outlines walked to")
    return [Panel(enlarged(image, SIZE // 36), title) for image, title in zip((plain, published, walked), titles, strict=True)]


def surroundings() -> EnvironmentLight:
    """An evening: bright band at the horizon, dark ground, two windows."""
    row = torch.linspace(1, -1, 128)[:, None]
    sky = torch.tensor([0.25, 0.35, 0.6]) + torch.exp(-((row / 0.12) ** 2)) * torch.tensor([1.2, 0.6, 0.25])
    image = torch.where(row < 0, torch.tensor([0.12, 0.1, 0.09]), sky)[:, None].repeat(1, 256, 1)
    image[40:58, 150:166] = image[36:60, 205:225] = torch.tensor([6.0, 5.6, 5.0])
    return EnvironmentLight.from_equirectangular(image, rotation=160)


def light_row() -> list[Panel]:
    light = Lighting.surrounded(surroundings())
    camera = camera_for_bounds((-0.42,) * 3, (0.42,) * 3, elevation=12, margin=0.75, width=SIZE, height=SIZE)
    panels = []
    for roughness, metallic, title in ((0.05, 1.0, "metal, roughness 0.05"), (0.35, 1.0, "metal, roughness 0.35"), (0.6, 0.0, "matt")):
        material = Material(base_color_factor=(0.9, 0.75, 0.6), metallic_factor=metallic, roughness_factor=roughness)
        ball = sphere(0.4, 5).replace(materials=(material,))
        panels.append(Panel(render_mesh(ball, camera, lighting=light, supersample=2).color[0], title))
    return panels


def fitting_row() -> list[Panel]:
    """A ball whose vertices follow the masks of a cube, and nothing else."""
    views = random_cameras(8, width=64, height=64, generator=torch.Generator().manual_seed(0))
    target = render_geometry(rotated(box()), views, supersample=2).mask
    ball = sphere(0.35, 3)
    vertices = ball.vertices.clone().requires_grad_()
    optimizer = torch.optim.Adam([vertices], lr=5e-3)
    shots: dict[int, TriMesh] = {}
    camera = camera_for_bounds((-0.42,) * 3, (0.42,) * 3, elevation=20, azimuth=35, width=SIZE, height=SIZE)
    for step in range(201):
        moved = ball.replace(vertices=vertices)
        if step in (0, 30, 200):
            shots[step] = moved.replace(vertices=vertices.detach().clone())
        edges = vertices[ball.faces.long()] - vertices[ball.faces.long()].roll(1, 1)
        loss = (render_geometry(moved, views, supersample=2).mask - target).square().mean() + 0.02 * edges.square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [Panel(render_mesh(m, camera, normals="flat", supersample=2).color[0], f"masks of a cube, step {s}") for s, m in shots.items()]


def main() -> None:
    save_png(HERE / "geometry_maps.png", compose_figure([maps_row(), outline_row(), light_row(), fitting_row()]))


if __name__ == "__main__":
    main()
