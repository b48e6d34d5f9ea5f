"""Mesh → dual grid: time, peak memory, and time by stage, at 256³, 512³ and 1024³.

    python benchmarks/encode.py                                            # bunny and FlightHelmet of $VOXGEN_DATA, else procedural
    python benchmarks/encode.py --mesh my.obj --resolution 2048 --backend numba torch --json encode.json
    OMP_WAIT_POLICY=passive python benchmarks/encode.py                    # on a busy machine: idle threads of torch do not spin

Meshes are put into [-0.5, 0.5]³ in float64 and rounded to float32, as for the original's figures; the numbers of voxels are
then checked against the original's. The first, unmeasured call loads the compiled code. Best wall time and best CPU time (all
threads) of the repeats are kept: on a shared machine the second is steadier. Peak memory is that of one call in a process of
its own, above what the process holds before it. The original's seconds (single thread) were measured on another 2-core
machine, so ratios to them compare machines as well. "least" is the time to write the result once at the copy bandwidth of
this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

import voxgen
from voxgen.core import TriMesh
from voxgen.ops.dual_grid import OP, DualGrid, dual_grid, normalize_to_unit_box
from voxgen.testing import shapes

DATA = Path(os.environ.get("VOXGEN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
ORIGINAL = {  # voxels and seconds of the original at 256³, 512³, 1024³
    "bunny.obj": {256: (224_733, 0.62), 512: (898_264, 2.35), 1024: (3_591_966, 11.9)},
    "flight_helmet/FlightHelmet.gltf": {256: (256_459, 0.71), 512: (1_109_335, 2.7), 1024: (4_600_551, 15.6)},
}
PROCEDURAL = {
    "torus": lambda: shapes.rotated(shapes.torus(around=512, across=128)),
    "box and sheet": lambda: shapes.merged(shapes.rotated(shapes.box()), shapes.rotated(shapes.wavy_sheet(200))),
}
UNIT = (-0.5, -0.5, -0.5)


def load(name: str) -> TriMesh:
    """A procedural mesh by name, or a file, in the canonical box."""
    if name in PROCEDURAL:
        mesh = PROCEDURAL[name]()
        return mesh.replace(vertices=normalize_to_unit_box(mesh.vertices.double()).float())
    import trimesh

    loaded = trimesh.load(DATA / name)
    whole = loaded.to_mesh() if isinstance(loaded, trimesh.Scene) else loaded
    vertices = normalize_to_unit_box(torch.tensor(whole.vertices, dtype=torch.float64))
    return TriMesh(vertices.float(), torch.tensor(whole.faces))


def encode(mesh: TriMesh, resolution: int, backend: str, compat: str | None) -> DualGrid:
    return dual_grid(
        mesh.vertices,
        mesh.faces,
        origin=UNIT,
        voxel_size=1 / resolution,
        resolution=resolution,
        compat=compat,  # pyright: ignore[reportArgumentType]
        backend=backend,
    )


def best(call: Callable[[], object], repeats: int, device: str) -> dict[str, float]:
    """Best wall and CPU seconds of the repeats."""
    found = {"wall_s": float("inf"), "cpu_s": float("inf")}
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        found["wall_s"] = min(found["wall_s"], time.perf_counter() - wall)
        found["cpu_s"] = min(found["cpu_s"], time.process_time() - cpu)
    return found


class StageTimes:
    """CPU milliseconds spent in functions of a module while the block runs, by a title for each.

    Args:
        titles: module and name of a function → title; the function is wrapped while the block runs.
    """

    def __init__(self, titles: dict[tuple[Any, str], str]) -> None:
        self.titles = titles
        self.spent: dict[str, float] = {}

    def __enter__(self) -> StageTimes:
        self._kept = {key: getattr(*key) for key in self.titles}
        for (module, name), title in self.titles.items():
            setattr(module, name, self.timed(title, self._kept[module, name]))
        return self

    def __exit__(self, *_: object) -> None:
        for (module, name), function in self._kept.items():
            setattr(module, name, function)

    def timed(self, title: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            start = time.process_time()
            result = function(*args)
            self.spent[title] = self.spent.get(title, 0.0) + 1e3 * (time.process_time() - start)
            return result

        return call

    def best_of(self, call: Callable[[], object], repeats: int) -> dict[str, float]:
        """Least milliseconds of each stage over the repeats."""
        found: dict[str, float] = {}
        for _ in range(repeats):
            self.spent.clear()
            call()
            found = {name: min(found.get(name, float("inf")), ms) for name, ms in self.spent.items()}
        return found


def stages(mesh: TriMesh, resolution: int, repeats: int) -> dict[str, float]:
    """CPU milliseconds of the compiled engine by stage."""
    from voxgen.ops.dual_grid import _numba as engine
    from voxgen.ops.dual_grid._prepare import Problem, boundary_edges
    from voxgen.ops.voxelize._prepare import prepare

    names = {
        "bin_triangles": "bin triangles",
        "bin_edges": "bin boundary edges",
        "_solve_bricks": "sum and minimise",
        "_pack": "close gaps",
        "lexicographic_rows": "order",
        "_place": "write result",
    }
    with StageTimes({(engine, name): title for name, title in names.items()}) as clock:

        def run() -> None:
            scene = clock.timed("check input", prepare)("stages", mesh.vertices, mesh.faces, UNIT, 1 / resolution, resolution, None)
            edges = clock.timed("find boundary", boundary_edges)(scene)
            engine.dual_grid(Problem(scene, edges, 1.0, 0.2, 0.01), False)

        return clock.best_of(run, repeats)


CHILD = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from encode import encode, status
from voxgen.core import TriMesh
mesh = TriMesh(*torch.load(sys.argv[2]))
encode(mesh, 16, sys.argv[4], None)
open("/proc/self/clear_refs", "w").write("5")  # resets the high-water mark
before = status("VmRSS")
grid = encode(mesh, int(sys.argv[3]), sys.argv[4], None)
print(status("VmHWM") - before)
"""


