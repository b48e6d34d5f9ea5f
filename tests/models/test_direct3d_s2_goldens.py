"""Direct3D-S2's pipeline gives the original's numbers: a sparse stage, conventions, meshes, samplers, noise."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from models.direct3d_s2_golden import Golden  # pyright: ignore[reportMissingImports]
from models.direct3d_s2_pipeline_cases import (  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
    COMPAT,
    SAMPLERS,
    BallVAE,
    generators,
    sparse_flow,
    structure_flow,
    structure_vae,
    tiny,
    tokens,
)
from voxgen.core import SparseTensor, TriMesh, VoxelGrid
from voxgen.core.errors import RangeError
from voxgen.core.grid import restore
from voxgen.models import build
from voxgen.models.checkpoints import load_direct3d_s2
from voxgen.models.direct3d_s2 import sparse_condition
from voxgen.models.pipelines import Direct3DS2Pipeline
from voxgen.models.pipelines.direct3d_s2 import block_order, direct3d_s2_samplers, release_frame
from voxgen.models.pipelines.direct3d_s2.release import as_released, scheduled_sampler
from voxgen.testing.compare import assert_same
from voxgen.testing.grids import random_grid


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
