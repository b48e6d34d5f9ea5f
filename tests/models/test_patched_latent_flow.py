"""The latent flow of TRELLIS: golden, released file, several stages, batches, gradients, saving, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.models import PatchedLatentFlow, build, load_pretrained, save_pretrained
from voxgen.models.checkpoints import load_trellis, to_trellis
from voxgen.ops.resample import Structure, pool
from voxgen.testing.compare import assert_same
from voxgen.testing.grids import random_grid

FOLDER = Path(__file__).parents[1] / "golden"


def golden() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with np.load(FOLDER / "trellis_slat_flow.npz") as arrays:
        return json.loads((FOLDER / "trellis_slat_flow.json").read_text()), {k: torch.from_numpy(arrays[k]) for k in arrays.files}


@torch.no_grad()
def test_latent_flow_of_trellis() -> None:
    about, arrays = golden()
    flow = build("trellis/latent-flow", **about["constructor"])
    assert isinstance(flow, PatchedLatentFlow)
    seed = about["seed"]
    load_trellis(flow, {name: torch.from_numpy(recipe.weight(name, tuple(shape), seed)) for name, shape in about["tensors"]})
    grid, order = _grid(arrays["coords"])
    x = SparseTensor(grid, torch.from_numpy(recipe.normal("x", (906, 4), seed))[order])
    condition = torch.from_numpy(recipe.normal("cond", (2, 11, 48), seed))
    coarse: list[SparseTensor] = []
    flow.input_blocks[-1].register_forward_hook(lambda _m, _i, out: coarse.append(out))
    velocity = flow(x, torch.tensor([1000.0, 137.25]), condition)
    assert torch.equal(coarse[0].coords, arrays["coarse_coords"])
    assert_same(coarse[0].feats[::3], arrays["coarse_every3"], "coarse tokens", 1e-4)
    structure = Structure.of_children(grid)
    assert_same(pool(x.feats, structure, "mean_plus_one"), arrays["pooled"], "pooled", 1e-5)
    assert_same(velocity.feats, arrays["v"][order], "velocity", 1e-4)


def _grid(coords: torch.Tensor) -> tuple[Any, torch.Tensor]:
    from voxgen.core import VoxelGrid

    return VoxelGrid.build(coords, resolution=16, batch_size=2)


def test_every_tensor_of_the_released_file() -> None:
    module = build("trellis/latent-flow", device="meta")
    rows = [line.split("\t") for line in (FOLDER / "keys" / "trellis_latent-flow.tsv").read_text().splitlines() if not line.startswith("#")]
    published = {key: (tuple(map(int, shape.split(","))), dtype) for key, shape, dtype in rows}
    words = {torch.float16: "F16", torch.float32: "F32"}
    own = {key: (tuple(value.shape), words[value.dtype]) for key, value in to_trellis(module).items()}
    assert own == published
    assert (len(own), sum(p.numel() for p in module.parameters())) == (526, 600_432_520)


def filled(**fields: Any) -> PatchedLatentFlow:
    torch.manual_seed(0)
    flow = PatchedLatentFlow(16, 4, 32, 12, 4, 1, 2, **{"io_block_channels": (8, 16), **fields})
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return flow


def noisy(counts: tuple[int, ...] = (60, 0, 25)) -> SparseTensor:
    grid = random_grid(counts, 16)
    return SparseTensor(grid, torch.randn(len(grid), 4, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("fields", [{}, {"use_skip_connection": False}, {"num_io_res_blocks": 1}])
def test_a_sample_is_the_same_alone_and_in_a_batch(fields: dict[str, Any]) -> None:
    flow, x = filled(**fields), noisy()
    t, condition = torch.tensor([900.0, 500.0, 100.0]), torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        together = flow(x, t, condition).unbind()
        for i, alone in enumerate(x.unbind()):
            found = flow(alone, t[i : i + 1], condition[i : i + 1])
            torch.testing.assert_close(found.feats, together[i].feats, rtol=1e-4, atol=1e-5)


def test_training_reaches_every_parameter() -> None:
    flow, x = filled(), noisy()
    flow(x, torch.tensor([900.0, 500.0, 100.0]), torch.ones(3, 7, 12)).feats.square().sum().backward()
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name


def test_saved_and_loaded_and_empty(tmp_path: Path) -> None:
    flow, x = filled(), noisy((30,))
    save_pretrained(flow, tmp_path / "flow.safetensors")
    again = load_pretrained(tmp_path / "flow.safetensors", device="cpu")
    t, condition = torch.tensor([700.0]), torch.ones(1, 3, 12)
    with torch.no_grad():
        assert torch.equal(again(x, t, condition).feats, flow(x, t, condition).feats)
        assert len(flow(noisy((0,)), t, condition)) == 0


def test_a_concatenated_condition_is_more_channels() -> None:
    """As of `LatentFlow`: behind those of the noise, on the same cells."""
    torch.manual_seed(3)
    flow, x = PatchedLatentFlow(16, 4 + 3, 32, 12, 4, 1, 2, io_block_channels=(8,)), noisy()
    torch.nn.init.normal_(flow.out_layer.weight)
    more = x.with_feats(torch.randn(len(x), 3))
    t, condition = torch.tensor([900.0, 500.0, 100.0]), torch.ones(3, 7, 12)
    with torch.no_grad():
        found = flow(x, t, condition, more)
        expected = flow(x.with_feats(torch.cat((x.feats, more.feats), 1)), t, condition)
    assert found.channels == 4
    assert bool(found.feats.any())
    assert torch.equal(found.feats, expected.feats)
    with pytest.raises(ShapeError, match="PatchedLatentFlow: concat_cond must lie on the cells of x"):
        flow(x, t, condition, noisy((40, 20, 25)).with_feats(more.feats))


def test_bad_input() -> None:
    flow, x = filled(), noisy((30,))
    with pytest.raises(ShapeError, match="4"):
        flow(x.with_feats(x.feats[:, :3]), torch.zeros(1), torch.ones(1, 2, 12))
    with pytest.raises(RangeError, match="io_block_channels"):
        filled(io_block_channels=())
    with pytest.raises(RangeError, match="patch_size"):
        build("trellis/latent-flow", device="meta", patch_size=4)
    with pytest.raises(RangeError, match="pe_mode"):
        build("trellis/latent-flow", device="meta", pe_mode="rope")
