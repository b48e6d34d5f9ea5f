"""Inputs for `voxgen.ops.material_volume`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from voxgen.core import Material, Texture, TriMesh
from voxgen.ops.material_volume import CHANNELS, material_volume
from voxgen.testing import shapes

from . import Case
from .voxelize import grid_of

DTYPES = (torch.float32, torch.float64)


def painted(mesh: TriMesh, seed: int = 0) -> TriMesh:
    """A mesh with random texture coordinates, if it has none, and faces in turn of five materials that use all there is."""
    g = torch.Generator().manual_seed(seed)

    def image(*shape: int) -> Tensor:
        return torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)

    color, packed, bumps = image(16, 16, 4), image(8, 8, 3), image(8, 8, 3)
    everything = Material(
        "everything",
        base_color_factor=(0.9, 0.7, 0.5),
        base_color=Texture(color, (0, 1, 2), srgb=True),
        alpha_factor=0.8,
        alpha=Texture(color, (3,)),
        metallic_factor=0.6,
        metallic=Texture(packed, (2,), wrap=("mirror", "clamp")),
        roughness_factor=0.7,
        roughness=Texture(packed, (1,), wrap=("mirror", "clamp")),
        emissive_factor=(1.0, 0.5, 0.2),
        emissive=Texture(packed, (0, 1, 2), srgb=True, filter="nearest"),
        normal=Texture(bumps, (0, 1, 2), uv_set=1),
        normal_scale=0.8,
        alpha_mode="BLEND",
    )
    mask = Material("mask", base_color=Texture(color, (0, 1, 2)), alpha_factor=0.9, alpha=Texture(color, (3,)), alpha_mode="MASK")
    opaque = Material("opaque", (0.2, 0.9, 0.4), metallic_factor=0.0, roughness=Texture(packed, (0,), filter="nearest"))
    see_through = Material("see-through", (1.0, 0.0, 1.0), alpha_factor=0.3, alpha_mode="BLEND")
    count = mesh.num_vertices
    uv = mesh.uv if mesh.uv is not None else torch.rand(count, 2, generator=g) * 3 - 1
    return mesh.replace(
        uv=uv,
        uv1=torch.rand(count, 2, generator=g),
        materials=(everything, mask, opaque, see_through),
        face_material=(torch.arange(mesh.num_faces) % 5 - 1).int(),
    )


def with_odd_images(mesh: TriMesh) -> TriMesh:
    """One material with textures of sizes that are not powers of two, in bytes and in floats."""
    g = torch.Generator().manual_seed(3)
    wide, deep = torch.randint(0, 256, (7, 12, 3), generator=g, dtype=torch.uint8), torch.rand((5, 3, 2), generator=g)
    material = Material(
        "odd",
        base_color=Texture(wide, (0, 1, 2), srgb=True, wrap=("clamp", "mirror")),
        metallic=Texture(deep, (1,)),
        roughness=Texture(deep, (0,), wrap=("mirror", "repeat")),
        alpha=Texture(deep, (1,)),
        alpha_mode="MASK",
        alpha_cutoff=0.6,
    )
    return mesh.replace(materials=(material,), face_material=None)


def with_attributes(mesh: TriMesh, *names: str) -> TriMesh:
    """Random vertex attributes of these names."""
    g = torch.Generator().manual_seed(5)
    widths = {"color": 4, **CHANNELS}
    return mesh.replace(attributes={name: torch.rand(mesh.num_vertices, widths[name], generator=g) for name in names})


def surfaces() -> list[tuple[str, TriMesh, int | tuple[int, int, int], dict[str, Any]]]:
    """Meshes with the grid to convert them in, and options: name, mesh inside [-0.5, 0.5]³, resolution, options."""
    sheet = shapes.wavy_sheet(9, size=0.6)
    tilted = painted(shapes.rotated(sheet))
    solid = painted(shapes.rotated(shapes.box((-0.25, -0.25, -0.25), (0.25, 0.25, 0.25))), 1)
    flat = solid.replace(vertices=shapes.box((-0.25, -0.25, -0.25), (0.25, 0.25, 0.25)).vertices)
    spoilt = tilted.faces.clone()
    spoilt[::7, 2] = spoilt[::7, 1]  # no area
    ring = shapes.rotated(shapes.torus(major=0.25, minor=0.1, around=14, across=7))
    return [
        ("sheet", tilted, 9, {}),
        ("large-triangles", solid, 10, {"mip_offset": 0.7}),
        ("on-grid-planes", flat, 8, {}),
        ("on-the-border", flat.replace(vertices=flat.vertices * 2), 5, {}),
        ("small-triangles", painted(ring, 2), 6, {"mip_offset": -1.0}),
        ("uneven-grid", tilted, (4, 9, 13), {}),
        ("faces-without-area", tilted.replace(faces=spoilt), 8, {}),
        ("some-channels", tilted, 8, {"channels": ("alpha", "base_color")}),
        ("no-channels", tilted, 8, {"channels": ()}),
    ]


def own_surfaces() -> list[tuple[str, TriMesh, int | tuple[int, int, int], dict[str, Any]]]:
    """The same for what only the default takes."""
    sheet = shapes.rotated(shapes.wavy_sheet(7, size=0.6))
    tilted = painted(sheet)
    return [
        ("odd-images", with_odd_images(tilted), 9, {}),
        ("vertex-colors", with_attributes(tilted, "color"), 8, {}),
        ("vertex-colors-odd", with_attributes(with_odd_images(tilted), "color"), 8, {"color_space": "linear"}),
        ("vertex-values", with_attributes(tilted, "base_color", "metallic", "roughness", "alpha", "emissive"), 8, {}),
        ("vertex-values-without-material", with_attributes(sheet, "base_color", "alpha", "color"), 8, {}),
        ("linear", tilted, 8, {"color_space": "linear"}),
    ]


def cases(dtype: torch.dtype) -> list[Case]:
    """Every surface in both modes; float64 vertices are rounded by the op."""
    made = []
    for name, mesh, resolution, options in surfaces():
        for compat in (None, "trellis2"):
            made.append(_case(f"{name}-{compat}", mesh, dtype, resolution, {**options, "compat": compat}))
    return made + [_case(name, mesh, dtype, resolution, options) for name, mesh, resolution, options in own_surfaces()]


def _case(name: str, mesh: TriMesh, dtype: torch.dtype, resolution: int | tuple[int, int, int], options: dict[str, Any]) -> Case:
    return Case(name, {"vertices": mesh.vertices.to(dtype)}, partial(_run, mesh=mesh, resolution=resolution, options=options))


def _run(
    backend: str, inputs: Mapping[str, Tensor], *, mesh: TriMesh, resolution: int | tuple[int, int, int], options: dict[str, Any]
) -> Mapping[str, Tensor]:
    placed = mesh.to(inputs["vertices"].device).replace(vertices=inputs["vertices"])
    arguments: dict[str, Any] = {"channels": tuple(CHANNELS), **grid_of(resolution), **options}
    volume = material_volume(placed, **arguments, backend=backend)
    return {"cells": volume.cells, **volume.values}
