"""The flows of TRELLIS.2: goldens, released files, every attention, batches, precision, saving, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import CheckpointError, DtypeError, RangeError, ShapeError
from voxgen.models import LatentFlow, StructureFlow, build, load_pretrained, save_pretrained
from voxgen.models.checkpoints import load_trellis2, read_trellis2, save_trellis2, to_trellis2
from voxgen.testing.compare import assert_same
from voxgen.testing.grids import random_grid

FOLDER = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4
"""Of the largest value, as the goldens state for float32."""
RELEASED = {
    "structure-flow": (640, 1_292_179_976, 2_584_426_920),
    "shape-flow-512": (640, 1_292_253_728, 2_584_574_424),
    "shape-flow-1024": (640, 1_292_253_728, 2_584_574_424),
    "material-flow-512": (640, 1_292_302_880, 2_584_672_728),
    "material-flow-1024": (640, 1_292_302_880, 2_584_672_728),
}


class Golden:
    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz") as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        self.about: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())

    def weights(self, network: str) -> dict[str, Tensor]:
        described = self.about["networks"][network]
        state = {n: torch.from_numpy(recipe.weight(n, tuple(shape), described["seed"])) for n, shape in described["tensors"]}
        for ending, factor in described.get("scales", {}).items():
            state = {name: value * factor if name.endswith(ending) else value for name, value in state.items()}
        return state

    def flow(self, network: str, name: str, **fields: Any) -> LatentFlow:
        flow = build(name, **self.about["networks"][network]["constructor"], **{"dtype": "float32", **fields})
        assert isinstance(flow, LatentFlow)
        load_trellis2(flow, self.weights(network))
        return flow

    def normal(self, name: str) -> Tensor:
        return torch.from_numpy(recipe.normal(name, tuple(self.about["inputs"][name]["shape"]), self.about["seed"]))

    def tokens(self, name: str, resolution: int) -> SparseTensor:
        x = SparseTensor.build(self.arrays["coords"], self.normal(name), resolution=resolution)
        assert torch.equal(x.coords, self.arrays["coords"]), "the golden's tokens are in grid order"
        return x


# --- goldens --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_shape_flow() -> None:
    golden = Golden("trellis2_shape_flow")
    flow = golden.flow("flow", "trellis2/shape-flow-512")
    x, t, condition = golden.tokens("x_t", 64), golden.arrays["t"], golden.normal("cond")
    assert_same(flow(x, t, condition).feats, golden.arrays["velocity"], "velocity", TOLERANCE)
    ragged = flow(x, t, [condition[0], condition[1, :5]]).feats
    assert_same(ragged, golden.arrays["velocity_ragged_cond"], "velocity_ragged_cond", TOLERANCE)


@torch.no_grad()
def test_material_flow() -> None:
    golden = Golden("trellis2_material_flow")
    flow = golden.flow("flow", "trellis2/material-flow-512")
    x, shape = golden.tokens("x_t", 64), golden.tokens("concat_cond", 64)
    assert_same(flow(x, golden.arrays["t"], golden.normal("cond"), shape).feats, golden.arrays["velocity"], "velocity", TOLERANCE)


@pytest.mark.parametrize("network", ["sparse_plain", "sparse_base100", "sparse_self_only"])
@torch.no_grad()
def test_options_that_no_release_uses(network: str) -> None:
    golden = Golden("trellis2_flow_variants")
    flow = golden.flow(network, "trellis2/shape-flow-512")
    velocity = flow(golden.tokens("x_t", 64), golden.arrays["t"], golden.normal("cond")).feats
    assert_same(velocity, golden.arrays[network], network, TOLERANCE)


@torch.no_grad()
def test_structure_flow_through_the_same_import() -> None:
    golden = Golden("trellis2_structure_flow")
    flow = build("trellis2/structure-flow", **golden.about["networks"]["flow"]["constructor"], dtype="float32")
    assert isinstance(flow, StructureFlow)
    load_trellis2(flow, golden.weights("flow"))
    assert_same(flow(golden.normal("x_t"), golden.arrays["t"], golden.normal("cond")), golden.arrays["velocity"], "velocity", TOLERANCE)


# --- released files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RELEASED)
def test_every_tensor_of_the_released_files(name: str) -> None:
    module = build(f"trellis2/{name}", device="meta")
    rows = [line.split("\t") for line in (FOLDER / "keys" / f"trellis2_{name}.tsv").read_text().splitlines() if not line.startswith("#")]
    published = {key: (tuple(map(int, shape.split(","))) if shape else (), dtype) for key, shape, dtype in rows}
    own = {key: (tuple(value.shape), "BF16") for key, value in to_trellis2(module, torch.bfloat16).items()}
    assert own == published
    tensors, parameters, size = RELEASED[name]
    assert len(own) == tensors
    assert sum(value.numel() for value in module.state_dict().values()) == parameters
    assert 0 < size - 2 * parameters < 100_000, "the file is its tensors and a header"


@pytest.mark.parametrize(("name", "fields"), [("structure-flow", {"resolution": 4}), ("material-flow-512", {})])
def test_a_published_pair_goes_there_and_back(name: str, fields: dict[str, Any], tmp_path: Path) -> None:
    small = {"model_channels": 48, "cond_channels": 24, "num_blocks": 2, "num_heads": 4, "dtype": "float32", **fields}
    first = build(f"trellis2/{name}", **small)
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_trellis2(first, tmp_path / "flow", dtype=torch.float32)
    second = read_trellis2(tmp_path / "flow")
    assert type(second) is type(first)
    for key, value in to_trellis2(first).items():
        assert torch.equal(value, to_trellis2(second)[key]), key
    load_trellis2(first, tmp_path / "flow")
    other = build(f"trellis2/{name}", **{**small, "qk_rms_norm": False})
    with pytest.raises(CheckpointError, match="qk_rms_norm: True in the file, False in the module"):
        load_trellis2(other, tmp_path / "flow")
    with pytest.raises(CheckpointError, match=r"(?s)1 left over.*stranger"):
        load_trellis2(first, {**to_trellis2(first), "stranger": torch.zeros(1)})


# --- properties -----------------------------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "window": {"attention": "window", "attention_options": {"window": 4}, "pe_mode": "ape"},
    "ssa": {
        "attention": "ssa",
        "attention_options": {"kv_heads": 2, "window": 4, "compression_block": 4, "selection_block": 4, "top_k": 2},
        "pe_mode": "ape",
        "qk_rms_norm": False,
    },
    "own": {"share_mod": False, "pe_mode": "ape", "initialization": "vanilla"},
}


def filled(**fields: Any) -> LatentFlow:
    torch.manual_seed(0)
    flow = LatentFlow(16, 6, 32, 12, 6, 2, 4, **fields)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return flow


def noisy(counts: tuple[int, ...] = (40, 0, 25)) -> SparseTensor:
    grid = random_grid(counts, 16)
    return SparseTensor(grid, torch.randn(len(grid), 6, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_the_same_alone_and_in_a_batch(kind: str) -> None:
    flow, x = filled(**KINDS[kind]), noisy()
    t, condition = torch.tensor([900.0, 500.0, 100.0]), torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        together = flow(x, t, condition).unbind()
        for i, alone in enumerate(x.unbind()):
            found = flow(alone, t[i : i + 1], condition[i : i + 1])
            torch.testing.assert_close(found.feats, together[i].feats, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_training_reaches_every_parameter_and_checkpointing_changes_nothing(kind: str) -> None:
    gradients = []
    for checkpoint in (False, True):
        flow, x = filled(**KINDS[kind], checkpoint=checkpoint), noisy()
        out = flow(x, torch.tensor([900.0, 500.0, 100.0]), torch.ones(3, 7, 12))
        out.feats.square().sum().backward()
        gradients.append({name: p.grad for name, p in flow.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        assert bool(torch.isfinite(gradient).all()), name
        assert gradients[1][name] is not None
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    flow, x = filled(**KINDS[kind]), noisy((30,))
    save_pretrained(flow, tmp_path / "flow.safetensors")
    again = load_pretrained(tmp_path / "flow.safetensors", device="cpu")
    t, condition = torch.tensor([700.0]), torch.ones(1, 3, 12)
    with torch.no_grad():
        assert torch.equal(again(x, t, condition).feats, flow(x, t, condition).feats)


def test_an_untrained_flow_gives_zero_and_an_empty_batch_nothing() -> None:
    flow = LatentFlow(16, 6, 32, 12, 6, 2, 4)
    assert not flow(noisy(), torch.zeros(3), torch.ones(3, 2, 12)).feats.any()
    assert len(flow(noisy((0,)), torch.zeros(1), torch.ones(1, 2, 12))) == 0


def test_a_torso_of_bfloat16_is_near_float32() -> None:
    flow, x = filled(), noisy((60,))
    t, condition = torch.tensor([400.0]), torch.ones(1, 3, 12)
    half = LatentFlow.from_description({**flow.description(), "torso_dtype": "bfloat16"})
    half.load_state_dict(flow.state_dict())
    assert half.torso_dtype == torch.bfloat16
    assert half.input_layer.weight.dtype == torch.float32
    with torch.no_grad():
        full, rounded = flow(x, t, condition).feats, half(x, t, condition).feats
    assert rounded.dtype == torch.float32
    assert float((rounded - full).norm() / full.norm()) < 0.02


def test_bad_input() -> None:
    flow, x = filled(), noisy()
    t, condition = torch.zeros(3), torch.ones(3, 2, 12)
    with pytest.raises(ShapeError, match="6"):
        flow(x.with_feats(x.feats[:, :5]), t, condition)
    with pytest.raises(ShapeError, match="t must"):
        flow(x, t[:1], condition)
    with pytest.raises(ShapeError, match="context"):
        flow(x, t, condition[:, :, :5])
    narrow = x.with_feats(x.feats[:, :3])
    with pytest.raises(ShapeError, match="cells of x"):
        flow(narrow, t, condition, noisy((3, 2, 1)))
    assert len(flow(narrow, t, condition, narrow)) == len(x)
    with pytest.raises(RangeError, match="rope"):
        LatentFlow(16, 6, 32, 12, 6, 2, 4, attention="window")
    with pytest.raises(RangeError, match="qk_rms_norm"):
        LatentFlow(16, 6, 32, 12, 6, 2, 4, attention="ssa", pe_mode="ape")
    with pytest.raises(RangeError, match="attention"):
        LatentFlow(16, 6, 32, 12, 6, 2, 4, attention="other")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="rope_freq"):
        build("trellis2/structure-flow", device="meta", rope_freq=(2.0, 100.0))
    with pytest.raises(DtypeError, match=r"TRELLIS\.2"):
        load_trellis2(torch.nn.Linear(1, 1), {})
    with pytest.raises(RangeError, match="full attention"):
        save_trellis2(filled(**KINDS["window"]), "nowhere")


def _patched(**fields: object) -> LatentFlow:
    torch.manual_seed(0)
    network = LatentFlow(16, 5, 48, 24, 3, num_blocks=2, num_heads=4, patch_size=2, **fields)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.double()


def test_patches_are_the_network_on_tokens_put_together_by_hand() -> None:
    grid = random_grid((60, 25), 8)
    x, t, context = torch.randn(len(grid), 5, dtype=torch.float64), torch.tensor([500.0, 20.0]), torch.randn(2, 7, 24, dtype=torch.float64)
    network = _patched()
    found = network(SparseTensor(grid, x), t, context)
    # the same by a table of all children of all patches, through a network without patches that has the same weights
    plain = LatentFlow(16, 48, 48, 24, 24, num_blocks=2, num_heads=4).double()
    plain.load_state_dict(network.state_dict())
    patches = torch.cat((grid.coords[:, :1], grid.cells // 2), 1).unique(dim=0).tolist()
    table, there = torch.zeros(len(patches), 8, 5, dtype=torch.float64), torch.zeros(len(patches), 8, dtype=torch.float64)
    place = []
    for row, (b, i, j, k) in enumerate(grid.coords.tolist()):
        p, s = patches.index([b, i // 2, j // 2, k // 2]), i % 2 + 2 * (j % 2) + 4 * (k % 2)
        table[p, s], there[p, s] = x[row], 1
        place.append((p, s))
    coarse, _ = VoxelGrid.build(torch.tensor(patches, dtype=torch.int32), resolution=4, batch_size=2)
    wanted = plain(SparseTensor(coarse, torch.cat((table.flatten(1), there), 1)), t, context).feats.view(-1, 8, 3)
    torch.testing.assert_close(found.feats, torch.stack([wanted[p, s] for p, s in place]), rtol=1e-9, atol=1e-12)


def test_patches_alone_and_in_a_batch_with_gradients_and_none_at_all(tmp_path: Path) -> None:
    network, grid = _patched(), random_grid((40, 1, 0), 8)
    x = SparseTensor(grid, torch.randn(len(grid), 5, dtype=torch.float64, requires_grad=True))
    t, context = torch.tensor([500.0, 20.0, 1.0]), torch.randn(3, 7, 24, dtype=torch.float64)
    together = network(x, t, context)
    alone = [network(part, t[i : i + 1], context[i : i + 1]).feats for i, part in enumerate(x.unbind())]
    torch.testing.assert_close(together.feats, torch.cat(alone), rtol=1e-9, atol=1e-12)
    together.feats.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    save_pretrained(network.float(), tmp_path / "flow.safetensors")
    assert load_pretrained(tmp_path / "flow.safetensors").patch_size == 2
    with pytest.raises(RangeError, match="patch_size"):
        LatentFlow(16, 4, 48, 24, 4, num_blocks=1, num_heads=4, patch_size=0)
