"""Time and memory of the visible-triangle query, of whole differentiable steps, and of a rendered view.

    python benchmarks/rasterize.py                        # tori of a thousand to 7 million triangles
    python benchmarks/rasterize.py --triangles 503916 --size 518
    python benchmarks/rasterize.py --triangles 503916 --size 512 --reference
    python benchmarks/rasterize.py --device cuda          # the Triton engine
    python benchmarks/rasterize.py --json rasterize.json
    OMP_WAIT_POLICY=passive python benchmarks/rasterize.py  # on a busy machine: idle threads of torch do not spin

"ids" is the query alone, by engine: the one that is chosen automatically, its peer in vectorised torch, and with --reference (and
always on small inputs) every pixel against every face. "raster" adds barycentrics and depth. "step" is depth and interpolated normals
with the backward pass to the vertices; "full step" is mask, depth and face normals, antialiased, with the backward pass: once with the
edges looked up, once with them known. "render" is a shaded image of the mesh without materials. The first, unmeasured call loads the
compiled code. Best wall time and best CPU time (all threads) of the repeats are kept: on a shared machine the second is
steadier. Memory is the peak above what was held before the call.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import Tensor

import voxgen
from voxgen.core import Camera, TriMesh
from voxgen.ops._registry import Call
from voxgen.ops.antialias import antialias, opposite_vertices
from voxgen.ops.rasterize import OP, Window, interpolate, rasterize, take_rows
from voxgen.ops.rasterize._query import Query
from voxgen.render import orbit_cameras, render_mesh
from voxgen.testing.shapes import rotated, torus

DEFAULT = ((1_000, 128), (5_000, 512), (503_916, 512), (503_916, 518), (503_916, 1024), (7_000_000, 1024))
SMALL = 1 << 24
"""Pairs of a face and a pixel up to which the reference takes part."""


def best(call: Callable[[], object], repeats: int, device: str) -> dict[str, float]:
    """Milliseconds wall and CPU, and peak MiB."""
    call()
    held = memory(device, peak=False)
    call()
    found = {"wall_ms": math.inf, "cpu_ms": math.inf, "peak_MiB": (memory(device, peak=True) - held) / 2**20}
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        found["wall_ms"] = min(found["wall_ms"], 1e3 * (time.perf_counter() - wall))
        found["cpu_ms"] = min(found["cpu_ms"], 1e3 * (time.process_time() - cpu))
    return found


def memory(device: str, peak: bool) -> int:
    """Bytes held now, which restarts the peak, or the peak since then; 0 where the system does not tell."""
    if device == "cuda":
        if not peak:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
    status, restart = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not status.exists() or not restart.exists():
        return 0
    if not peak:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)  # what earlier calls have freed goes back to the system, and counts again
        restart.write_text("5")
    name = "VmHWM:" if peak else "VmRSS:"
    return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


def scene(triangles: int, size: int, shuffled: bool, device: str) -> tuple[TriMesh, Camera]:
    around = round(math.sqrt(triangles))
    mesh = rotated(torus(around=around, across=triangles // (2 * around)))
    if shuffled:
        mesh = mesh.replace(faces=mesh.faces[torch.randperm(mesh.num_faces)])
    return mesh.to(device), orbit_cameras(1, points=mesh.vertices, width=size, height=size).to(device)


def face_normals(vertices: Tensor, faces: Tensor, face_id: Tensor) -> Tensor:
    """(1, h, w, 3) unit normals of the visible faces."""
    place = (face_id >= 0).nonzero(as_tuple=True)
    a, b, c = take_rows(vertices, faces[face_id[place].long()].long()).unbind(1)
    normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1, eps=1e-30)
    return vertices.new_zeros(*face_id.shape, 3).index_put(place, normals)


def measure(mesh: TriMesh, camera: Camera, repeats: int, reference: bool) -> dict[str, dict[str, float]]:
    size = (camera.height, camera.width)
    matrix = camera.clip_matrices()[0]
    vertices = mesh.vertices.clone().requires_grad_()
    positions = mesh.vertices @ matrix[:, :3].T + matrix[:, 3]
    query = Query(positions[None], mesh.faces, ((0, mesh.num_faces),), Window.whole(*size))
    device = positions.device.type
    chosen = OP.choose("auto", Call.of(positions)).name
    engines = {chosen: repeats, "torch": min(2, repeats)}
    if reference or mesh.num_faces * size[0] * size[1] <= SMALL:
        engines["reference"] = 1
    found = {f"ids {name}": best(lambda name=name: OP.backends[name].load()(query), n, device) for name, n in engines.items()}
    found["raster"] = best(lambda: rasterize(positions, mesh.faces, *size), repeats, device)

    def step() -> object:
        raster = rasterize(vertices @ matrix[:, :3].T + matrix[:, 3], mesh.faces, *size)
        normals = interpolate(mesh.replace(vertices=vertices).vertex_normals(), mesh.faces, raster)
        return torch.autograd.grad(raster.depth.sum() + normals.sum(), vertices)

    def full_step(edges: Tensor | None) -> object:
        clip = vertices @ matrix[:, :3].T + matrix[:, 3]
        raster = rasterize(clip, mesh.faces, *size)
        mask = (raster.face_id >= 0).to(clip.dtype)
        image = torch.cat((mask[..., None], raster.depth[..., None], face_normals(vertices, mesh.faces, raster.face_id)), -1)
        return torch.autograd.grad(antialias(image, raster, clip, mesh.faces, edges=edges).square().sum(), vertices)

    edges = opposite_vertices(mesh.faces)
    found["step"] = best(step, repeats, device)
    found["full step"] = best(lambda: full_step(None), repeats, device)
    found["full step, edges known"] = best(lambda: full_step(edges), repeats, device)
    found["all edges"] = best(lambda: opposite_vertices(mesh.faces), repeats, device)
    found["render"] = best(lambda: render_mesh(mesh, camera), repeats, device)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triangles", type=int, help="instead of the standard inputs")
    parser.add_argument("--size", type=int, default=512, help="pixels a side, with --triangles")
    parser.add_argument("--shuffled", action="store_true", help="faces in random order: every vertex is a cache miss")
    parser.add_argument("--reference", action="store_true", help="also the reference engine, whatever the input")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    inputs = DEFAULT if arguments.triangles is None else ((arguments.triangles, arguments.size),)
    rows = []
    print(f"{'triangles':>10} {'image':>6} {'stage':<24} {'wall ms':>9} {'CPU ms':>9} {'MiB':>7}")
    for triangles, size in inputs:
        mesh, camera = scene(triangles, size, arguments.shuffled, arguments.device)
        for stage, times in measure(mesh, camera, arguments.repeats, arguments.reference).items():
            numbers = f"{times['wall_ms']:>9.1f} {times['cpu_ms']:>9.1f} {times['peak_MiB']:>7.0f}"
            print(f"{mesh.num_faces:>10,} {size:>5}² {stage:<24} {numbers}", flush=True)
            rows.append({"triangles": mesh.num_faces, "size": size, "stage": stage, **times})
    if arguments.json:
        machine = {"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads(), "device": arguments.device}
        versions = {"python": platform.python_version(), "torch": torch.__version__, "voxgen": voxgen.__version__}
        record = {"date": date.today().isoformat(), **machine, **versions, "shuffled": arguments.shuffled, "rows": rows}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
