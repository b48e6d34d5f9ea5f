"""What a texture encoder needs of a surface: its cells, the numbers of the surface inside them, and the features of views gathered on them.

    OMP_WAIT_POLICY=passive python benchmarks/surface.py                       # bunny at 64³ … 512³; 20 views of 37 × 37 × 256 features
    python benchmarks/surface.py --mesh beetle.obj --views 40 --channels 1024 --json surface.json

- cells: `surface_cells`, exact closed boxes, against `trimesh.voxel`, which subdivides the mesh until its edges are shorter than a cell
  and takes the cells of its vertices, so it misses cells that are only touched;
- numbers: `surface_moments`, the triangles clipped to each cell;
- gathering: `project_features` against torch's `grid_sample`, view by view and added up, as published code has it. Both give the same
  numbers.

Best wall and CPU time (all threads) of the repeats, ratios of the latter; memory is the peak of a call above what is held before it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from conv import extra_bytes
from decode import best
from torch import Tensor
from torch.nn import functional as F

import voxgen
from voxgen.core import Camera, TriMesh
from voxgen.io import load_mesh
from voxgen.ops.project_features import project_features
from voxgen.ops.project_features._taps import in_picture
from voxgen.ops.surface_cells import surface_cells, surface_moments
from voxgen.representations import fit_unit_cube

DATA = Path(os.environ.get("VOXGEN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def by_subdivision(mesh: TriMesh, resolution: int) -> Tensor:
    import trimesh

    grid = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False).voxelized(1 / resolution)
    return torch.from_numpy(grid.sparse_indices)


def view_by_view(points: Tensor, features: Tensor, cameras: Camera) -> Tensor:
    """What `project_features` gives, by `grid_sample`."""
    total = points.new_zeros(len(points), features.shape[1])
    for i, uv in enumerate(in_picture(cameras.to_camera(points), cameras)):
        total += F.grid_sample(features[i : i + 1], uv[None, None] * 2 - 1, align_corners=False)[0, :, 0].T
    return total / len(cameras)


def cells(mesh: TriMesh, resolution: int, repeats: int) -> dict[str, Any]:
    place: dict[str, Any] = {"origin": (-0.5, -0.5, -0.5), "voxel_size": 1 / resolution, "resolution": resolution}
    calls: dict[str, Callable[[], object]] = {
        "surface_cells": lambda: surface_cells(mesh.vertices, mesh.faces, **place),
        "surface_moments": lambda: surface_moments(mesh.vertices, mesh.faces, **place),
        "trimesh, subdivided": lambda: by_subdivision(mesh, resolution),
    }
    times = best(calls, repeats)
    found = {"cells": len(surface_cells(mesh.vertices, mesh.faces, **place)), "cells_subdivided": len(by_subdivision(mesh, resolution))}
    times["surface_cells"]["times_as_fast"] = times["trimesh, subdivided"]["cpu_ms"] / times["surface_cells"]["cpu_ms"]
    return {"resolution": resolution, **found, "calls": times}


def gathering(mesh: TriMesh, resolution: int, views: int, channels: int, repeats: int) -> dict[str, Any]:
    place: dict[str, Any] = {"origin": (-0.5, -0.5, -0.5), "voxel_size": 1 / resolution, "resolution": resolution}
    points = (surface_cells(mesh.vertices, mesh.faces, **place) + 0.5) / resolution - 0.5
    eyes = F.normalize(torch.randn(views, 3, generator=torch.Generator().manual_seed(0)), dim=1) * 2
    cameras = Camera.look_at(eyes, fov=40.0, width=518, height=518)
    features = torch.randn(views, channels, 37, 37)
    calls: dict[str, Callable[[], object]] = {
        "project_features": lambda: project_features(points, features, cameras),
        "grid_sample, view by view": lambda: view_by_view(points, features, cameras),
    }
    gap = float((project_features(points, features, cameras).feats - view_by_view(points, features, cameras)).abs().max())
    times = best(calls, repeats)
    times["project_features"]["times_as_fast"] = times["grid_sample, view by view"]["cpu_ms"] / times["project_features"]["cpu_ms"]
    for name, call in calls.items():
        times[name]["extra_mb"] = (extra_bytes(call, "cpu") or 0) / 2**20
    return {"points": len(points), "views": views, "channels": channels, "largest_difference": gap, "calls": times}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", default="bunny.obj")
    parser.add_argument("--resolution", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--views", type=int, default=20)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    mesh = fit_unit_cube(load_mesh(DATA / args.mesh))
    result = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "date": str(date.today())},
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "mesh": args.mesh,
        "cells": [cells(mesh, resolution, args.repeats) for resolution in args.resolution],
        "gathering": gathering(mesh, args.resolution[0], args.views, args.channels, args.repeats),
    }
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()
