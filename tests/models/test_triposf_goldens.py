"""SparseFlexVAE in TripoSF's numbers: the whole, its chunked decode, formula weights, every tensor of the file, strict loading."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from golden.reader import Golden, published_keys  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import CheckpointError, DtypeError, FileFormatError, RangeError
from voxgen.losses import kl_divergence
from voxgen.models import SparseFlexDecoder, SparseFlexVAE, available, build, load_pretrained, save_pretrained
from voxgen.models.checkpoints import load_triposf, read_triposf, save_triposf, to_triposf
from voxgen.representations import OrientedPoints
from voxgen.testing.compare import assert_same


def fields_of(golden: Golden) -> dict[str, Any]:
    """A golden's configuration in the fields of `build`."""
    c = golden.configuration
    names = ("model_channels", "latent_channels", "num_blocks", "num_heads", "num_head_channels", "mlp_ratio", "window_size", "use_fp16")
    found = {name: c["decoder"][name] for name in names}
    if "local_pc_encoder" in c:
        p = c["local_pc_encoder"]
        found |= {"point_channels": p["out_channels"], "hidden_dim": p["hidden_dim"], "n_blocks": p["n_blocks"]}
    return found


def vae_of(**fields: Any) -> SparseFlexVAE:
    return cast(SparseFlexVAE, build("triposf/vae", **fields)).requires_grad_(False)


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden.read("triposf_vae")


@pytest.fixture(scope="module")
def vae(golden: Golden) -> SparseFlexVAE:
    module = vae_of(**fields_of(golden))
    load_triposf(module, golden.weights())
    return module


@pytest.fixture(scope="module")
def latent(golden: Golden) -> SparseTensor:
    grid = VoxelGrid.build(golden.arrays["in/coords"], resolution=16)[0]
    return SparseTensor(grid, golden.arrays["out/latent"])


def test_every_tensor_of_the_released_file():
    assert "triposf/vae" in available()
    module = build("triposf/vae", device="meta")
    own = {key: (tuple(value.shape), value.dtype) for key, value in to_triposf(module).items()}
    assert own == published_keys("triposf_vae")
    assert (len(own), sum(value.numel() for value in module.parameters())) == (257, 178_833_479)


def test_encoder(golden: Golden, vae: SparseFlexVAE):
    points = golden.arrays["in/points"]
    samples, count, _ = points.shape
    cloud = OrientedPoints(points[..., :3].reshape(-1, 3), points[..., 3:].reshape(-1, 3), torch.arange(samples + 1) * count)
    grid, order = VoxelGrid.build(golden.arrays["in/coords"], resolution=16)
    assert torch.equal(order, torch.arange(len(grid)))
    features = vae.points(cloud.points, cloud.normals, cloud.offsets, grid)
    wanted, got = golden.expected("point_features", features.feats)
    assert_same(got, wanted, "point features", golden.tolerance)
    posterior = vae.encode(cloud, grid).posterior
    assert_same(posterior.mean.feats, golden.arrays["out/mean"], "mean", golden.tolerance)
    assert_same(posterior.logvar, golden.arrays["out/logvar"], "logvar", golden.tolerance)
    assert_same(posterior.sample(noise=golden.normal("noise")).feats, golden.arrays["out/latent"], "latent", golden.tolerance)
    kl = float(kl_divergence(posterior.mean.feats, posterior.logvar))
    assert kl == pytest.approx(golden.about["facts"]["kl"], rel=golden.tolerance)


