"""The demo's command line."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tqdm import tqdm

from voxgen.core import TriMesh
from voxgen.core.errors import VoxgenError
from voxgen.io import load_mesh, save_mesh
from voxgen.metrics import mesh_report
from voxgen.render import save_png

from ._asset import procedural_asset
from ._picture import picture
from ._round_trip import RoundTrip, round_trip


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m voxgen.demo", description="A mesh becomes an O-Voxel at several resolutions and comes back."
    )
    parser.add_argument("mesh", nargs="?", type=Path, help="glb, gltf, obj, ply, stl or off (default: a procedural asset)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to (default: out)")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[64, 128, 256], help="(default: 64 128 256)")
    parser.add_argument("--size", type=int, default=448, help="pixels a side of each image (default: 448)")
    parser.add_argument("--texture-size", type=int, default=2048, help="of the materials baked into the GLB files (default: 2048)")
    parser.add_argument("--samples", type=int, default=100_000, help="points for the distances (default: 100000)")
    arguments = parser.parse_args(argv)
    try:
        return run(arguments)
    except (VoxgenError, OSError) as error:
        print(f"voxgen.demo: {error}", file=sys.stderr)
        return 2


def run(arguments: argparse.Namespace) -> int:
    start = time.perf_counter()
    mesh = procedural_asset() if arguments.mesh is None else load_mesh(arguments.mesh)
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = "procedural asset" if arguments.mesh is None else arguments.mesh.name
    print(f"{name}: {mesh!r}")
    print(mesh_report(mesh))
    if arguments.mesh is None:
        save_mesh(mesh, arguments.out / "source.glb")

    _warm_up(mesh)
    results: list[RoundTrip] = []
    print(f"\n{RoundTrip.HEADER}")
    for resolution in tqdm(sorted(arguments.resolutions), desc="round trips", unit="mesh", leave=False, disable=not sys.stderr.isatty()):
        results.append(round_trip(mesh, resolution, arguments.out, arguments.samples, arguments.texture_size))
        tqdm.write(results[-1].row())
    save_png(arguments.out / "demo.png", picture(mesh, results, f"{name}: mesh to O-Voxel and back", arguments.size))
    finest = results[-1]
    print("\nChamfer: mean two-sided distance over all surfaces, relative to the longest side. F-score: at one voxel.")
    print(f"At {finest.resolution}³ the error is {finest.chamfer * finest.resolution:.3f} voxels; below 0.1 is as it should be.")
    print(f"wrote {arguments.out}/demo.png and ovoxel_*.glb, ovoxel_*.vxz in {time.perf_counter() - start:.0f} s")
    return 0


def _warm_up(mesh: TriMesh) -> None:
    """Compile the kernels (once; the result stays on disk), so that the table shows the conversion and not the compiler."""
    from voxgen.representations import OVoxel

    with tqdm(total=1, desc="compiling kernels, first run only", leave=False, disable=not sys.stderr.isatty()) as bar:
        OVoxel.from_mesh(mesh, 8).to_mesh()
        bar.update()
