"""The examples in the docstrings of attention, the dense stages, the sparse flow and the refiners run and give what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
from typing import Any

import numpy as np
import pytest
import torch

from voxgen import attention
from voxgen.core import SparseTensor
from voxgen.models import build, direct3d_s2, structure
from voxgen.testing.grids import random_grid

MODULES = {
    attention: "timestep position rms_norm feed_forward full_attention self_attention cross_attention transformer_block dit_block "
    "packed_context ragged_attention window_attention ssa",
    structure: "blocks encoder decoder posterior vae flow",
    direct3d_s2: "unet adaptive_smoothing tiles refiner sign_refiner fields surface conditioning ss_dit",
}


def with_examples() -> list[tuple[Any, dict[str, Any]]]:
    """Every public object of these modules whose docstring has an example, and the names of its module."""
    found = []
    for package, files in MODULES.items():
        for file in files.split():
            module = importlib.import_module(f"{package.__name__}.{file}")
            for name, item in vars(module).items():
                own = (inspect.isclass(item) or inspect.isfunction(item)) and item.__module__ == module.__name__
                if own and not name.startswith("_") and ">>>" in (item.__doc__ or ""):
                    found.append((item, vars(module)))
    return found


@pytest.mark.parametrize(("item", "module"), with_examples(), ids=lambda value: getattr(value, "__name__", ""))
def test_examples(item: Any, module: dict[str, Any]) -> None:
    names: dict[str, Any] = {name: getattr(package, name) for package in MODULES for name in package.__all__}
    grid = random_grid((30,), 32)
    names |= {"torch": torch, "np": np, "build": build, "field": SparseTensor(grid, torch.rand(30, 1)), "features": torch.rand(30, 32)}
    names["x"] = SparseTensor(grid, torch.rand(30, 32))
    (test,) = doctest.DocTestFinder(recurse=False).find(item, globs={**module, **names})
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)


def test_the_blocks_have_examples() -> None:
    shown = {item.__name__ for item, _ in with_examples()}
    assert shown >= {
        "DiTBlock",
        "SelfAttention",
        "SpatialSparseAttention",
        "StructureVAE",
        "StructureFlow",
        "SDFRefiner",
        "SignRefiner",
        "SSDiT",
    }