def test_decoder_without_pruning(golden: Golden, vae: SparseFlexVAE, latent: SparseTensor):
    decoder = vae.decoder
    h = decoder.blocks(latent.with_feats(decoder.input_layer(latent.feats)))
    wanted, got = golden.expected("trunk", h.feats)
    assert_same(got, wanted, "trunk", golden.tolerance)
    decoded = vae.decode(latent)
    assert len(decoded.features) == golden.about["facts"]["fine"]
    rows = decoded.features.grid.rows_of(golden.arrays["out/fine_coords"].int())
    assert int(rows.min()) >= 0
    assert_same(decoded.features.feats[rows], golden.arrays["out/channels"], "channels", golden.tolerance)
    # the original's children: parents in their order, then 4x + 2y + z
    slots = torch.tensor([0, 4, 2, 6, 1, 5, 3, 7])
    wanted, got = golden.expected("logits_0", decoded.logits[0].feats[:, slots].reshape(-1, 1))
    assert_same(got, wanted, "logits", golden.tolerance)
    meshes = decoded.flex.to_meshes()
    for i, mesh in enumerate(meshes):
        facts = golden.about["facts"][f"mesh_{i}"]
        assert mesh.num_faces == facts["faces"]
    bare = decoded.flex.surface(compat="triposf")
    assert bare.vertex_offsets.diff().tolist() == [golden.about["facts"][f"mesh_{i}"]["vertices"] for i in range(2)]


def test_decoder_with_pruning(golden: Golden, vae: SparseFlexVAE, latent: SparseTensor):
    facts = golden.about["facts"]
    decoded = vae.decode(latent, prune=True)
    kept = [structure.children.offsets.diff().tolist() for structure in decoded.structures]
    assert kept == [[facts[f"kept_{i}_sample_{s}"] for s in range(2)] for i in (1, 2)]
    rows = decoded.features.grid.rows_of(golden.arrays["out/pruned_coords"].int())
    assert int(rows.min()) >= 0
    assert_same(decoded.features.feats[rows], golden.arrays["out/pruned_channels"], "channels", golden.tolerance)
    again = vae.decode(latent, structure=decoded.structures)
    assert torch.equal(again.features.coords, decoded.features.coords)
    assert_same(again.features.feats, decoded.features.feats, "given")


@pytest.mark.parametrize("kind", ["", "_pruned"])
def test_chunked_decode_of_the_release(kind: str):
    golden = Golden.read("triposf_vae_chunked")
    decoder = vae_of(**fields_of(golden)).decoder
    load_triposf(decoder, golden.weights())
    grid, order = VoxelGrid.build(golden.arrays["in/coords"], resolution=16)
    z = SparseTensor(grid, golden.normal("z")[order])
    emitted = decoder.emit(z, prune=kind != "", boxes=golden.configuration["boxes_per_axis"])
    facts = golden.about["facts"][f"result{kind}"]
    assert (len(emitted.coords), len(emitted.grid)) == (facts["rows"], facts["unique"])
    assert emitted.repeats == facts["rows"] - facts["unique"]
    wanted, coords = golden.expected(f"fine_coords{kind}", emitted.coords)
    assert torch.equal(coords, wanted.int())
    wanted, got = golden.expected(f"channels{kind}", emitted.features)
    assert_same(got, wanted, "channels", golden.tolerance)
    surface = emitted.flex.surface(compat="triposf")
    assert (len(surface.vertices), len(surface.faces)) == (facts["vertices"], facts["faces"])
    golden.check_statistics(f"mesh/vertices{kind}", surface.vertices)


def formula(shape: tuple[int, ...], p: int, name: str) -> Tensor:
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    w = torch.sin(0.7 * i + 1.3 * p) * torch.cos(0.013 * i + 0.5 * p)
    if len(shape) > 1:
        w = w * 1.5 / math.sqrt(math.prod(shape[1:]))
    else:
        w = 1 + 0.1 * w if name.endswith("weight") else 0.1 * w
    return w.reshape(shape).float()


