"""The differentiable step of render losses: mask, depth and face normals of one mesh from several views, antialiased, and back.

    python benchmarks/render_geometry.py                              # tori of 50 and 504 thousand triangles at 518²
    python benchmarks/render_geometry.py --triangles 503916 --size 518 --views 1 4
    OMP_WAIT_POLICY=passive python benchmarks/render_geometry.py --json render_geometry.json

"render_geometry" draws all views and maps in one pass: what a pixel sees is gathered once, all maps are channels of one image, and
one call of antialias blends them, after a walk to outlines behind the triangles that are seen. "published outlines" is the same without the
walk, "a view at a time" that for each view. "map by map" is the peer, to which the ratio of CPU time is taken: each map interpolated and
blended by a call of its own over all views, with three private vertices a face for normals, as published code does it with the same
four operations. The last three give the same gradient, which is checked first. The first, unmeasured call loads the compiled code.
Best wall time and best CPU time (all threads) of the repeats are kept, in turns: on a shared machine the second is steadier. Memory is
the peak of a process of its own above what it held before the step, forward and backward (Linux).
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

import voxgen
from voxgen.core import Camera, TriMesh
from voxgen.ops.antialias import antialias
from voxgen.ops.rasterize import interpolate, rasterize
from voxgen.render import orbit_cameras, render_geometry
from voxgen.testing.shapes import rotated, torus

Maps = tuple[Tensor, Tensor, Tensor]


def scene(triangles: int, size: int, views: int) -> tuple[TriMesh, Camera]:
    around = round(math.sqrt(triangles))
    mesh = rotated(torus(around=around, across=triangles // (2 * around)))
    return mesh, orbit_cameras(views, points=mesh.vertices, elevation=40.0, width=size, height=size)


def together(mesh: TriMesh, camera: Camera) -> Maps:
    maps = render_geometry(mesh, camera)
    return maps.mask, maps.depth, maps.normal


def published(mesh: TriMesh, camera: Camera) -> Maps:
    maps = render_geometry(mesh, camera, outline_walk=0)
    return maps.mask, maps.depth, maps.normal


def view_by_view(mesh: TriMesh, camera: Camera) -> Maps:
    parts = [published(mesh, camera[i]) for i in range(len(camera))]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), torch.cat([p[2] for p in parts])


def map_by_map(mesh: TriMesh, camera: Camera) -> Maps:
    matrix = camera.clip_matrices()
    positions = mesh.vertices @ matrix[:, :, :3].transpose(1, 2) + matrix[:, None, :, 3]
    raster = rasterize(positions, mesh.faces, camera.height, camera.width)
    depth = interpolate(camera.to_camera(mesh.vertices)[..., 2:], mesh.faces, raster)
    private = torch.arange(3 * mesh.num_faces, dtype=torch.int32).reshape(-1, 3)
    normal = interpolate(mesh.face_normals().repeat_interleave(3, 0), private, raster)
    mask = (raster.face_id >= 0).to(positions)[..., None]
    mask, depth, normal = (antialias(image, raster, positions, mesh.faces) for image in (mask, depth, normal))
    return mask[..., 0], depth[..., 0], normal


CALLS: dict[str, Callable[[TriMesh, Camera], Maps]] = {
    "render_geometry": together,
    "published outlines": published,
    "a view at a time": view_by_view,
    "map by map (peer)": map_by_map,
}


def step(draw: Callable[[TriMesh, Camera], Maps], mesh: TriMesh, camera: Camera) -> Tensor:
    vertices = mesh.vertices.clone().requires_grad_()
    mask, depth, normal = draw(mesh.replace(vertices=vertices), camera)
    return torch.autograd.grad(mask.square().mean() + depth.square().mean() + (normal - 0.1).square().mean(), vertices)[0]


def measure(mesh: TriMesh, camera: Camera, repeats: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of the whole step: wall, CPU."""
    expected = step(published, mesh, camera)
    for name, draw in CALLS.items():
        if draw is together:
            continue
        gap = float((step(draw, mesh, camera) - expected).abs().max() / expected.abs().max())
        if not gap < 1e-3:
            raise SystemExit(f"{name} has another gradient: relative difference {gap:.2g}")
    found = dict.fromkeys(CALLS, (math.inf, math.inf))
    for _ in range(repeats):
        for name, draw in CALLS.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step(draw, mesh, camera)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            found[name] = (min(found[name][0], 1e3 * wall), min(found[name][1], 1e3 * cpu))
    return found


def held(field: str) -> int:
    """Bytes: "VmRSS" now, "VmHWM" the peak since it was last cleared."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(field))
    return 1024 * int(line.split()[1])


def print_peak(name: str, triangles: int, size: int, views: int) -> None:
    step(CALLS[name], *scene(5000, 64, 1))
    mesh, camera = scene(triangles, size, views)
    Path("/proc/self/clear_refs").write_text("5")
    before = held("VmRSS")
    step(CALLS[name], mesh, camera)
    print(held("VmHWM") - before)


def peak_bytes(name: str, triangles: int, size: int, views: int) -> int:
    command = [sys.executable, __file__, f"--peak={name}", f"--triangles={triangles}", f"--size={size}", f"--views={views}"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triangles", type=int, nargs="*", default=[50_000, 503_916])
    parser.add_argument("--size", type=int, default=518, help="pixels a side")
    parser.add_argument("--views", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print_peak(options.peak, options.triangles[0], options.size, options.views[0])
        return
    rows = []
    print(f"{'triangles':>10} {'views':>5} {'step':<18} {'wall ms':>9} {'CPU ms':>9} {'peak MiB':>9} {'peer /':>6}")
    for triangles in options.triangles:
        for views in options.views:
            mesh, camera = scene(triangles, options.size, views)
            times = measure(mesh, camera, options.repeats)
            for name, (wall, cpu) in times.items():
                peak = 0 if options.no_memory else peak_bytes(name, triangles, options.size, views)
                ratio = times["map by map (peer)"][1] / cpu
                print(
                    f"{mesh.num_faces:>10,} {views:>5} {name:<18} {wall:>9.1f} {cpu:>9.1f} {peak / 2**20:>9.0f} {ratio:>6.2f}", flush=True
                )
                row = {"triangles": mesh.num_faces, "size": options.size, "views": views, "step": name}
                rows.append(row | {"wall_ms": wall, "cpu_ms": cpu, "peak_bytes": peak, "peer_over_this": ratio})
    if options.json:
        machine = {"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
        versions = {"python": platform.python_version(), "torch": torch.__version__, "voxgen": voxgen.__version__}
        options.json.write_text(json.dumps({"date": date.today().isoformat(), **machine, **versions, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
