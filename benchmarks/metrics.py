"""Time and peak memory of mesh_report and the surface metrics on tori of growing size.

    python benchmarks/metrics.py                 # up to 7 million faces
    python benchmarks/metrics.py --faces 100000  # one size
    python benchmarks/metrics.py --out benchmarks/results/<machine>/metrics.json

Every measurement runs in a process of its own (peak memory is that of a process), is repeated and the best is kept; the
first, unmeasured call loads the compiled code.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch

from voxgen.core import TriMesh
from voxgen.metrics import compare_surfaces, mesh_report, sample_surface, sharp_edges
from voxgen.testing.shapes import torus

SIZES = (100_000, 1_000_000, 7_000_000)
SAMPLES = 100_000


def make(faces: int) -> TriMesh:
    """A torus of about this many faces, nearly square ones."""
    across = round((faces / 2 / 2.5) ** 0.5)
    return torus(around=round(2.5 * across), across=across)


def moved(mesh: TriMesh) -> TriMesh:
    """The same surface one voxel of a 1024³ grid away."""
    return mesh.replace(vertices=mesh.vertices + 1 / 1024)


TASKS: dict[str, Callable[[TriMesh, TriMesh], object]] = {
    "mesh_report": lambda a, b: mesh_report(a),
    "sample_surface": lambda a, b: sample_surface(a, SAMPLES),
    "sharp_edges": lambda a, b: sharp_edges(a),
    "compare_surfaces": lambda a, b: compare_surfaces(a, b, samples=SAMPLES),
    "compare_surfaces to points": lambda a, b: compare_surfaces(a, b, samples=SAMPLES, to="points"),
}


def resident(field: str) -> int:
    """Memory of this process in bytes: "VmRSS" now, "VmHWM" the largest since `forget_peak`. Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure(job: tuple[str, int, int]) -> dict[str, object]:
    name, faces, repeats = job
    small, mesh = make(1000), make(faces)
    other = moved(mesh)
    TASKS[name](small, moved(small))
    forget_peak()
    before, best = resident("VmRSS"), float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        TASKS[name](mesh, other)
        best = min(best, time.perf_counter() - start)
    return {
        "task": name,
        "faces": mesh.num_faces,
        "seconds": round(best, 4),
        "extra_bytes_a_face": round((resident("VmHWM") - before) / mesh.num_faces),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, nargs="*", default=SIZES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    rows = []
    print(f"{'task':<28}{'faces':>12}{'seconds':>10}{'extra B/face':>14}")
    for faces in arguments.faces:
        for name in TASKS:
            pool = context.Pool(1)
            row = pool.apply(measure, ((name, faces, arguments.repeats),))
            pool.close()
            pool.join()
            rows.append(row)
            print(f"{row['task']:<28}{row['faces']:>12,}{row['seconds']:>10.3f}{row['extra_bytes_a_face']:>14}")
    if arguments.out:
        machine = {"machine": platform.machine(), "threads": torch.get_num_threads(), "python": platform.python_version()}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({**machine, "torch": torch.__version__, "samples": SAMPLES, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