def test_formula_weights():
    """Numbers of the original for weights and points that a formula makes; tolerance 1e-4 of means, as float32 sums differ."""
    vae = vae_of(
        point_channels=64, hidden_dim=32, n_blocks=3, model_channels=256, num_blocks=2, num_heads=4, use_checkpoint=False, compat=None
    )
    state = to_triposf(vae)
    for part in ("local_pc_encoder.", "encoder.", "decoder."):
        for p, name in enumerate(sorted(key for key in state if key.startswith(part))):
            state[name] = formula(tuple(state[name].shape), p, name)
    load_triposf(vae, state)
    i = torch.arange(4000, dtype=torch.float64)
    phi, theta = torch.arccos(1 - 2 * (i + 0.5) / 4000), math.pi * (1 + math.sqrt(5)) * (i + 0.5)
    normals = torch.stack([theta.cos() * phi.sin(), theta.sin() * phi.sin(), phi.cos()], 1)
    points = 0.35 * normals
    cells = ((points + 0.5) * 16).floor().int().unique(dim=0)
    assert (len(cells), cells.sum(0).tolist()) == (573, [4284, 4292, 4295])
    grid = VoxelGrid.from_sorted(torch.nn.functional.pad(cells, (1, 0)), resolution=16, batch_size=1)
    cloud = OrientedPoints(points.float(), normals.float())

    def check(x: Tensor, total: float, mean: float, first: list[float]) -> None:
        assert float(x.abs().mean()) == pytest.approx(mean, rel=1e-4)
        assert float(x.double().sum()) == pytest.approx(total, abs=1e-4 * mean * x.numel())
        assert x[0, :4].tolist() == pytest.approx(first, abs=1e-3 * mean)

    features = vae.points(cloud.points, cloud.normals, cloud.offsets, grid)
    check(features.feats, 165.98862, 0.20855530, [-0.0403209, 0.2530787, -0.3420811, 0.4273191])
    latent = vae.encode(cloud, grid)
    check(latent.z.feats, -4737.6587, 1.0364960, [-1.0816953, -1.1087459, -1.1350149, -1.1376638])
    assert float(latent.posterior.logvar.mean()) == pytest.approx(-0.3690192, rel=1e-4)
    decoder = vae.decoder
    trunk = decoder.blocks(latent.z.with_feats(decoder.input_layer(latent.z.feats)))
    check(trunk.feats, 65138.379, 0.95721447, [0.3394616, 0.8103908, 0.7098637, 0.8077382])
    decoded = vae.decode(latent, prune=False)
    assert len(decoded.features) == 36672
    row = decoded.features.feats[decoded.features.grid.rows_of(torch.tensor([[0, 8, 20, 24]], dtype=torch.int32))]
    assert row[0, :4].tolist() == pytest.approx([-1.0328783, 0.7866067, -0.2058566, -0.0229028], abs=1e-3)
    assert float(decoded.features.feats.abs().mean()) == pytest.approx(0.71290921, rel=1e-4)
    assert float(decoded.features.feats.double().sum()) == pytest.approx(-56241.011, rel=1e-4)
    assert float(decoded.logits[0].feats.mean()) == pytest.approx(0.3703047, rel=1e-4)
    assert float(decoded.logits[1].feats.mean()) == pytest.approx(-0.1147477, rel=2e-4)


def test_a_skip_convolution_is_read_as_stored(golden: Golden):
    """x @ w.reshape(ci, co), where the ordinary reading is x @ w.reshape(co, ci).T."""
    weights = golden.weights()
    decoder = vae_of(**fields_of(golden)).decoder
    load_triposf(decoder, weights)
    stored = weights["decoder.upsample.0.skip_connection.conv.weight"]
    x = torch.randn(3, 512)
    skip = decoder.upsample[0].upsample.skip_connection  # pyright: ignore
    assert isinstance(skip, torch.nn.Linear)
    assert_same(skip(x), x @ stored.reshape(512, 128) + weights["decoder.upsample.0.skip_connection.conv.bias"], "skip")


