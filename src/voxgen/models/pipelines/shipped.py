"""The small systems whose weights come with voxgen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voxgen.core.errors import RangeError

from .trellis2 import Trellis2Pipeline

__all__ = ["shipped_folder", "shipped_pipeline", "shipped_pipelines"]

_FOLDER = Path(__file__).with_name("weights")


def shipped_pipelines() -> tuple[str, ...]:
    """Names that `shipped_pipeline` knows."""
    return tuple(f"voxgen/{path.parent.name}" for path in sorted(_FOLDER.glob("*/pipeline.json")))


def shipped_folder(name: str) -> Path:
    """The folder of a shipped pipeline, as `Trellis2Pipeline.save_folder` wrote it.

    Raises:
        RangeError: an unknown name; the message lists those that exist.
    """
    if name not in shipped_pipelines():
        raise RangeError(f"shipped_pipeline: there is no {name!r}; there are {', '.join(shipped_pipelines()) or 'none'}.")
    return _FOLDER / name.removeprefix("voxgen/")


def shipped_pipeline(name: str = "voxgen/trellis2-small", **options: Any) -> Trellis2Pipeline:
    """A system that generates, ready to use: the recipe of TRELLIS.2 at a small size, trained on voxgen's procedural assets.

    It makes O-Voxels of 64³ with materials from a picture of one object on a transparent ground. Trained for CPU minutes on toy assets, it
    shows that the parts fit, and is for demonstrations and tests; it knows nothing of photographs.

    Args:
        name: one of `shipped_pipelines()`.
        options: of `Trellis2Pipeline.from_folder`, such as device.
    Raises:
        RangeError: an unknown name.   FileFormatError: a file is not the one that was shipped (its checksum differs).
    Example:
        >>> pipeline = shipped_pipeline()                                                                  # doctest: +SKIP
        >>> pipeline.generate(picture, generator=torch.Generator().manual_seed(0)).meshes()[0]            # doctest: +SKIP
    """
    return Trellis2Pipeline.from_folder(shipped_folder(name), **options)
