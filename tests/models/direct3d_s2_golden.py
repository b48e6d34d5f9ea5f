"""Golden files of Direct3D-S2: description, arrays, weights and inputs by their recipe, key lists of the released files."""

from __future__ import annotations

import torch

from golden.reader import FOLDER  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from golden.reader import Golden as Golden  # pyright: ignore[reportMissingImports]


def published_keys(name: str) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Name, shape and dtype of every tensor of a released file."""
    lines = (FOLDER / "keys" / f"direct3d-s2_{name}.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return {key: (tuple(int(n) for n in shape.split(",")), getattr(torch, dtype)) for key, shape, dtype in rows}
