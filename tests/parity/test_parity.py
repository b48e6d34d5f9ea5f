"""Every op × backend × case × dtype gives what the reference gives: forward, every gradient, and the same when run twice."""

from __future__ import annotations

import os

import pytest
import torch

from voxgen.ops._registry import load_all_ops
from voxgen.testing.cases import Case, cases_of, dtypes_of
from voxgen.testing.compare import compare_backends

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() and not os.environ.get("TRITON_INTERPRET") else [])]


def _all() -> list[object]:
    rows = []
    for name, op in sorted(load_all_ops().items()):
        for dtype in dtypes_of(name):
            for case in cases_of(name, dtype):
                for backend in op.backends:
                    if backend != "reference":
                        short = str(dtype).removeprefix("torch.")
                        rows.append(pytest.param(name, backend, case, id=f"{name}-{backend}-{short}-{case.name}"))
    return rows


@pytest.mark.parametrize(("op", "backend", "case"), _all())
@pytest.mark.parametrize("device", DEVICES)
def test_backend_matches_reference(op: str, backend: str, case: Case, device: str) -> None:
    reasons = load_all_ops()[op].backends[backend].unsupported(case.call(device))
    if reasons:
        pytest.skip(f"{backend} cannot serve this case: {'; '.join(reasons)}")
    compare_backends(case, backend, device)


def test_every_op_has_cases() -> None:
    for name in load_all_ops():
        assert any(cases_of(name, dtype) for dtype in dtypes_of(name)), name
