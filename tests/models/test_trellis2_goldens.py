"""What TRELLIS.2's own code gives for the same weights and inputs, on every engine of a CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

import voxgen
from models.trellis2_golden import Golden, grid, sorted_rows  # pyright: ignore[reportMissingImports]
from voxgen.core import SparseTensor
from voxgen.models import SCVAE, MaterialContent, SCDecoder, SCEncoder, ShapeContent, Tiling, build
from voxgen.representations import OVoxel
from voxgen.testing.compare import difference

TOLERANCE = 1e-4  # of each array's largest value, as the goldens say: the original sums in another order


@pytest.fixture(params=["numba", "torch", "reference"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with voxgen.use_backend(request.param), torch.no_grad():
        yield request.param


def close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert difference(actual, expected) < TOLERANCE


def same(actual: Tensor, expected: Tensor) -> None:
    assert torch.equal(actual.long(), expected.long())


def partner(decoder: SCDecoder) -> SCEncoder:
    """An encoder that fits a golden's decoder, which has none of its own."""
    c = decoder.config
    encoder = build(
        "trellis2/shape-encoder", model_channels=c.model_channels[::-1], num_blocks=(0, 0, 0), latent_channels=c.latent_channels
    )
    assert isinstance(encoder, SCEncoder)
    return encoder


@pytest.mark.parametrize("kind", ["shape", "material"])
def test_encoder(engine: str, kind: str) -> None:
    golden = Golden(f"trellis2_{kind}_encoder")
    encoder = golden.build("encoder")
    cells = grid(golden["coords"], 32)
    if kind == "shape":
        ovoxel = OVoxel(cells, golden["vertices"], golden["intersected"])
        x = ShapeContent().read(ovoxel)
    else:
        values = golden.normal("material").tanh() * 0.5 + 0.5
        parts: dict[str, Tensor] = dict(zip(("base_color", "metallic", "roughness", "alpha"), values.split([3, 1, 1, 1], 1), strict=True))
        x = MaterialContent().read(
            OVoxel(cells, torch.full((len(cells), 3), 0.5), torch.zeros(len(cells), 3, dtype=torch.bool), materials=parts)
        )
    encoded = encoder(x)
    same(encoded.posterior.mean.coords, golden["latent_coords"])
    close(encoded.posterior.mean.feats, golden["mean"])
    close(encoded.posterior.logvar, golden["logvar"])
    for i, structure in enumerate(encoded.structures):
        same(structure.parent, golden[f"stage{i}_parent"])
        same(structure.slot, golden[f"stage{i}_child"])
        same(structure.children.coords, golden[f"stage{i}_coords"])
        same(structure.mask(), golden[f"stage{i}_subdivision"])


def test_shape_decoder_given_structure(engine: str) -> None:
    golden = Golden("trellis2_shape_decoder")
    decoder = golden.build("decoder")
    structures = golden.structures()
    z = SparseTensor(structures[0].parents, 0.8 * golden.normal("latent"))
    levels: list[Tensor] = []
    hook = decoder.run_step

    def spy(level: int, h: SparseTensor, structure: object = None) -> object:
        out = hook(level, h, structure)
        levels.append(out[0].feats)
        return out

    decoder.run_step = spy
    vae = SCVAE(partner(decoder), decoder, ShapeContent())
    out = vae.decode(z, structure=structures)
    same(out.grid.coords, golden["stage1_coords"])
    close(out.head.feats, golden["given_head"])
    close(out.prediction.dual_vertices, golden["given_vertex"])
    close(out.prediction.split_weight, golden["given_split_weight"])
    for i in range(2):
        close(out.logits[i].feats, golden[f"given_subdivision_logits{i}"])
        close(levels[i][:, ::4], golden[f"given_stage{i}_features"])
    ovoxel = out.to_ovoxel(golden["intersected"])
    for i in range(2):
        mesh = ovoxel.sample(i).to_mesh(training=True, compat="trellis2")
        close(mesh.vertices, golden[f"given_mesh{i}_vertices"])
        same(mesh.faces, golden[f"given_mesh{i}_faces"])


