"""`voxgen checkpoints`: what files of weights are."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "checkpoints",
        help="what a file of weights is",
        description="Say which released network a file of weights holds, or which one it comes near.",
        epilog="examples:\n  voxgen checkpoints inspect shape_dec.safetensors\n  voxgen checkpoints inspect model_dense.ckpt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    inspect = actions.add_parser("inspect", help="tensors, numbers, dtypes, and the network that they are of")
    inspect.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help=".safetensors, .ckpt, .pt, .pth, or the .json of a published pair"
    )
    inspect.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from voxgen.models.checkpoints import inspect_checkpoint  # brings in every network

    for file in arguments.files:
        entries = inspect_checkpoint(file)
        print(f"{file}, {file.stat().st_size:,} bytes" if file.is_file() else str(file))
        for entry in entries:
            print(entry)
    return 0