def status(key: str) -> int:
    """A memory figure of this process in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def peak_bytes(mesh: TriMesh, resolution: int, backend: str) -> int:
    """Extra memory at the peak of one call, result included, measured in a process of its own (Linux)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.pt"
        torch.save((mesh.vertices, mesh.faces), path)
        command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(path), str(resolution), backend]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1])


def copy_bandwidth() -> float:
    """Bytes read and written a second by a copy of 256 MB."""
    source = torch.ones(1 << 25, dtype=torch.float64)
    target = torch.empty_like(source)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - start)
    return 2 * source.numel() * 8 / min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", nargs="+", help="files below $VOXGEN_DATA, or 'torus', 'box and sheet'")
    parser.add_argument("--resolution", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--backend", nargs="+", default=["numba"], choices=list(OP.backends))
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for the torch backend")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compat", choices=["trellis2"], help="measure the original's behaviour instead of the default")
    parser.add_argument("--no-memory", action="store_true", help="skip the peak memory (one process for each row)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    names = args.mesh or [m for m in ORIGINAL if (DATA / m).is_file()] or list(PROCEDURAL)

    bandwidth = copy_bandwidth()
    print(f"voxgen {voxgen.__version__}, torch {torch.__version__}, {os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    print(f"copy bandwidth {bandwidth / 1e9:.1f} GB/s (read and write)")
    columns = (("mesh", -34), ("cells", 6), ("backend", 10), ("voxels", 11), ("wall s", 9), ("cpu s", 8), ("M tri/s", 9), ("B/voxel", 9))
    columns += (("least ms", 9), ("original", 10))
    head = "".join(f"{title:<{-width}}" if width < 0 else f"{title:>{width}}" for title, width in columns)
    print(head + "\n" + "-" * len(head))
    rows = []
    for name in names:
        mesh = load(name).to(args.device)
        for backend in args.backend:
            encode(load("torus").to(args.device), 32, backend, args.compat)
            for resolution in args.resolution:
                grid = encode(mesh, resolution, backend, args.compat)
                voxels, written = len(grid.cells), sum(t.numel() * t.element_size() for t in grid)
                row: dict[str, Any] = {
                    "mesh": name,
                    "triangles": mesh.num_faces,
                    "resolution": resolution,
                    "backend": backend,
                    "voxels": voxels,
                }
                row |= best(lambda m=mesh, r=resolution, b=backend: encode(m, r, b, args.compat), args.repeats, args.device)
                row["least_s"] = 2 * written / bandwidth
                row["mtriangles_per_s"] = mesh.num_faces / row["wall_s"] / 1e6
                if not args.no_memory and args.device == "cpu" and sys.platform == "linux":
                    row["peak_bytes_per_voxel"] = peak_bytes(mesh, resolution, backend) / max(voxels, 1)
                known = ORIGINAL.get(name, {}).get(resolution)
                if known:
                    row |= {"original_voxels": known[0], "original_s": known[1], "times_as_fast": known[1] / row["wall_s"]}
                if backend == "numba":
                    row["stages_cpu_ms"] = stages(mesh, resolution, args.repeats)
                rows.append(row)
                print(
                    f"{name:34}{resolution:>6}{backend:>10}{voxels:>11,}{row['wall_s']:>9.3f}{row['cpu_s']:>8.3f}"
                    f"{row['mtriangles_per_s']:>9.2f}{row.get('peak_bytes_per_voxel', float('nan')):>9.0f}{1e3 * row['least_s']:>9.1f}"
                    + (
                        f"{row['times_as_fast']:>9.1f}×" + ("" if known[0] == voxels else f"  (original: {known[0]:,} voxels)")
                        if known
                        else ""
                    )
                )
                if "stages_cpu_ms" in row:
                    print("    cpu ms: " + ", ".join(f"{stage} {ms:.0f}" for stage, ms in row["stages_cpu_ms"].items()))
    print("original: its seconds (single thread, another 2-core machine) over the wall time here")
    if args.json:
        report = {
            "date": date.today().isoformat(),
            "cores": os.cpu_count(),
            "machine": f"{platform.processor() or platform.machine()}",
            "torch": torch.__version__,
            "copy_bandwidth": bandwidth,
            "rows": rows,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
