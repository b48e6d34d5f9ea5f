"""Direct3D-S2 from tokens to a mesh: the original's numbers, both versions, frames, batches, empty structures, bad input."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from models.direct3d_s2_golden import Golden  # pyright: ignore[reportMissingImports]
from models.direct3d_s2_pipeline_cases import (  # pyright: ignore[reportMissingImports]
    SAMPLERS,
    TOKENS,
    WIDTH,
    BallSigns,
    BallVAE,
    GivenStructure,
    ball_cells,
    refiner,
    sparse_flow,
    structure_flow,
    structure_vae,
    tiny,
)
from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.core.errors import DtypeError, EmptyResultWarning, RangeError, ShapeError
from voxgen.core.grid import restore
from voxgen.metrics import mesh_report
from voxgen.models import SmallImageEncoder, build
from voxgen.models.checkpoints import load_direct3d_s2
from voxgen.models.direct3d_s2 import SparseCondition, sparse_condition
from voxgen.models.image_condition import prepare_image
from voxgen.models.pipelines import Direct3DS2Pipeline
from voxgen.models.pipelines.direct3d_s2 import GeneratedSDF, block_order, direct3d_s2_samplers, release_frame
from voxgen.models.pipelines.direct3d_s2.release import as_released, scheduled_sampler
from voxgen.ops.lookup import lookup_cells
from voxgen.testing.compare import assert_same
from voxgen.testing.grids import full_grid, random_grid
from voxgen.testing.shapes import sphere

QUIET = pytest.mark.filterwarnings("ignore::voxgen.core.errors.EmptyResultWarning")
"""Drawn weights make surfaces anywhere or nowhere."""
COMPAT = "direct3d_s2"


def tokens(count: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def balls(compat: Any = None, count: int = 1, **changes: Any) -> Direct3DS2Pipeline:
    """A ball of 0.6 of the cube; the fine stage sees one of 0.95 of it, as a coarse mesh is brought to that size."""
    parts: dict[str, Any] = {
        "structure_vae": GivenStructure(ball_cells(4, 0.6).expand(count, -1, -1, -1)),
        "vaes": {32: BallVAE(0.6), 64: BallVAE(0.95)},
        "levels": {"coarse": 0.0, "fine": 0.0},
        "compat": compat,
        **changes,
    }
    return tiny(**parts)


# --- the original -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compat", [None, COMPAT])
def test_a_sparse_stage_of_the_original(compat: Any) -> None:
    """Image tokens and mask to a condition, three guided steps, latents as the decoder takes them."""
    golden = Golden.read("direct3d_s2_pipeline_sparse")
    c = golden.configuration
    flow: Any = build("direct3d-s2/dit-512-v1.0", **c["dit"])
    load_direct3d_s2(flow, golden.weights())
    size = 8 * flow.resolution
    small: dict[str, Any] = {
        "model_channels_encoder": 32,
        "model_channels_decoder": 32,
        "num_heads_encoder": 2,
        "num_heads_decoder": 2,
        "num_groups": 2,
    }
    vae: Any = build("voxgen/sdf-vae-small", embed_dim=16, latents_scale=c["latents_scale"], latents_shift=c["latents_shift"], **small)
    scheduler = c["scheduler"]
    samplers = {**SAMPLERS, "coarse": scheduled_sampler(c["steps"], scheduler["shift"], scheduler["num_train_timesteps"])}
    dense = structure_flow(resolution=flow.resolution // 2)
    pipeline = Direct3DS2Pipeline(dense, structure_vae(), {size: flow}, {size: vae}, samplers=samplers, compat=compat)
    grid, order = VoxelGrid.build(golden.arrays["in/coords"], resolution=flow.resolution)
    noise = torch.from_numpy(recipe.normal("noise/10", tuple(golden.about["inputs"]["noise"]["shape"]), golden.about["seed"]))
    condition = sparse_condition(golden.normal("image_tokens"), golden.arrays["in/patch_mask"])
    latent = pipeline.sample_latent(grid, size, condition, noise=SparseTensor(grid, noise[order]))
    assert_same(restore(latent.feats, order), golden.arrays["out/latents"], "latents", golden.tolerance)


def test_conventions_of_the_original() -> None:
    golden = Golden.read("direct3d_s2_conventions")
    arrays = golden.arrays
    grid, _ = VoxelGrid.build(arrays["in/unsorted"].int(), resolution=32)
    assert torch.equal(block_order(grid.coords, grid), arrays["out/block_sorted"].int())

    mesh = TriMesh(arrays["in/mesh_vertices"], arrays["in/mesh_faces"])
    side = golden.about["udf"]["side"]
    pipeline = tiny(compat=COMPAT)
    cells = pipeline.fine_cells([mesh, mesh.select_faces(torch.zeros(0, dtype=torch.long)), mesh], side)
    assert cells.batch_size == 3
    for sample in (0, 2):
        assert torch.equal(cells.sample(sample).coords, arrays["out/udf_latent_tokens"].int())
    assert len(cells.sample(1)) == 0


def test_meshes_of_the_original() -> None:
    """A band with +1 everywhere else, in the cube [−1, 1]³."""
    golden = Golden.read("direct3d_s2_conventions")
    grid, order = VoxelGrid.build(golden.arrays["in/band_coords"].int(), resolution=32, frame=release_frame(32))
    values = golden.arrays["in/band_values"][order]

    class Given(BallVAE):
        def decode(self, latent: Any, **options: Any) -> Any:
            return dataclasses.replace(super().decode(latent, **options), values=SparseTensor(grid, values))

    pipeline = tiny(flows={32: sparse_flow(32)}, vaes={32: Given(0.6)}, compat=COMPAT, levels={"coarse": 0.2, "fine": 0.2})
    mesh = pipeline.decode(SparseTensor(random_grid((9,), 4), torch.zeros(9, 4)), 32).mesh
    expected = golden.about["marched"]
    assert (mesh.num_vertices, mesh.num_faces) == (expected["vertices"], expected["faces"])
    wanted = golden.arrays["out/marched_vertices_every_13"]
    assert float(torch.cdist(wanted, mesh.vertices, compute_mode="donot_use_mm_for_euclid_dist").amin(1).max()) < 1e-6


def test_samplers_of_the_original() -> None:
    golden = Golden.read("direct3d_s2_sampler")
    for stage, name in (("structure", "shift6_steps50"), ("coarse", "shift6_steps30"), ("fine", "shift8_steps15")):
        sampler = direct3d_s2_samplers()[stage]
        assert sampler.time_grid() == pytest.approx(golden.arrays[f"out/sigmas_{name}"].tolist(), abs=1e-6)
        assert sampler.guidance is not None
        assert sampler.guidance.strength == 7
    noise, seen = golden.normal("noise").half(), []

    def velocity(x: torch.Tensor, t: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        seen.append(t)
        return torch.tanh(0.8 * x + 0.002 * t.to(x.dtype) + cond.mean())

    c = [torch.full((1, 7, 4), value, dtype=torch.float16) for value in (0.3, 0.0)]
    x = as_released(scheduled_sampler(5, 6.0), torch.float16)(velocity, noise, *c)
    assert torch.equal(torch.cat(seen[::2]), golden.arrays["out/network_times_float16"].float())
    # one unit of the last place of half precision: the velocity above rounds in another order than the original's
    assert_same((x / 2 + 0.25).float(), golden.arrays["out/latents_float16"].float(), "latents", 2e-3)


def test_noise_of_the_release_is_drawn_token_by_token_in_its_order() -> None:
    pipeline = tiny(compat=COMPAT)
    grid, other = random_grid((40,), 8), random_grid((30,), 8)
    both = VoxelGrid.batched([grid, other])
    seen: list[Any] = []
    walk = dataclasses.replace(SAMPLERS["fine"], times=(1.0, 0.0))
    for flow in pipeline.flows.values():
        flow.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    pipeline = dataclasses.replace(pipeline, samplers={**SAMPLERS, "fine": walk})
    pipeline.sample_latent(both, 64, tokens(2), generator=generators(3, 4))
    for part, own, seed in zip(seen[0].unbind(), (grid, other), (3, 4), strict=True):
        drawn = torch.randn(len(own), 4, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(block_order(part.feats, own), drawn)
    with pytest.raises(RangeError, match="each of the 2 samples needs a generator"):
        pipeline.sample_latent(both, 64, tokens(2), generator=torch.Generator())


# --- end to end -------------------------------------------------------------------------------------------------------


@QUIET
@pytest.mark.parametrize("compat", [None, COMPAT])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_drawn_weights_from_tokens_to_meshes(version: str, compat: Any) -> None:
    pipeline = tiny(version, compat=compat)
    given: Any = tokens()
    if version == "1.0":
        sparse = SparseCondition([given[0, :4]], [torch.tensor([[0, 0, 1], [0, 0, 0], [3, 1, 0], [2, 5, 0]])])
        given = {"structure": given, "coarse": sparse, "fine": sparse}
    made = pipeline.generate(conditions=given, samples=2, generator=generators(1, 2))
    assert made.resolution == 64
    assert set(made.latents) == set(made.decoded) == {32, 64}
    assert made.structure.resolution == (4, 4, 4)
    assert made.latents[32].grid.same_cells(made.structure)
    assert made.latents[64].grid.resolution == (8, 8, 8)
    assert made.sdf.resolution == (64, 64, 64)
    assert len(made.meshes) == 2
    assert made.mesh.num_faces == sum(mesh.num_faces for mesh in made.meshes)
    again = pipeline.generate(conditions=given, samples=2, generator=generators(1, 2))
    assert torch.equal(again.mesh.vertices, made.mesh.vertices)


@QUIET
@pytest.mark.parametrize("compat", [None, COMPAT])
def test_a_batch_is_its_samples(compat: Any) -> None:
    pipeline, both = tiny(compat=compat), tokens(2)
    made = pipeline.generate(conditions=both, resolution=32, generator=generators(1, 2))
    for i, seed in enumerate((1, 2)):
        alone = pipeline.generate(conditions=both[i : i + 1], resolution=32, generator=generators(seed))
        assert alone.structure.same_cells(made.structure.sample(i))
        assert_same(made.latents[32].unbind()[i].feats, alone.latents[32].feats, "latents", 1e-5)
        # four convolutions with enlarged weights make 1e-4 of it
        assert_same(made.sdf.sample(i).sdf_cells, alone.sdf.sdf_cells, "distances", 2e-3)


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


@QUIET
@pytest.mark.parametrize("compat", [None, COMPAT])
def test_refiners_are_asked_for_what_they_want(compat: Any) -> None:
    pipeline = tiny(compat=compat, refiner=refiner())
    made = pipeline.generate(conditions=tokens(), resolution=32, generator=generators(1))
    decoded = pipeline.vaes[32].decode(made.latents[32], features=True)
    assert pipeline.refiner is not None
    assert decoded.features is not None
    volume = pipeline.refiner.refine(decoded.values, decoded.features.feats)
    cells = made.sdf.grid.cells.long()
    assert_same(made.sdf.sdf_cells[:, 0] / 4, volume[0, 0][tuple(cells.T)], "refined", 1e-6)
    inside = volume[0, 0] < 0.4
    for axis, step in ((0, (1, 0, 0)), (1, (0, 1, 0)), (2, (0, 0, 1))):
        n = inside.shape[axis] - 1
        changes = (inside.narrow(axis, 0, n) != inside.narrow(axis, 1, n)).nonzero()
        for ends in (changes, changes + torch.tensor(step)):
            rows = lookup_cells(made.sdf.grid, torch.nn.functional.pad(ends, (1, 0)).int())
            assert bool((rows >= 0).all()), "every change of side is extracted"


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


@pytest.mark.parametrize("compat", [None, COMPAT])
def test_a_batch_of_no_samples_has_an_empty_mesh(compat: Any) -> None:
    pipeline = tiny(compat=compat)
    grid = VoxelGrid.build(torch.zeros(0, 4, dtype=torch.int32), resolution=4, batch_size=0)[0]
    latent = SparseTensor(grid, torch.zeros(0, pipeline.vaes[32].decoder.config.latent_channels))
    surface = pipeline.decode(latent, 32)
    assert surface.meshes == ()
    made = GeneratedSDF(grid, {32: latent}, {32: surface}, 32)
    for mesh in (surface.mesh, made.mesh):
        assert (mesh.num_vertices, mesh.num_faces) == (0, 0)
        assert mesh.up == surface.sdf.frame.up


@QUIET
def test_pictures_of_both_versions() -> None:
    """An encoder of its own a stage; release 1.0 takes the patches of the object alone."""
    torch.manual_seed(0)
    encoder = SmallImageEncoder(image_size=32, channels=WIDTH, model_channels=16, halvings=3, num_blocks=0).eval()
    picture = np.zeros((40, 40, 4), dtype=np.uint8)
    picture[10:30, 15:25] = 255
    seen: list[Any] = []
    for version, count in (("1.1", 16), ("1.0", None)):
        pipeline = tiny(version, image_encoder={stage: encoder for stage in ("structure", "coarse")})
        seen.clear()
        pipeline.flows[32].register_forward_pre_hook(lambda _m, args: seen.append(args[2]))
        made = pipeline.generate([picture, picture], resolution=32, samples=2, generator=generators(*range(4)))
        assert made.structure.batch_size == 4
        context = seen[0]
        if count is None:
            assert isinstance(context, SparseCondition)
            assert 0 < len(context.tokens[0]) < 16
            assert torch.equal(context.tokens[0], context.tokens[3])
        else:
            assert context.shape == (4, count, WIDTH)


@QUIET
def test_pictures_that_are_all_object() -> None:
    """Cut out once; nobody looks for their background again, whatever the system."""
    torch.manual_seed(0)
    encoder = SmallImageEncoder(image_size=32, channels=WIDTH, model_channels=16, halvings=3, num_blocks=0).eval()
    whole = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    for system in ("trellis2", "direct3d-s2"):
        pipeline = tiny(image_encoder=encoder, image_system=system)
        made = pipeline.generate(whole, resolution=32, generator=generators(1), assume_foreground=True)
        with torch.no_grad():
            given = encoder.tokens(prepare_image(whole, system, size=32, assume_foreground=True)[None, :3])  # pyright: ignore[reportArgumentType]
        same = pipeline.generate(conditions=given, resolution=32, generator=generators(1))
        assert torch.equal(made.latents[32].feats, same.latents[32].feats), system
        with pytest.raises(RangeError, match="assume_foreground" if system == "trellis2" else "remove_background"):
            pipeline.generate(whole, resolution=32)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_requests() -> None:
    pipeline = tiny()
    with pytest.raises(RangeError, match=r"resolution must be one of \[32, 64\]; got 512"):
        pipeline.generate(conditions=tokens(), resolution=512)
    with pytest.raises(RangeError, match="neither"):
        pipeline.generate()
    with pytest.raises(RangeError, match="both"):
        pipeline.generate(np.zeros((4, 4, 4), dtype=np.uint8), conditions=tokens())
    with pytest.raises(RangeError, match="no image_encoder"):
        pipeline.generate(np.full((40, 40, 4), 255, dtype=np.uint8))
    with pytest.raises(RangeError, match="conditions must have tokens for 'fine'"):
        pipeline.generate(conditions={"structure": tokens(), "coarse": tokens()})
    with pytest.raises(ShapeError, match="as many objects"):
        pipeline.generate(conditions={"structure": tokens(), "coarse": tokens(2), "fine": tokens()})
    with pytest.raises(RangeError, match="samples"):
        pipeline.generate(conditions=tokens(), samples=0)
    grid = random_grid((20,), 4)
    with pytest.raises(RangeError, match="8 cells a side"):
        pipeline.sample_latent(grid, 64, tokens())
    with pytest.raises(ShapeError, match="condition must be of the grid's 1 samples; got 2"):
        pipeline.sample_latent(grid, 32, tokens(2))
    with pytest.raises(ShapeError, match="noise must have 4 channels"):
        pipeline.sample_latent(grid, 32, tokens(), noise=SparseTensor(grid, torch.zeros(20, 3)))
    with pytest.raises(RangeError, match="finite"):
        pipeline.decode(SparseTensor(grid, torch.full((20, 4), torch.nan)), 32)


def test_parts_that_do_not_fit() -> None:
    good = tiny()
    with pytest.raises(RangeError, match="same resolutions"):
        dataclasses.replace(good, vaes={32: good.vaes[32]})
    with pytest.raises(RangeError, match="same resolutions"):
        dataclasses.replace(good, flows={}, vaes={})
    with pytest.raises(RangeError, match="must work on 32 cells a side; got 4"):
        dataclasses.replace(good, flows={256: good.flows[32]}, vaes={256: good.vaes[32]})
    with pytest.raises(ShapeError, match="must make the 8 channels"):
        dataclasses.replace(good, vaes={32: build("voxgen/sdf-vae-small"), 64: good.vaes[64]})
    with pytest.raises(ShapeError, match="structure_vae must read the 3 channels"):
        dataclasses.replace(good, structure_vae=build("voxgen/structure-vae-small"))
    with pytest.raises(RangeError, match="must divide the 4"):
        dataclasses.replace(good, flows={64: good.flows[64]}, vaes={64: good.vaes[64]})
    with pytest.raises(RangeError, match="image_system must be one of"):
        dataclasses.replace(good, image_system="dall-e")  # pyright: ignore[reportArgumentType]
    small = SmallImageEncoder(image_size=32, channels=WIDTH, model_channels=16, halvings=3, num_blocks=0)
    with pytest.raises(RangeError, match="'direct3d-s2', which alone makes masks, for the sparse conditions of 'coarse'; got 'trellis'"):
        tiny("1.0", image_encoder=small, image_system="trellis")
    assert tiny("1.0", image_system="trellis").image_encoder is None, "tokens do not need masks"

    class Foreign:
        image_size, channels = 32, WIDTH

        def tokens(self, images: torch.Tensor) -> torch.Tensor:
            return images

    with pytest.raises(DtypeError, match="'coarse' must say patch"):
        tiny("1.0", image_encoder={"structure": Foreign(), "coarse": Foreign(), "fine": small})
    with pytest.raises(RangeError, match="samplers must have one for 'fine'"):
        dataclasses.replace(good, samplers={"structure": SAMPLERS["structure"], "coarse": SAMPLERS["coarse"]})
    with pytest.raises(RangeError, match="levels must have one for 'coarse'"):
        dataclasses.replace(good, levels={"fine": 0.0})
    with pytest.raises(RangeError, match="shares of the band"):
        dataclasses.replace(good, levels={"coarse": 0.4, "fine": 1.0})
    with pytest.raises(RangeError, match="compat"):
        dataclasses.replace(good, compat="trellis")  # pyright: ignore[reportArgumentType]


def test_a_mesh_of_any_frame_has_tokens_in_the_unit_cube() -> None:
    cells = tiny().fine_cells([sphere(3.0).replace(vertices=sphere(3.0).vertices + 7)], 64)
    distance = (cells.frame.centers(cells.cells).norm(dim=1) - 0.475) * 8
    assert float(distance.abs().max()) < 1.5
