"""`voxgen prepare`: assets to the shards that training reads."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxgen.core.errors import RangeError

from ._files import add_up, shows_progress

if TYPE_CHECKING:
    from voxgen.data import AssetSource, Stage

DESCRIPTION = """Make training data of assets: O-Voxels, sparse SDFs, points, pictures and latents, in shards with checksums.

Each asset is turned +Y up and fitted to the unit cube. One that cannot be used is left out, and its reason is kept.
Stop it whenever you like, even by kill -9: the same command goes on where it was, and the result is the same to the byte.
The same command with more stages, or with more sources, adds what is missing."""

EPILOG = """examples:
  voxgen prepare assets/ prepared/ --ovoxel 64 --images 8
  voxgen prepare assets/ prepared/ --ovoxel 64 --images 8 --latents shape.safetensors material.safetensors
  voxgen prepare --procedural 4000 prepared/ --ovoxel 64 --workers 16
  voxgen prepare list.txt prepared/ --sdf 256 --max-cells 800000 --timeout 120 --engine ray

in Python: voxgen.data.prepare, and voxgen.data.ShardDataset to read the result"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "prepare",
        help="make training data of assets",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", type=Path, nargs="*", metavar="SOURCE", help="folder of meshes, mesh file, or .txt list of them")
    parser.add_argument("out", type=Path, metavar="OUT", help="the prepared folder; made if it does not exist")
    assets = parser.add_argument_group("assets")
    assets.add_argument("--procedural", type=int, default=0, metavar="COUNT", help="procedural assets, besides the sources or instead")
    assets.add_argument("--seed", type=int, default=0, help="of the procedural assets (default: 0)")
    assets.add_argument("--split", choices=("train", "test"), default="train", help="of the procedural assets (default: train)")
    add_up(assets)
    stages = parser.add_argument_group("what to make (at least one)")
    stages.add_argument("--ovoxel", type=int, metavar="N", help="O-Voxels of N³ cells")
    stages.add_argument("--no-materials", dest="materials", action="store_false", help="O-Voxels of the shape only")
    stages.add_argument("--exact", action="store_true", help="O-Voxels as float32; otherwise rounded to bytes, as in .vxz files")
    stages.add_argument("--sdf", type=int, metavar="N", help="sparse SDFs of N³ cells")
    stages.add_argument("--points", type=int, metavar="COUNT", help="points with normals on each asset")
    stages.add_argument("--images", type=int, metavar="COUNT", help="pictures of each asset to condition on")
    stages.add_argument("--image-size", type=int, default=256, metavar="PIXELS", help="side of the pictures (default: 256)")
    stages.add_argument(
        "--latents",
        nargs="+",
        default=[],
        metavar="VAE",
        help="autoencoders (files of save_pretrained) for latents of the above; FILE@N gives N cells a side, to a SparseFlexVAE of its "
        "latent, to a StructureVAE of what it reads",
    )
    stages.add_argument("--logvar", action="store_true", help="latents with their log variance")
    limits = parser.add_argument_group("which assets to reject")
    limits.add_argument("--max-cells", type=int, metavar="N", help="those with more cells in an O-Voxel or SDF")
    limits.add_argument("--max-tokens", type=int, metavar="N", help="those with more cells in a latent")
    limits.add_argument("--timeout", type=float, metavar="SECONDS", help="those that take longer, all stages together")
    limits.add_argument("--retry", action="store_true", help="work again on those that were rejected before")
    running = parser.add_argument_group("how")
    running.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    running.add_argument(
        "--engine",
        choices=("processes", "ray", "here"),
        default="processes",
        help="this machine's cores (default), a Ray cluster, or this process",
    )
    running.add_argument("--assets-per-shard", type=int, default=256, metavar="N", help="assets that share a file (default: 256)")
    running.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from voxgen.data import find_sources, prepare, procedural_sources

    stages = _stages(arguments)
    sources = [*map(str, arguments.sources), *procedural_sources(arguments.procedural, seed=arguments.seed, split=arguments.split)]
    if not sources:
        raise RangeError("give SOURCE and OUT, or OUT and --procedural COUNT.")
    if arguments.dry_run:
        return _dry_run(arguments, find_sources(sources, up=arguments.up), stages)
    manifest = prepare(
        sources,
        arguments.out,
        stages,
        workers=arguments.workers,
        engine=arguments.engine,
        assets_per_shard=arguments.assets_per_shard,
        up=arguments.up,
        timeout=arguments.timeout,
        retry=arguments.retry,
        progress=shows_progress(),
    )
    print(manifest)
    if manifest.kept == 0:
        print("voxgen prepare: no asset could be used", file=sys.stderr)
        return 2
    return 0


def _dry_run(arguments: argparse.Namespace, sources: Sequence[AssetSource], stages: Sequence[Stage]) -> int:
    from voxgen.data._manifest import summarize
    from voxgen.data._prepare import planned

    plan, ordered, fields = planned(arguments.out, sources, stages, arguments.assets_per_shard, arguments.up)
    there = summarize(arguments.out, plan)
    names = ", ".join(source.name for source in ordered[:3])
    print(f"{len(ordered):,} assets, {names}{', ...' if len(ordered) > 3 else ''}")
    for name in fields:
        print(f"  {name}: {plan.fields[name]['kind']}, {there.fields[name].kept:,} in finished shards")
    print(f"{there.missing:,} assets to work on or to finish, {plan.shards:,} shards a field; nothing was written (--dry-run)")
    return 0


def _stages(arguments: argparse.Namespace) -> list[Stage]:
    from voxgen.data import ImagesStage, LatentStage, OVoxelStage, PointsStage, SDFStage

    stages: list[Stage] = []
    if arguments.ovoxel is not None:
        precision = "exact" if arguments.exact else "bytes"
        stages.append(OVoxelStage(arguments.ovoxel, arguments.materials, precision, arguments.max_cells))
    if arguments.sdf is not None:
        stages.append(SDFStage(arguments.sdf, max_cells=arguments.max_cells))
    if arguments.points is not None:
        stages.append(PointsStage(arguments.points))
    if arguments.images is not None:
        stages.append(ImagesStage(arguments.images, arguments.image_size))
    for text in arguments.latents:
        path, mark, count = text.rpartition("@")
        sized = bool(mark) and count.isdigit()
        vae, resolution = (path, int(count)) if sized else (text, None)
        stages.append(LatentStage(vae, resolution=resolution, logvar=arguments.logvar, max_tokens=arguments.max_tokens))
    if not stages:
        raise RangeError("say what to make: --ovoxel, --sdf, --points, --images or --latents.")
    return stages
