"""Cases of `antialias`: outlines of closed, open and torn surfaces, before and behind the eye, several views."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from voxgen.core import Camera, TriMesh
from voxgen.ops.antialias import antialias, opposite_vertices
from voxgen.ops.rasterize import rasterize
from voxgen.testing.shapes import bowl, merged, rotated, seam, sphere, torus

from . import Case

DTYPES = (torch.float32, torch.float64)


def _run(
    height: int, width: int, with_edges: bool, options: Mapping[str, object]
) -> Callable[[str, Mapping[str, Tensor]], dict[str, Tensor]]:
    def run(backend: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        positions, faces = inputs["positions"], inputs["faces"]
        raster = rasterize(positions, faces, height, width, **options)  # pyright: ignore[reportArgumentType]
        raster = raster._replace(barycentrics=raster.barycentrics.detach(), depth=raster.depth.detach())
        edges = opposite_vertices(faces) if with_edges else None
        return {"color": antialias(inputs["color"], raster, positions, faces, edges=edges, backend=backend)}

    return run


def _clip(camera: Camera, vertices: Tensor) -> Tensor:
    homogeneous = torch.cat((vertices.double(), vertices.new_ones(len(vertices), 1).double()), 1)
    return homogeneous @ camera.clip_matrices().transpose(1, 2)


def cases(dtype: torch.dtype) -> list[Case]:
    generator = torch.Generator().manual_seed(5)
    made: list[Case] = []

    def add(
        name: str,
        positions: Tensor,
        faces: Tensor,
        channels: int = 3,
        edges: bool = False,
        size: tuple[int, int] = (24, 33),
        **options: object,
    ) -> None:
        views = len(options["ranges"]) if "ranges" in options else len(positions) if positions.ndim == 3 else 1  # pyright: ignore
        height, width = options["window"][2:] if "window" in options else size  # pyright: ignore
        color = torch.randn(views, height, width, channels, generator=generator, dtype=torch.float64).to(dtype)
        inputs = {"color": color, "positions": positions.to(dtype), "faces": faces}
        made.append(Case(name, inputs, _run(*size, edges, options), ("color", "positions")))

    def scene(name: str, mesh: TriMesh, eyes: Tensor, **options: object) -> None:
        camera = Camera.look_at(eyes, width=33, height=24, near=0.05, far=50.0)
        add(name, _clip(camera, mesh.vertices), mesh.faces, **options)  # pyright: ignore[reportArgumentType]

    eyes = torch.tensor([[0.9, 0.7, 1.1], [0.0, 0.0, 30.0], [0.05, 0.02, 0.3]], dtype=torch.float64)
    closed = merged(rotated(torus(around=24, across=12)), rotated(sphere(0.2, 1), 0.3))
    scene("three-views", closed, eyes)
    scene("three-views-edges", closed, eyes, edges=True, channels=1)
    scene("open-bowl", bowl(rings=4, around=9), eyes[:1], channels=7)
    scene("three-sheets", rotated(seam()), eyes[:1])
    scene("window", closed, eyes[:1], window=(4, 9, 15, 13))
    scene("small-triangles", torus(around=80, across=60), eyes[:1], edges=True)
    both = merged(torus(around=9, across=6), sphere(0.3, 1))
    first = torus(around=9, across=6).num_faces
    ranges = torch.tensor([[0, first], [first, 0], [first, both.num_faces - first]])
    camera = Camera.look_at(eyes[:1], width=33, height=24)
    add("packed", _clip(camera, both.vertices)[0], both.faces.long(), ranges=ranges)
    soup = torch.randn(40, 4, generator=generator, dtype=torch.float64)
    add("soup-w-of-both-signs", soup, torch.randint(0, 40, (60, 3), generator=generator).int())
    lattice = (soup * 4).round() / 4
    lattice[:, 3] = 1
    add("edges-through-centres", lattice, torch.randint(0, 40, (60, 3), generator=generator).int(), size=(16, 16))
    add("no-faces", soup, torch.zeros(0, 3, dtype=torch.int32))
    add("no-views", soup[None][:0], torch.zeros(2, 3, dtype=torch.int32))
    add("one-pixel", soup, torch.randint(0, 40, (60, 3), generator=generator).int(), size=(1, 1))
    return made
