"""Every block against the original's: golden arrays of the blocks alone, and the published numbers of small networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import voxgen
from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.grid import restore
from voxgen.layers import (
    EarlyPruningUpsampler,
    LayerNorm32,
    NearestUpsample,
    PooledDownsample,
    ResidualDownsample,
    ResidualUpsample,
    SparseConv3d,
    SparseConvNeXtBlock,
    SparseGroupNorm,
    SparseResidualBlock,
    group_average,
    pointwise,
    repeat_channels,
)
from voxgen.ops.conv.layouts import from_layout
from voxgen.ops.resample import Structure, channel_to_space, space_to_channel
from voxgen.testing.compare import assert_same

GOLDEN = Path(__file__).parents[1] / "golden" / "trellis2_blocks"
BACKENDS = ["numba", "torch", "reference"]
TOLERANCE = 1e-4
"""Of the largest value, as the golden states for float32."""


def published(weights: dict[str, Any], names: Callable[[str], str] = str) -> dict[str, Tensor]:
    """Weights in the published names and layout as our modules take them."""
    converted = {}
    for name, array in weights.items():
        value = torch.as_tensor(array)
        converted[names(name)] = from_layout(value, "trellis2") if value.ndim == 5 else value
    return converted


def up_names(name: str) -> str:
    return name.replace("to_subdiv", "predict") if name.startswith("to_subdiv") else f"upsample.{name}"


def by_cells(feats: Tensor, coords: Tensor, resolution: int) -> Tensor:
    """Rows of cells in any order, in ours."""
    return feats[VoxelGrid.build(coords, resolution=resolution)[1]]


class Golden:
    def __init__(self) -> None:
        self.about = json.loads(GOLDEN.with_suffix(".json").read_text())
        with np.load(GOLDEN.with_suffix(".npz")) as arrays:
            self.arrays = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        grid, self.order = VoxelGrid.build(self["coords"], resolution=64)
        self.x = SparseTensor(grid, self.input("x")[self.order])
        self.down = Structure.of_children(grid)
        assert torch.equal(self.down.parents.coords, self["s2c_coords"])
        self.wide = SparseTensor(self.down.parents, self.input("wide"))

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]

    def input(self, name: str) -> Tensor:
        return torch.from_numpy(recipe.normal(name, tuple(self.about["inputs"][name]["shape"]), self.about["seed"]))

    def load(self, name: str, module: Any, names: Callable[[str], str] = str) -> Any:
        """A module with the golden's weights, loaded strictly."""
        network = self.about["networks"][name]
        module.load_state_dict(published(recipe.state_dict(network["tensors"], network["seed"]), names))
        assert sum(p.numel() for p in module.parameters()) == network["parameters"]
        return module.eval()

    def compare(self, name: str, actual: Tensor) -> None:
        assert_same(actual, self[name], name, TOLERANCE)

    def compare_fine(self, name: str, actual: SparseTensor) -> None:
        """Rows of the cells that we were given, in the caller's order."""
        assert actual.grid.same_cells(self.x.grid)
        self.compare(name, restore(actual.feats, self.order))

    def compare_made(self, name: str, coords: str, actual: SparseTensor) -> None:
        """Rows of cells that the block made."""
        grid, order = VoxelGrid.build(self[coords], resolution=64, batch_size=actual.grid.batch_size)
        assert torch.equal(actual.coords, grid.coords)
        assert_same(actual.feats, self[name][order], name, TOLERANCE)


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    with torch.no_grad(), voxgen.use_backend(request.param):
        yield request.param


@pytest.mark.usefixtures("backend")
def test_convolutions(golden: Golden) -> None:
    golden.compare_fine("conv", golden.load("conv", SparseConv3d(16, 24))(golden.x))
    golden.compare_fine("conv_dilated", golden.load("conv_dilated", SparseConv3d(16, 8, dilation=2, bias=False))(golden.x))


