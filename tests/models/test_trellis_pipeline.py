"""TRELLIS assembled: the original's numbers through the stages, batches, seeds, folders, pictures, empty structures, bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from models.two_stage_cases import (  # pyright: ignore[reportMissingImports]
    CONDITION,
    SAMPLERS,
    SIDE,
    WIDTH,
    Colours,
    chances,
    filled,
    patched_flow,
    plain_flow,
    structure_parts,
    tokens,
)
from voxgen.cli import main
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import DtypeError, EmptyResultWarning, FileFormatError, RangeError, ShapeError
from voxgen.flow import ClassifierFreeGuidance, EulerSampler
from voxgen.io import load_mesh
from voxgen.models import LatentNormalization, SmallImageEncoder, build
from voxgen.models.checkpoints import load_trellis, to_trellis
from voxgen.models.pipelines import TrellisPipeline, trellis_samplers
from voxgen.representations import GaussianSplats
from voxgen.testing.compare import assert_same
from voxgen.testing.grids import random_grid

FOLDER = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4
"""Of the largest value, as the goldens state."""
UNIT = LatentNormalization((0.5, 0.0, -0.5, 1.0), (2.0, 1.0, 0.5, 1.0))


def golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with np.load(FOLDER / f"trellis_{name}.npz") as arrays:
        return json.loads((FOLDER / f"trellis_{name}.json").read_text()), {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def network(kind: str, name: str) -> Any:
    about = golden(name)[0]
    module = build(f"trellis/{kind}", **about["constructor"])
    load_trellis(module, {key: torch.from_numpy(value) for key, value in recipe.state_dict(about["tensors"], about["seed"]).items()})
    return module.eval()


def normal(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(recipe.normal(name, shape, 0))


@pytest.fixture(scope="module")
def originals() -> TrellisPipeline:
    """The goldens' networks: a structure of 32 cells a side, latents on 16."""
    return TrellisPipeline(
        network("structure-flow", "ss_flow"),
        network("structure-decoder", "ss_decoder"),
        network("latent-flow", "slat_flow"),
        network("gaussian-decoder", "slat_gs_decoder"),
        normalization=UNIT,
        samplers={"structure": EulerSampler(5), "latent": EulerSampler(1)},
    )


@pytest.fixture(scope="module")
def pipeline() -> TrellisPipeline:
    small = {"resolution": SIDE, "latent_channels": WIDTH, "num_blocks": 1, "num_heads": 2, "window_size": 4, "use_fp16": False}
    head = {"num_gaussians": 2}
    return TrellisPipeline(
        *structure_parts(),
        patched_flow(),
        filled(build("trellis/gaussian-decoder", model_channels=24, representation_config=head, **small), 5),
        filled(build("trellis/mesh-decoder", model_channels=256, **small), 6, 0.1),
        normalization=UNIT,
        samplers=SAMPLERS,
        image_encoder=Colours(),
    )


@pytest.mark.parametrize("run", ["interval", "guided"])
def test_structure_stage_is_the_originals(originals: TrellisPipeline, run: str) -> None:
    about, arrays = golden("sampler")
    options = about["runs"][run]
    guidance = ClassifierFreeGuidance(1 + options["cfg_strength"], tuple(options.get("cfg_interval", (0.0, 1.0))))
    sampler = EulerSampler(options["steps"], options["rescale_t"], guidance=guidance)
    stage = TrellisPipeline(
        originals.structure_flow,
        originals.structure_decoder,
        originals.latent_flow,
        normalization=UNIT,
        samplers={**SAMPLERS, "structure": sampler},
    )
    seen: list[Any] = []
    decoder = originals.structure_decoder
    assert isinstance(decoder, nn.Module)
    hook = decoder.register_forward_hook(lambda _m, given, logits: seen.extend((given[0], logits)))
    grid = stage.sample_structure(normal("cond", (1, 11, 48)), samples=2, noise=normal("noise", (2, 4, 8, 8, 8)))
    hook.remove()
    latent, logits = seen
    assert_same(latent, arrays[f"samples_{run}"], "latent", 1e-3)  # as the golden states for whole walks
    occupied = (logits[:, 0] > 0).nonzero()
    occupied[:, 1:] //= 2
    assert torch.equal(grid.coords.long(), occupied.unique(dim=0))
    assert grid.resolution == (16, 16, 16)
    assert grid.frame.up == "z"


