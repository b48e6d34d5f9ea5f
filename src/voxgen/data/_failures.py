"""Which errors are no fault of the asset that was worked on: they end the run, and no asset is rejected for them."""

from __future__ import annotations

import errno

import torch

from voxgen.core.errors import BackendUnavailable, CapacityError, CheckpointError, DeviceError, MissingDependency, VoxgenError

from ._sources import AssetInput
from ._stages import StageFailed

_KEPT: tuple[type[VoxgenError], ...] = (MissingDependency, DeviceError, BackendUnavailable, CheckpointError, StageFailed)
_SYSTEM = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EMFILE", "ENFILE", "ENOBUFS", "ESTALE", "ENOTCONN", "EHOSTDOWN")
    if hasattr(errno, name)
)
"""Of the machine, whatever file it was about: full, out of descriptors, a network disk that is gone."""
_ACCELERATOR = getattr(torch, "AcceleratorError", torch.OutOfMemoryError)  # since torch 2.8


def failure_of(asset: AssetInput, stage: object, error: Exception) -> VoxgenError | OSError | None:
    """What to raise for an error of the environment, or None for one of the asset.

    It is of a class with a message alone, so that it can be sent from one process to another.
    """
    kind, message = _kind(asset, error), str(error) or type(error).__name__
    if kind is None:
        return None
    text = (
        f"prepare: {asset.name}: {type(stage).__name__} failed for a reason that is no fault of the asset: {message.rstrip('.')}. "
        f"No asset is rejected for it; put it right and run the same again to go on."
    )
    made = OSError(error.errno, text) if isinstance(error, OSError) and error.errno is not None else kind(text)
    made.__cause__ = error  # for those who see it in the same process
    return made


def _kind(asset: AssetInput, error: Exception) -> type[VoxgenError] | type[OSError] | None:
    for kind in _KEPT:
        if isinstance(error, kind):
            return kind
    if isinstance(error, ImportError):
        return MissingDependency
    if isinstance(error, torch.OutOfMemoryError):
        return CapacityError
    if isinstance(error, _ACCELERATOR):
        return DeviceError
    # a file of an asset that cannot be read is the asset's; other files are of the stages
    if isinstance(error, OSError) and not isinstance(error, VoxgenError) and (not asset.unreadable or error.errno in _SYSTEM):
        return OSError
    return None
