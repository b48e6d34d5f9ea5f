"""Sparse-Up assembled: stages, textures of given meshes, two levels of patches, batches, seeds, empty structures, bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.two_stage_cases import (  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
    SAMPLERS,
    SIDE,
    WIDTH,
    Colours,
    chances,
    filled,
    patched_flow,
    structure_parts,
    tokens,
)
from voxgen.core import SparseTensor, TriMesh
from voxgen.core.errors import DtypeError, EmptyResultWarning, RangeError, ShapeError
from voxgen.models import LatentNormalization, TextureVAE, TextureVAEConfig, build
from voxgen.models.pipelines import SparseUpPipeline
from voxgen.ops.candidates import level_structures
from voxgen.ops.surface_cells import surface_grid
from voxgen.testing.grids import random_grid
from voxgen.testing.shapes import sphere, torus

UNIT = LatentNormalization((0.0,) * WIDTH, (1.0,) * WIDTH)


def texture_vae(**fields: Any) -> TextureVAE:
    config = TextureVAEConfig(
        **{
            "resolution": SIDE,
            "feature_channels": 6,
            "latent_channels": WIDTH,
            "model_channels": 24,
            "num_blocks": 1,
            "num_heads": 2,
            "window_size": 4,
            "mask_blocks": 1,
            "widths": (16, 12),
            "num_gaussians": 2,
            **fields,
        }
    )
    return filled(TextureVAE(config), 21, 0.2)


@pytest.fixture(scope="module")
def pipeline() -> SparseUpPipeline:
    return SparseUpPipeline(
        *structure_parts(), patched_flow(stages=2), texture_vae(), normalization=UNIT, samplers=SAMPLERS, image_encoder=Colours()
    )


def test_generate_is_its_stages_and_follows_the_seed(pipeline: SparseUpPipeline) -> None:
    made = pipeline.generate(conditions=tokens(), generator=torch.Generator().manual_seed(3))
    chance = torch.Generator().manual_seed(3)
    structure = pipeline.sample_structure(tokens(), generator=chance)
    latent = pipeline.sample_latent(structure, tokens(), generator=chance)
    with torch.no_grad():
        expected = pipeline.vae.decode(latent)
    assert expected.splats is not None
    assert torch.equal(made.splats.means, expected.splats.means)
    assert made.decoded.mask is not None
    finest = made.decoded.features.grid
    assert finest.resolution == (4 * SIDE,) * 3
    assert len(structure) <= len(finest) <= 64 * len(structure)
    assert len(made.splats) == 2 * len(finest)
    everything = pipeline.generate(conditions=tokens(), generator=torch.Generator().manual_seed(3), source="all")
    assert len(everything.decoded.features) == 64 * len(structure)


def test_a_sample_is_the_same_alone_and_in_a_batch(pipeline: SparseUpPipeline) -> None:
    both = pipeline.generate(conditions=tokens(), samples=2, generator=chances(1, 2))
    for i, seed in enumerate((1, 2)):
        alone = pipeline.generate(conditions=tokens(), generator=chances(seed))
        own = both.splats.sample(i)
        assert len(alone.splats) == len(own)
        torch.testing.assert_close(alone.splats.means, own.means, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.splats.opacities, own.opacities, rtol=1e-3, atol=1e-4)


def test_a_given_mesh_keeps_its_cells(pipeline: SparseUpPipeline) -> None:
    mesh = torus()
    made = pipeline.texture_mesh(mesh, conditions=tokens(), samples=2, generator=chances(1, 2))
    finest = surface_grid(mesh, 4 * SIDE)
    steps = level_structures(finest, 2)
    for i in range(2):
        assert torch.equal(made.decoded.features.grid.sample(i).coords, finest.coords)
        assert torch.equal(made.structure.sample(i).coords, steps[0].parents.coords)
    assert made.decoded.mask is None, "no network decides"
    assert not torch.equal(made.splats.sample(0).sh, made.splats.sample(1).sh), "two textures"
    alone = pipeline.texture_mesh(mesh, conditions=tokens(), generator=chances(2))
    torch.testing.assert_close(alone.splats.sh, made.splats.sample(1).sh, rtol=1e-3, atol=1e-4)
    reach = 0.75 / (4 * SIDE)  # how far from the middle of its cell a Gaussian can lie
    middle = finest.frame.centers(finest.cells).repeat_interleave(2, 0)
    assert float((alone.splats.means - middle).abs().max()) <= reach + 1e-6


def test_meshes_and_pictures_in_one_batch(pipeline: SparseUpPipeline) -> None:
    picture = np.zeros((20, 20, 4), np.uint8)
    picture[4:16, 4:16] = (250, 120, 30, 255)
    made = pipeline.texture_mesh([sphere(), torus()], [picture, picture[::-1]], generator=chances(1, 2))
    assert torch.equal(made.decoded.features.grid.sample(0).coords, surface_grid(sphere(), 4 * SIDE).coords)
    assert torch.equal(made.decoded.features.grid.sample(1).coords, surface_grid(torus(), 4 * SIDE).coords)


def test_without_a_first_stage_meshes_can_be_textured(pipeline: SparseUpPipeline) -> None:
    own = SparseUpPipeline(None, None, pipeline.latent_flow, pipeline.vae, normalization=UNIT, samplers={"latent": SAMPLERS["latent"]})
    assert len(own.texture_mesh(sphere(), conditions={"latent": tokens()}).splats) > 0
    with pytest.raises(RangeError, match="no structure_flow"):
        own.generate(conditions=tokens())


def test_folder(pipeline: SparseUpPipeline, tmp_path: Path) -> None:
    saved = SparseUpPipeline(None, None, pipeline.latent_flow, pipeline.vae, normalization=UNIT, samplers=SAMPLERS)
    saved.save_folder(tmp_path)
    found = SparseUpPipeline.from_folder(tmp_path)
    assert found.structure_flow is None
    before, after = (p.texture_mesh(sphere(), conditions=tokens(), generator=chances(1)) for p in (saved, found))
    assert torch.equal(before.splats.sh, after.splats.sh)


def test_no_level_above_the_latent() -> None:
    own = SparseUpPipeline(*structure_parts(), patched_flow(), texture_vae(widths=()), normalization=UNIT, samplers=SAMPLERS)
    made = own.texture_mesh(sphere(), conditions=tokens(), generator=chances(1))
    assert torch.equal(made.structure.coords, surface_grid(sphere(), SIDE).coords)
    assert len(made.splats) == 2 * len(made.structure)


def test_nothing_gives_empty_results_and_warnings(pipeline: SparseUpPipeline) -> None:
    flow, occupancy = structure_parts()
    nn.init.constant_(occupancy.get_parameter("out_layer.2.bias"), -1e3)
    nothing = SparseUpPipeline(flow, occupancy, pipeline.latent_flow, pipeline.vae, normalization=UNIT, samplers=SAMPLERS)
    with pytest.warns(EmptyResultWarning, match="no cell of the structure"):
        made = nothing.generate(conditions=tokens(2))
    assert (len(made.splats), made.splats.batch_size) == (0, 2)


def test_small_networks_of_the_registry_fit() -> None:
    vae: Any = build("voxgen/texture-vae-small")
    flow: Any = build("voxgen/texture-flow-small", model_channels=32, num_blocks=1, num_heads=2, cond_channels=12)
    statistics = LatentNormalization((0.0,) * 8, (1.0,) * 8)
    own = SparseUpPipeline(None, None, flow.eval(), vae.eval(), normalization=statistics, samplers=SAMPLERS)
    grid = random_grid((50,), 32)
    assert own.sample_latent(grid, tokens(), generator=chances(1)).channels == 8


def test_bad_input(pipeline: SparseUpPipeline) -> None:
    p = pipeline
    parts = (p.structure_flow, p.structure_decoder, p.latent_flow)
    with pytest.raises(ShapeError, match="vae must have the 4 channels"):
        SparseUpPipeline(*parts, texture_vae(latent_channels=8), normalization=UNIT)
    with pytest.raises(ShapeError, match="autoencoder's 16 cells"):
        SparseUpPipeline(*parts, texture_vae(resolution=16), normalization=UNIT)
    with pytest.raises(RangeError, match=r"mesh.with_up\('y'\)"):
        p.texture_mesh(sphere().with_up("z"), conditions=tokens())
    with pytest.raises(ShapeError, match="each of 2 meshes; got 1"):
        p.texture_mesh([sphere(), sphere()], conditions=tokens())
    with pytest.raises(RangeError, match="at least one mesh"):
        p.texture_mesh([], conditions=tokens())
    with pytest.raises(DtypeError, match="must be a TriMesh"):
        p.texture_mesh(["sphere"], conditions=tokens())  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="samples"):
        p.texture_mesh(sphere(), conditions=tokens(), samples=0)
    far = sphere()
    with pytest.raises(ValueError, match=r"surface_cells|box|outside"):
        p.texture_mesh(TriMesh(far.vertices + 3, far.faces), conditions=tokens())
    latent = SparseTensor(random_grid((3,), SIDE), torch.zeros(3, WIDTH))
    with pytest.raises(RangeError, match="'gt' needs structures"):
        p.decode(latent, source="gt")
