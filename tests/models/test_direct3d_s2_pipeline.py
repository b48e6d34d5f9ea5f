"""Direct3D-S2 with drawn weights, from tokens or pictures to a mesh: both versions, batches, refiners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models.direct3d_s2_pipeline_cases import (  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
    COMPAT,
    WIDTH,
    generators,
    refiner,
    tiny,
    tokens,
)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import RangeError
from voxgen.models import SmallImageEncoder
from voxgen.models.direct3d_s2 import SparseCondition
from voxgen.models.image_condition import prepare_image
from voxgen.models.pipelines.direct3d_s2 import GeneratedSDF
from voxgen.ops.lookup import lookup_cells
from voxgen.testing.compare import assert_same

QUIET = pytest.mark.filterwarnings("ignore::voxgen.core.errors.EmptyResultWarning")
"""Drawn weights make surfaces anywhere or nowhere."""


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
