"""Sparse SDF: signed distances in a narrow band around a surface (Direct3D-S2)."""

from ._fields import SparseSDF as SparseSDF

__all__ = ["SparseSDF"]
