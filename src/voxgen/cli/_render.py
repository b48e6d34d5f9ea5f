"""`voxgen render`: pictures of a mesh or O-Voxel."""

from __future__ import annotations

import argparse
from pathlib import Path

from voxgen.core.errors import FileFormatError
from voxgen.render import Panel, compose_figure, orbit_cameras, render_mesh, save_png

from ._files import add_up, load_as_mesh, shows_progress


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "render",
        help="a PNG of a mesh or O-Voxel",
        description="Render a mesh, or the surface of an O-Voxel, with its materials. Several views stand side by side.",
        epilog="examples:\n  voxgen render chair.glb chair.png\n  voxgen render chair.vxz around.png --views 4 --size 384 --shading normal",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("picture", type=Path, help="the .png to write")
    parser.add_argument("--views", type=int, default=1, help="number of views around the object (default: 1)")
    parser.add_argument("--size", type=int, default=768, help="pixels a side of each view (default: 768)")
    parser.add_argument("--elevation", type=float, default=20.0, help="degrees above the horizon (default: 20)")
    parser.add_argument("--azimuth", type=float, default=30.0, help="degrees of the first view; 0 is the front (default: 30)")
    parser.add_argument("--shading", choices=("pbr", "lambert", "albedo", "normal"), default="pbr", help="(default: pbr)")
    add_up(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.picture.suffix.lower() != ".png":
        raise FileFormatError(f"{arguments.picture}: pictures are written as .png; got {arguments.picture.suffix!r}.")
    mesh = load_as_mesh(arguments.file, arguments.up)
    low, high = mesh.bounds()
    cameras = orbit_cameras(
        arguments.views,
        low=low,
        high=high,
        elevation=arguments.elevation,
        azimuth=arguments.azimuth,
        up=mesh.up,
        width=arguments.size,
        height=arguments.size,
    )
    images = render_mesh(mesh, cameras, shading=arguments.shading, supersample=2, progress=shows_progress()).color
    save_png(arguments.picture, images[0] if len(images) == 1 else compose_figure([[Panel(image) for image in images]]))
    print(f"{arguments.picture}: {len(images)} view(s) of {mesh!r}")
    return 0
