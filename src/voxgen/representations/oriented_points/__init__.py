"""Oriented points: samples of a surface with its normals, what point-cloud encoders read (TripoSF)."""

from ._fields import OrientedPoints as OrientedPoints

__all__ = ["OrientedPoints"]
