"""`voxgen` on the command line: convert, info, render, compare."""

from ._main import main as main

__all__ = ["main"]
