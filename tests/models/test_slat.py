"""TRELLIS' networks: goldens, published sums of small closed-form cases, key lists of the files, precision, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.attention import absolute_embedding
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import CheckpointError, DtypeError, FileFormatError, RangeError, ShapeError
from voxgen.layers import GaussianHead
from voxgen.losses import kl_divergence
from voxgen.models import SLatEncoder, SLatGaussianDecoder, SLatMeshDecoder, build, load_pretrained, save_pretrained
from voxgen.models.checkpoints import load_trellis, read_trellis, to_trellis
from voxgen.models.slat import SLatConfig
from voxgen.models.structure import StructureDecoder, StructureEncoder
from voxgen.ops.blocks import partition
from voxgen.testing.compare import assert_same
from voxgen.testing.grids import random_grid

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4
"""Of the largest value, as the goldens state; measured below 5e-6."""
DTYPES = {"F16": torch.float16, "F32": torch.float32}
NAMES = ("slat-encoder", "gaussian-decoder", "mesh-decoder", "structure-encoder", "structure-decoder", "structure-flow")


def golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with np.load(GOLDEN / f"trellis_{name}.npz") as arrays:
        return json.loads((GOLDEN / f"trellis_{name}.json").read_text()), {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def network(name: str, about: dict[str, Any], **overrides: Any) -> Any:
    """The golden's network, its weights through the strict import."""
    module = build(name, **{**about["constructor"], **overrides})
    state = {key: torch.from_numpy(value) for key, value in recipe.state_dict(about["tensors"], about["seed"]).items()}
    load_trellis(module, state)
    return module


def features(key: str, coords: Tensor, channels: int, resolution: int) -> tuple[SparseTensor, Tensor]:
    """Features by the recipe on cells in the golden's order, and the golden's row of each row of the grid."""
    grid, order = VoxelGrid.build(coords, resolution=resolution)
    feats = torch.from_numpy(recipe.normal(key, (len(coords), channels), 0))
    return SparseTensor(grid, feats[order]), order


# --- goldens --------------------------------------------------------------------------------------------------------


def test_encoder_is_the_originals() -> None:
    about, arrays = golden("slat_encoder")
    x, order = features("feats", arrays["coords"], 24, 16)
    with torch.no_grad():
        posterior = network("trellis/slat-encoder", about)(x)
    assert_same(posterior.mean.feats, arrays["mean"][order], "mean", TOLERANCE)
    assert_same(posterior.logvar, arrays["logvar"][order], "logvar", TOLERANCE)
    assert_same(absolute_embedding(arrays["coords"][:5, 1:], 100), arrays["position_code"], "position code", 1e-6)


def test_gaussian_decoder_is_the_originals() -> None:
    about, arrays = golden("slat_gs_decoder")
    z, order = features("latent", arrays["coords"], 4, 16)
    decoder = network("trellis/gaussian-decoder", about)
    with torch.no_grad():
        raw = decoder(z)
    assert_same(raw.feats, arrays["raw"][order], "raw", TOLERANCE)
    assert_same(decoder.out_layer.offset_perturbation, arrays["offset_perturbation"], "offset_perturbation", 1e-6)
    with torch.no_grad():
        splats = decoder.splats(z)
    for sample in range(2):
        own, rows = splats.sample(sample), order[z.grid.batch == sample]
        first = 0 if sample == 0 else int((arrays["coords"][:, 0] == 0).sum())
        place = ((rows - first)[:, None] * 4 + torch.arange(4)).flatten()
        for key, found in (("xyz", own.means), ("scaling", own.scales), ("rotation", own.rotations), ("features", own.sh)):
            assert_same(found, arrays[f"{key}_{sample}"][place], key, TOLERANCE)
        assert_same(own.opacities, arrays[f"opacity_{sample}"][place, 0], "opacity", TOLERANCE)