def test_latent_stage_is_the_originals(originals: TrellisPipeline) -> None:
    """One step of Euler from pure noise is the noise less the velocity, which the golden has at t = 1000 for its first sample."""
    _, arrays = golden("slat_flow")
    first = arrays["coords"][:, 0] == 0
    grid, order = VoxelGrid.build(arrays["coords"][first], resolution=16)
    noise = SparseTensor(grid, normal("x", (906, 4))[first][order])
    latent = originals.sample_latent(grid, normal("cond", (2, 11, 48))[:1], noise=noise)
    expected = (noise.feats - arrays["v"][first][order]) * torch.tensor(UNIT.std) + torch.tensor(UNIT.mean)
    assert_same(latent.feats, expected, "latent", TOLERANCE)


def test_gaussians_are_the_originals(originals: TrellisPipeline) -> None:
    _, arrays = golden("slat_gs_decoder")
    grid, order = VoxelGrid.build(arrays["coords"], resolution=16)
    made = originals.decode(SparseTensor(grid, normal("latent", (len(grid), 4))[order]))
    assert made.splats is not None
    assert made.mesh is None
    own, rows = made.splats.sample(0), order[grid.batch == 0]
    place = (rows[:, None] * 4 + torch.arange(4)).flatten()
    assert_same(own.means, arrays["xyz_0"][place], "means", TOLERANCE)
    assert_same(own.scales, arrays["scaling_0"][place], "scales", TOLERANCE)


def test_released_samplers() -> None:
    for sampler in trellis_samplers().values():
        assert (sampler.steps, sampler.rescale) == (25, 3.0)
        assert sampler.guidance == ClassifierFreeGuidance(6.0, (0.5, 1.0))


def test_generate_is_its_stages_and_follows_the_seed(pipeline: TrellisPipeline) -> None:
    seen: list[tuple[str, int]] = []
    made = pipeline.generate(
        conditions=tokens(), generator=torch.Generator().manual_seed(3), callback=lambda stage, state: seen.append((stage, state.step))
    )
    assert seen == [("structure", 1), ("structure", 2), ("latent", 1), ("latent", 2)]
    chance = torch.Generator().manual_seed(3)
    structure = pipeline.sample_structure(tokens(), generator=chance)
    latent = pipeline.sample_latent(structure, tokens(), generator=chance)
    assert 5 < len(structure) < SIDE**3
    assert torch.equal(latent.feats, made.latent.feats)
    assert made.splats is not None
    assert made.mesh is not None
    assert len(made.splats) == 2 * len(structure)
    assert made.splats.up == made.mesh.up == "z"
    assert made.mesh.num_faces > 0
    other = pipeline.generate(conditions=tokens(), generator=torch.Generator().manual_seed(4), outputs=())
    assert other.splats is other.flex is None
    assert not torch.equal(other.structure.coords, made.structure.coords)


def test_a_sample_is_the_same_alone_and_in_a_batch(pipeline: TrellisPipeline) -> None:
    pictures = torch.cat((tokens(), tokens(1, seed=9)))
    both = pipeline.generate(conditions=pictures, samples=2, generator=chances(1, 2, 3, 4))
    assert both.splats is not None
    assert len(both.meshes) == 4
    for i, (picture, seed) in enumerate(((0, 1), (0, 2), (1, 3), (1, 4))):
        alone = pipeline.generate(conditions=pictures[picture : picture + 1], generator=chances(seed))
        assert torch.equal(alone.structure.coords, both.structure.sample(i).coords)
        assert alone.splats is not None
        torch.testing.assert_close(alone.splats.means, both.splats.sample(i).means, rtol=1e-4, atol=1e-5)
        assert alone.mesh is not None
        assert torch.equal(alone.mesh.faces, both.meshes[i].faces)


