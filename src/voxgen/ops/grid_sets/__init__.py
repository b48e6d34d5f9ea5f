"""Grids from grids: union, intersection, difference, dilation, parents, children.

Plain torch on packed keys, on any device; there is one engine, so nothing to choose.
"""

from ._boolean import difference, dilate, intersection, union
from ._levels import ChildOrder, child_offsets, children, parent_rows, parents

__all__ = ["ChildOrder", "child_offsets", "children", "difference", "dilate", "intersection", "parent_rows", "parents", "union"]
