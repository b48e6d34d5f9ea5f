"""Parsing of the command line, and how errors of the user's making are told."""

from __future__ import annotations

import argparse
import sys
import warnings

from voxgen import __version__
from voxgen.core.errors import VoxgenError, VoxgenWarning

from . import _checkpoints, _compare, _convert, _generate, _info, _prepare, _render, _view

EPILOG = """examples:
  voxgen info asset.glb                               what is in a mesh or O-Voxel file
  voxgen convert asset.glb asset.vxz -r 512           mesh to O-Voxel
  voxgen convert asset.vxz back.glb --texture 2048    O-Voxel to mesh, materials baked into images
  voxgen render asset.vxz picture.png --views 4       pictures from four sides
  voxgen view asset.glb asset.vxz                     both in the browser
  voxgen compare asset.glb back.glb                   distances between two surfaces
  voxgen generate picture.png asset.glb               an asset from a picture, by the small system in the box
  voxgen checkpoints inspect model.ckpt               which network a file of weights holds
  voxgen prepare assets/ prepared/ --ovoxel 64        training data of a folder of assets

exit codes: 0 done, 1 stopped by a signal, 2 bad arguments or input"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="voxgen",
        description="Meshes to sparse voxel representations and back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"voxgen {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (_convert, _info, _render, _compare, _view, _generate, _prepare, _checkpoints):
        module.add_parser(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. A mistake of the user's gives one line on stderr, never a traceback."""
    arguments = build_parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", VoxgenWarning)
        warnings.showwarning = _tell_warning
        try:
            return arguments.run(arguments)
        except (VoxgenError, OSError) as error:
            told = str(error).removeprefix(f"{arguments.command}: ")  # functions of the command's name begin so
            print(f"voxgen {arguments.command}: {told}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"voxgen {arguments.command}: stopped", file=sys.stderr)
            return 1


def _tell_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"voxgen: warning: {message}", file=sys.stderr)