def released_folder(pipeline: TrellisPipeline, folder: Path) -> dict[str, Any]:
    """The networks in the released layout: pairs under ckpts/, one of a class that is not used, and pipeline.json."""
    (folder / "ckpts").mkdir()
    width = {"in_channels": WIDTH, "out_channels": WIDTH, "cond_channels": CONDITION, "num_blocks": 1, "num_heads": 2, "model_channels": 24}
    small = {"resolution": SIDE, "latent_channels": WIDTH, "num_blocks": 1, "num_heads": 2, "window_size": 4, "use_fp16": False}
    vae = {"latent_channels": WIDTH, "num_res_blocks": 1, "num_res_blocks_middle": 1, "channels": [16, 8], "use_fp16": False}
    flow = {"resolution": SIDE, "patch_size": 2, "io_block_channels": [8], "num_io_res_blocks": 2, "use_fp16": False}
    networks: dict[str, tuple[str, Any, dict[str, Any]]] = {
        "sparse_structure_flow_model": ("SparseStructureFlowModel", pipeline.structure_flow, {"resolution": 4, "use_fp16": False, **width}),
        "sparse_structure_decoder": ("SparseStructureDecoder", pipeline.structure_decoder, {"out_channels": 1, **vae}),
        "slat_flow_model": ("ElasticSLatFlowModel", pipeline.latent_flow, {**flow, **width}),
        "slat_decoder_gs": (
            "SLatGaussianDecoder",
            pipeline.gaussian_decoder,
            {"model_channels": 24, "representation_config": {"num_gaussians": 2}, **small},
        ),
        "slat_decoder_mesh": ("SLatMeshDecoder", pipeline.mesh_decoder, {"model_channels": 256, **small}),
    }
    for name, (kind, module, arguments) in networks.items():
        (folder / "ckpts" / f"{name}.json").write_text(json.dumps({"name": kind, "args": arguments}))
        save_file({key: value.contiguous() for key, value in to_trellis(module).items()}, folder / "ckpts" / f"{name}.safetensors")
    (folder / "ckpts" / "radiance.json").write_text(json.dumps({"name": "SLatRadianceFieldDecoder", "args": {}}))
    params = {"steps": 25, "cfg_strength": 5.0, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0}
    sampler = {"name": "FlowEulerGuidanceIntervalSampler", "args": {"sigma_min": 1e-5}, "params": params}
    content = {
        "name": "TrellisImageTo3DPipeline",
        "args": {
            "models": {**{name: f"ckpts/{name}" for name in networks}, "slat_decoder_rf": "ckpts/radiance"},
            "sparse_structure_sampler": sampler,
            "slat_sampler": {**sampler, "name": "FlowEulerCfgSampler", "params": {"steps": 12, "cfg_strength": 3.0}},
            "slat_normalization": {"mean": UNIT.mean, "std": UNIT.std},
            "image_cond_model": "dinov2_vitl14_reg",
        },
    }
    (folder / "pipeline.json").write_text(json.dumps(content))
    return content


def test_released_layout(pipeline: TrellisPipeline, tmp_path: Path) -> None:
    content = released_folder(pipeline, tmp_path)
    found = TrellisPipeline.from_folder(tmp_path, image_encoder=Colours())
    assert found.samplers["structure"] == trellis_samplers()["structure"]
    assert found.samplers["latent"] == EulerSampler(12, guidance=ClassifierFreeGuidance(4.0))
    assert found.normalization == UNIT
    assert isinstance(found.image_encoder, Colours)
    for name in TrellisPipeline.networks:
        state = getattr(found, name).state_dict()
        assert all(torch.equal(state[key], value) for key, value in getattr(pipeline, name).state_dict().items()), name
    half = TrellisPipeline.from_folder(tmp_path, dtype=torch.float64)
    assert half.structure_flow is not None
    assert half.structure_flow.torso_dtype == torch.float64

    def changed(**fields: Any) -> None:
        (tmp_path / "pipeline.json").write_text(json.dumps({**content, "args": {**content["args"], **fields}}))

    models = content["args"]["models"]
    for fields, words in (
        ({"models": {k: v for k, v in models.items() if k != "slat_flow_model"}}, "must name a SLatFlowModel"),
        ({"models": {**models, "again": "ckpts/slat_flow_model"}}, "more than one SLatFlowModel"),
        ({"models": {**models, "far": "../x"}}, "files in the folder for 'far'"),
        ({"slat_normalization": {"mean": [1.0]}}, "normalisation"),
        ({"slat_sampler": {"name": "DDIM", "params": {}}}, "sampler 'DDIM'"),
        ({"slat_sampler": {"name": "FlowEulerSampler", "params": {"steps": 0}}}, "steps"),
        ({"slat_sampler": {"name": "FlowEulerSampler"}}, "name, args and params"),
    ):
        changed(**fields)
        with pytest.raises(FileFormatError, match=words):
            TrellisPipeline.from_folder(tmp_path)
    changed(models={**models, "slat_decoder_gs": "ckpts/none"})
    with pytest.raises(FileNotFoundError):
        TrellisPipeline.from_folder(tmp_path)
    (tmp_path / "ckpts" / "radiance.json").write_text(json.dumps({"name": "SLatOracle", "args": {}}))
    changed()
    with pytest.raises(FileFormatError, match="class 'SLatOracle'"):
        TrellisPipeline.from_folder(tmp_path)
    (tmp_path / "pipeline.json").write_text("{}")
    with pytest.raises(FileFormatError, match='"args" with "models"'):
        TrellisPipeline.from_folder(tmp_path)


