"""The sparse flow of Direct3D-S2: goldens, released files, batches, plans, precision, training, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from models.direct3d_s2_golden import Golden, published_keys  # pyright: ignore[reportMissingImports]
from voxgen import use_backend
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import CheckpointError, DtypeError, RangeError, ShapeError
from voxgen.core.grid import restore
from voxgen.models import SSDiT, available, build, load_pretrained, save_pretrained
from voxgen.models.checkpoints import load_direct3d_s2, to_direct3d_s2
from voxgen.models.direct3d_s2 import SparseCondition
from voxgen.ops.block_topk import block_topk
from voxgen.ops.blocks import _blocks
from voxgen.testing.compare import assert_same
from voxgen.testing.grids import random_grid

RELEASED = {
    "dit-512-v1.0": (874, 520_083_472),
    "dit-1024-v1.0": (874, 520_083_472),
    "dit-512-v1.1": (584, 509_286_416),
    "dit-1024-v1.1": (584, 509_286_416),
}
GOLDENS = {"dit-512-v1.0": "v1_0", "dit-1024-v1.1": "v1_1"}
"""Released networks whose small versions were run: with convolutions and sparse conditions, and with half the positions."""


class Case:
    """One golden: its network with its weights, its tokens and its condition."""

    def __init__(self, name: str, **fields: Any) -> None:
        self.golden = Golden.read(f"direct3d_s2_sparse_dit_{GOLDENS[name]}")
        self.fields = {**self.golden.configuration, **fields}
        flow = build(f"direct3d-s2/{name}", **self.fields)
        assert isinstance(flow, SSDiT)
        load_direct3d_s2(flow, self.golden.weights())
        self.flow = flow
        arrays = self.golden.arrays
        grid, self.order = VoxelGrid.build(arrays["in/coords"], resolution=flow.resolution, batch_size=2)
        about = self.golden.about["inputs"]["x"]
        name = about["made"].split("'")[1]
        self.x = SparseTensor(grid, torch.from_numpy(recipe.normal(name, tuple(about["shape"]), self.golden.about["seed"]))[self.order])
        self.t = arrays["in/t"]
        cond = self.golden.normal("cond")
        self.context: Any = cond
        if flow.sparse_conditions:
            places = arrays["in/cond_coords"]
            samples = [places[:, 0] == i for i in range(2)]
            self.context = SparseCondition([cond[s] for s in samples], [places[s, 1:].int() for s in samples])

    def back(self, rows: Tensor) -> Tensor:
        """Rows of the grid in the golden's order."""
        return restore(rows, self.order)


# --- goldens and files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numba", "torch", "reference"])
@pytest.mark.parametrize("name", GOLDENS)
def test_the_original(name: str, backend: str) -> None:
    case = Case(name)
    steps: dict[str, Any] = {}
    inner = ["input_layer", "t_embedder", "blocks.0.self_attn", "blocks.0.cross_attn", "blocks.0.mlp", "blocks.0", "blocks.1", "out_layer"]
    for key in inner:
        case.flow.get_submodule(key).register_forward_hook(lambda _m, _i, out, key=key: steps.__setitem__(key, out))
    case.flow.blocks[0].register_forward_pre_hook(lambda _m, args: steps.update(block_0_in=args[0], condition=args[2]))
    with torch.no_grad(), use_backend(backend):
        y = case.flow(case.x, case.t, case.context)
    rows = case.golden.arrays["in/rows"]
    outputs = case.golden.arrays
    if "out/condition" in outputs:
        assert_same(steps["condition"].tokens, outputs["out/condition"], "condition", case.golden.tolerance)
    for key in ("block_0_in", "block_0"):
        value = steps["blocks.0" if key == "block_0" else key]
        assert_same(case.back(value.feats)[rows], outputs[f"out/{key}"], key, case.golden.tolerance)
    for key in inner:
        expected = case.golden.about["checkpoints"][key]
        value = steps[key].feats if isinstance(steps[key], SparseTensor) else steps[key]
        ordered = case.back(value) if len(value) == len(case.x) else value
        assert ordered.mean().item() == pytest.approx(expected["mean"], abs=1e-5), key
        assert ordered.flatten()[:4].tolist() == pytest.approx(expected["first"], abs=1e-4), key
    assert_same(case.back(y.feats), outputs["out/y"], "velocity", case.golden.tolerance)


