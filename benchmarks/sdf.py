"""Mesh → sparse SDF → mesh: time, peak memory and error at 256³, 512³ and 1024³, and libigl on the same cells.

    python benchmarks/sdf.py                                  # bunny and spot of $VOXGEN_DATA, else procedural
    python benchmarks/sdf.py --mesh my.obj --resolution 512 --json sdf.json
    OMP_WAIT_POLICY=passive python benchmarks/sdf.py          # on a busy machine: idle threads of torch do not spin

The band is 4 cells on either side, the sign by winding number. The first, unmeasured call loads the compiled code. Best wall time
and best CPU time (all threads) of the repeats are kept: on a shared machine the second is steadier. Peak memory is that of one
`from_mesh` and one `to_mesh` in a process of its own, above what the process holds before. The error is the mean distance between
both surfaces in cells, both directions (`chamfer_distance`, l1); the caps that close the holes of an open mesh enter it.

Peers, up to `--peer-resolution` and with holes left open: libigl's tree of boxes and its fast winding number for the same cells,
and its marching cubes on the dense volume of the same values. All use the threads of libigl's build.
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
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import torch
from encode import DATA, best

import voxgen
from voxgen.core import TriMesh
from voxgen.io import load_mesh
from voxgen.metrics import chamfer_distance, mesh_report
from voxgen.representations import SparseSDF
from voxgen.testing import shapes

REAL = ("bunny.obj", "spot/spot.obj", "fandisk.obj")
PROCEDURAL = {
    "torus": lambda: shapes.rotated(shapes.torus(around=512, across=128)),
    "bowl": lambda: shapes.rotated(shapes.bowl(rings=128, around=256)),
}

CHILD = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from encode import status
from voxgen.core import TriMesh
from voxgen.representations import SparseSDF
mesh = TriMesh(*torch.load(sys.argv[2]))
SparseSDF.from_mesh(mesh, 16).to_mesh()
found = []
sdf = None
for step in (lambda: SparseSDF.from_mesh(mesh, int(sys.argv[3])), lambda: sdf.to_mesh()):
    open("/proc/self/clear_refs", "w").write("5")  # resets the high-water mark
    before = status("VmRSS")
    result = step()
    sdf = sdf or result
    found.append(status("VmHWM") - before)
print(*found)
"""


def load(name: str) -> TriMesh:
    """A procedural mesh by name, or the geometry of a file."""
    if name in PROCEDURAL:
        return PROCEDURAL[name]()
    mesh = load_mesh(DATA / name)
    return TriMesh(mesh.vertices, mesh.faces)


