"""SparseSDFVAE: its files, and what it refuses."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
import torch

import voxgen
from models.sdf_vae_cases import balls, vae  # pyright: ignore[reportMissingImports]
from voxgen import models
from voxgen.core import SparseTensor
from voxgen.core.errors import CheckpointError, DtypeError, RangeError, ShapeError
from voxgen.models import (
    DecodedSDF,
    SDFDecoderConfig,
    SDFEncoderConfig,
    SparseSDFDecoder,
    SparseSDFEncoder,
    SparseSDFVAE,
    load_pretrained,
    save_pretrained,
    sdf_targets,
    sparse_sdf_vae,
)
from voxgen.models.checkpoints import load_direct3d_s2, to_direct3d_s2
from voxgen.models.sparse_sdf_vae import SDFDownBlock, SDFUpBlock
from voxgen.ops.resample import Structure
from voxgen.representations import SparseSDF
from voxgen.testing.grids import random_grid
from voxgen.testing.shapes import torus


def test_own_files(tmp_path: Path, no_grad: None) -> None:
    module = vae(early_pruning=True, chunk_size=2, latents_scale=0.5)
    save_pretrained(module, tmp_path / "vae.safetensors")
    again = load_pretrained(tmp_path / "vae.safetensors")
    assert isinstance(again, SparseSDFVAE)
    assert again.description() == module.description()
    assert again.tile == 2
    latent = module.encode(balls((9.0,)))
    assert torch.equal(again.encode(balls((9.0,))).z.feats, latent.z.feats)


def test_published_names_both_ways(tmp_path: Path) -> None:
    module = vae()
    state = to_direct3d_s2(module)
    path = tmp_path / "model.ckpt"
    torch.save({"vae": {name: value.half() for name, value in state.items()}, "dit": {"x": torch.zeros(1)}}, path)
    other = vae(seed=1)
    load_direct3d_s2(other, path)
    for name, value in to_direct3d_s2(other).items():
        assert torch.equal(value, state[name].half().float())
    kernel = "encoder.downsample.1.out_layers.3.conv.kernel"
    own = module.state_dict()["encoder.downsample.1.conv2.weight"]
    assert torch.equal(state[kernel].view(3, 3, 3, 8, 8).transpose(0, 2).flatten(0, 2), own)
    with pytest.raises(CheckpointError, match=rf"(?s)1 missing.*{kernel}"):
        load_direct3d_s2(other, {name: value for name, value in state.items() if name != kernel})
    with pytest.raises(CheckpointError, match=r"(?s)1 left over.*stranger"):
        load_direct3d_s2(other, {**state, "stranger": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"(?s)6 missing.*upsample.0.predict"):
        load_direct3d_s2(vae(early_pruning=True), state)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_channels_encoder": 40}, "multiple of 16"),
        ({"num_groups": 32}, "num_groups must divide the narrowest level's 2 channels"),
        ({"num_heads_decoder": 5}, "num_heads must divide model_channels"),
        ({"num_heads_encoder": None, "num_head_channels_encoder": 0}, "num_head_channels must be at least 1"),
        ({"window_size": 0}, "window must be at least 1"),
        ({"compat": "trellis"}, "compat must be one of 'direct3d_s2'"),
        ({"chunk_size": 3}, "must divide the resolution"),
        ({"latents_scale": 0.0}, "latents_scale must not be 0"),
        ({"torso_dtype": "float8"}, "torso_dtype must be one of"),
    ],
)
def test_configurations_that_make_no_network(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RangeError, match=words):
        vae(**fields)


def test_parts_that_do_not_fit(small_sdf_vae: SparseSDFVAE) -> None:
    other = SparseSDFDecoder(SDFDecoderConfig(model_channels=32, num_blocks=0, num_heads=2, latent_channels=5))
    with pytest.raises(ShapeError, match="latent_channels must be the encoder's, 4; got 5"):
        SparseSDFVAE(small_sdf_vae.encoder, other)
    with pytest.raises(ShapeError, match="normalisation must have 4 channels"):
        SparseSDFVAE(small_sdf_vae.encoder, small_sdf_vae.decoder, models.SHAPE_LATENTS)
    with pytest.raises(RangeError, match="tile"):
        SparseSDFVAE(small_sdf_vae.encoder, small_sdf_vae.decoder, tile=0)
    config = SDFEncoderConfig(model_channels=32, num_heads=2, num_groups=2)
    assert SDFEncoderConfig(**config.to_json()) == config
    with pytest.raises(ShapeError, match="num_groups"):
        SDFDownBlock(6, 8, num_groups=4)


def test_bad_input(small_sdf_vae: SparseSDFVAE) -> None:
    sdf = balls((9.0,))
    latent = small_sdf_vae.encode(sdf)
    bad = sdf.sdf_cells.clone()
    bad[5] = float("nan")
    with pytest.raises(RangeError, match="sdf must be finite; 1 of"):
        small_sdf_vae.encode(sdf.replace(sdf_cells=bad))
    with pytest.raises(DtypeError, match="must be a SparseSDF"):
        small_sdf_vae.encode(sdf.normalized())  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="without sample=True"):
        small_sdf_vae.encode(sdf, generator=torch.Generator())
    for factor in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(RangeError, match="factor must be positive"):
            small_sdf_vae.encode(sdf, factor=factor)
    with pytest.raises(RangeError, match="latent must be finite"):
        small_sdf_vae.decode(latent.z.with_feats(latent.z.feats.detach() / 0))
    with pytest.raises(DtypeError, match="what encode gives"):
        small_sdf_vae.decode(latent.z.feats)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="4 channels"):
        small_sdf_vae.decode(latent.z.with_feats(latent.z.feats[:, :3]))
    with pytest.raises(ShapeError, match="3 entries"):
        small_sdf_vae.decode(latent, structure=latent.structures[:2])
    with pytest.raises(RangeError, match="coarse to fine"):
        small_sdf_vae.decode(latent, structure=latent.structures[::-1])
    with pytest.raises(RangeError, match="tile"):
        small_sdf_vae.decode(latent, tile=0)
    with pytest.raises(RangeError, match="band"):
        small_sdf_vae.decode(latent, band=-1.0)
    with pytest.raises(RangeError, match=r"parents must be the cells of x"):
        SDFUpBlock(4, 2)(latent.z.with_feats(latent.z.feats.detach()), latent.structures[1])


def test_a_mesh_comes_out_of_true_values(small_sdf_vae: SparseSDFVAE, no_grad: None) -> None:
    """What extraction reads if the network is right: the far field has its side, so there is no second surface within."""
    sdf = SparseSDF.from_mesh(torus(), resolution=32, band=2.0)
    grid = small_sdf_vae.decode(small_sdf_vae.encode(sdf)).values.grid
    perfect = DecodedSDF(SparseTensor(grid, sdf_targets(sdf, grid).values), (), band=2.0)
    one, other = perfect.sdf.to_mesh(), sdf.to_mesh()
    assert one.num_faces == other.num_faces
    assert torch.allclose(one.vertices, other.vertices, atol=1e-5)


OBJECTS = [SparseSDFVAE, SparseSDFEncoder, SparseSDFDecoder, SDFDownBlock, SDFUpBlock, sdf_targets]


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item.__name__)
def test_examples(item: Any, small_sdf_vae: SparseSDFVAE) -> None:
    sdf = balls((9.0,))
    x = SparseTensor(random_grid((30,), 8), torch.randn(30, 16))
    names = {
        "voxgen": voxgen,
        "torch": torch,
        "mesh": torus(),
        "sdf": sdf,
        "x": x,
        "vae": small_sdf_vae,
        "latent": small_sdf_vae.encode(sdf),
    }
    names |= {"latent_grid": random_grid((5,), 4), "SparseTensor": SparseTensor, "SparseSDF": SparseSDF, "Structure": Structure}
    (test,) = doctest.DocTestFinder(recurse=False).find(item, globs={**vars(sparse_sdf_vae), **names})
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(report)