@pytest.mark.parametrize("name", GOLDENS)
def test_the_original_chooses_the_same_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, chosen = Case(name), []
    from voxgen.ops.spatial_sparse_attention import _reference

    def remember(*args: Any, **options: Any) -> Tensor:
        chosen.append(block_topk(*args, **options))
        return chosen[-1]

    monkeypatch.setattr(_reference, "block_topk", remember)
    with torch.no_grad(), use_backend("reference"):
        case.flow(case.x, case.t, case.context)
    first = case.flow.blocks[0].self_attn.plan(case.x).sample_blocks[:, :1]
    assert len(chosen) == 2
    for i, found in enumerate(chosen):
        local = torch.where(found < 0, -1, found - first)
        assert torch.equal(case.back(local.transpose(0, 1)).transpose(0, 1), case.golden.arrays[f"out/block_{i}_topk"].int())


@pytest.mark.parametrize("name", RELEASED)
def test_every_tensor_of_the_released_files(name: str) -> None:
    assert f"direct3d-s2/{name}" in available()
    module = build(f"direct3d-s2/{name}", device="meta")
    own = {key: (tuple(value.shape), value.dtype) for key, value in to_direct3d_s2(module).items()}
    assert list(own.items()) == list(published_keys(name).items())  # in file order, too
    assert (len(own), sum(value.numel() for value in module.state_dict().values())) == RELEASED[name]


def test_released_configurations() -> None:
    for name in RELEASED:
        flow = build(f"direct3d-s2/{name}", device="meta")
        assert isinstance(flow, SSDiT)
        old, large = name.endswith("0"), "1024" in name
        assert (flow.resolution, flow.factor, flow.sparse_conditions) == ((128, 0.5, old) if large else (64, 1.0, old))
        layers = [block.self_attn for block in flow.blocks]
        assert {layer.top_k for layer in layers} == {32 if old and not large else 8}
        assert [layer.shift for layer in layers] == [0, 4] * 12
        assert {(layer.compression_block, layer.selection_block, layer.window) for layer in layers} == {(4 if old else 8, 8, 8)}
    always = build("direct3d-s2/dit-512-v1.1", device="meta", use_shift=False)  # as published: it shifts all the more
    assert {block.self_attn.shift for block in always.blocks} == {4}