def test_mesh_decoder_is_the_originals() -> None:
    about, arrays = golden("slat_mesh_trunk")
    z, order = features("latent", arrays["coords"], 4, 8)
    module = build("trellis/mesh-decoder", **about["constructor"])
    assert isinstance(module, SLatMeshDecoder)
    assert [level.conv1.out_channels for level in module.upsample] == [64, 32]
    state = {key: torch.from_numpy(value) for key, value in recipe.state_dict(about["tensors"], about["seed"]).items()}
    load_trellis(module, state)
    levels: list[SparseTensor] = []
    for level in module.upsample:
        level.register_forward_hook(lambda _m, _i, out: levels.append(out))
    with torch.no_grad():
        raw = module(z)
    children = arrays["children"]
    first = levels[0].grid.rows_of(children)
    assert_same(levels[0].feats[first][::7], arrays["up0_every7"], "up0", TOLERANCE)
    octants = torch.cartesian_prod(*[torch.arange(2, dtype=torch.int32)] * 3)
    finest = (children * torch.tensor([1, 2, 2, 2], dtype=torch.int32))[:, None] + torch.nn.functional.pad(octants, (1, 0))
    rows = raw.grid.rows_of(finest.reshape(-1, 4))
    assert_same(levels[1].feats[rows][::101], arrays["up1_every101"], "up1", TOLERANCE)
    assert_same(raw.feats[rows][::53], arrays["raw_every53"], "raw", TOLERANCE)
    assert_same(raw.feats.double().sum(0), arrays["raw_sum"], "sum", TOLERANCE)
    assert len(order) == 116


def test_mesh_decoder_gives_a_field() -> None:
    """With a last layer that says the same of every cube: −0.5 at its lower corners, 0.5 at its upper ones, means where cubes meet."""
    decoder = small("mesh-decoder")
    grid = random_grid((4, 0, 3), 4)
    z = SparseTensor(grid, torch.zeros(7, 4))
    corners = torch.arange(8) // 4  # x runs fastest: the upper four lie at z = 1
    with torch.no_grad():
        decoder.out_layer.weight.zero_()
        decoder.out_layer.bias.zero_()
        decoder.out_layer.bias[:8] = (corners - 0.5) + 1 / 16  # sdf = raw − voxel size
        flex = decoder.flex(z)
    assert len(flex.grid) == 64 * 7
    assert flex.grid.resolution == (16, 16, 16)
    found = flex.sdf.unique()
    assert (float(found.min()), float(found.max())) == pytest.approx((-0.5, 0.5), abs=1e-5)


def test_structure_networks_are_the_originals() -> None:
    about, arrays = golden("ss_encoder")
    encoder = network("trellis/structure-encoder", about)
    occupancy = torch.zeros(2, 1, 16, 16, 16)
    b, x, y, z = arrays["coords"].long().unbind(1)
    occupancy[b, 0, x, y, z] = 1
    with torch.no_grad():
        posterior = encoder(occupancy)
    assert_same(posterior.mean, arrays["mean"], "mean", TOLERANCE)
    assert_same(posterior.logvar, arrays["logvar"], "logvar", TOLERANCE)
    about, arrays = golden("ss_decoder")
    decoder = network("trellis/structure-decoder", about)
    with torch.no_grad():
        logits = decoder(torch.from_numpy(recipe.normal("latent", (2, 4, 4, 4, 4), 0)))
    assert_same(logits, arrays["logits"], "logits", TOLERANCE)
    active = (logits[:, 0] > 0).nonzero()
    assert torch.equal(active, arrays["active"].long())
    assert isinstance(encoder, StructureEncoder)
    assert isinstance(decoder, StructureDecoder)


def test_structure_flow_by_name_is_the_originals() -> None:
    about, arrays = golden("ss_flow")
    flow = network("trellis/structure-flow", about)
    x = torch.from_numpy(recipe.normal("x", (2, 4, 8, 8, 8), 0))
    context = torch.from_numpy(recipe.normal("cond", (2, 11, 48), 0))
    with torch.no_grad():
        velocity = flow(x, torch.tensor([1000.0, 137.25]), context)
    assert_same(velocity, arrays["v"], "v", TOLERANCE)


# --- a case with closed-form weights ------------------------------------------------------------------------------


def hashed(n: Tensor, j: int) -> Tensor:
    value = torch.sin(12.9898 * n.double() + 78.233 * j) * 43758.5453
    return 2 * (value - value.floor()) - 1