def test_pointwise_and_layer_norm(golden: Golden) -> None:
    linear = golden.load("linear", pointwise(nn.Linear(16, 24)), "module.{}".format)
    golden.compare_fine("linear", linear(golden.x))
    x = golden.x.with_feats(3 * golden.x.feats + 1)
    golden.compare_fine("layer_norm", golden.load("layer_norm", LayerNorm32(16))(x))
    golden.compare_fine("tail_norm", LayerNorm32(16, affine=False, eps=1e-5)(x))


def test_structure_and_rearrangement(golden: Golden) -> None:
    golden.compare("s2c_subdivision", golden.down.mask())
    golden.compare("s2c_parent", restore(golden.down.parent, golden.order))
    golden.compare("s2c_child", restore(golden.down.slot, golden.order).to(torch.uint8))
    beside = space_to_channel(golden.x.feats, golden.down)
    golden.compare("s2c_rearranged", beside)
    golden.compare("s2c_shortcut", group_average(beside, 32))
    golden.compare("s2c_shortcut", space_to_channel(group_average(golden.x.feats, 4), golden.down))
    own = repeat_channels(channel_to_space(golden.wide.feats, golden.down), 16)
    golden.compare("c2s_shortcut", restore(own, golden.order))


@pytest.mark.usefixtures("backend")
def test_blocks_on_one_level(golden: Golden) -> None:
    golden.compare_fine("convnext", golden.load("convnext", SparseConvNeXtBlock(16))(golden.x))
    golden.compare_fine("res_plain", golden.load("res_plain", SparseResidualBlock(16, 24))(golden.x))
    x = golden.x.with_feats(3 * golden.x.feats + 1)
    golden.compare_fine("group_norm", golden.load("group_norm", SparseGroupNorm(4, 16))(x))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("given", [True, False])
def test_blocks_down(golden: Golden, given: bool) -> None:
    down = golden.down if given else None
    for name, width in (("s2c", 32), ("s2c_quadruple", 64), ("res_down", 32)):
        y, structure = golden.load(name, ResidualDownsample(16, width))(golden.x, down)
        assert torch.equal(structure.parents.coords, golden["s2c_coords"])
        assert y.grid is structure.parents
        golden.compare(name, y.feats)
    y, _ = golden.load("pool_down", PooledDownsample(16, 32))(golden.x, down)
    golden.compare("pool_down", y.feats)


@pytest.mark.usefixtures("backend")
def test_blocks_up(golden: Golden) -> None:
    c2s = golden.load("c2s", EarlyPruningUpsampler(32, 16), up_names)
    given = c2s(golden.wide, structure=golden.down)
    golden.compare_fine("c2s_given", given.x)
    golden.compare("c2s_logits", given.logits)
    predicted = c2s(golden.wide)
    golden.compare("c2s_logits", predicted.logits)
    golden.compare_made("c2s_predicted", "c2s_predicted_coords", predicted.x)
    golden.compare_made("c2s_predicted", "c2s_predicted_coords", c2s(golden.wide, mask=golden["c2s_logits"]).x)
    golden.compare_made("c2s_predicted", "c2s_predicted_coords", c2s(golden.wide, mask=golden["c2s_logits"] > 0).x)

    guided = golden.load("c2s_guided", ResidualUpsample(32, 16))
    structure = Structure.of_mask(golden.wide.grid, golden["c2s_logits"] > 0)
    golden.compare_made("c2s_guided", "c2s_predicted_coords", guided(golden.wide, structure))

    res_up = golden.load("res_up", EarlyPruningUpsampler(32, 16), up_names)
    golden.compare_made("res_up", "c2s_predicted_coords", res_up(golden.wide).x)
    pool_up = golden.load("pool_up", EarlyPruningUpsampler(32, 16, NearestUpsample(32, 16)), up_names)
    golden.compare_made("pool_up", "pool_up_coords", pool_up(golden.wide).x)


