"""`voxgen convert`: between meshes and O-Voxels."""

from __future__ import annotations

import argparse
from pathlib import Path

from voxgen.core import TriMesh
from voxgen.core.errors import RangeError
from voxgen.io import save_mesh
from voxgen.representations import OVoxel

from ._files import add_up, is_ovoxel, load, shows_progress


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "convert",
        help="convert between meshes and O-Voxels",
        description="Convert by suffix: mesh (.glb .gltf .obj .ply .stl .off) or O-Voxel (.vxz .npz), in any direction. "
        "Mesh to mesh with --resolution goes through an O-Voxel; without, only the file format changes.",
        epilog="examples:\n  voxgen convert chair.glb chair.vxz --resolution 1024\n"
        "  voxgen convert chair.vxz chair.glb --texture 4096\n  voxgen convert scan.ply remeshed.ply -r 256 --no-materials",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("-r", "--resolution", type=int, help="cells along the longest side (default: 512 from a mesh, else as it is)")
    parser.add_argument("--no-materials", dest="materials", action="store_false", help="shape only")
    parser.add_argument("--texture", type=int, metavar="PIXELS", help="bake materials into images of this size, not vertex attributes")
    parser.add_argument("--unwrap", choices=("grid", "xatlas"), default="grid", help="atlas of the baked images (default: grid)")
    parser.add_argument("--compat", choices=("trellis2",), help="give the numbers of the original system, quirks included")
    parser.add_argument("--compression", choices=("lzma", "zstd", "deflate", "none"), default="lzma", help=".vxz only (default: lzma)")
    parser.add_argument("--filter", choices=("none", "parent", "neighbor"), default="none", help=".vxz only (default: none)")
    add_up(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    to_ovoxel = is_ovoxel(arguments.target)
    if not to_ovoxel and arguments.target.suffix.lower() == ".gltf":
        raise RangeError(f"{arguments.target}: write .glb, which holds everything in one file.")
    item = load(arguments.source, arguments.up)
    if isinstance(item, TriMesh) and (to_ovoxel or arguments.resolution is not None):
        item = OVoxel.from_mesh(
            item,
            arguments.resolution if arguments.resolution is not None else 512,
            materials=arguments.materials,
            compat=arguments.compat,
            progress=shows_progress(),
        )
    elif isinstance(item, OVoxel) and arguments.resolution is not None:
        item = item.resample(arguments.resolution)
    if isinstance(item, OVoxel) and not to_ovoxel:
        materials = "texture" if arguments.texture else "attributes"
        item = item.to_mesh(
            materials=materials if arguments.materials else None,
            texture_size=arguments.texture or 2048,
            unwrap=arguments.unwrap,
            compat=arguments.compat,
        )
    if isinstance(item, TriMesh):
        save_mesh(item, arguments.target)
    else:
        item.save(
            arguments.target,
            compression=arguments.compression,
            filter=arguments.filter,
            compat=arguments.compat,
            progress=shows_progress(),
        )
    print(f"{arguments.target}: {item!r}, {arguments.target.stat().st_size:,} bytes")
    return 0
