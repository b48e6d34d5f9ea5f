"""Mesh → SparseFlex → mesh beside its peers on the same mesh: sparse SDF with marching cubes, and O-Voxel. Error, time, memory.

    python benchmarks/sparse_flex.py                                   # real meshes of $VOXGEN_DATA, else procedural, at 128³ and 256³
    python benchmarks/sparse_flex.py --mesh bowl torus --resolution 256 --json sparse_flex.json
    python benchmarks/sparse_flex.py --points                          # oriented points and their cells, trimesh as the peer
    OMP_WAIT_POLICY=passive python benchmarks/sparse_flex.py           # on a busy machine: idle threads of torch do not spin

The first, unmeasured call loads the compiled code. Best wall and CPU time (all threads) of the repeats are kept: on a shared machine
the second is steadier. Errors are distances between both surfaces in cells of the SparseFlex, from the mesh and back; a hole that an
SDF closes counts as what it is. Bytes are those of the tensors held. "surface" is SparseFlex without fitted weights.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from encode import DATA, best

import voxgen
from voxgen.core import TriMesh
from voxgen.io import load_mesh
from voxgen.metrics import compare_surfaces, mesh_report
from voxgen.representations import OrientedPoints, OVoxel, SparseFlex, SparseSDF, fit_unit_cube
from voxgen.testing import shapes

REAL = ("bunny.obj", "fandisk.obj", "spot/spot.obj", "teapot.obj")
PROCEDURAL: dict[str, Callable[[], TriMesh]] = {
    "torus": lambda: shapes.rotated(shapes.torus(around=512, across=128)),
    "bowl": lambda: shapes.rotated(shapes.bowl(rings=128, around=256)),
    "box": lambda: shapes.rotated(shapes.box()),
}
Kinds = dict[str, Callable[[TriMesh, int], Any]]
KINDS: Kinds = {
    "SparseFlex": lambda mesh, side: SparseFlex.from_mesh(mesh, side),
    "  not fitted": lambda mesh, side: SparseFlex.from_mesh(mesh, side, fit=False),
    "SDF": lambda mesh, side: SparseSDF.from_mesh(mesh, side),
    "O-Voxel": lambda mesh, side: OVoxel.from_mesh(mesh, side, materials=False),
}


def load(name: str) -> TriMesh:
    """A procedural mesh by name, or the geometry of a file."""
    if name in PROCEDURAL:
        return PROCEDURAL[name]()
    mesh = load_mesh(DATA / name)
    return TriMesh(mesh.vertices, mesh.faces)


def held(item: Any) -> int:
    """Bytes of the tensors of a representation."""
    tensors = [item.grid.coords, *(value for value in vars(item).values() if isinstance(value, torch.Tensor))]
    return sum(t.numel() * t.element_size() for t in tensors)


def measure(name: str, resolution: int, repeats: int, samples: int) -> list[dict[str, Any]]:
    mesh = load(name)
    cell = SparseFlex.from_mesh(mesh, resolution, fit=False).frame.voxel_size[0]
    rows = []
    for kind, make in KINDS.items():
        item = make(mesh, resolution)
        surface = item.to_mesh()
        report = mesh_report(surface, weld=False)
        found = compare_surfaces(mesh, surface, samples=samples)
        there, back = found.a_to_b.distances / cell, found.b_to_a.distances / cell
        rows.append(
            {
                "mesh": name,
                "resolution": resolution,
                "kind": kind.strip(),
                "cells": len(item),
                "bytes": held(item),
                "triangles": surface.num_faces,
                "there_mean": float(there.mean()),
                "there_max": float(there.max()),
                "back_mean": float(back.mean()),
                "back_max": float(back.max()),
                "boundary_edges": report.boundary_edges,
                "from_mesh": best(lambda make=make: make(mesh, resolution), repeats, "cpu"),
                "to_mesh": best(lambda item=item: item.to_mesh(), repeats, "cpu"),
            }
        )
        row = rows[-1]
        print(
            f"{kind:<14}{row['cells']:>10,}{row['bytes'] / 1e6:>8.1f}{row['there_mean']:>10.4f}{row['there_max']:>8.3f}"
            f"{row['back_mean']:>10.4f}{row['back_max']:>8.3f}{row['boundary_edges']:>9,}{row['from_mesh']['wall_s']:>9.2f}{row['from_mesh']['cpu_s']:>7.2f}"
            f"{row['to_mesh']['wall_s']:>9.3f}{row['to_mesh']['cpu_s']:>8.3f}"
        )
    return rows


def points(repeats: int) -> dict[str, Any]:
    """819,200 oriented points of a sphere of 81,920 triangles and their cells at 256³; trimesh draws the same number."""
    import trimesh

    ball = fit_unit_cube(shapes.sphere(0.4, 6))
    peer = trimesh.Trimesh(ball.vertices.numpy(), ball.faces.numpy(), process=False)
    cloud = OrientedPoints.from_mesh(ball)

    def draw() -> None:
        faces = trimesh.sample.sample_surface(peer, len(cloud), seed=0)[1]
        peer.face_normals[faces]

    row = {
        "points": len(cloud),
        "cells": len(cloud.voxels(256, ball)),
        "from_mesh": best(lambda: OrientedPoints.from_mesh(ball), repeats, "cpu"),
        "trimesh": best(draw, repeats, "cpu"),
        "voxels": best(lambda: cloud.voxels(256, ball), repeats, "cpu"),
    }
    for what in ("from_mesh", "trimesh", "voxels"):
        print(f"{what:<12}{row[what]['wall_s']:>8.3f} s wall {row[what]['cpu_s']:>8.3f} s cpu")
    print(f"{row['points']:,} points, {row['cells']:,} cells at 256³")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", nargs="+", help="files below $VOXGEN_DATA, or 'torus', 'bowl', 'box'")
    parser.add_argument("--resolution", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--points", action="store_true", help="measure oriented points only")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    names = args.mesh or [m for m in REAL if (DATA / m).is_file()] or list(PROCEDURAL)

    print(f"voxgen {voxgen.__version__}, torch {torch.__version__}, {os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    start = time.perf_counter()
    report: dict[str, Any] = {"date": date.today().isoformat(), "cores": os.cpu_count(), "torch": torch.__version__, "rows": []}
    if args.points:
        report["rows"].append(points(args.repeats))
    else:
        for make in KINDS.values():
            make(shapes.box(), 16).to_mesh()
        head = f"{'':<14}{'cells':>10}{'MB':>8}{'there':>10}{'max':>8}{'back':>10}{'max':>8}{'border':>9}"
        head += f"{'from s':>9}{'cpu':>7}{'to s':>9}{'cpu':>8}"
        for name in names:
            for resolution in args.resolution:
                print(f"\n{name} at {resolution}³\n{head}\n{'-' * len(head)}")
                report["rows"] += measure(name, resolution, args.repeats, args.samples)
    print(f"\n{time.perf_counter() - start:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