def test_own_folder(pipeline: TrellisPipeline, tmp_path: Path) -> None:
    encoder = SmallImageEncoder(16, CONDITION, 8, halvings=2, num_blocks=1, num_heads=2)
    saved = replace(pipeline, image_encoder={"structure": encoder, "latent": encoder}, closed=False, up="y")
    saved.save_folder(tmp_path / "p")
    found = TrellisPipeline.from_folder(tmp_path / "p")
    assert (found.closed, found.up, found.normalization, dict(found.samplers)) == (False, "y", UNIT, dict(SAMPLERS))
    picture = np.zeros((20, 20, 4), np.uint8)
    picture[4:16, 4:16] = (250, 120, 30, 255)
    before, after = (p.generate(picture, generator=chances(1)) for p in (saved, found))
    assert before.splats is not None
    assert after.splats is not None
    assert torch.equal(before.splats.means, after.splats.means)
    with pytest.raises(DtypeError, match=r"save_folder \(image_encoder\).*Colours"):
        pipeline.save_folder(tmp_path / "q")
    assert not (tmp_path / "q").exists()
    replace(pipeline, mesh_decoder=None).save_folder(tmp_path / "q", dtype=torch.float16, image_encoder=False)
    assert TrellisPipeline.from_folder(tmp_path / "q", image_encoder=Colours()).mesh_decoder is None
    manifest = json.loads((tmp_path / "q" / "pipeline.json").read_text())
    manifest["settings"]["options"]["colour"] = 1
    (tmp_path / "q" / "pipeline.json").write_text(json.dumps(manifest))
    with pytest.raises(FileFormatError, match="options that this pipeline does not: colour"):
        TrellisPipeline.from_folder(tmp_path / "q")
    del manifest["settings"]["samplers"]
    manifest["settings"]["options"] = {}
    (tmp_path / "q" / "pipeline.json").write_text(json.dumps(manifest))
    with pytest.raises(FileFormatError, match="make no TrellisPipeline"):
        TrellisPipeline.from_folder(tmp_path / "q")


def test_command_line(pipeline: TrellisPipeline, tmp_path: Path) -> None:
    encoder = SmallImageEncoder(16, CONDITION, 8, halvings=2, num_blocks=1, num_heads=2)
    replace(pipeline, image_encoder=encoder).save_folder(tmp_path / "maker")
    picture = np.zeros((20, 20, 4), np.uint8)
    picture[4:16, 4:16] = (250, 120, 30, 255)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    for suffix in ("ply", "glb"):
        assert main(["generate", str(tmp_path / "picture.png"), str(tmp_path / f"made.{suffix}"), "--from", str(tmp_path / "maker")]) == 0
    alone = TrellisPipeline.from_folder(tmp_path / "maker").generate(picture, generator=chances(0))
    assert alone.splats is not None
    assert len(GaussianSplats.load_ply(tmp_path / "made.ply")) == len(alone.splats)
    assert load_mesh(tmp_path / "made.glb").num_faces == alone.meshes[0].num_faces


def test_meshes_close_where_cells_end(pipeline: TrellisPipeline) -> None:
    grid = random_grid((3,), SIDE)
    latent = SparseTensor(grid, torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0)))
    open_ended = TrellisPipeline(
        pipeline.structure_flow,
        pipeline.structure_decoder,
        pipeline.latent_flow,
        None,
        pipeline.mesh_decoder,
        normalization=UNIT,
        closed=False,
    )
    closed, ends = pipeline.decode(latent, ["mesh"]), open_ended.decode(latent)
    assert closed.flex is not None
    assert ends.flex is not None
    assert len(closed.flex.grid) > len(ends.flex.grid) == 64 * 3


def test_pictures_become_tokens(pipeline: TrellisPipeline) -> None:
    picture = np.zeros((20, 20, 4), np.uint8)
    picture[4:16, 4:16] = (250, 120, 30, 255)
    made = pipeline.generate([picture, picture], samples=1, generator=chances(1, 2), outputs=["splats"])
    assert made.structure.batch_size == 2
    with pytest.raises(RangeError, match="alpha is 0 everywhere"):
        pipeline.generate(np.zeros((20, 20, 4), np.uint8))


def test_no_occupied_cell_gives_an_empty_asset_and_a_warning(pipeline: TrellisPipeline) -> None:
    flow, decoder = structure_parts()
    nn.init.constant_(decoder.get_parameter("out_layer.2.bias"), -1e3)
    nothing = TrellisPipeline(
        flow, decoder, pipeline.latent_flow, pipeline.gaussian_decoder, pipeline.mesh_decoder, normalization=UNIT, samplers=SAMPLERS
    )
    with pytest.warns(EmptyResultWarning, match="no cell of the structure is occupied; the asset is empty"):
        made = nothing.generate(conditions=tokens(2))
    assert made.splats is not None
    assert (len(made.splats), made.splats.batch_size) == (0, 2)
    assert [mesh.num_faces for mesh in made.meshes] == [0, 0]


