"""`voxgen view`: files in an interactive viewer in the browser."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from voxgen.core.errors import FileFormatError
from voxgen.view import FILE_RESOLUTION, Viewer, open_file

from ._files import add_up


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "view",
        help="files in an interactive viewer in the browser",
        description="Show meshes, O-Voxels, sparse SDFs, SparseFlex, Gaussians and oriented points side by side, with a resolution slider, "
        "overlays (cells, dual vertices, wireframe, open edges) and a cutting plane.",
        epilog="examples:\n  voxgen view chair.glb chair.vxz\n  voxgen view splats.ply --port 9000 --no-browser",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("-r", "--resolution", type=int, default=FILE_RESOLUTION, help="cells a side at the start (default: as in the file)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets other machines see it (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="(default: 8080; 0 takes a free one)")
    parser.add_argument("--no-browser", action="store_true", help="do not open one")
    add_up(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    names = [path.name for path in arguments.files]
    if len(set(names)) < len(names):  # same names in different folders
        names = [str(path) for path in arguments.files]
    if len(set(names)) < len(names):
        raise FileFormatError(f"FILE: each file can be shown once; got {', '.join(names)}.")
    items = {name: open_file(path, arguments.up) for name, path in zip(names, arguments.files, strict=True)}
    with Viewer(items, resolution=arguments.resolution, host=arguments.host, port=arguments.port) as viewer:
        print(f"{viewer.url} shows {', '.join(names)}; Ctrl-C ends it", flush=True)
        if not arguments.no_browser:
            webbrowser.open(viewer.url)
        viewer.wait()
    return 0
