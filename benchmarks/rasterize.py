"""Time of the visible-triangle query, of the whole differentiable step, and of a rendered view.

    python benchmarks/rasterize.py                        # tori of 5 thousand to 7 million triangles
    python benchmarks/rasterize.py --triangles 503916 --size 512 --reference
    python benchmarks/rasterize.py --json rasterize.json
    OMP_WAIT_POLICY=passive python benchmarks/rasterize.py  # on a busy machine: idle threads of torch do not spin

"ids" is the compiled query alone, "raster" adds barycentrics and depth, "step" is depth and interpolated normals with the
backward pass to the vertices, "render" a shaded image of the mesh without materials. The first, unmeasured call loads the
compiled code. Best wall time and best CPU time (all threads) of the repeats are kept: on a shared machine the second is
steadier. The peer is the reference engine (every pixel against every face); run it on small inputs only.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch

import voxgen
from voxgen.core import Camera, TriMesh
from voxgen.ops.rasterize import OP, interpolate, rasterize
from voxgen.render import orbit_cameras, render_mesh
from voxgen.testing.shapes import rotated, torus

DEFAULT = ((5_000, 512), (503_916, 512), (503_916, 1024), (7_000_000, 1024))


def best(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Milliseconds: wall, CPU."""
    call()
    wall, cpu = math.inf, math.inf
    for _ in range(repeats):
        w, c = time.perf_counter(), time.process_time()
        call()
        wall, cpu = min(wall, time.perf_counter() - w), min(cpu, time.process_time() - c)
    return wall * 1e3, cpu * 1e3


def scene(triangles: int, size: int, shuffled: bool) -> tuple[TriMesh, Camera]:
    around = round(math.sqrt(triangles))
    mesh = rotated(torus(around=around, across=triangles // (2 * around)))
    if shuffled:
        mesh = mesh.replace(faces=mesh.faces[torch.randperm(mesh.num_faces)])
    return mesh, orbit_cameras(1, points=mesh.vertices, width=size, height=size)


def measure(mesh: TriMesh, camera: Camera, repeats: int, reference: bool) -> dict[str, tuple[float, float]]:
    size = (camera.height, camera.width)
    matrix = camera.clip_matrices()[0]
    vertices = mesh.vertices.clone().requires_grad_()
    positions = mesh.vertices @ matrix[:, :3].T + matrix[:, 3]
    query = OP.backends["numba"].load()
    found = {
        "ids": best(lambda: query(positions[None], mesh.faces, *size, None), repeats),
        "raster": best(lambda: rasterize(positions, mesh.faces, *size), repeats),
    }
    if reference:
        slow = OP.backends["reference"].load()
        found["reference ids"] = best(lambda: slow(positions[None], mesh.faces, *size, None), 1)

    def step() -> object:
        raster = rasterize(vertices @ matrix[:, :3].T + matrix[:, 3], mesh.faces, *size)
        normals = interpolate(mesh.replace(vertices=vertices).vertex_normals(), mesh.faces, raster)
        return torch.autograd.grad(raster.depth.sum() + normals.sum(), vertices)

    found["step"] = best(step, repeats)
    found["render"] = best(lambda: render_mesh(mesh, camera), repeats)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triangles", type=int, help="instead of the standard inputs")
    parser.add_argument("--size", type=int, default=512, help="pixels a side, with --triangles")
    parser.add_argument("--shuffled", action="store_true", help="faces in random order: every vertex is a cache miss")
    parser.add_argument("--reference", action="store_true", help="also the reference engine")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    inputs = DEFAULT if arguments.triangles is None else ((arguments.triangles, arguments.size),)
    rows = []
    print(f"{'triangles':>10} {'image':>6} {'stage':<14} {'wall ms':>9} {'CPU ms':>9}")
    for triangles, size in inputs:
        mesh, camera = scene(triangles, size, arguments.shuffled)
        for stage, (wall, cpu) in measure(mesh, camera, arguments.repeats, arguments.reference).items():
            print(f"{mesh.num_faces:>10,} {size:>5}² {stage:<14} {wall:>9.1f} {cpu:>9.1f}", flush=True)
            rows.append({"triangles": mesh.num_faces, "size": size, "stage": stage, "wall_ms": wall, "cpu_ms": cpu})
    if arguments.json:
        machine = {"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
        versions = {"python": platform.python_version(), "torch": torch.__version__, "voxgen": voxgen.__version__}
        record = {"date": date.today().isoformat(), **machine, **versions, "shuffled": arguments.shuffled, "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
