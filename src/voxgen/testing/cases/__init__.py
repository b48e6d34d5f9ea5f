"""Inputs for each op, shared by the parity test, the self-test and the benchmarks.

An op joins by a file of its name in this folder with a function `cases(dtype) -> list[Case]` and a tuple `DTYPES`. The
standard cases are: empty, one cell, a batch of three with an empty sample where the op knows batches, odd channel
counts, cells on the border of the grid, unsorted input where the op takes it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from voxgen.ops._registry import Call

Run = Callable[[str, Mapping[str, Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Case:
    """One call of an op.

    Args:
        name: readable id, made from what is special about the input.
        inputs: tensors by name.
        run: (backend, inputs) → named outputs; calls the public function of the op.
        gradients: names of the inputs whose gradient is compared. The upstream gradient is made by `compare.upstream`.
        facts: what the op passes as facts in its `Call` (to know which backends can serve the case).
        tolerance: by output or "grad <input>", instead of the dtype's entry in `compare.TOLERANCE`; each with a comment
            that says why, with the worst value measured.
    """

    name: str
    inputs: Mapping[str, Tensor]
    run: Run
    gradients: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)

    def call(self, device: str = "cpu") -> Call:
        """The call as a backend's checks see it."""
        tensors = [t.detach().to(device).requires_grad_(name in self.gradients) for name, t in self.inputs.items()]
        return Call.of(*tensors, **dict(self.facts))


def cases_of(op: str, dtype: torch.dtype) -> list[Case]:
    """The cases of an op; [] if it does not take this dtype. Raises ModuleNotFoundError for an op without a case file."""
    file = importlib.import_module(f"voxgen.testing.cases.{op}")
    return file.cases(dtype) if dtype in file.DTYPES else []


def dtypes_of(op: str) -> tuple[torch.dtype, ...]:
    """The dtypes that an op's cases come in."""
    return importlib.import_module(f"voxgen.testing.cases.{op}").DTYPES
