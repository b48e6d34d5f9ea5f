"""`voxgen` on the command line: one module a command."""

from ._main import main as main

__all__ = ["main"]
