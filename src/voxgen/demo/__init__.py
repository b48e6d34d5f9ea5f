"""`python -m voxgen.demo`: a mesh becomes an O-Voxel at several resolutions and comes back, with a table and a picture."""

from ._asset import procedural_asset as procedural_asset
from ._main import main as main

__all__ = ["main", "procedural_asset"]