def test_loading_is_strict_and_goes_both_ways(golden: Golden, vae: SparseFlexVAE, tmp_path: Path):
    fields = {**fields_of(golden), "model_channels": 256, "num_blocks": 1, "num_heads": 2}
    first = vae_of(**fields)
    state = to_triposf(first)
    path = tmp_path / "vae.safetensors"
    save_triposf(first, path)
    second = read_triposf(path, **fields)
    for key, value in to_triposf(second).items():
        assert_same(value, state[key], key, 0)
    for part in (second.points, second.encoder, second.decoder):  # of the whole file the part's own tensors
        before = {key: value.clone() for key, value in part.state_dict().items()}
        with torch.no_grad():
            for parameter in part.parameters():
                parameter.zero_()
        load_triposf(part, path)
        for key, value in part.state_dict().items():
            assert_same(value, before[key], key, 0)
        assert set(to_triposf(part)) < set(state)
    victim = "decoder.upsample.1.skip_connection.conv.weight"
    with pytest.raises(CheckpointError, match=rf"(?s)1 missing.*{victim}"):
        load_triposf(second, {key: value for key, value in state.items() if key != victim})
    with pytest.raises(CheckpointError, match=r"(?s)1 left over.*stranger"):
        load_triposf(second, {**state, "stranger": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"(?s)1 left over.*decoder.stranger"):
        load_triposf(second.decoder, {**state, "decoder.stranger": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="of another shape"):
        load_triposf(second, {**state, victim: state[victim].reshape(64, 32, 1, 1, 1)})
    with pytest.raises(DtypeError, match="TripoSF"):
        load_triposf(torch.nn.Linear(2, 2), state)
    with pytest.raises(DtypeError, match="SparseFlexVAE"):
        save_triposf(second.decoder, path)  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError):
        read_triposf(tmp_path / "none.safetensors", **fields)
    (tmp_path / "bad.safetensors").write_bytes(b"not a file")
    with pytest.raises(FileFormatError):
        read_triposf(tmp_path / "bad.safetensors", **fields)


def test_own_files(tmp_path: Path):
    first = build("voxgen/sparse-flex-vae-small", model_channels=256, num_blocks=1, norm="group", use_checkpoint=True)
    save_pretrained(first, tmp_path / "vae.safetensors")
    second = load_pretrained(tmp_path / "vae.safetensors")
    assert isinstance(second, SparseFlexVAE)
    assert second.description() == cast(SparseFlexVAE, first).description()
    for key, value in second.state_dict().items():
        assert_same(value, first.state_dict()[key], key, 0)


def test_initial_weights():
    """Zero where training starts from nothing, and uniform skips as the original's convolutions."""
    decoder = cast(SparseFlexDecoder, build("triposf/vae", model_channels=256, num_blocks=1, num_heads=4).decoder)  # pyright: ignore
    state = to_triposf(decoder)
    zero = {key for key, value in state.items() if value.ndim > 1 and not value.any()}
    assert zero == {
        "decoder.out_layer.weight",
        *(f"decoder.upsample.{i}.{name}.weight" for i in (0, 1) for name in ("out_layers.3.conv", "pruning_head.mlp.2")),
    }
    skip = state["decoder.upsample.0.skip_connection.conv.weight"]
    assert 0.9 / 16 < float(skip.abs().max()) <= 1 / 16  # 1 / √256
    grid = VoxelGrid.build(torch.zeros(1, 4, dtype=torch.int32), resolution=4)[0]
    decoded = decoder(SparseTensor(grid, torch.randn(1, 8)), prune=True)
    assert (len(decoded.features), bool(decoded.features.feats.any())) == (64, False)


def test_boxes_that_do_not_fit(vae: SparseFlexVAE, latent: SparseTensor):
    with pytest.raises(RangeError, match="multiple of 4 latents"):
        vae.decoder.emit(latent, boxes=8)
    empty = SparseTensor(latent.grid.select(torch.zeros(len(latent), dtype=torch.bool)), latent.feats[:0])
    emitted = vae.decoder.emit(empty)
    assert (emitted.features.shape, len(emitted.grid), emitted.repeats) == ((0, 53), 0, 0)