def test_bad_input(pipeline: TrellisPipeline) -> None:
    p = pipeline
    with pytest.raises(RangeError, match="neither"):
        p.generate()
    with pytest.raises(RangeError, match="both"):
        p.generate(np.zeros((4, 4, 4), np.uint8), conditions=tokens())
    with pytest.raises(RangeError, match="tokens for 'latent'"):
        p.generate(conditions={"structure": tokens()})
    with pytest.raises(ShapeError, match="as many objects"):
        p.generate(conditions={"structure": tokens(), "latent": tokens(2)})
    with pytest.raises(ShapeError, match="generator must be one, or one for each of the 2"):
        p.generate(conditions=tokens(), samples=2, generator=chances(1))
    with pytest.raises(RangeError, match="samples"):
        p.generate(conditions=tokens(), samples=0)
    with pytest.raises(ShapeError, match="noise must have one latent"):
        p.sample_structure(tokens(2), noise=torch.zeros(1, WIDTH, 4, 4, 4))
    grid = random_grid((3, 2), SIDE)
    with pytest.raises(ShapeError, match="tokens of the grid's 2 samples"):
        p.sample_latent(grid, tokens())
    with pytest.raises(ShapeError, match="noise must have 4 channels"):
        p.sample_latent(grid, tokens(2), noise=SparseTensor(random_grid((2, 2), SIDE), torch.zeros(4, WIDTH)))
    with pytest.raises(RangeError, match="outputs"):
        p.decode(SparseTensor(grid, torch.zeros(5, WIDTH)), ["radiance"])  # pyright: ignore[reportArgumentType]
    parts = (p.structure_flow, p.structure_decoder, p.latent_flow)
    with pytest.raises(RangeError, match="no decoder for 'mesh'"):
        TrellisPipeline(*parts, p.gaussian_decoder, normalization=UNIT).decode(SparseTensor(grid, torch.zeros(5, WIDTH)), ["mesh"])
    with pytest.raises(RangeError, match="no image_encoder"):
        TrellisPipeline(*parts, normalization=UNIT).generate(np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(RangeError, match="come together"):
        TrellisPipeline(p.structure_flow, None, p.latent_flow, normalization=UNIT)
    with pytest.raises(ShapeError, match="normalization must have the 4 channels"):
        TrellisPipeline(*parts)
    with pytest.raises(RangeError, match="samplers must have one for 'latent'"):
        TrellisPipeline(*parts, normalization=UNIT, samplers={"structure": EulerSampler(2)})
    with pytest.raises(DtypeError, match="latent_flow must be a LatentFlow or PatchedLatentFlow"):
        TrellisPipeline(p.structure_flow, p.structure_decoder, p.structure_flow, normalization=UNIT)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="must divide the 8"):
        TrellisPipeline(p.structure_flow, p.structure_decoder, plain_flow(side=16), normalization=UNIT)
    with pytest.raises(RangeError, match="no structure_flow"):
        TrellisPipeline(None, None, p.latent_flow, normalization=UNIT).sample_structure(tokens())
    coarse = build(
        "trellis/gaussian-decoder", resolution=4, latent_channels=WIDTH, model_channels=24, num_heads=2, num_blocks=1, use_fp16=False
    )
    with pytest.raises(RangeError, match="gaussian_decoder must take the 8"):
        TrellisPipeline(*parts, coarse, normalization=UNIT)  # pyright: ignore[reportArgumentType]


def test_tokens_come_to_the_device_of_the_flow(pipeline: TrellisPipeline) -> None:
    """As a picture's do, where the image encoder is elsewhere."""
    moved: list[Any] = []

    class Elsewhere(Tensor):
        def to(self, *target: Any, **_: Any) -> Tensor:
            moved.append(target)
            return tokens()[0]

    away = [tokens()[0].as_subclass(Elsewhere)]
    grid = pipeline.sample_structure(away, generator=chances(1))
    assert torch.equal(grid.coords, pipeline.sample_structure(tokens(), generator=chances(1)).coords)
    latent = pipeline.sample_latent(grid, away, generator=chances(2))
    assert_same(latent.feats, pipeline.sample_latent(grid, tokens(), generator=chances(2)).feats, "latent", 1e-5)
    assert moved == [(torch.device("cpu"),)] * 2
