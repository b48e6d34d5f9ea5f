"""What holds for every layer: gradients, dtypes, batches, order, empty input, NaN, copies."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import LAYERS, WIDTH, gradients, made, tensor  # pyright: ignore[reportMissingImports]
from torch.autograd import gradcheck
from torch.func import functional_call

import voxgen
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.layers import EarlyPruningUpsampler, set_torso_dtype
from voxgen.testing.compare import TOLERANCE, assert_same, difference
from voxgen.testing.grids import fresh

every_layer = pytest.mark.parametrize("name", LAYERS)


@every_layer
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    x = tensor(4, 0, 2, resolution=3, dtype=torch.float64)
    module = made(name).double()
    names = [n for n, _ in module.named_parameters()]

    def run(feats: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        held = _Held(module, name)
        return functional_call(held, {f"module.{n}": p for n, p in zip(names, parameters, strict=True)}, (x.with_feats(feats),))

    parameters = [p.detach().requires_grad_() for p in module.parameters()]
    assert gradcheck(run, (x.feats.requires_grad_(), *parameters), fast_mode=True, atol=1e-6)


class _Held(torch.nn.Module):
    def __init__(self, module: torch.nn.Module, name: str) -> None:
        super().__init__()
        self.module = module
        self.name = name

    def forward(self, x: SparseTensor) -> torch.Tensor:
        return LAYERS[self.name].run(self.module, x).feats


@every_layer
@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_backends_agree_forward_and_backward(name: str, backend: str) -> None:
    x = tensor(30, 0, 12)
    module = made(name)
    with voxgen.use_backend("reference"):
        expected = gradients(name, module, x)
    with voxgen.use_backend(backend):
        actual = gradients(name, module, x.with_feats(x.feats))
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        assert_same(actual[key], value, key, 5e-5)  # sums of some hundred products in float32, twice in a row


@every_layer
def test_inference_gives_the_numbers_of_training_and_does_not_touch_its_input(name: str) -> None:
    x = tensor(30, 0, 12)
    before = x.feats.clone()
    module = made(name)
    trained = gradients(name, module, x)["out"]
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert_same(LAYERS[name].run(module, x).feats, trained, name, TOLERANCE[torch.float32])
    assert torch.equal(x.feats, before)
    gradients(name, module, x)  # tables made in inference serve training


@every_layer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_torso(name: str, dtype: torch.dtype) -> None:
    x = tensor(30, 0, 12)
    exact = LAYERS[name].run(made(name), x).feats.detach()
    module = set_torso_dtype(made(name), dtype)
    half = LAYERS[name].run(module, x.to(dtype)).feats.detach()
    assert half.dtype == dtype
    assert float((half - exact).square().mean().sqrt() / exact.square().mean().sqrt()) < 8 * torch.finfo(dtype).eps
    norms = [p for n, p in module.named_parameters() if "norm" in n]
    assert all(p.dtype == torch.float32 for p in norms)


@every_layer
def test_autocast(name: str) -> None:
    x = tensor(30, 0, 12)
    module = made(name)
    exact = gradients(name, module, x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = gradients(name, module, x)
    for key, value in exact.items():
        error = float((rounded[key] - value).square().mean().sqrt() / value.square().mean().sqrt())
        assert error < 8 * torch.finfo(torch.bfloat16).eps, key


def test_the_residual_stream_stays_float32_under_autocast() -> None:
    x = tensor(20)
    with torch.autocast("cpu", torch.bfloat16):
        for name in ("convnext", "residual-down", "residual-up"):
            assert LAYERS[name].run(made(name), x).dtype == torch.float32


@every_layer
@settings(max_examples=3, deadline=None, derandomize=True)
@given(counts=st.lists(st.integers(0, 20), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_a_sample_gives_the_same_numbers_alone_and_in_a_batch(name: str, counts: list[int], seed: int) -> None:
    x = tensor(*counts, seed=seed)
    module = made(name)
    with torch.no_grad():
        together = LAYERS[name].run(module, x)
        assert together.grid.batch_size == len(counts)
        for sample, alone in zip(together.unbind(), x.unbind(), strict=True):
            own = LAYERS[name].run(module, alone)
            assert torch.equal(own.coords, sample.coords)
            assert_same(own.feats, sample.feats, name)


@every_layer
@settings(max_examples=3, deadline=None, derandomize=True)
@given(count=st.integers(1, 30), seed=st.integers(0, 99))
def test_the_order_of_the_callers_rows_does_not_matter(name: str, count: int, seed: int) -> None:
    x = tensor(count, 4, seed=seed)
    module = made(name)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    shuffled = SparseTensor.build(x.coords[order], x.feats[order], resolution=x.grid.resolution, batch_size=2)
    with torch.no_grad():
        a, b = LAYERS[name].run(module, x), LAYERS[name].run(module, shuffled)
    assert torch.equal(a.coords, b.coords)
    assert torch.equal(a.feats, b.feats)


@every_layer
@pytest.mark.parametrize("counts", [(), (0, 0), (0, 1, 0)])
def test_empty_tensors_empty_samples_and_single_cells(name: str, counts: tuple[int, ...]) -> None:
    x = tensor(*counts)
    for dtype in (torch.float32, torch.float16):
        result = LAYERS[name].run(set_torso_dtype(made(name), dtype), x.to(dtype))
        assert result.grid.batch_size == len(counts)
        assert bool(result.feats.isfinite().all())
    assert all(bool(g.isfinite().all()) for g in gradients(name, made(name), x).values())


@every_layer
def test_nan_stays_where_it_belongs(name: str) -> None:
    """Two lumps of cells that do not meet, and a second sample: NaN in one cell of the first."""
    lump = tensor(12, resolution=5).grid.cells
    apart = torch.cat((lump, lump + 10, lump))
    sample = torch.tensor([0] * 24 + [1] * 12, dtype=torch.int32)[:, None]
    grid, _ = VoxelGrid.build(torch.cat((sample, apart), 1), resolution=16, batch_size=2)
    feats = torch.randn(len(grid), WIDTH)
    module = made(name)
    clean = LAYERS[name].run(module, SparseTensor(grid, feats))
    feats[0, 3] = float("nan")
    dirty = LAYERS[name].run(module, SparseTensor(grid, feats))
    scale = dirty.grid.resolution[0] / 16
    near = (dirty.grid.batch == 0) & ((dirty.grid.cells < 8 * scale).all(1) if LAYERS[name].local else True)
    assert bool(dirty.feats[near].isnan().any())
    assert_same(dirty.feats[~near], clean.feats[~near], name, TOLERANCE[torch.float32])


@every_layer
def test_second_run_is_the_same(name: str) -> None:
    x = tensor(40, 0, 12)
    module = made(name)
    first, second = gradients(name, module, x), gradients(name, module, SparseTensor(fresh(x.grid), x.feats))
    for key, value in first.items():
        assert torch.equal(second[key], value), key


@pytest.mark.parametrize("name", [n for n, layer in LAYERS.items() if layer.checkpoints])
def test_checkpointing_gives_equal_gradients(name: str) -> None:
    x = tensor(30, 0, 12)
    plain, saving = gradients(name, made(name), x), gradients(name, made(name, checkpoint=True), x)
    assert plain.keys() == saving.keys()
    for key, value in plain.items():
        assert torch.equal(saving[key], value), key


@pytest.mark.parametrize("name", [n for n, layer in LAYERS.items() if layer.checkpoints])
def test_checkpointing_keeps_less(name: str) -> None:
    x = tensor(30, 0, 12)
    x = x.with_feats(x.feats.requires_grad_())

    def kept(checkpoint: bool) -> int:
        sizes: dict[int, int] = {}
        module = made(name, checkpoint=checkpoint)
        weights = {p.data_ptr() for p in module.parameters()}

        def keep(t: torch.Tensor) -> torch.Tensor:
            if t.is_floating_point() and t.data_ptr() not in weights:
                sizes[t.data_ptr()] = t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            LAYERS[name].run(module, x)
        return sum(sizes.values())

    assert kept(True) <= x.feats.numel() < kept(False)


@every_layer
def test_copies_and_saved_states(name: str) -> None:
    x = tensor(10)
    module = made(name)
    expected = LAYERS[name].run(module, x).feats
    for same in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(LAYERS[name].run(same, x).feats, expected)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    other = LAYERS[name].make()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(LAYERS[name].run(other, x).feats, expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks at it where a graph begins at an inner tensor
def test_compiles() -> None:
    torch.compiler.reset()
    x = tensor(40, 0, 12)
    module = made("convnext")
    expected = module(x).feats  # this also makes the tables
    compiled: Any = torch.compile(module, backend="aot_eager")
    assert difference(compiled(x).feats, expected) < TOLERANCE[torch.float32]
    compiled(x).feats.sum().backward()
    assert module.conv.weight.grad is not None
    torch.compiler.reset()


def test_a_deep_stack_goes_down_and_up_and_trains() -> None:
    """Layers in sequence, as a user puts them together."""
    x = tensor(60, 0, 30)
    down, up = made("residual-down"), EarlyPruningUpsampler(32, WIDTH)
    block = made("convnext")
    optimizer = torch.optim.SGD([*down.parameters(), *up.parameters(), *block.parameters()], lr=1e-3)
    losses = []
    for _ in range(3):
        y, structure = down(block(x))
        result = up(y, structure=structure)
        assert result.x.grid is x.grid
        target = structure.mask().float()
        loss = (result.x.feats - x.feats).square().mean() + torch.nn.functional.binary_cross_entropy_with_logits(result.logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
