"""The edges of a triangle mesh: its table of half-edges, its border, its sharp edges.

NumPy sorts on the CPU; there is one engine, so nothing to choose.
"""

from ._sharp import sharp_edges
from ._table import EdgeTable, edge_table, following

__all__ = ["EdgeTable", "edge_table", "following", "sharp_edges"]