@pytest.mark.parametrize("name", GOLDENS)
def test_loading_is_strict_and_goes_both_ways(name: str, tmp_path: Path) -> None:
    case = Case(name)
    weights = case.golden.weights()
    state = to_direct3d_s2(case.flow)
    for key, value in weights.items():
        assert torch.equal(state[key], value)
    path = tmp_path / "model_sparse.ckpt"
    torch.save({"vae": {"x": torch.zeros(1)}, "dit": {key: value.half() for key, value in state.items()}}, path)
    second = build(f"direct3d-s2/{name}", device="meta", **case.fields)
    load_direct3d_s2(second, path, device="cpu")
    for key, value in to_direct3d_s2(second).items():
        assert torch.equal(value, state[key].half().float())
    victim = "blocks.1.self_attn.intra_block_pe"
    with pytest.raises(CheckpointError, match=rf"(?s)1 missing.*{victim}"):
        load_direct3d_s2(second, {key: value for key, value in state.items() if key != victim})
    with pytest.raises(CheckpointError, match=r"(?s)1 left over.*stranger"):
        load_direct3d_s2(second, {**state, "stranger": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="of another shape"):
        load_direct3d_s2(second, {**state, victim: state[victim][:2]})
    other = next(n for n in GOLDENS if n != name)
    with pytest.raises(CheckpointError, match="nothing was loaded"):
        load_direct3d_s2(build(f"direct3d-s2/{other}", **Case(other).fields), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_own_files(dtype: torch.dtype, tmp_path: Path) -> None:
    flow = small(compression_version="v2", num_heads=2, sparse_conditions=True, factor=0.5, shifted="none", torso_dtype=dtype)
    save_pretrained(flow, tmp_path / "flow.safetensors")
    again = load_pretrained(tmp_path / "flow.safetensors")
    assert isinstance(again, SSDiT)
    assert again.description() == flow.description()
    x, t, full = tokens([40]), torch.tensor([700.0]), condition([3])
    with torch.no_grad():
        assert torch.equal(again(x, t, full).feats, flow(x, t, full).feats)


# --- properties -----------------------------------------------------------------------------------------------------


def small(**options: Any) -> SSDiT:
    """A network whose weights, initial ones included that are zero, are not."""
    fields: dict[str, Any] = {"num_blocks": 2, "num_heads": 4, "topk": 3, "compression_block_size": 4, **options}
    flow = SSDiT(32, 4, 64, 10, 4, **fields)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return flow


def tokens(counts: list[int], resolution: int = 32, seed: int = 0) -> SparseTensor:
    grid = random_grid(counts, resolution, seed)
    return SparseTensor(grid, torch.randn(len(grid), 4))


def condition(lengths: list[int]) -> SparseCondition:
    return SparseCondition([torch.randn(m, 10) for m in lengths], [torch.randint(0, 37, (m, 3), dtype=torch.int32) for m in lengths])


@pytest.mark.parametrize("sparse", [False, True])
def test_samples_do_not_meet(sparse: bool) -> None:
    flow = small(sparse_conditions=sparse, compression_version="v2" if sparse else "v1", num_heads=2)
    counts, lengths = [90, 0, 6, 1], [5, 2, 0, 9]  # an empty sample, fewer blocks than topk, no condition
    x, t, full = tokens(counts), torch.tensor([1000.0, 400.0, 3.5, 0.0]), condition(lengths)
    with torch.no_grad():
        out = flow(x, t, full if sparse else full.tokens).unbind()
        for i, sample in enumerate(x.unbind()):
            alone = SparseCondition(full.tokens[i : i + 1], full.positions[i : i + 1])
            again = flow(sample, t[i : i + 1], alone if sparse else alone.tokens).feats
            assert_same(out[i].feats, again, f"sample {i}", 1e-5)
        spoiled = x.feats.clone()
        spoiled[: counts[0]] = torch.nan
        beside = flow(x.with_feats(spoiled), t, full if sparse else full.tokens).unbind()
    for i in range(1, 4):
        assert_same(beside[i].feats, out[i].feats, f"sample {i} beside NaN", 1e-5)
    assert len(out[1].feats) == 0


@pytest.mark.parametrize("sparse", [False, True])
def test_nothing_at_all(sparse: bool) -> None:
    flow = small(sparse_conditions=sparse, num_heads=2)
    out = flow(tokens([]), torch.zeros(0), condition([]) if sparse else [])
    assert out.feats.shape == (0, 4)
    assert flow(tokens([0, 0]), torch.zeros(2), condition([1, 0]) if sparse else torch.zeros(2, 3, 10)).feats.shape == (0, 4)


def test_tables_are_built_once_for_all_blocks_steps_and_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Any] = []
    build_blocks = _blocks._build
    monkeypatch.setattr(_blocks, "_build", lambda grid, key: built.append(key) or build_blocks(grid, key))
    flow = small(num_blocks=4)
    x, context = tokens([80, 20]), torch.randn(2, 3, 10)
    with torch.no_grad():
        for step in range(2):
            t = torch.full((2,), 1000.0 - step)
            velocity = flow(x, t, context).feats + flow(x, t, torch.zeros_like(context)).feats
            x = x.with_feats(x.feats - 0.1 * velocity)
    # selection blocks, which are windows without a shift too; compression tokens by block; shifted windows
    assert len(built) == 3


def test_positions_matter_and_are_scaled() -> None:
    flow, half = small(factor=1.0), small(factor=0.5)
    half.load_state_dict(flow.state_dict())
    x, t, context = tokens([60], 16), torch.tensor([500.0]), torch.randn(1, 3, 10)
    doubled, order = VoxelGrid.build(x.coords * torch.tensor([1, 2, 2, 2], dtype=torch.int32), resolution=32)
    assert torch.equal(order, torch.arange(60))
    seen: list[Tensor] = []
    for network in (flow, half):
        network.blocks[0].register_forward_pre_hook(lambda _m, args: seen.append(args[0].feats))
    with torch.no_grad():
        flow(x, t, context)
        half(SparseTensor(doubled, x.feats), t, context)
        half(x, t, context)
    assert torch.equal(seen[0], seen[1])
    assert not torch.allclose(seen[0], seen[2])


@pytest.mark.parametrize("name", GOLDENS)
def test_released_precision(name: str) -> None:
    full, half = Case(name, topk=64), Case(name, topk=64, use_fp16=True)  # every block, so that no choice can differ
    assert half.flow.torso_dtype == torch.float16
    assert half.flow.blocks[0].norm2.weight.dtype == half.flow.blocks[0].self_attn.intra_block_pe.dtype == torch.float32
    with torch.no_grad():
        expected = full.flow(full.x, full.t, full.context).feats
        out = half.flow(half.x.to(torch.float16), half.t, half.context).feats
        wide = half.flow(half.x, half.t, half.context)
    assert out.dtype == torch.float16
    assert wide.dtype == torch.float32  # in the dtype of x, computed in half precision
    # Roundings of 2^-11 through two blocks; the originals' float16 networks are 1e-3 from float32 (root mean square).
    assert float((out.float() - expected).norm() / expected.norm()) < 4e-3


def test_training_with_checkpointing_and_without() -> None:
    found = []
    reference = small(sparse_conditions=True, num_heads=2, compression_version="v2")
    x, t, context = tokens([70, 0, 20]), torch.tensor([900.0, 1.0, 500.0]), condition([4, 2, 3])
    for again in (False, True):
        flow = SSDiT(
            32, 4, 64, 10, 4, 2, 2, topk=3, compression_block_size=4, compression_version="v2", sparse_conditions=True, checkpoint=again
        )
        flow.load_state_dict(reference.state_dict())
        feats = x.feats.clone().requires_grad_()
        flow(x.with_feats(feats), t, context).feats.square().mean().backward()
        assert feats.grad is not None
        gradients = {name: parameter.grad for name, parameter in flow.named_parameters()}
        assert all(value is not None and value.isfinite().all() and value.any() for value in gradients.values())
        found.append({"x": feats.grad, **gradients})
    for name, first in found[0].items():
        assert_same(found[1][name], first, name, 1e-6)


def test_autocast() -> None:
    flow = small(topk=64)
    x, t, context = tokens([60, 20]), torch.tensor([900.0, 1.0]), torch.randn(2, 3, 10)
    with torch.no_grad():
        expected = flow(x, t, context).feats
        with torch.autocast("cpu", torch.bfloat16):
            out = flow(x, t, context).feats
    assert out.dtype == torch.float32
    # weights and activations are rounded to 2^-8 of their size through two blocks
    assert float((out - expected).norm() / expected.norm()) < 5e-2


def test_velocity_is_zero_at_first() -> None:
    flow = build("direct3d-s2/dit-512-v1.0", model_channels=64, num_heads=2, num_blocks=1, cond_channels=10, in_channels=4, out_channels=4)
    assert not flow(tokens([20]).to(torch.float16), torch.zeros(1), condition([3])).feats.any()


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_heads": 5}, RangeError, "multiple of heads"),
        ({"num_kv_heads": 3}, RangeError, "kv_heads must divide"),
        ({"compression_block_size": 3}, RangeError, "must divide selection_block"),
        ({"topk": 0}, RangeError, "top_k must be"),
        ({"factor": 0.0}, RangeError, "factor"),
        ({"factor": float("nan")}, RangeError, "factor"),
        ({"pe_mode": "rope"}, RangeError, "pe_mode"),
        ({"compression_version": "v3"}, RangeError, "'v1', 'v2'"),
        ({"num_blocks": -1}, RangeError, "num_blocks"),
        ({"resolution": 0}, RangeError, "resolution"),
        ({"model_chanels": 8}, RangeError, "model_chanels"),
    ],
)
def test_configurations_that_make_no_network(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build("direct3d-s2/dit-512-v1.1", device="meta", **options)


def test_inputs_that_do_not_fit() -> None:
    flow, sparse = small(), small(sparse_conditions=True)
    x, t, context = tokens([20, 5]), torch.zeros(2), torch.zeros(2, 3, 10)
    with pytest.raises(DtypeError, match="must be a SparseTensor"):
        flow(x.feats, t, context)
    with pytest.raises(ShapeError, match="4 channels"):
        flow(x.with_feats(x.feats[:, :3]), t, context)
    with pytest.raises(ShapeError, match="One time a sample"):
        flow(x, t[:1], context)
    with pytest.raises(DtypeError, match="t must be"):
        flow(x, t.long(), context)
    with pytest.raises(ShapeError, match="context"):
        flow(x, t, context[:1])
    with pytest.raises(ShapeError, match="context"):
        flow(x, t, context[..., :9])
    with pytest.raises(DtypeError, match="must be a tensor"):
        flow(x, t, condition([3, 3]))
    with pytest.raises(DtypeError, match="must be a SparseCondition"):
        sparse(x, t, context)
    with pytest.raises(ShapeError, match="each of the 2 samples"):
        sparse(x, t, condition([3]))
    good = condition([3, 2])
    with pytest.raises(ShapeError, match=r"positions\[1\]"):
        sparse(x, t, SparseCondition(good.tokens, [good.positions[0], good.positions[0]]))
    with pytest.raises(ShapeError, match="positions"):
        sparse(x, t, SparseCondition(good.tokens, good.positions[:1]))
