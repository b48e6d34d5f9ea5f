"""`python -m voxgen.demo`: a mesh becomes an O-Voxel at several resolutions and comes back, with a table and a picture."""

from ._asset import procedural_asset as procedural_asset
from ._generate import generate_sheet as generate_sheet
from ._generate import held_out_conditions as held_out_conditions
from ._main import main as main

__all__ = ["generate_sheet", "held_out_conditions", "main", "procedural_asset"]
