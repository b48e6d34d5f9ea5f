"""`voxgen info`: what is in a file."""

from __future__ import annotations

import argparse
from pathlib import Path

from voxgen.core import TriMesh
from voxgen.metrics import mesh_report
from voxgen.representations import OVoxel

from ._files import add_up, load


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "info",
        help="what is in a mesh or O-Voxel file",
        description="Print counts, topology, materials and extents of a mesh or O-Voxel.",
        epilog="examples:\n  voxgen info chair.glb\n  voxgen info chair.vxz",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path)
    add_up(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    item = load(arguments.file, arguments.up)
    print(f"{arguments.file}, {arguments.file.stat().st_size:,} bytes")
    print(describe_mesh(item) if isinstance(item, TriMesh) else describe_ovoxel(item))
    return 0


def describe_mesh(mesh: TriMesh) -> str:
    lines = [repr(mesh), str(mesh_report(mesh))]
    for material in mesh.materials:
        textures = ", ".join(f"{slot} {t.image.shape[1]}×{t.image.shape[0]}" for slot, t in material.textures.items())
        lines.append(f"material {material.name!r}: {material.alpha_mode}{', ' + textures if textures else ', no textures'}")
    return "\n".join(lines)


def describe_ovoxel(ovoxel: OVoxel) -> str:
    low, high = ovoxel.frame.bounds(ovoxel.resolution)
    flags = ovoxel.intersected.sum(0).tolist()
    lines = [
        repr(ovoxel),
        f"flagged edges x, y, z: {flags[0]:,}, {flags[1]:,}, {flags[2]:,}",
        f"box: {tuple(round(v, 6) for v in low)} to {tuple(round(v, 6) for v in high)}, {ovoxel.frame.up} up",
    ]
    for name, value in ovoxel.materials.items():
        lines.append(f"{name}: mean {[round(v, 3) for v in value.mean(0).tolist()]}")
    return "\n".join(lines)