@pytest.mark.parametrize("tiling", [None, Tiling(4, 0), Tiling(3, 1), Tiling(8, 2)])
def test_shape_decoder_predicted_structure(engine: str, tiling: Tiling | None) -> None:
    golden = Golden("trellis2_shape_decoder")
    decoder = golden.build("decoder")
    z = SparseTensor(grid(golden["latent_coords"], 8), 0.8 * golden.normal("latent"))
    out = SCVAE(partner(decoder), decoder, ShapeContent()).decode(z, resolution=32, tiling=tiling)
    stage0, final = golden["predicted_stage0_coords"], golden["predicted_coords"]
    same(out.grid.coords, grid(final, 32).coords)
    same(out.structures[0].children.coords, grid(stage0, 16).coords)
    close(out.head.feats, sorted_rows(final, golden["predicted_head"]))
    close(out.logits[0].feats, golden["predicted_subdivision_logits0"])
    close(out.logits[1].feats, sorted_rows(stage0, golden["predicted_subdivision_logits1"]))
    with torch.no_grad():
        same(decoder.upsample(z, 1).coords, grid(stage0, 16).coords)
        same(decoder.upsample(z, 2).coords, grid(golden["predicted_stage1_coords"], 32).coords)
    assert decoder.upsample(z, 0) is z.grid
    for i in range(2):
        mesh = out.ovoxel.sample(i).to_mesh(compat="trellis2")
        rows = final[:, 0] == i
        order = np.lexsort(final[rows].numpy().T[::-1])  # ours has one vertex a cell in the grid's order, the original's in its own
        close(mesh.vertices, golden[f"predicted_mesh{i}_vertices"][order])
        ours, theirs = torch.from_numpy(order)[mesh.faces.long()], golden[f"predicted_mesh{i}_faces"].long()
        same(_canonical(ours), _canonical(theirs))


def _canonical(faces: Tensor) -> Tensor:
    """Triangles as a set: each keeps its cyclic order, its lowest vertex first; then sorted."""
    turn = faces.argmin(1, keepdim=True)
    turned = faces.gather(1, (turn + torch.arange(3)) % 3)
    return torch.from_numpy(np.unique(turned.numpy(), axis=0))


@pytest.mark.parametrize("tiling", [None, Tiling(5, 1)])
def test_material_decoder(engine: str, tiling: Tiling | None) -> None:
    golden = Golden("trellis2_material_decoder")
    decoder = golden.build("decoder")
    structures = golden.structures()
    z = SparseTensor(structures[0].parents, 0.8 * golden.normal("material_latent"))
    given = decoder(z, structure=structures, tiling=tiling)
    close(given.head.feats, golden["given_material"])
    assert given.logits == ()
    stage0 = Golden("trellis2_shape_decoder")["predicted_stage0_coords"]
    logits = SparseTensor.build(stage0, golden["guide_logits1"], resolution=16, batch_size=2)
    final = golden["guided_coords"]
    for second in (logits, logits.feats, logits.feats > 0):
        guided = decoder(z, guide=(golden["guide_logits0"], second), tiling=tiling)
        same(guided.head.coords, grid(final, 32).coords)
        close(guided.head.feats, sorted_rows(final, golden["guided_material"]))


@pytest.mark.parametrize("network", ["shape_encoder", "shape_decoder"])
def test_half_precision_torso(engine: str, network: str) -> None:
    golden = Golden("trellis2_half")
    outputs = []
    for half in (True, False):
        module = golden.build(network, use_fp16=half)
        if half:
            names = golden.info["networks"][network]["float32_keys"]
            from voxgen.models.checkpoints import to_trellis2

            kept = {name for name, value in to_trellis2(module).items() if value.dtype == torch.float32}
            assert kept == set(names)
        cells = grid(golden["coords"], 32)
        encoded = golden.build("shape_encoder", use_fp16=False)(
            ShapeContent().read(OVoxel(cells, golden["vertices"], golden["intersected"]))
        )
        if network == "shape_encoder":
            outputs.append(module(ShapeContent().read(OVoxel(cells, golden["vertices"], golden["intersected"]))).posterior.mean.feats)
        else:
            z = SparseTensor(encoded.posterior.mean.grid, 0.8 * golden.normal("latent"))
            outputs.append(module(z, structure=encoded.structures).head.feats)
    half, full = outputs
    close(full, golden[f"{network}_float32"])
    assert half.dtype == torch.float32
    ours = float((half - full).square().mean().sqrt() / full.square().mean().sqrt())
    theirs = golden.info["distance_to_float32"][network]
    assert theirs / 1.5 < ours < theirs * 1.5  # about the same distance; element by element the order of sums decides
