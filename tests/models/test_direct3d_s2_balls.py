"""Direct3D-S2 with stages that are told to make balls: cells, frames, levels, the tokens of the fine stage, empty structures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.direct3d_s2_pipeline_cases import (  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
    COMPAT,
    BallSigns,
    BallVAE,
    GivenStructure,
    ball_cells,
    balls,
    generators,
    refiner,
    tiny,
    tokens,
)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import EmptyResultWarning
from voxgen.metrics import mesh_report
from voxgen.models.pipelines.direct3d_s2 import release_frame
from voxgen.testing.grids import full_grid
from voxgen.testing.shapes import sphere


@pytest.mark.parametrize("compat", [None, COMPAT])
def test_a_known_ball_at_both_resolutions(compat: Any) -> None:
    """Cells, frames, levels and the tokens of the fine stage, with stages that are told what to make."""
    made = balls(compat, count=2).generate(conditions=tokens(2), generator=generators(0, 1))
    scale = 1.0 if compat else 0.5
    for resolution, radius in ((32, 0.6), (64, 0.95)):
        cell = 2 * scale / resolution
        middle = -cell / 2 if compat else 0.0
        for mesh in made.decoded[resolution].meshes:
            report = mesh_report(mesh)
            distance = (mesh.vertices - middle).norm(dim=1) - radius * scale
            if compat:  # missing cells within are +1 too: at 64 there are some, and a second surface where they begin
                assert (report.components > 1) == (resolution == 64)
                distance = distance[distance > -2 * cell]
            else:
                assert report.components == 1
                assert report.boundary_edges == 0
                assert report.volume == pytest.approx(4 / 3 * torch.pi * (radius * scale) ** 3, rel=0.02)
            assert float(distance.abs().max()) < 0.1 * cell, "linear between cell centres: the error is of second order"
    fine = made.latents[64].grid.sample(0)
    away = ((fine.cells + 0.5 - 4).norm(dim=1) - 0.95 * 4).abs()
    assert len(away) > 100
    if compat:
        assert fine.frame.isclose(release_frame(64).coarsen(8))
    else:
        assert float(away.max()) < 1.5, "tokens within half their diagonal and the band"


def test_levels_are_shares_of_the_band() -> None:
    pipeline = balls(levels={"coarse": 0.4, "fine": 0.2}, bands={32: 2.0}, vaes={32: BallVAE(0.6, 2.0), 64: BallVAE(0.95)})
    latent = SparseTensor(pipeline.sample_structure(tokens()), torch.zeros(int(ball_cells(4, 0.6).sum()), 4))
    surface = pipeline.decode(latent, 32)
    assert surface.sdf.band == 2
    distance = surface.mesh.vertices.norm(dim=1) * 32 - 0.6 * 16
    assert float((distance - 0.4 * 2).abs().max()) < 0.1


def test_the_release_fills_what_is_missing_with_one() -> None:
    """Which gives a ball a second surface within; the sign refiner takes it away."""
    within, outer = {}, {}
    for name, signs in (("shell", None), ("signs", BallSigns(0.8))):
        fine = {32: BallVAE(0.6), 64: BallVAE(0.8)}
        pipeline = balls(COMPAT, vaes=fine, sign_refiner=signs, levels={"coarse": 0.0, "fine": 0.2})
        every = full_grid(8).coords
        cells = VoxelGrid.from_sorted(every, resolution=8, batch_size=1, frame=release_frame(64).coarsen(8))
        cells = cells.select(((cells.cells + 0.5 - 4).norm(dim=1) - 0.8 * 4).abs() < 1.4)  # the band, and not the middle
        mesh = pipeline.decode(SparseTensor(cells, torch.zeros(len(cells), 4)), 64).mesh
        distance = (mesh.vertices + 1 / 64).norm(dim=1)
        within[name], outer[name] = int((distance < 0.7).sum()), distance[distance >= 0.8]
        assert mesh_report(mesh).boundary_edges == 0
    assert within["shell"] > 1000
    assert within["signs"] == 0
    for distance in outer.values():
        assert float((distance - (0.8 + 0.2 * 4 / 32)).abs().max()) < 0.1 / 32, "0.2 of a band of 4 cells of size 1 / 32"


def test_the_order_of_draws() -> None:
    """One generator, structure first: the same as calling the stages in turn."""
    pipeline = balls()
    made = pipeline.generate(conditions=tokens(), generator=torch.Generator().manual_seed(5))
    chance = torch.Generator().manual_seed(5)
    grid = pipeline.sample_structure(tokens(), generator=chance)
    coarse = pipeline.sample_latent(grid, 32, tokens(), generator=chance)
    fine = pipeline.sample_latent(pipeline.fine_cells(pipeline.decode(coarse, 32).meshes, 64), 64, tokens(), generator=chance)
    assert torch.equal(coarse.feats, made.latents[32].feats)
    assert torch.equal(fine.feats, made.latents[64].feats)


@pytest.mark.parametrize("compat", [None, COMPAT])
def test_empty_structures_give_empty_meshes(compat: Any) -> None:
    cells = torch.cat([ball_cells(4, 0.6), torch.zeros(1, 4, 4, 4, dtype=torch.bool)])
    pipeline = balls(compat, structure_vae=GivenStructure(cells), refiner=None, sign_refiner=BallSigns(0.95))
    with pytest.warns(EmptyResultWarning, match="samples 1 are empty"):
        made = pipeline.generate(conditions=tokens(2), generator=generators(0, 1))
    assert made.meshes[0].num_faces > 0
    assert made.meshes[1].num_faces == 0
    nothing = balls(compat, structure_vae=GivenStructure(cells[1:]), refiner=refiner())
    with pytest.warns(EmptyResultWarning, match="the asset is empty"):
        made = nothing.generate(conditions=tokens(), generator=generators(0))
    assert made.mesh.num_faces == 0
    assert len(made.sdf) == 0
    assert made.sdf.resolution == (64, 64, 64)


def test_a_mesh_of_any_frame_has_tokens_in_the_unit_cube() -> None:
    cells = tiny().fine_cells([sphere(3.0).replace(vertices=sphere(3.0).vertices + 7)], 64)
    distance = (cells.frame.centers(cells.cells).norm(dim=1) - 0.475) * 8
    assert float(distance.abs().max()) < 1.5