def filled(module: nn.Module) -> Any:
    """Weights 0.1·H(n, j), biases 0.05·H(n, j), j the rank of the published name."""
    state = to_trellis(module)
    names = sorted(name for name in state if name != "offset_perturbation")
    values = {
        name: ((0.1 if name.endswith("weight") else 0.05) * hashed(torch.arange(state[name].numel()), j)).view(state[name].shape).float()
        for j, name in enumerate(names)
    }
    load_trellis(module, values)
    return module


def closed_form_tokens() -> VoxelGrid:
    rows = {(b, (7 * i + 3 * b) % 16, (3 * i * i + 5 * i) % 16, (11 * i + i // 16) % 16) for b in (0, 1) for i in range(60)}
    grid, order = VoxelGrid.build(torch.tensor(sorted(rows), dtype=torch.int32), resolution=16)
    assert torch.equal(order, torch.arange(120))
    return grid


SMALL = {"resolution": 16, "model_channels": 96, "num_heads": 4, "num_blocks": 2, "window_size": 4, "latent_channels": 4, "use_fp16": False}


def test_windows_encoder_and_decoder_give_the_published_sums() -> None:
    grid = closed_form_tokens()
    for shift, windows, squares in ((0, 52, 336), (2, 53, 366)):
        found = partition(grid, 4, shift)
        assert (len(found), found.longest, int(found.counts.square().sum())) == (windows, 5, squares)
    assert grid.coords[0].tolist() == [0, 0, 0, 0]
    assert grid.coords[-1].tolist() == [1, 15, 4, 15]
    row, column = torch.arange(120)[:, None], torch.arange(12)
    x = SparseTensor(grid, hashed(12 * row + column, 1000).float())
    with torch.no_grad():
        posterior = filled(build("trellis/slat-encoder", in_channels=12, **SMALL))(x)
        full = filled(build("trellis/slat-encoder", in_channels=12, attn_mode="full", **SMALL))(x)
    mean = posterior.mean.feats
    assert float(mean.sum()) == pytest.approx(9.15819, abs=1e-4)
    assert float(mean.abs().sum()) == pytest.approx(198.66976, abs=1e-3)
    assert mean[0].tolist() == pytest.approx([0.529123, 0.595466, -0.379117, 0.141405], abs=1e-5)
    assert float(posterior.logvar.sum()) == pytest.approx(97.09763, abs=1e-3)
    assert float(kl_divergence(mean, posterior.logvar)) == pytest.approx(0.270714, abs=1e-5)
    assert float(full.mean.feats.sum()) == pytest.approx(5.15322, abs=1e-4)


def test_position_code_gives_the_published_sums() -> None:
    code = absolute_embedding(torch.tensor([[1, 2, 3]]), 96)
    assert float(code.sum()) == pytest.approx(49.747307, abs=1e-4)
    assert code[0, :2].tolist() == pytest.approx([0.841471, 0.533168], abs=1e-6)
    assert absolute_embedding(torch.tensor([[1, 2, 3]]), 100)[0, -4:].abs().sum() == 0


def test_gaussians_start_on_a_hammersley_set() -> None:
    head = GaussianHead(8, 32)
    start = head.offset_perturbation
    expected = [[-0.804719] * 3, [-0.733169, 0, -0.225993], [-0.667501, -0.346574, 0.225993], [-0.606511, 0.346574, -0.574311]]
    assert torch.allclose(start[:4], torch.tensor(expected), atol=1e-6)
    assert float(start.sum()) == pytest.approx(-3.7649, abs=1e-4)
    places = torch.tanh(start) * 1.5 / 2
    assert torch.allclose(places[:3], torch.tensor([[-0.5, -0.5, -0.5], [-0.46875, 0, -0.166667], [-0.4375, -0.25, 0.166667]]), atol=1e-6)
    assert GaussianHead(8, 4, perturb_offset=False).offset_perturbation.abs().max() == 0


# --- files ----------------------------------------------------------------------------------------------------------


def published_keys(name: str) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    lines = (GOLDEN / "keys" / f"trellis_{name}.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return {key: (tuple(int(n) for n in shape.split(",")), DTYPES[dtype]) for key, shape, dtype in rows}


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_of_the_released_files_is_there_both_ways(name: str) -> None:
    module = build(f"trellis/{name}", device="meta")
    ours = {key: (tuple(value.shape), value.dtype) for key, value in to_trellis(module).items()}
    assert ours == published_keys(name)
    counted = (GOLDEN / "keys" / f"trellis_{name}.tsv").read_text().splitlines()[0].split(", ")[3]
    assert sum(p.numel() for p in module.parameters()) == int(counted)


def small(name: str) -> Any:
    fields = {"slat-encoder": {"in_channels": 6}, "gaussian-decoder": {}, "mesh-decoder": {"model_channels": 256}}[name]
    module = build(f"trellis/{name}", **{**SMALL, **fields})
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.2)
    return module


@pytest.mark.parametrize("name", ["slat-encoder", "gaussian-decoder", "mesh-decoder"])
@pytest.mark.parametrize("elastic", ["", "Elastic"])
def test_pairs_of_files_are_read_and_strict(name: str, elastic: str, tmp_path: Path) -> None:
    module = small(name)
    fields = {"slat-encoder": {"in_channels": 6}, "gaussian-decoder": {}, "mesh-decoder": {"model_channels": 256}}[name]
    published = {"slat-encoder": "SLatEncoder", "gaussian-decoder": "SLatGaussianDecoder", "mesh-decoder": "SLatMeshDecoder"}[name]
    (tmp_path / "net.json").write_text(json.dumps({"name": elastic + published, "args": {**SMALL, **fields}}))
    save_file({key: value.contiguous() for key, value in to_trellis(module).items()}, tmp_path / "net.safetensors")
    again = read_trellis(tmp_path / "net")
    for key, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    state = to_trellis(module)
    lost = dict(state)
    lost.pop("input_layer.bias")
    for wrong in (lost, {**state, "extra": torch.zeros(1)}, {**state, "input_layer.bias": torch.zeros(3)}):
        before = {key: value.clone() for key, value in module.state_dict().items()}
        with pytest.raises(CheckpointError):
            load_trellis(module, wrong)
        assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_a_convolution_of_one_cell_is_read_without_a_transpose() -> None:
    """The stored numbers of (co, 1, 1, 1, ci) are a matrix (ci, co)."""
    module = small("mesh-decoder")
    state = to_trellis(module)
    stored = state["upsample.0.skip_connection.conv.weight"]
    assert tuple(stored.shape) == (64, 1, 1, 1, 256)
    x = torch.randn(3, 256)
    expected = x @ stored.reshape(256, 64) + state["upsample.0.skip_connection.conv.bias"]
    assert torch.allclose(module.upsample[0].skip_connection(x), expected, atol=1e-4)


# --- use ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slat-encoder", "gaussian-decoder", "mesh-decoder"])
def test_samples_do_not_meet_and_may_be_empty(name: str) -> None:
    module = small(name)
    grid = random_grid((40, 0, 25), 12)
    x = SparseTensor(grid, torch.randn(len(grid), module.config.in_channels))

    def run(value: SparseTensor) -> SparseTensor:
        out = module(value)
        return out if isinstance(out, SparseTensor) else out.mean

    with torch.no_grad():
        whole = run(x)
        for sample, alone in zip(whole.unbind(), map(run, x.unbind()), strict=True):
            assert torch.equal(sample.grid.coords, alone.grid.coords)
            assert torch.allclose(sample.feats, alone.feats, atol=1e-4)  # float32 over 256 channels of size 10


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_torso(dtype: torch.dtype) -> None:
    """The released files' float16 moves outputs by 1e-3 relative, bfloat16 by eight times that."""
    about, arrays = golden("slat_encoder")
    half = network("trellis/slat-encoder", about, use_fp16=None, torso_dtype=dtype)
    assert half.torso_dtype == dtype
    assert half.input_layer.weight.dtype == half.out_layer.linear.weight.dtype == torch.float32
    x, order = features("feats", arrays["coords"], 24, 16)
    with torch.no_grad():
        mean = half(x).mean.feats
    gap = (mean - arrays["mean"][order]).square().mean().sqrt() / arrays["mean"].square().mean().sqrt()
    assert 0 < float(gap) < (4e-3 if dtype == torch.float16 else 3e-2)


def test_gradients_reach_every_parameter_and_checkpointing_gives_the_same() -> None:
    for name in ("slat-encoder", "gaussian-decoder", "mesh-decoder"):
        gradients = []
        for checkpoint in (False, True):
            torch.manual_seed(3)
            fields = {**SMALL, "model_channels": 256 if name == "mesh-decoder" else 96, "use_checkpoint": checkpoint}
            module = build(f"trellis/{name}", **fields)
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.normal_(0, 0.1)
            width = module.config.in_channels
            grid = random_grid((12, 6), 6)
            out = module(SparseTensor(grid, torch.linspace(-1, 1, 18 * width).view(18, width)))
            feats = out.feats if isinstance(out, SparseTensor) else torch.cat((out.mean.feats, out.logvar), 1)
            feats.square().mean().backward()
            gradients.append([p.grad for p in module.parameters()])
        assert all(g is not None for g in gradients[0])
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_descriptions_make_equal_networks() -> None:
    config = SLatConfig(16, 4, 56, model_channels=48, num_blocks=1, num_heads=4)
    decoder = SLatGaussianDecoder(config)
    again = SLatGaussianDecoder.from_description(decoder.description())
    assert again.config == config
    assert again.activation == decoder.activation


@pytest.mark.parametrize("name", ["slat-encoder", "gaussian-decoder", "mesh-decoder"])
def test_own_files(name: str, tmp_path: Path) -> None:
    module = small(name)
    save_pretrained(module, tmp_path / "network.safetensors")
    again = load_pretrained(tmp_path / "network.safetensors")
    assert isinstance(again, type(module))
    assert cast(Any, again).description() == module.description()
    for key, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: build("trellis/slat-encoder", pe_mode="rope"), RangeError, "pe_mode"),
    (lambda: build("trellis/slat-encoder", qk_rms_norm=True), RangeError, "qk_rms_norm"),
    (lambda: build("trellis/slat-encoder", attn_mode="shift_window"), RangeError, "attn_mode"),
    (lambda: build("trellis/slat-encoder", model_channels=100, num_heads=3), RangeError, "num_heads must divide"),
    (lambda: build("trellis/gaussian-decoder", representation_config={"gaussians": 3}), RangeError, "'gaussians'"),
    (lambda: build("trellis/gaussian-decoder", representation_config=3), DtypeError, "dict"),
    (lambda: build("trellis/gaussian-decoder", device="meta", representation_config={"voxel_size": 1.0}), RangeError, "voxel_size"),
    (lambda: build("trellis/structure-encoder", norm_type="group"), RangeError, "norm_type"),
    (lambda: SLatEncoder(SLatConfig(16, 4, 7, model_channels=24, num_blocks=0)), RangeError, "even"),
    (lambda: SLatGaussianDecoder(SLatConfig(16, 4, 15, model_channels=24, num_blocks=0)), ShapeError, "must be 14 for each"),
    (lambda: load_trellis(nn.Linear(2, 2), {}), DtypeError, "one of TRELLIS'"),
    (lambda: to_trellis(nn.Linear(2, 2)), DtypeError, "one of TRELLIS'"),
    (lambda: to_trellis(small("slat-encoder"), torch.int32), DtypeError, "float dtype"),
    (lambda: load_trellis(small("slat-encoder"), 3), DtypeError, "dict of tensors or a path"),
    (lambda: small("slat-encoder")(SparseTensor(random_grid((3,), 32), torch.zeros(3, 6))), RangeError, "at most 16 cells"),
    (lambda: small("slat-encoder")(SparseTensor(random_grid((3,), 16), torch.zeros(3, 5))), ShapeError, "6 channels"),
]


@pytest.mark.parametrize(("attempt", "error", "message"), BAD)
def test_bad_input(attempt: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attempt()


def test_files_of_other_networks(tmp_path: Path) -> None:
    (tmp_path / "net.json").write_text(json.dumps({"name": "SLatRadianceFieldDecoder", "args": {}}))
    with pytest.raises(FileFormatError, match="does not have the class"):
        read_trellis(tmp_path / "net")
    with pytest.raises(FileNotFoundError):
        load_trellis(small("slat-encoder"), tmp_path / "none")
