"""Cases of `rasterize`: triangles in general and in special position, before and behind the eye."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from voxgen.core import Camera
from voxgen.ops.rasterize import interpolate, rasterize
from voxgen.testing.shapes import merged, quad_faces, rotated, sphere, torus

from . import Case

DTYPES = (torch.float32, torch.float64)


def _run(height: int, width: int, options: Mapping[str, object]) -> Callable[[str, Mapping[str, Tensor]], Mapping[str, Tensor]]:
    def run(backend: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        raster = rasterize(inputs["positions"], inputs["faces"], height, width, behind=inputs.get("behind"), backend=backend, **options)  # pyright: ignore[reportArgumentType]
        outputs = {"face_id": raster.face_id, "barycentrics": raster.barycentrics, "depth": raster.depth}
        if "attributes" in inputs:
            outputs["interpolated"] = interpolate(inputs["attributes"], inputs["faces"], raster)
        return outputs

    return run


def _case(
    name: str, height: int, width: int, gradients: tuple[str, ...] = (), options: Mapping[str, object] | None = None, **inputs: Tensor
) -> Case:
    return Case(f"{name}-{height}x{width}", inputs, _run(height, width, options or {}), gradients, {"exact": True})


def _soup(count: int, seed: int, step: float = 0.0) -> tuple[Tensor, Tensor]:
    """Triangles of corners anywhere in clip space, w of both signs; with `step`, on a lattice, so that many ties arise."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    if step:
        positions = (positions / step).round() * step
    return positions, torch.randint(0, count, (2 * count, 3), generator=generator).int()


def _flat_lattice(n: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    """A square of n × n cells at depth 0, its vertices on a regular lattice."""
    t = torch.linspace(low, high, n + 1, dtype=torch.float64)
    y, x = torch.meshgrid(t, t, indexing="ij")
    positions = torch.stack((x, y, torch.zeros_like(x), torch.ones_like(x)), -1).reshape(-1, 4)
    return positions, quad_faces(n + 1, n + 1)


def _fan(count: int) -> tuple[Tensor, Tensor]:
    """Long thin triangles around a point near the middle."""
    angle = torch.linspace(0, 6.2, count + 1, dtype=torch.float64)
    rim = torch.stack((1.4 * angle.cos(), 1.4 * angle.sin(), 0.3 * (3 * angle).sin(), torch.ones_like(angle)), 1)
    first = torch.arange(count)
    return torch.cat((rim.new_tensor([[0.013, 0.021, 0.0, 1.0]]), rim)), torch.stack((0 * first, first + 1, first + 2), 1).int()


def _views(camera: Camera, vertices: Tensor) -> Tensor:
    homogeneous = torch.cat((vertices.double(), vertices.new_ones(len(vertices), 1).double()), 1)
    return homogeneous @ camera.clip_matrices().transpose(1, 2)


def cases(dtype: torch.dtype) -> list[Case]:
    scene = merged(rotated(torus(around=24, across=12)), rotated(sphere(0.2, 1), 0.3))
    eyes = torch.tensor([[0.9, 0.7, 1.1], [0.0, 0.0, 30.0], [0.05, 0.02, 0.3]], dtype=torch.float64)
    outside_tiny_inside = _views(Camera.look_at(eyes, width=32, height=24, near=0.05, far=50.0), scene.vertices).to(dtype)
    behind_all = outside_tiny_inside.clone()
    behind_all[1] = torch.tensor([0.0, 0.0, -3.0, -1.0])  # a sample in which nothing is seen
    parallel = Camera.look_at(eyes[:1], width=33, height=20, near=0.0, far=5.0, orthographic_height=1.2)
    parallel_positions = _views(parallel, scene.vertices).to(dtype)
    soup, soup_faces = _soup(40, 1)
    tied, tied_faces = _soup(30, 2, step=0.25)
    tied_faces = torch.cat((tied_faces, tied_faces.flip(1), tied_faces[:5]))
    lattice, lattice_faces = _flat_lattice(8, -1.0, 1.0)
    generator = torch.Generator().manual_seed(3)
    fan, fan_faces = _fan(70)
    attributes = torch.randn(scene.num_vertices, 3, generator=generator, dtype=torch.float64).to(dtype)
    wide = torch.randn(3, scene.num_vertices, 67, generator=generator, dtype=torch.float64).to(dtype)
    spread = torch.stack((soup, soup), 2).to(dtype)[..., 0]  # not contiguous
    first = rasterize(soup.to(dtype), soup_faces, 24, 31, backend="reference").face_id
    nothing = torch.zeros(0, 3, dtype=torch.int32)
    return [
        _case("no-faces", 5, 7, positions=soup.to(dtype), faces=nothing),
        _case("no-vertices", 4, 4, positions=torch.zeros(0, 4, dtype=dtype), faces=nothing),
        _case("no-views", 4, 4, positions=soup.to(dtype)[None][:0], faces=soup_faces),
        _case("one-pixel", 1, 1, ("positions",), positions=soup.to(dtype), faces=soup_faces),
        _case("mesh-batch-of-three", 24, 32, ("positions", "attributes"), positions=behind_all, faces=scene.faces, attributes=attributes),
        _case("mesh-from-inside", 24, 32, ("positions", "attributes"), positions=outside_tiny_inside, faces=scene.faces, attributes=wide),
        _case("orthographic", 20, 33, ("positions",), positions=parallel_positions, faces=scene.faces.long()),
        _case("soup-w-of-both-signs", 24, 31, positions=spread, faces=soup_faces),
        _case("window", 24, 31, options={"window": (7, 3, 10, 28)}, positions=soup.to(dtype), faces=soup_faces),
        _case(
            "packed-in-sections",
            24,
            31,
            ("positions",),
            {"ranges": torch.tensor([[0, 80], [10, 0], [30, 40]]), "max_faces": 33},
            positions=soup.to(dtype),
            faces=soup_faces,
        ),
        _case("second-layer", 24, 31, positions=soup.to(dtype), faces=soup_faces, behind=first),
        _case("ties-and-degenerate", 32, 32, positions=tied.to(dtype), faces=tied_faces),
        _case("long-and-thin", 40, 120, positions=fan.to(dtype), faces=fan_faces),
        _case("edges-on-pixel-centres", 16, 16, ("positions",), positions=lattice.to(dtype), faces=lattice_faces),
    ]
