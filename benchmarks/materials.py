"""Textured mesh → materials of its cells: time, time by stage, peak memory, and error against dense sampling of the surface.

    python benchmarks/materials.py                                         # FlightHelmet of $VOXGEN_DATA and a procedural mesh
    python benchmarks/materials.py --mesh spot/spot.obj --resolution 128 --backend numba torch --json materials.json
    python benchmarks/materials.py --resolution 64 128 256 --truth 20000000   # also the error, by this many points
    OMP_WAIT_POLICY=passive python benchmarks/materials.py                 # on a busy machine: idle threads of torch do not spin

The time is that of `material_volume` from mesh to values, texture pyramids included; loading the file is not. The first,
unmeasured call loads the compiled code. Best wall time and best CPU time (all threads) of the repeats are kept: on a shared
machine the second is steadier. Peak memory is that of one call in a process of its own, above what the process holds before
it, with the mesh and its images loaded. The error is the root mean square over cells and colours of the encoded base colour
(0..1) against the mean light over points spread evenly on the surface, for the default and for compat="trellis2".
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch
from encode import DATA, StageTimes, best

import voxgen
from voxgen.core import Material, Texture, TriMesh
from voxgen.core.material import linear_to_srgb
from voxgen.ops.dual_grid import normalize_to_unit_box
from voxgen.ops.material_volume import OP, MaterialVolume, material_volume
from voxgen.ops.texture import build_pyramid, sample_texture
from voxgen.testing import shapes

HELMET = "flight_helmet/FlightHelmet.gltf"
UNIT = (-0.5, -0.5, -0.5)
POINTS = 1 << 21
"""Points of the dense sampling that are worked on at a time."""


def load(name: str) -> TriMesh:
    """A file below the data folder, or "torus": 160,000 triangles with textures of 2048 texels; in the unit cube."""
    if name == "torus":
        mesh = shapes.rotated(shapes.torus(around=400, across=200))
        angle = torch.stack(torch.meshgrid(torch.arange(400) / 400, torch.arange(200) / 200, indexing="ij"), -1)
        color, packed = (torch.randint(0, 256, (2048, 2048, c), generator=torch.Generator().manual_seed(c)).byte() for c in (4, 3))
        material = Material(
            "noise",
            base_color=Texture(color, (0, 1, 2), srgb=True),
            alpha=Texture(color, (3,)),
            metallic=Texture(packed, (2,)),
            roughness=Texture(packed, (1,)),
            alpha_mode="BLEND",
        )
        mesh = mesh.replace(uv=angle.reshape(-1, 2), materials=(material,))
    else:
        mesh = voxgen.io.load_mesh(DATA / name)
    return mesh.replace(vertices=normalize_to_unit_box(mesh.vertices.double()).float())


def convert(mesh: TriMesh, resolution: int, backend: str = "auto", compat: str | None = None, **options: Any) -> MaterialVolume:
    return material_volume(
        mesh,
        origin=UNIT,
        voxel_size=1 / resolution,
        resolution=resolution,
        backend=backend,
        compat=compat,  # pyright: ignore[reportArgumentType]
        **options,
    )


def stages(mesh: TriMesh, resolution: int, compat: str | None, repeats: int) -> dict[str, float]:
    """CPU milliseconds of the compiled engine by stage."""
    import voxgen.ops.material_volume as public
    from voxgen.ops.material_volume import _numba as engine

    titles = {
        (public, "prepare"): "check mesh",
        (public, "prepare_shading"): "texture pyramids",
        (engine, "triangle_cells"): "find cells",
        (engine, "flatten"): "flatten",
        (engine, "bin_triangles"): "bin triangles",
        (engine, "_on_threads"): "cut, look up and add",
    }
    with StageTimes(titles) as clock:
        return clock.best_of(lambda: convert(mesh, resolution, "numba", compat), repeats)


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from encode import status
from materials import convert, load
mesh = load(sys.argv[2])
compat = sys.argv[5] or None
convert(load("torus") if sys.argv[2] != "torus" else mesh, 16, sys.argv[4], compat)
open("/proc/self/clear_refs", "w").write("5")  # resets the high-water mark
before = status("VmRSS")
volume = convert(mesh, int(sys.argv[3]), sys.argv[4], compat)
print(status("VmHWM") - before)
"""


def peak_bytes(name: str, resolution: int, backend: str, compat: str | None) -> int:
    """Extra memory at the peak of one call, result included, measured in a process of its own (Linux)."""
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), name, str(resolution), backend, compat or ""]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1])


