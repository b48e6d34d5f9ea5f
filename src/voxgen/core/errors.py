"""Errors and warnings of voxgen.

Every message says where, what was expected, what came, and what to do. Each class also derives from the built-in
exception that fits, so that code which knows nothing of voxgen can still catch it.
"""

from __future__ import annotations


class VoxgenError(Exception):
    """Base of every error that voxgen raises on purpose."""


class ShapeError(VoxgenError, ValueError):
    """A tensor has the wrong number of axes or the wrong length along one."""


class DtypeError(VoxgenError, TypeError):
    """A value has the wrong type or a tensor the wrong dtype."""


class DeviceError(VoxgenError, ValueError):
    """Tensors of one call lie on different devices, or on one that cannot serve."""


class RangeError(VoxgenError, ValueError):
    """A number lies outside the range that the argument allows (this includes NaN and infinity)."""


class DuplicateError(VoxgenError, ValueError):
    """Coordinates that must be unique are not."""


class MeshError(VoxgenError, ValueError):
    """A mesh cannot be used: no faces, an index out of range, a coordinate that is not finite."""


class FrameError(VoxgenError, ValueError):
    """Two objects live in different frames, or geometry lies outside the frame it was given."""


class CapacityError(VoxgenError, MemoryError):
    """The request needs more memory, or larger keys, than there are."""


class FileFormatError(VoxgenError, ValueError):
    """A file is damaged, hostile, of another version, or of a kind that voxgen does not know."""


class CheckpointError(VoxgenError, RuntimeError):
    """The tensors of a checkpoint are not those of the module; the message lists missing, left over and unfitting ones."""


class BackendUnavailable(VoxgenError, RuntimeError):
    """No backend, or not the one asked for, can serve this call; the message lists the reasons of all of them."""


class MissingDependency(VoxgenError, ImportError):
    """An optional package is needed for this call; the message names the extra that installs it."""


class VoxgenWarning(UserWarning):
    """Base of every warning that voxgen gives."""


class EmptyResultWarning(VoxgenWarning):
    """The result is empty although the input was not; the message says why."""


class MeshWarning(VoxgenWarning):
    """A mesh was usable, but something in it was left out or looks unintended."""


class FileWarning(VoxgenWarning):
    """A file was readable, but something it refers to is missing or was ignored."""
