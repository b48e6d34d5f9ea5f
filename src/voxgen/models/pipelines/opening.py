"""Folders of pipelines, whatever their kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

from voxgen.core.errors import FileFormatError

from .direct3d_s2 import Direct3DS2Pipeline
from .focusing import FocusingPipeline
from .folder import MANIFEST, read_manifest
from .sparse_up import SparseUpPipeline
from .trellis import TrellisPipeline
from .trellis2 import Trellis2Pipeline

__all__ = ["AnyPipeline", "open_pipeline"]

AnyPipeline: TypeAlias = Trellis2Pipeline | TrellisPipeline | FocusingPipeline | SparseUpPipeline | Direct3DS2Pipeline

_KINDS: dict[str, type[Any]] = {
    "direct3d-s2": Direct3DS2Pipeline,
    "focusing": FocusingPipeline,
    "sparse-up": SparseUpPipeline,
    "trellis": TrellisPipeline,
    "trellis2": Trellis2Pipeline,
}


def open_pipeline(folder: str | os.PathLike[str], **options: Any) -> AnyPipeline:
    """The pipeline that a folder of `save_folder` holds.

    Args:
        folder: with voxgen's pipeline.json. Released folders do not say what they are in one way: use `from_folder` of their class.
        options: of that class's `from_folder`, such as device.
    Raises:
        FileNotFoundError: no such folder.   FileFormatError: not written by voxgen, or by a newer one.   Others as `from_folder`.
    Example:
        >>> open_pipeline("my-system", device="cuda").generate(picture)      # doctest: +SKIP
    """
    where, path = "open_pipeline", Path(os.fspath(folder))
    kind = read_manifest(where, path).get("voxgen.pipeline")
    if not isinstance(kind, str):
        raise FileFormatError(
            f"{where}: {path / MANIFEST} was not written by voxgen. For released folders use from_folder of the system's class."
        )
    if kind not in _KINDS:
        raise FileFormatError(f"{where}: {path} holds a pipeline {kind!r}; this voxgen has {', '.join(_KINDS)}.")
    return _KINDS[kind].from_folder(path, **options)