def errors(mesh: TriMesh, resolution: int, count: int) -> dict[str, float]:
    """RMS error of the encoded base colour of both modes against the mean light over `count` points."""
    g = torch.Generator().manual_seed(0)
    found = {compat: convert(mesh, resolution, compat=compat, channels=["base_color"]) for compat in (None, "trellis2")}
    cells = found[None].cells.long()
    unit = torch.tensor([resolution**2, resolution, 1])
    keys = (cells * unit).sum(1)
    areas = mesh.face_areas().double()
    material = torch.zeros(mesh.num_faces).long() if mesh.face_material is None else mesh.face_material.long()
    pyramids = [m.base_color and build_pyramid(m.base_color.values, srgb=m.base_color.srgb) for m in mesh.materials]
    sums, hits = torch.zeros(len(cells), 3, dtype=torch.float64), torch.zeros(len(cells))
    for begin in range(0, count, POINTS):
        n = min(POINTS, count - begin)
        face = torch.searchsorted(areas.cumsum(0), torch.rand(n, generator=g, dtype=torch.float64) * areas.sum()).clamp(max=len(areas) - 1)
        r, s = torch.rand(2, n, generator=g, dtype=torch.float64)
        b = torch.stack((1 - r.sqrt(), r.sqrt() * (1 - s), r.sqrt() * s), 1)[:, :, None]
        corner = mesh.faces[face].long()
        point = (mesh.vertices[corner].double() * b).sum(1)
        key = (((point + 0.5) * resolution).floor().long() * unit).sum(1)
        row = torch.searchsorted(keys, key).clamp(max=len(keys) - 1)
        for i, pyramid in enumerate(pyramids):
            of = ((keys[row] == key) & (material[face] == i)).nonzero()[:, 0]
            light = torch.tensor(mesh.materials[i].base_color_factor, dtype=torch.float64).expand(len(of), 3)
            if pyramid is not None and mesh.uv is not None:
                light = light * sample_texture(pyramid, (mesh.uv[corner[of]].double() * b[of]).sum(1), wrap=("clamp", "clamp"))
            sums.index_add_(0, row[of], light)
            hits.index_add_(0, row[of], torch.ones(len(of)))
    many = hits >= 20
    truth = linear_to_srgb(sums[many] / hits[many, None])
    by_mode = {"default" if mode is None else mode: volume for mode, volume in found.items() if len(volume.cells) == len(cells)}
    return {mode: float((v.values["base_color"][many] - truth).square().mean().sqrt()) for mode, v in by_mode.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", nargs="+", help="files below $VOXGEN_DATA, or 'torus'")
    parser.add_argument("--resolution", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--backend", nargs="+", default=["numba"], choices=list(OP.backends))
    parser.add_argument("--compat", choices=["trellis2"], help="measure the original's behaviour instead of the default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--truth", type=int, default=0, metavar="POINTS", help="also measure the error, by this many points on the surface")
    parser.add_argument("--no-memory", action="store_true", help="skip the peak memory (one process for each row)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    args = parser.parse_args()
    names = args.mesh or [*([HELMET] if (DATA / HELMET).is_file() else []), "torus"]

    print(f"voxgen {voxgen.__version__}, torch {torch.__version__}, {os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    head = f"{'mesh':34}{'cells':>6}{'backend':>10}{'voxels':>11}{'wall s':>9}{'cpu s':>8}{'M voxels/s':>12}{'B/voxel':>9}"
    print(head + "\n" + "-" * len(head))
    rows = []
    for name in names:
        mesh = load(name)
        for backend in args.backend:
            for resolution in args.resolution:
                voxels = len(convert(mesh, resolution, backend, args.compat).cells)
                row: dict[str, Any] = {"mesh": name, "triangles": mesh.num_faces, "materials": len(mesh.materials)}
                row |= {"resolution": resolution, "backend": backend, "compat": args.compat, "voxels": voxels}
                row |= best(lambda m=mesh, r=resolution, b=backend: convert(m, r, b, args.compat), args.repeats, "cpu")
                if not args.no_memory and sys.platform == "linux":
                    row["peak_bytes"] = peak_bytes(name, resolution, backend, args.compat)
                if backend == "numba":
                    row["stages_cpu_ms"] = stages(mesh, resolution, args.compat, args.repeats)
                if args.truth:
                    row["rms_error"] = errors(mesh, resolution, args.truth)
                rows.append(row)
                print(
                    f"{name:34}{resolution:>6}{backend:>10}{voxels:>11,}{row['wall_s']:>9.3f}{row['cpu_s']:>8.3f}"
                    f"{voxels / row['wall_s'] / 1e6:>12.2f}{row.get('peak_bytes', float('nan')) / max(voxels, 1):>9.0f}"
                )
                if "stages_cpu_ms" in row:
                    print("    cpu ms: " + ", ".join(f"{stage} {ms:.0f}" for stage, ms in row["stages_cpu_ms"].items()))
                if "rms_error" in row:
                    print("    rms error: " + ", ".join(f"{mode} {value:.5f}" for mode, value in row["rms_error"].items()))
    if args.json:
        report = {
            "date": date.today().isoformat(),
            "cores": os.cpu_count(),
            "machine": platform.platform(),
            "torch": torch.__version__,
            "rows": rows,
        }
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
