"""The examples in the docstrings of layers run and give what they say."""

from __future__ import annotations

import doctest
import re

import pytest
import torch

from voxgen import layers
from voxgen.core import SparseTensor
from voxgen.ops.resample import Structure
from voxgen.testing.grids import random_grid

NAMES = [name for name in layers.__all__ if name not in ("Upsampled", "DualGridPrediction", "Pointwise")]
"""The others are what these give."""


@pytest.mark.parametrize("name", NAMES)
def test_examples(name: str) -> None:
    item = getattr(layers, name)
    channels = re.search(r"# x: SparseTensor of (\d+) channels", item.__doc__)
    grid = random_grid((30, 0, 12), 12)
    structure = Structure.of_children(grid)
    names = {exported: getattr(layers, exported) for exported in layers.__all__} | {
        "torch": torch,
        "x": SparseTensor(grid, torch.randn(len(grid), int(channels[1]) if channels else 1)),
        "structure": structure,
        "y": SparseTensor(structure.parents, torch.randn(len(structure.parents), 32)),
    }
    (test,) = doctest.DocTestFinder(recurse=False).find(item, globs=names)
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)
