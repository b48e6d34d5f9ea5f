"""Focusing assembled: stages, open surfaces, tiles, batches, seeds, latents' statistics, empty structures, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from models.two_stage_cases import (  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
    SAMPLERS,
    SIDE,
    WIDTH,
    chances,
    filled,
    plain_flow,
    structure_parts,
    tokens,
)
from voxgen.core import SparseTensor, TriMesh
from voxgen.core.errors import EmptyResultWarning, FileFormatError, RangeError, ShapeError
from voxgen.flow import ClassifierFreeGuidance
from voxgen.models import LatentNormalization, SparseFlexDecoder, build
from voxgen.models.pipelines import FocusingPipeline, TrellisPipeline, focusing_samplers
from voxgen.models.sparse_flex_vae import FlexDecoderConfig
from voxgen.testing.grids import random_grid

UNIT = LatentNormalization((0.0,) * WIDTH, (1.0,) * WIDTH)


def decoder(**fields: Any) -> SparseFlexDecoder:
    config = FlexDecoderConfig(model_channels=64, latent_channels=WIDTH, num_blocks=1, num_heads=2, window=4, **fields)
    made = filled(SparseFlexDecoder(config), 11, 0.2)
    for level in made.upsample:  # keep most children, so that all objects of a batch have a surface
        nn.init.constant_(level.get_parameter("predict.2.bias"), 1.5)
    return made


def assembled(own: SparseFlexDecoder, **fields: Any) -> FocusingPipeline:
    return FocusingPipeline(*structure_parts(), plain_flow(), own, **{"normalization": UNIT, "samplers": SAMPLERS, **fields})


@pytest.fixture(scope="module")
def pipeline() -> FocusingPipeline:
    return assembled(decoder())


def boundary_edges(mesh: TriMesh) -> int:
    edges = torch.cat([mesh.faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))]).sort(1).values
    return int((edges.unique(dim=0, return_counts=True)[1] == 1).sum())


def test_generate_is_its_stages_and_follows_the_seed(pipeline: FocusingPipeline) -> None:
    made = pipeline.generate(conditions=tokens(), generator=torch.Generator().manual_seed(3))
    chance = torch.Generator().manual_seed(3)
    structure = pipeline.sample_structure(tokens(), generator=chance)
    latent = pipeline.sample_latent(structure, tokens(), generator=chance)
    decoded = pipeline.decoder(latent, prune=True)
    assert torch.equal(made.features.feats, decoded.features.feats)
    assert 0 < len(made.features) < 64 * len(structure), "the decoder prunes"
    assert made.features.grid.resolution == (4 * SIDE,) * 3
    whole = decoded.flex.to_mesh()
    assert torch.equal(made.mesh.faces, whole.faces)
    torch.testing.assert_close(made.mesh.vertices, whole.vertices, rtol=0, atol=1e-6)
    assert boundary_edges(made.mesh) > 0, "surfaces may end"
    torch.testing.assert_close(made.flex.sdf, decoded.flex.sdf)
    other = pipeline.generate(conditions=tokens(), generator=torch.Generator().manual_seed(4))
    assert not torch.equal(other.structure.coords, made.structure.coords)


def test_a_sample_is_the_same_alone_and_in_a_batch(pipeline: FocusingPipeline) -> None:
    pictures = torch.cat((tokens(), tokens(1, seed=9)))
    both = pipeline.generate(conditions=pictures, samples=2, generator=chances(1, 2, 3, 4))
    assert len(both.meshes) == 4
    for i, (picture, seed) in enumerate(((0, 1), (0, 2), (1, 3), (1, 4))):
        alone = pipeline.generate(conditions=pictures[picture : picture + 1], generator=chances(seed))
        assert torch.equal(alone.structure.coords, both.structure.sample(i).coords)
        assert torch.equal(alone.mesh.faces, both.meshes[i].faces)
        torch.testing.assert_close(alone.mesh.vertices, both.meshes[i].vertices, rtol=0, atol=1e-4)


def test_tiles_give_the_whole(pipeline: FocusingPipeline) -> None:
    """With norms of each cell, up to the rounding of smaller matrix products."""
    whole = pipeline.generate(conditions=tokens(), generator=chances(1))
    tiled = pipeline.generate(conditions=tokens(), generator=chances(1), tile=4)
    assert torch.equal(whole.features.coords, tiled.features.coords)
    torch.testing.assert_close(whole.features.feats, tiled.features.feats, rtol=1e-4, atol=1e-4)


def test_pruning_can_be_left_out(pipeline: FocusingPipeline) -> None:
    structure = random_grid((6, 0, 4), SIDE)
    latent = SparseTensor(structure, torch.randn(10, WIDTH, generator=torch.Generator().manual_seed(0)))
    assert len(pipeline.decode(latent, prune=False).features) == 640
    scaled = assembled(pipeline.decoder, position_factor=4.0)
    assert not torch.equal(scaled.decode(latent, prune=False).features.feats, pipeline.decode(latent, prune=False).features.feats)


def test_latents_are_normalised_by_their_own_statistics(pipeline: FocusingPipeline) -> None:
    generator = torch.Generator().manual_seed(0)
    latents = [SparseTensor(random_grid(c, SIDE, seed=c[0]), torch.randn(sum(c), 2, generator=generator) * 3 + 5) for c in ((40, 0), (7,))]
    rows = torch.cat([z.feats for z in latents]).double()
    found = LatentNormalization.of(iter(latents))
    assert found.mean == pytest.approx(rows.mean(0).tolist(), rel=1e-12)
    assert found.std == pytest.approx(rows.std(0, correction=0).tolist(), rel=1e-12)
    shifted = assembled(pipeline.decoder, normalization=LatentNormalization((1.0,) * WIDTH, (2.0,) * WIDTH))
    grid = random_grid((9,), SIDE)
    plain, moved = (p.sample_latent(grid, tokens(), generator=chances(1)) for p in (pipeline, shifted))
    torch.testing.assert_close(moved.feats, 2 * plain.feats + 1)
    with pytest.raises(RangeError, match="at least two cells"):
        LatentNormalization.of([])
    with pytest.raises(ShapeError, match="one width"):
        LatentNormalization.of([latents[0], SparseTensor(random_grid((2,), SIDE), torch.zeros(2, 3))])
    with pytest.raises(RangeError, match="positive"):
        LatentNormalization.of([latents[0].with_feats(torch.ones(40, 2))])


def test_structure_latents_may_be_normalised_too(pipeline: FocusingPipeline) -> None:
    statistics = LatentNormalization((1.0, 0.0, -1.0, 2.0), (2.0, 1.0, 0.5, 1.0))
    seen: list[Any] = []
    hook = cast(nn.Module, pipeline.structure_decoder).register_forward_hook(lambda _m, given, _out: seen.append(given[0]))
    for own in (pipeline, replace(pipeline, structure_normalization=statistics)):
        own.sample_structure(tokens(), generator=chances(1))
    hook.remove()
    plain, moved = seen
    expected = plain * torch.tensor(statistics.std)[:, None, None, None] + torch.tensor(statistics.mean)[:, None, None, None]
    torch.testing.assert_close(moved, expected)
    torch.testing.assert_close(statistics.normalize(moved), plain, rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match="4 channels; got 3"):
        statistics.normalize(plain[:, :3])
    with pytest.raises(ShapeError, match="structure_normalization must have the 4"):
        replace(pipeline, structure_normalization=LatentNormalization((0.0,), (1.0,)))
    with pytest.raises(RangeError, match="system"):
        replace(pipeline, system="dall-e")  # pyright: ignore[reportArgumentType]


def test_nothing_left_gives_empty_results_and_warnings(pipeline: FocusingPipeline) -> None:
    flow, occupancy = structure_parts()
    nn.init.constant_(occupancy.get_parameter("out_layer.2.bias"), -1e3)
    nothing = FocusingPipeline(flow, occupancy, plain_flow(), pipeline.decoder, normalization=UNIT, samplers=SAMPLERS)
    with pytest.warns(EmptyResultWarning, match="no cell of the structure"):
        made = nothing.generate(conditions=tokens(2), tile=4)
    assert made.mesh.num_faces == 0
    assert [mesh.num_faces for mesh in made.meshes] == [0, 0]
    strict = decoder()
    for level in strict.upsample:
        nn.init.constant_(level.get_parameter("predict.2.bias"), -1e3)
    with pytest.warns(EmptyResultWarning, match="keeps no child"):
        pruned = assembled(strict).generate(conditions=tokens(), generator=chances(1))
    assert len(pruned.features) == 0
    assert pruned.mesh.num_faces == 0


def test_small_networks_of_the_registry_fit() -> None:
    structure: Any = build("voxgen/structure-vae-small")
    vae: Any = build("voxgen/sparse-flex-vae-small")
    width: dict[str, Any] = {"model_channels": 32, "num_blocks": 1, "num_heads": 2, "cond_channels": 12}
    flow: Any = build("voxgen/structure-flow-small", **width)
    latent_flow: Any = build("voxgen/focusing-flow-small", **width)
    statistics = LatentNormalization((0.0,) * 8, (1.0,) * 8)
    own = FocusingPipeline(flow.eval(), structure.eval(), latent_flow.eval(), vae.decoder, normalization=statistics, samplers=SAMPLERS)
    assert own.sample_structure(tokens(), generator=chances(1)).resolution == (16, 16, 16)


def test_folder(pipeline: FocusingPipeline, tmp_path: Path) -> None:
    saved = replace(pipeline, position_factor=2.0, structure_normalization=UNIT, system="trellis2")
    saved.save_folder(tmp_path)
    found = FocusingPipeline.from_folder(tmp_path)
    assert (found.position_factor, found.structure_normalization, found.system) == (2.0, UNIT, "trellis2")
    before, after = (p.generate(conditions=tokens(), generator=chances(1)) for p in (saved, found))
    assert torch.equal(before.features.feats, after.features.feats)
    with pytest.raises(FileFormatError, match="holds a pipeline 'focusing'; a 'trellis' is needed"):
        TrellisPipeline.from_folder(tmp_path)


def test_published_settings() -> None:
    for sampler in focusing_samplers().values():
        assert (sampler.steps, sampler.guidance) == (50, ClassifierFreeGuidance(4.5))


def test_bad_input(pipeline: FocusingPipeline) -> None:
    p = pipeline
    parts = (p.structure_flow, p.structure_decoder, p.latent_flow)
    with pytest.raises(ShapeError, match="decoder must have the 4 channels"):
        FocusingPipeline(*parts, SparseFlexDecoder(FlexDecoderConfig(64, 8, 1, 2)), normalization=UNIT)
    with pytest.raises(ShapeError, match="normalization must have the 4 channels"):
        FocusingPipeline(*parts, p.decoder, normalization=LatentNormalization((0.0,), (1.0,)))
    with pytest.raises(TypeError, match="normalization"):
        FocusingPipeline(*parts, p.decoder)  # pyright: ignore[reportCallIssue]
    with pytest.raises(RangeError, match="tile"):
        p.decode(SparseTensor(random_grid((3,), SIDE), torch.zeros(3, WIDTH)), tile=0)
    with pytest.raises(RangeError, match="neither"):
        p.generate()
