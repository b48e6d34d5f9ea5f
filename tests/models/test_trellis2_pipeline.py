"""Image tokens to asset: the original's cascade stage by stage, the cascade's grid, batches, seeds, empty structures, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import EmptyResultWarning, RangeError, ShapeError
from voxgen.flow import ClassifierFreeGuidance, EulerSampler
from voxgen.models import LatentNormalization, build
from voxgen.models.checkpoints import load_trellis2, to_trellis2
from voxgen.models.pipelines import Trellis2Pipeline, cascade_grid
from voxgen.testing.compare import assert_same

FOLDER = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4
"""Of the largest value, as the golden states."""
NAMES = {
    "SparseStructureFlowModel": "trellis2/structure-flow",
    "SparseStructureDecoder": "trellis2/structure-decoder",
    "SLatFlowModel": "trellis2/shape-flow-512",
    "FlexiDualGridVaeDecoder": "trellis2/shape-decoder",
    "SparseUnetVaeDecoder": "trellis2/material-decoder",
}


class Golden:
    about: dict[str, Any] = json.loads((FOLDER / "trellis2_cascade.json").read_text())

    def __init__(self) -> None:
        with np.load(FOLDER / "trellis2_cascade.npz") as arrays:
            self.arrays = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        norm = {key: LatentNormalization(tuple(v["mean"]), tuple(v["std"])) for key, v in self.about["normalization"].items()}
        samplers = {
            stage: EulerSampler(
                o["steps"],
                o["rescale_t"],
                guidance=ClassifierFreeGuidance(o["guidance_strength"], tuple(o["guidance_interval"]), o["guidance_rescale"]),
            )
            for stage, o in self.about["sampler_params"].items()
        }
        self.pipeline = Trellis2Pipeline(
            self.network("sparse_structure_flow_model"),
            self.network("sparse_structure_decoder"),
            {512: self.network("shape_slat_flow_model_512"), 1024: self.network("shape_slat_flow_model_1024")},
            self.network("shape_slat_decoder"),
            {1024: self.network("tex_slat_flow_model_1024")},
            self.network("tex_slat_decoder"),
            norm["shape"],
            norm["tex"],
            samplers,
        )

    def network(self, name: str) -> Any:
        spec = self.about["networks"][name]
        kind = spec["class"]
        precision = {"dtype": "float32"} if "Flow" in kind else {} if "use_fp16" in spec["constructor"] else {"use_fp16": False}
        module = build(NAMES[kind], **{**spec["constructor"], **precision})
        state = {n: torch.from_numpy(recipe.weight(n, tuple(shape), spec["seed"])) for n, shape in spec["tensors"]}
        for ending, factor in spec.get("scales", {}).items():
            state = {key: value * factor if key.endswith(ending) else value for key, value in state.items()}
        for key, value in spec.get("fill", {}).items():
            state[key] = torch.full_like(state[key], value)
        load_trellis2(module, state)
        return module.eval()

    def normal(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        shape = tuple(self.about["inputs"][name]["shape"]) if shape is None else shape
        return torch.from_numpy(recipe.normal(name, shape, self.about["seed"]))


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden()


def on(coords: Tensor, feats: Tensor, side: int) -> SparseTensor:
    return SparseTensor.build(coords, feats, resolution=side)


def test_stages_of_the_original(golden: Golden) -> None:
    pipeline, arrays = golden.pipeline, golden.arrays
    low, high = golden.normal("cond_512"), golden.normal("cond_1024")
    structure = pipeline.sample_structure(low, noise=golden.normal("structure_noise"), side=8)
    assert torch.equal(structure.coords, arrays["structure_coords"])

    grid, order = VoxelGrid.build(arrays["coords"], resolution=32)
    assert torch.equal(order, torch.arange(len(order))), "the golden's cells are in grid order"
    first = pipeline.sample_shape(grid, 512, low, noise=SparseTensor(grid, golden.normal("low_noise")))
    assert_same(first.feats, arrays["low_latent"], "low_latent", TOLERANCE)

    with torch.no_grad():
        cells = pipeline.shape_decoder.upsample(first, 4)
    assert torch.equal(cells.coords, VoxelGrid.build(arrays["upsampled_coords"], resolution=512)[0].coords)
    for name, resolution, limit in (("1024", 1024, 49_152), ("1536", 1536, 49_152), ("1536_limited", 1536, 100)):
        second, reached = cascade_grid(cells, resolution, 16, limit)
        assert torch.equal(second.coords, arrays[f"high_coords_{name}"]), name
        assert reached == resolution if limit > 1000 else 1024 <= reached < 1536

    second, _ = cascade_grid(cells, 1024, 16)
    noise = SparseTensor(second, golden.normal("high_noise", (len(second), 4)))
    latent = pipeline.sample_shape(second, 1024, high, noise=noise)
    assert_same(latent.feats, arrays["high_latent_1024"], "high_latent", TOLERANCE)
    material = pipeline.sample_material(latent, 1024, high, noise=SparseTensor(second, golden.normal("material_noise")))
    assert_same(material.feats, arrays["material_latent"], "material_latent", TOLERANCE)

    few = VoxelGrid.build(second.coords[:8], resolution=64)[0]
    made = pipeline.decode(SparseTensor(few, latent.feats[:8]), SparseTensor(few, material.feats[:8]))
    wanted, order = VoxelGrid.build(arrays["decoded_coords"], resolution=1024)
    assert torch.equal(made.ovoxel.coords, wanted.coords)
    found = torch.cat([made.ovoxel.materials[name] for name in pipeline.materials], 1)
    assert_same(found, arrays["decoded_material"][order], "decoded_material", TOLERANCE)
    mesh = made.ovoxel.to_mesh(compat="trellis2")
    assert len(mesh.faces) == len(arrays["decoded_faces"])
    assert_same(mesh.vertices, arrays["decoded_vertices"][order], "decoded_vertices", TOLERANCE)


def test_generate_in_one_go_is_the_stages(golden: Golden) -> None:
    pipeline = golden.pipeline
    conditions = {512: golden.normal("cond_512"), 1024: golden.normal("cond_1024")}
    small = Trellis2Pipeline(
        pipeline.structure_flow,
        pipeline.structure_decoder,
        {64: _flow(4), 128: _flow(8)},
        pipeline.shape_decoder,
        {128: _flow(8, in_channels=8)},
        pipeline.material_decoder,
        pipeline.shape_normalization,
        pipeline.material_normalization,
        {**pipeline.samplers},
    )
    tokens = {64: conditions[512], 128: conditions[1024]}
    made = small.generate(conditions=tokens, resolution=64, cascade=False, material=False, generator=torch.Generator().manual_seed(3))
    assert made.material_latent is None
    assert made.structure.resolution == (4, 4, 4)
    assert made.ovoxel.resolution == (64, 64, 64)
    again = small.generate(conditions=tokens, resolution=64, cascade=False, material=False, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again.ovoxel.dual_vertices, made.ovoxel.dual_vertices)
    chance = torch.Generator().manual_seed(3)
    structure = small.sample_structure(tokens[64], generator=chance)
    latent = small.sample_shape(structure, 64, tokens[64], generator=chance)
    assert torch.equal(latent.feats, made.shape_latent.feats)
    other = small.generate(conditions=tokens, resolution=64, cascade=False, generator=torch.Generator().manual_seed(4), material=False)
    assert not torch.equal(other.structure.coords, made.structure.coords)


def _flow(side: int, **fields: Any) -> Any:
    torch.manual_seed(side)
    options = {"in_channels": 4, "out_channels": 4, "model_channels": 32, "cond_channels": 24, "num_blocks": 1, "num_heads": 2}
    flow = build("voxgen/latent-flow-small", resolution=side, **{**options, **fields}).eval()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.1)
    return flow


def test_the_cascade_keeps_within_its_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    coords = torch.cat((torch.zeros(4000, 1), torch.randint(0, 512, (4000, 3), generator=generator)), 1).int().unique(dim=0)
    cells = VoxelGrid.build(coords, resolution=512)[0]
    for resolution in (1024, 1280, 1536):
        grid, reached = cascade_grid(cells, resolution, 16)
        assert reached == resolution
        side = resolution // 16
        wanted = torch.floor((coords[:, 1:].double() + 0.5) / 512 * side).int().unique(dim=0)
        assert torch.equal(grid.cells, wanted)
    assert cascade_grid(cells, 1536, 16, max_tokens=1)[1] == 1024, "it does not go below"
    with pytest.raises(RangeError, match="multiple of 16"):
        cascade_grid(cells, 1000, 16)
    # the limit is of each object, not of the batch
    alone = max(len(cascade_grid(cells, 1280, 16)[0]), 1)
    assert cascade_grid(VoxelGrid.batched([cells, cells]), 1280, 16, max_tokens=alone + 1)[1] == 1280
    assert cascade_grid(VoxelGrid.batched([cells.select(torch.arange(4)), cells]), 1280, 16, max_tokens=alone)[1] < 1280


def test_no_occupied_cell_gives_an_empty_asset_and_a_warning(golden: Golden) -> None:
    pipeline = golden.pipeline
    decoder = build(
        "trellis2/structure-decoder", **golden.about["networks"]["sparse_structure_decoder"]["constructor"], use_fp16=False
    ).eval()
    nn.init.constant_(decoder.get_parameter("out_layer.2.bias"), -100.0)
    nothing = Trellis2Pipeline(
        pipeline.structure_flow,
        decoder,  # pyright: ignore[reportArgumentType]
        {64: _flow(4)},
        pipeline.shape_decoder,
        shape_normalization=pipeline.shape_normalization,
        samplers=pipeline.samplers,
    )
    with pytest.warns(EmptyResultWarning, match="no cell of the structure"):
        made = nothing.generate(conditions={64: golden.normal("cond_512")}, resolution=64)
    assert len(made.ovoxel) == 0
    assert made.ovoxel.to_mesh().num_faces == 0


def test_bad_input(golden: Golden) -> None:
    pipeline = golden.pipeline
    condition = golden.normal("cond_512")
    with pytest.raises(RangeError, match="conditions must have tokens for 1024"):
        pipeline.generate(conditions={512: condition}, resolution=1024)
    with pytest.raises(RangeError, match="without a cascade"):
        pipeline.generate(conditions={512: condition, 1024: condition}, resolution=1536, cascade=False)
    with pytest.raises(RangeError, match="side must divide"):
        pipeline.sample_structure(condition, side=5)
    grid = VoxelGrid.build(golden.arrays["coords"], resolution=32)[0]
    with pytest.raises(RangeError, match="one of"):
        pipeline.sample_shape(grid, 256, condition)
    with pytest.raises(ShapeError, match="shape_normalization"):
        Trellis2Pipeline(pipeline.structure_flow, pipeline.structure_decoder, pipeline.shape_flows, pipeline.shape_decoder)
    with pytest.raises(RangeError, match="material_decoder"):
        Trellis2Pipeline(
            pipeline.structure_flow,
            pipeline.structure_decoder,
            pipeline.shape_flows,
            pipeline.shape_decoder,
            pipeline.material_flows,
            shape_normalization=pipeline.shape_normalization,
        )


@pytest.mark.parametrize("name", ["structure-encoder", "structure-decoder"])
def test_structure_files_that_trellis2_takes_from_trellis(name: str) -> None:
    module = build(f"trellis2/{name}", device="meta")
    rows = [line.split("\t") for line in (FOLDER / "keys" / f"trellis2_{name}.tsv").read_text().splitlines() if not line.startswith("#")]
    words = {torch.float16: "F16", torch.float32: "F32"}
    own = {key: (tuple(value.shape), words[value.dtype]) for key, value in to_trellis2(module).items()}
    assert own == {key: (tuple(map(int, shape.split(","))), dtype) for key, shape, dtype in rows}
