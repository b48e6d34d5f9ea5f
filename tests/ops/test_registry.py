"""Choice of engines: argument, context, automatic; reasons when none can serve."""

from __future__ import annotations

import pytest
import torch

import voxgen
from voxgen.core.errors import BackendUnavailable, RangeError
from voxgen.ops._registry import OPS, Backend, Call, Op, cpu_only, float_types, module, no_gradient


@pytest.fixture
def op():
    made = Op(
        "registry_test",
        [
            Backend("missing", "nowhere:f", (module("surely_not_installed", "extra"),)),
            Backend("fast", "operator:add", (cpu_only, no_gradient, float_types(torch.float32))),
            Backend("reference", "operator:mul"),
        ],
    )
    yield made
    del OPS["registry_test"]


def test_automatic_choice_takes_the_first_that_can_serve(op: Op) -> None:
    x = torch.ones(1)
    assert op.run("auto", Call.of(x), 3, 4) == 7
    assert op.run("auto", Call.of(x.double()), 3, 4) == 12
    assert op.run("auto", Call.of(x.requires_grad_()), 3, 4) == 12
    with torch.no_grad():
        assert op.choose("auto", Call.of(x)).name == "fast"


def test_explicit_choice_raises_with_all_reasons(op: Op) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        op.choose("fast", Call.of(torch.ones(1, dtype=torch.float64, requires_grad=True)))
    text = str(caught.value)
    assert "has no gradient" in text
    assert "takes float32, got float64" in text
    assert "voxgen[extra]" in text
    assert "reference: ready" in text
    with pytest.raises(BackendUnavailable, match="'gpu'"):
        op.choose("gpu", Call.of(torch.ones(1)))
    assert "the tensors lie on meta" in op.explain(Call.of(torch.ones(1, device="meta")))


def test_context_chooses_and_is_restored(op: Op) -> None:
    call = Call.of(torch.ones(1))
    with voxgen.use_backend(registry_test="reference"):
        assert op.choose("auto", call).name == "reference"
        assert op.choose("fast", call).name == "fast", "the argument wins"
        with voxgen.use_backend("fast"):
            assert op.choose("auto", call).name == "reference", "an op's own entry wins over the default"
    with voxgen.use_backend("reference"):
        assert op.choose("auto", call).name == "reference"
    with voxgen.use_backend("missing"), pytest.raises(BackendUnavailable):
        op.choose("auto", call)
    assert op.choose("auto", call).name == "fast"


def test_context_rejects_unknown_names(op: Op) -> None:
    for arguments in ({"no_such_op": "torch"}, {"registry_test": "torch"}):
        with pytest.raises(RangeError), voxgen.use_backend(**arguments):
            pass
    with pytest.raises(RangeError), voxgen.use_backend("warp drive"):
        pass


def test_the_reference_is_required() -> None:
    with pytest.raises(RangeError, match="reference"):
        Op("registry_test_2", [Backend("fast", "operator:add")])