def peak_bytes(mesh: TriMesh, resolution: int) -> tuple[int, int]:
    """Extra memory at the peak of from_mesh and of to_mesh, results included (Linux)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.pt"
        torch.save((mesh.vertices, mesh.faces), path)
        command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(path), str(resolution)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    made, extracted = map(int, done.stdout.split()[-2:])
    return made, extracted


def peers(mesh: TriMesh, resolution: int) -> dict[str, float]:
    """Seconds of libigl for the distances, the signs and the surface of the same cells, and its largest difference in cells."""
    import igl

    sdf = SparseSDF.from_mesh(mesh, resolution, close=False)
    vertices, faces = mesh.vertices.double().numpy(), mesh.faces.long().numpy()
    points = sdf.frame.centers(sdf.grid.cells, torch.float64).numpy()
    found: dict[str, float] = {}
    start = time.perf_counter()
    squared, *_ = igl.point_mesh_squared_distance(points, vertices, faces)
    found["igl_distance_s"] = time.perf_counter() - start
    exact = torch.from_numpy(squared).sqrt() / sdf.voxel_size
    found["distance_difference_cells"] = float((sdf.sdf_cells[:, 0].abs() - exact).abs().max())
    start = time.perf_counter()
    winding = igl.fast_winding_number(vertices, faces, points)
    found["igl_winding_s"] = time.perf_counter() - start
    clear = (torch.from_numpy(winding) - 0.5).abs() > 0.02
    found["signs_that_differ"] = int(((torch.from_numpy(winding) > 0.5) != (sdf.sdf_cells[:, 0] < 0))[clear].sum())
    volume = sdf.dense()[0].permute(2, 1, 0).double().flatten().numpy()  # x fastest
    side = sdf.resolution[0]
    x, y, z = (torch.arange(side, dtype=torch.float64) + 0.5 for _ in range(3))
    lattice = torch.stack(torch.meshgrid(z, y, x, indexing="ij")[::-1], -1).reshape(-1, 3).numpy()
    start = time.perf_counter()
    _, triangles, *_ = igl.marching_cubes(volume, lattice, side, side, side, 0.0)
    found["igl_marching_cubes_s"] = time.perf_counter() - start
    found["igl_triangles"] = triangles.shape[0]
    return found


def measure(name: str, resolution: int, args: argparse.Namespace) -> dict[str, Any]:
    mesh = load(name)
    sdf = SparseSDF.from_mesh(mesh, resolution)
    surface = sdf.to_mesh()
    report = mesh_report(surface, weld=False)
    row: dict[str, Any] = {"mesh": name, "triangles": mesh.num_faces, "resolution": resolution, "cells": len(sdf)}
    row["from_mesh"] = best(lambda: SparseSDF.from_mesh(mesh, resolution), args.repeats, "cpu")
    row["to_mesh"] = best(lambda: sdf.to_mesh(), args.repeats, "cpu")
    row |= {"out_triangles": surface.num_faces, "closed": report.is_closed, "euler": report.euler_number}
    row["error_cells"] = chamfer_distance(mesh, surface, samples=50_000).l1 / sdf.voxel_size
    if not args.no_memory and sys.platform == "linux":
        row["from_mesh_peak_bytes"], row["to_mesh_peak_bytes"] = peak_bytes(mesh, resolution)
    if resolution <= args.peer_resolution:
        row |= peers(mesh, resolution)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", nargs="+", help="files below $VOXGEN_DATA, or 'torus', 'bowl'")
    parser.add_argument("--resolution", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--peer-resolution", type=int, default=256, help="the largest at which libigl is measured")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true", help="skip the peak memory (one process for each row)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    names = args.mesh or [m for m in REAL if (DATA / m).is_file()] or list(PROCEDURAL)

    print(f"voxgen {voxgen.__version__}, torch {torch.__version__}, {os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    columns = (("mesh", -16), ("side", 6), ("cells", 12), ("from_mesh s", 13), ("cpu s", 8), ("to_mesh s", 11), ("cpu s", 8))
    columns += (("error", 8), ("closed", 8), ("MB", 14))
    head = "".join(f"{title:<{-width}}" if width < 0 else f"{title:>{width}}" for title, width in columns)
    print(head + "\n" + "-" * len(head))
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in names:
            SparseSDF.from_mesh(load(name), 16).to_mesh()
            for resolution in args.resolution:
                row = measure(name, resolution, args)
                rows.append(row)
                made, cut = row["from_mesh"], row["to_mesh"]
                memory = f"{row.get('from_mesh_peak_bytes', 0) / 1e6:.0f} + {row.get('to_mesh_peak_bytes', 0) / 1e6:.0f}"
                print(
                    f"{name:<16}{resolution:>6}{row['cells']:>12,}{made['wall_s']:>13.2f}{made['cpu_s']:>8.2f}{cut['wall_s']:>11.2f}"
                    f"{cut['cpu_s']:>8.2f}{row['error_cells']:>8.4f}{'yes' if row['closed'] else 'no':>8}{memory:>14}"
                )
                if "igl_distance_s" in row:
                    print(
                        f"    libigl, same cells: distances {row['igl_distance_s']:.2f} s (differ by up to "
                        f"{row['distance_difference_cells']:.1e} cells), winding numbers {row['igl_winding_s']:.2f} s "
                        f"({row['signs_that_differ']} signs differ), dense marching cubes {row['igl_marching_cubes_s']:.2f} s "
                        f"({row['igl_triangles']:,} triangles, ours {row['out_triangles']:,})"
                    )
    if args.json:
        report = {
            "date": date.today().isoformat(),
            "cores": os.cpu_count(),
            "machine": f"{platform.processor() or platform.machine()}",
            "torch": torch.__version__,
            "rows": rows,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
