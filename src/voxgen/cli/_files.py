"""What a file holds, told by its suffix, and how the commands read it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from voxgen.core import TriMesh
from voxgen.core.errors import FileFormatError
from voxgen.io import load_mesh
from voxgen.representations import OVoxel

MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")
OVOXEL_SUFFIXES = (".vxz", ".npz")


def is_ovoxel(path: Path) -> bool:
    """True for O-Voxel files, False for mesh files; other suffixes raise FileFormatError."""
    suffix = path.suffix.lower()
    if suffix in OVOXEL_SUFFIXES:
        return True
    if suffix in MESH_SUFFIXES:
        return False
    known = ", ".join(MESH_SUFFIXES + OVOXEL_SUFFIXES)
    raise FileFormatError(f"{path}: the suffix must be one of {known}; got {suffix!r}.")


def load(path: Path, up: str | None = None) -> TriMesh | OVoxel:
    """Read a mesh or an O-Voxel."""
    return OVoxel.load(path) if is_ovoxel(path) else load_mesh(path, up=up)  # pyright: ignore[reportArgumentType]


def load_as_mesh(path: Path, up: str | None = None) -> TriMesh:
    """Read a mesh, or an O-Voxel and extract its surface."""
    item = load(path, up)
    return item if isinstance(item, TriMesh) else item.to_mesh()


def add_up(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--up", choices=("y", "z"), help="which axis points up in formats that do not say (default: y)")


def shows_progress() -> bool:
    """Bars are for people: shown if stderr is a terminal."""
    return sys.stderr.isatty()
