"""Golden files of Direct3D-S2: description, arrays, weights and inputs by their recipe, key lists of the released files."""

from __future__ import annotations

import torch

from golden import reader  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from golden.reader import Golden as Golden  # pyright: ignore[reportMissingImports]


def published_keys(name: str) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Name, shape and dtype of every tensor of a released file."""
    return reader.published_keys(f"direct3d-s2_{name}")
