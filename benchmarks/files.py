"""Size and time of .vxz files for each filter and compression, and of .npz and .ply, in memory.

    python benchmarks/files.py                                            # a procedural shape at 512³
    python benchmarks/files.py --mesh bunny.obj spot/spot.obj             # out of $VOXGEN_DATA
    python benchmarks/files.py --resolution 1024 --compressions none zstd --threads 2 --json files.json

The first, unmeasured round loads the compiled code; the best of the repeats is kept. Rows with compression "none" are the
time of the octree, the filter and the sorting alone.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import torch

import voxgen
from voxgen.core import TriMesh
from voxgen.io import load_mesh
from voxgen.representations import OVoxel
from voxgen.representations.ovoxel._npz import read_npz, write_npz
from voxgen.representations.ovoxel._ply import read_voxel_ply, write_voxel_ply
from voxgen.representations.ovoxel._quantize import pack_edge_flags, quantize_attribute, quantize_dual
from voxgen.representations.ovoxel._vxz import read_vxz, write_vxz
from voxgen.testing.shapes import merged, rotated, sphere, torus, wavy_sheet

DATA = Path(os.environ.get("VOXGEN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

Write = Callable[[io.BytesIO], None]
Read = Callable[[io.BytesIO], object]


def best(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def procedural() -> TriMesh:
    """A torus around a ball under a wavy sheet."""
    return merged(rotated(torus(around=256, across=128)), rotated(sphere(0.14, 5)), rotated(wavy_sheet(65).replace(uv=None)))


def voxels(mesh: TriMesh, resolution: int, materials: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    ovoxel = OVoxel.from_mesh(mesh, resolution, materials=materials)
    attributes = {"vertices": quantize_dual(ovoxel.dual_vertices), "intersected": pack_edge_flags(ovoxel.intersected)}
    attributes |= {name: quantize_attribute(value) for name, value in ovoxel.materials.items()}
    return ovoxel.grid.cells.contiguous(), attributes


def measure(write: Write, read: Read, repeats: int) -> dict[str, float]:
    file = io.BytesIO()

    def write_again() -> None:
        file.seek(0)
        file.truncate()
        write(file)

    def read_again() -> None:
        file.seek(0)
        read(file)

    return {"write_s": best(write_again, repeats), "read_s": best(read_again, repeats), "bytes": file.getbuffer().nbytes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", nargs="*", default=[], help="files, relative to $VOXGEN_DATA")
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--materials", action="store_true")
    parser.add_argument("--filters", nargs="*", default=["none", "parent", "neighbor"])
    parser.add_argument("--compressions", nargs="*", default=["none", "deflate", "zstd", "lzma"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.mesh and not DATA.is_dir():
        parser.error(f"no folder of meshes at {DATA}; set VOXGEN_DATA to one")
    small = (torch.zeros(1, 3, dtype=torch.int32), {"v": torch.zeros(1, 1, dtype=torch.uint8)})
    for filter in arguments.filters:
        measure(partial(write_vxz, coords=small[0], attributes=small[1], filter=filter), read_vxz, 1)

    read_threaded = partial(read_vxz, threads=arguments.threads)
    results = []
    for name in arguments.mesh or ["procedural"]:
        mesh = load_mesh(DATA / name) if arguments.mesh else procedural()
        coords, attributes = voxels(mesh, arguments.resolution, arguments.materials)
        print(f"{name} at {arguments.resolution}³: {len(coords):,} voxels, {', '.join(attributes)}; {arguments.threads} thread(s)")
        print(f"{'format':<8}{'filter':<10}{'compression':<12}{'MB':>8}{'bits a voxel':>14}{'write s':>9}{'read s':>8}")
        held = {"coords": coords, "attributes": attributes}
        rows: list[tuple[str, str, str, Write, Read]] = [
            ("vxz", f, c, partial(write_vxz, **held, filter=f, compression=c, threads=arguments.threads), read_threaded)
            for f in arguments.filters
            for c in arguments.compressions
        ]
        rows.append(("npz", "", "", partial(write_npz, **held), read_npz))
        rows.append(("ply", "", "", partial(write_voxel_ply, **held), read_voxel_ply))
        for kind, filter, compression, write, read in rows:
            found = measure(write, read, arguments.repeats)
            bits = found["bytes"] * 8 / max(len(coords), 1)
            numbers = f"{found['bytes'] / 1e6:>8.2f}{bits:>14.1f}{found['write_s']:>9.2f}{found['read_s']:>8.2f}"
            print(f"{kind:<8}{filter:<10}{compression:<12}{numbers}", flush=True)
            results.append({"mesh": name, "voxels": len(coords), "format": kind, "filter": filter, "compression": compression, **found})
    if arguments.json:
        about = {"date": date.today().isoformat(), "voxgen": voxgen.__version__, "torch": torch.__version__, "machine": platform.machine()}
        about |= {"cores": os.cpu_count(), "resolution": arguments.resolution, "threads": arguments.threads}
        arguments.json.write_text(json.dumps({**about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