COORDS = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1], [0, 2, 1, 1], [0, 3, 3, 2], [0, 3, 2, 2]]
NUMBER = 2e-5
"""Of the numbers below, which are published with six decimals."""


def waves(rows: int, channels: int) -> Tensor:
    n, c = torch.arange(rows)[:, None], torch.arange(channels)
    return torch.sin(0.3 * n + 0.11 * c)


def fill(module: nn.Module, names: Callable[[str], str] = str) -> Any:
    """The deterministic weights of the published numbers: they depend on the published names and layouts."""
    shapes = {}
    for name, parameter in module.state_dict().items():
        shape = tuple(parameter.shape)
        shapes[names(name)] = (shape[2], 3, 3, 3, shape[1]) if len(shape) == 3 else shape
    weights = {}
    for p, name in enumerate(sorted(shapes)):
        i = torch.arange(int(np.prod(shapes[name])), dtype=torch.float64)
        value = 0.2 * torch.sin(0.7 * i + 1.3 * p) + (1 if "norm" in name and name.endswith("weight") else 0)
        weights[name] = value.reshape(shapes[name]).float()
    back = {names(name): name for name in module.state_dict()}
    module.load_state_dict(published(weights, back.__getitem__))
    return module.eval()


def original_up_names(name: str) -> str:
    return name.replace("predict", "to_subdiv").replace("upsample.", "")


def numbers(rows: Tensor, total: float, size: float | None = None, first: list[float] | None = None) -> None:
    assert float(rows.sum()) == pytest.approx(total, abs=NUMBER)
    if size is not None:
        assert float(rows.abs().sum()) == pytest.approx(size, abs=NUMBER)
    if first is not None:
        assert rows.flatten()[: len(first)].tolist() == pytest.approx(first, abs=2e-6)


@pytest.mark.usefixtures("backend")
def test_published_numbers() -> None:
    coords = torch.tensor(COORDS, dtype=torch.int32)
    grid, order = VoxelGrid.build(coords, resolution=4)
    x = SparseTensor(grid, waves(6, 8)[order])

    def mine(y: SparseTensor) -> Tensor:
        return restore(y.feats, order)

    numbers(mine(fill(SparseConv3d(8, 8))(x)), -0.148258, 8.478831, [0.204006, 0.244212, 0.205287, 0.072351])
    numbers(mine(fill(SparseConvNeXtBlock(8))(x)), 30.061782, 60.307790, [-1.416540, 1.754848, -1.635796, 2.291058])
    y, down = fill(ResidualDownsample(8, 16))(x)
    assert y.coords[:, 1:].tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 1]]
    numbers(y.feats, 6.773621, 34.008990, [-0.721228, 0.254816, 0.896349, 1.692215])
    up = fill(EarlyPruningUpsampler(16, 8), original_up_names)
    given = up(y, structure=down)
    numbers(mine(given.x), 28.530738, 44.445447, [-1.267788, -1.473659, -1.548878, -1.444259])
    numbers(given.logits, -2.217824, None, [-1.173868, -0.028411, 1.341781, 0.623278])
    predicted = up(y)
    assert predicted.structure.mask().sum(1).tolist() == [4, 3, 3]
    assert {(0, 1, 0), (1, 1, 0), (0, 1, 1), (3, 3, 3)} <= {tuple(c) for c in predicted.x.coords[:, 1:].tolist()}
    numbers(predicted.x.feats, -69.913047, 94.425260)
    y, _ = fill(PooledDownsample(8, 16))(x)
    numbers(y.feats, -2.196025, 28.302314)


def test_published_numbers_of_rearrangement() -> None:
    grid, order = VoxelGrid.build(torch.tensor(COORDS, dtype=torch.int32), resolution=4)
    beside = space_to_channel(waves(6, 2)[order], Structure.of_children(grid))
    first = [0, 0.109778, 0.295520, 0.398609, *[0.0] * 10, 0.564642, 0.651834]
    assert beside[0].tolist() == pytest.approx(first, abs=1e-6)
