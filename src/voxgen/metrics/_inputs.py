"""Checks of what comes in as a surface: a mesh or a set of points."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.checks import describe, require_finite, require_tensor
from voxgen.core.errors import DtypeError, FrameError, MeshError, RangeError

Surface = TriMesh | Tensor
"""A mesh, or (n, 3) points that lie on a surface."""


def require_mesh(where: str, name: str, value: object) -> TriMesh:
    """Geometry of `value`, detached, on the CPU and in float64, or raise if it is no usable mesh."""
    if not isinstance(value, TriMesh):
        raise DtypeError(f"{where}: {name} must be a TriMesh; got {describe(value)}.")
    value.validate(f"{where}: {name}")
    return TriMesh(value.vertices.detach().double().cpu(), value.faces.cpu(), up=value.up)


def require_surface(where: str, name: str, value: Surface) -> Surface:
    """The same for what may also be a set of points."""
    if not isinstance(value, Tensor):
        if not isinstance(value, TriMesh):
            raise DtypeError(f"{where}: {name} must be a TriMesh or a tensor of points (n, 3); got {describe(value)}.")
        return require_mesh(where, name, value)
    require_tensor(where, name, value, ("n", 3), (torch.float32, torch.float64))
    if len(value) == 0:
        raise MeshError(f"{where}: {name} must have at least one point; got none.")
    require_finite(where, name, value)
    return value.detach().double().cpu()


def require_same_up(where: str, one: Surface, other: Surface) -> None:
    """Raise FrameError if both are meshes whose up axes differ. Points carry no axis."""
    if isinstance(one, TriMesh) and isinstance(other, TriMesh) and one.up != other.up:
        raise FrameError(f"{where}: both meshes must have one up axis; got {one.up!r} and {other.up!r}. Turn one by with_up({one.up!r}).")


def require_length(where: str, name: str, value: object) -> None:
    """Raise RangeError unless `value` is a positive finite number."""
    if not (isinstance(value, Real) and math.isfinite(value) and float(value) > 0):
        raise RangeError(f"{where}: {name} must be a positive finite length in world units; got {describe(value)}.")
