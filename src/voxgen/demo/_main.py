"""The demo's command line."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

from tqdm import tqdm

from voxgen.core import TriMesh
from voxgen.core.errors import VoxgenError, VoxgenWarning
from voxgen.io import load_mesh, save_mesh
from voxgen.metrics import mesh_report
from voxgen.models.pipelines import shipped_pipeline, shipped_pipelines
from voxgen.render import save_png

from ._asset import procedural_asset
from ._generate import SAMPLES, generate_sheet, held_out_conditions
from ._picture import picture
from ._representations import KINDS, Representation, gaussians, represent
from ._round_trip import RoundTrip, round_trip
from ._tiny_vae import train_tiny_vae


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m voxgen.demo",
        description="A mesh goes to every representation and back, a tiny autoencoder learns it in a minute, and pictures become assets.",
    )
    parser.add_argument("mesh", nargs="?", type=Path, help="glb, gltf, obj, ply, stl or off (default: a procedural asset)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to (default: out)")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[64, 128, 256], help="(default: 64 128 256)")
    parser.add_argument("--size", type=int, default=448, help="pixels a side of each image (default: 448)")
    parser.add_argument("--texture-size", type=int, default=2048, help="of the materials baked into the GLB files (default: 2048)")
    parser.add_argument("--samples", type=int, default=100_000, help="points for the distances (default: 100000)")
    parser.add_argument("--train-seconds", type=float, default=60.0, help="to train the tiny VAE; 0 leaves it out (default: 60)")
    parser.add_argument("--train-resolution", type=int, default=64, help="of the voxels that it learns, a multiple of 4 (default: 64)")
    parser.add_argument("--pictures", type=int, default=SAMPLES, help=f"to generate assets from; 0 leaves it out (default: {SAMPLES})")
    arguments = parser.parse_args(argv)
    if arguments.pictures < 0:
        parser.error(f"--pictures must be 0 or more; got {arguments.pictures}")
    if arguments.train_resolution < 8 or arguments.train_resolution % 4:
        parser.error(f"--train-resolution must be a multiple of 4, at least 8; got {arguments.train_resolution}")
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
    finest = results[-1]
    print("\nChamfer: mean two-sided distance over all surfaces, relative to the longest side. F-score: at one voxel.")
    print(f"At {finest.resolution}³ the error is {finest.chamfer * finest.resolution:.3f} voxels; below 0.1 is as it should be.")

    print(
        f"\nThe other representations at {finest.resolution}³; recall and precision of the surface at one voxel:\n{Representation.HEADER}"
    )
    others: list[Representation] = []
    for kind in tqdm(KINDS, desc="representations", leave=False, disable=not sys.stderr.isatty()):
        others.append(represent(kind, mesh, finest.resolution, arguments.out, arguments.samples))
        tqdm.write(others[-1].row())
    splats = gaussians(mesh, finest.resolution, arguments.out)
    print(
        f"{'Gaussians':>14} {len(splats):>10,}   one for each O-Voxel; gaussians_{finest.resolution}.ply opens in viewers of 3D Gaussians"
    )
    trained = None
    if arguments.train_seconds > 0:
        print(f"\nA tiny SC-VAE learns this one mesh at {arguments.train_resolution}³ for {arguments.train_seconds:.0f} s:")
        trained = train_tiny_vae(mesh, arguments.train_resolution, arguments.train_seconds, arguments.samples)
        print(f"  {trained}")
        if trained.mesh is not None:
            save_mesh(trained.mesh, arguments.out / "tiny_vae.glb")
    made = ""
    if arguments.pictures and shipped_pipelines():
        print(f"\nPicture → structure → shape → material, by the system in the box, {arguments.pictures} pictures of unseen assets:")
        print(f"  {generate_sheet(shipped_pipeline(), held_out_conditions(arguments.pictures), arguments.out, arguments.size // 2)}")
        made = ", generated.png, generated.glb"
    title = f"{name}: to sparse voxels and back"
    save_png(arguments.out / "demo.png", picture(mesh, results, others, splats, trained, title, arguments.size))
    files = "demo.png, ovoxel_*.glb, ovoxel_*.vxz, sparse*.glb, gaussians_*.ply" + (", tiny_vae.glb" if trained else "") + made
    print(f"wrote {files} to {arguments.out} in {time.perf_counter() - start:.0f} s")
    return 0


def _warm_up(mesh: TriMesh) -> None:
    """Compile the kernels (once; the result stays on disk), so that the table shows the conversion and not the compiler."""
    from voxgen.representations import OVoxel

    with tqdm(total=1 + len(KINDS), desc="compiling kernels, first run only", leave=False, disable=not sys.stderr.isatty()) as bar:
        OVoxel.from_mesh(mesh, 8).to_mesh()
        bar.update()
        for _, make in KINDS.values():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", VoxgenWarning)  # of how little of the mesh so few voxels can show
                make(mesh, 16).to_mesh()
            bar.update()
