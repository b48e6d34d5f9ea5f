"""Pictures to assets: conditions of each stage, batches, callbacks, empty structures, textures for given meshes, low memory, bad input."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.trellis2_tiny import WIDTH, flow, picture, tiny  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import TriMesh
from voxgen.core.errors import DtypeError, EmptyResultWarning, MeshError, RangeError, ShapeError
from voxgen.flow import EulerSampler
from voxgen.io import load_mesh, save_mesh
from voxgen.models import LatentNormalization
from voxgen.models.image_condition import SmallImageEncoder, prepare_image
from voxgen.models.pipelines import Trellis2Pipeline
from voxgen.models.pipelines.trellis2.placement import placed
from voxgen.representations import OVoxel
from voxgen.testing.compare import assert_same
from voxgen.testing.shapes import torus


@pytest.fixture(scope="module")
def pipeline() -> Trellis2Pipeline:
    return tiny()


def seeds(*values: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(value) for value in values]


def same(one: Any, other: Any, tolerance: float = 0.0) -> None:
    """Two generations gave the same assets."""
    assert torch.equal(one.structure.coords, other.structure.coords)
    assert torch.equal(one.ovoxel.coords, other.ovoxel.coords)
    assert torch.equal(one.ovoxel.intersected, other.ovoxel.intersected)
    for name, value in one.ovoxel.materials.items():
        assert_same(value, other.ovoxel.materials[name], name, tolerance)


class Sizes:
    """An encoder that remembers the sizes of its pictures."""

    image_size = 32
    channels = WIDTH

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []

    def tokens(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        return images.flatten(2).mean(2).repeat(1, 4 * WIDTH // 3).unflatten(1, (4, WIDTH)) + len(self.seen) - 1


def test_a_picture_is_its_tokens(pipeline: Trellis2Pipeline) -> None:
    encoder: Any = pipeline.image_encoder
    image = prepare_image(picture(), "trellis2", size=32)
    with torch.no_grad():
        tokens = encoder.tokens(image[None])
    made = pipeline.generate(picture(), generator=seeds(1))
    assert made.ovoxel.resolution == (32, 32, 32)
    assert made.structure.resolution == (4, 4, 4)
    assert len(made.ovoxel) > 100
    assert set(made.ovoxel.materials) == {"base_color", "metallic", "roughness", "alpha"}
    same(made, pipeline.generate(conditions=tokens, generator=seeds(1)))
    same(made, pipeline.generate(conditions={16: tokens, 32: tokens}, generator=seeds(1)))
    by_stage = {"structure": tokens, "shape": {16: tokens, 32: tokens}, "material": tokens}
    same(made, pipeline.generate(conditions=by_stage, generator=seeds(1)))
    other = pipeline.generate(picture(9), generator=seeds(1))
    assert not torch.equal(other.shape_latent.feats, made.shape_latent.feats)
    # The stages in turn, with one source of noise.
    chance = torch.Generator().manual_seed(5)
    direct = pipeline.generate(conditions=tokens, resolution=16, generator=torch.Generator().manual_seed(5))
    structure = pipeline.sample_structure(tokens, generator=chance)
    shape = pipeline.sample_shape(structure, 16, tokens, generator=chance)
    material = pipeline.sample_material(shape, 16, tokens, generator=chance)
    same(dataclasses.replace(pipeline.decode(shape, material), structure=structure), direct)


def test_batches_are_their_single_objects(pipeline: Trellis2Pipeline) -> None:
    pictures = [picture(), picture(6)]
    together = pipeline.generate(pictures, samples=2, resolution=16, generator=seeds(1, 2, 3, 4))
    assert together.ovoxel.batch_size == 4
    assert len(together.meshes("attributes")) == 4
    for index in range(4):
        alone = pipeline.generate(pictures[index // 2], resolution=16, generator=seeds(index + 1))
        ovoxel = together.ovoxel.sample(index)
        assert torch.equal(alone.ovoxel.coords, ovoxel.coords)
        # sums of matrix products depend on their heights
        assert_same(ovoxel.dual_vertices, alone.ovoxel.dual_vertices, f"dual vertices of {index}", 1e-4)
        assert_same(ovoxel.materials["base_color"], alone.ovoxel.materials["base_color"], f"colours of {index}", 1e-4)
    again = pipeline.generate(pictures, samples=2, resolution=16, generator=seeds(1, 2, 3, 4))
    same(again, together)


def test_each_stage_has_its_encoder_and_size() -> None:
    one = Sizes()
    tiny(image_encoder=one, image_sizes={16: 16, 32: 48}).generate(picture(), generator=seeds(1))
    assert one.seen == [(1, 3, 16, 16), (1, 3, 48, 48)], "stages that want the same tokens share them"
    encoders = {"structure": Sizes(), "shape": Sizes(), "material": Sizes()}
    pipeline = tiny(image_encoder=encoders)
    pipeline.generate([picture(), picture(3)], resolution=32, generator=seeds(1, 2))
    assert [len(e.seen) for e in encoders.values()] == [1, 1, 1]
    assert encoders["structure"].seen == [(2, 3, 32, 32)]
    small = pipeline.generate(picture(), resolution=32, cascade=False, material=False, generator=seeds(1))
    assert small.structure.resolution == (8, 8, 8)
    assert [len(e.seen) for e in encoders.values()] == [2, 2, 1], "no tokens for a stage that does not run"
    with pytest.raises(RangeError, match="image_encoder must have one for 'material'"):
        tiny(image_encoder={"structure": Sizes(), "shape": Sizes()}).generate(picture())


def test_backgrounds_are_removed_once() -> None:
    calls: list[tuple[int, ...]] = []

    def alpha(colour: np.ndarray) -> np.ndarray:
        calls.append(colour.shape)
        return picture()[..., 3]

    one, other = Sizes(), Sizes()
    sizes = {16: 16, 32: 48}
    removed = tiny(image_encoder=one, image_sizes=sizes).generate(picture()[..., :3], remove_background=alpha, generator=seeds(1))
    assert calls == [(48, 64, 3)]
    same(removed, tiny(image_encoder=other, image_sizes=sizes).generate(picture(), generator=seeds(1)))


def test_callbacks_and_bars(pipeline: Trellis2Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, int]] = []
    made = pipeline.generate(picture(), generator=seeds(1), progress=True, callback=lambda stage, state: seen.append((stage, state.step)))
    stages = ("structure", "coarse shape", "shape", "material")
    assert seen == [(stage, step) for stage in stages for step in (1, 2)]
    shown = capsys.readouterr().err
    assert shown.count("sampling:   0%") == 4  # once a bar; what is drawn later depends on the time
    assert all(f"{bar}: 100%" in shown for bar in ("sampling", "levels"))
    seen.clear()
    pipeline.generate(picture(), resolution=16, material=False, generator=seeds(1), callback=lambda s, state: seen.append((s, state.step)))
    assert seen == [(stage, step) for stage in ("structure", "shape") for step in (1, 2)]
    assert not capsys.readouterr().err
    assert made.ovoxel.frame.up == "y"


def test_up_is_said_of_what_is_made(tmp_path: Path) -> None:
    made = tiny(up="z").generate(picture(), generator=seeds(1))
    mesh = made.meshes("attributes")[0]
    assert (made.structure.frame.up, made.ovoxel.frame.up, mesh.up) == ("z", "z", "z")
    save_mesh(mesh, tmp_path / "asset.glb")
    found = load_mesh(tmp_path / "asset.glb")  # glTF has y up
    low, high = mesh.with_up("y").bounds()
    assert torch.allclose(torch.stack(found.bounds()), torch.stack((low, high)), atol=1e-5)


def nothing_for(pipeline: Trellis2Pipeline) -> Any:
    """A structure decoder that finds nothing."""
    decoder: Any = tiny().structure_decoder
    nn.init.constant_(decoder.out_layer[2].bias, -100.0)
    return decoder


@pytest.mark.parametrize("resolution", [16, 32])
def test_an_empty_structure_goes_through_all_stages(resolution: int, tmp_path: Path) -> None:
    pipeline = tiny()
    pipeline = dataclasses.replace(pipeline, structure_decoder=nothing_for(pipeline))
    with pytest.warns(EmptyResultWarning, match="no cell of the structure is occupied; the asset is empty") as told:
        made = pipeline.generate([picture(), picture(1)], resolution=resolution, generator=seeds(1, 2))
    assert told[0].filename == __file__, "the warning names the line that called generate"
    assert (len(made.ovoxel), made.ovoxel.batch_size) == (0, 2)
    assert made.ovoxel.resolution == (resolution,) * 3
    assert set(made.ovoxel.materials) == {"base_color", "metallic", "roughness", "alpha"}
    for mesh in [*made.meshes(), *made.meshes("attributes"), *made.meshes(None), made.ovoxel.to_mesh()]:
        assert mesh.num_faces == 0
    made.ovoxel.sample(0).save(tmp_path / "empty.npz")
    assert len(OVoxel.load(tmp_path / "empty.npz")) == 0
    with pytest.raises(MeshError, match="at least one face"):
        save_mesh(made.meshes()[0], tmp_path / "empty.glb")


def test_one_empty_object_among_others(pipeline: Trellis2Pipeline) -> None:
    whole = pipeline.generate(picture(), resolution=16, generator=seeds(1))
    empty = dataclasses.replace(pipeline, structure_decoder=nothing_for(pipeline))
    encoder: Any = pipeline.image_encoder
    with torch.no_grad():
        tokens = encoder.tokens(prepare_image(picture(), "trellis2", size=32)[None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyResultWarning)
        none = empty.sample_structure(tokens)
    from voxgen.core import VoxelGrid

    both = VoxelGrid.batched([none, whole.structure])
    shape = pipeline.sample_shape(both, 16, tokens.expand(2, -1, -1), generator=seeds(8, 9))
    material = pipeline.sample_material(shape, 16, tokens.expand(2, -1, -1), generator=seeds(6, 7))
    made = pipeline.decode(shape, material)
    assert [mesh.num_faces > 0 for mesh in made.meshes("attributes")] == [False, True]


def test_textures_come_opaque(pipeline: Trellis2Pipeline) -> None:
    made = pipeline.generate(picture(), resolution=16, generator=seeds(1))
    (mesh,) = made.meshes(texture_size=512)
    assert mesh.uv is not None
    assert mesh.materials[0].alpha_mode == "OPAQUE"
    (blended,) = made.meshes("attributes", opaque=False)
    assert blended.materials[0].alpha_mode == "BLEND"


def test_split_weights_that_nobody_trained_are_left_out(pipeline: Trellis2Pipeline) -> None:
    whole = pipeline.generate(picture(), resolution=16, generator=seeds(1))
    plain = dataclasses.replace(pipeline, split_weights=False).generate(picture(), resolution=16, generator=seeds(1))
    assert whole.ovoxel.split_weight is not None
    assert plain.ovoxel.split_weight is None
    assert torch.equal(plain.ovoxel.dual_vertices, whole.ovoxel.dual_vertices)
    assert torch.equal(plain.ovoxel.materials["base_color"], whole.ovoxel.materials["base_color"])
    assert not torch.equal(plain.mesh(0, "attributes").faces, whole.mesh(0, "attributes").faces), "quads are cut along other diagonals"


def painted(pipeline: Trellis2Pipeline, mesh: TriMesh, **options: Any) -> Any:
    return pipeline.texture_mesh(mesh, picture(), generator=seeds(3), texture_size=256, **options)


def test_a_given_mesh_gets_a_texture(pipeline: Trellis2Pipeline) -> None:
    mesh = torus(12, 8)
    mesh = mesh.replace(vertices=mesh.vertices * 3 + 1)
    made = painted(pipeline, mesh)
    ovoxel = OVoxel.from_mesh(mesh, resolution=32, materials=False)
    assert torch.equal(made.ovoxel.coords, ovoxel.coords)
    assert torch.equal(made.ovoxel.dual_vertices, ovoxel.dual_vertices), "the shape is the mesh's own"
    assert made.shape_latent.grid.resolution == (8, 8, 8)
    assert made.mesh.num_faces == mesh.num_faces
    assert torch.allclose(made.mesh.corners(), mesh.corners(), atol=1e-5)
    assert made.mesh.materials[0].base_color is not None
    # The posterior's mean is conditioned on; the decoder fills the encoder's structure.
    encoder: Any = pipeline.shape_encoder
    with torch.no_grad():
        features = torch.cat((ovoxel.dual_vertices - 0.5, ovoxel.intersected.float() - 0.5), 1)
        encoded = encoder(made.ovoxel.material_tensor().with_feats(features))
        tokens = pipeline.image_encoder.tokens(prepare_image(picture(), size=32)[None])  # pyright: ignore
        latent = pipeline.sample_material(encoded.posterior.mean, 32, tokens, generator=seeds(3))
        output = pipeline.material_decoder(latent, structure=encoded.structures)  # pyright: ignore
    assert_same(made.material_latent.feats, latent.feats, "material latent", 1e-5)
    assert_same(made.ovoxel.materials["base_color"], output.head.feats[:, :3] * 0.5 + 0.5, "colours", 1e-5)
    assert made.ovoxel.frame.isclose(ovoxel.frame)
    seen: list[str] = []
    painted(pipeline, mesh, resolution=16, callback=lambda stage, _: seen.append(stage))
    assert seen == ["material", "material"]


def test_a_given_mesh_may_have_another_axis_up(pipeline: Trellis2Pipeline) -> None:
    mesh = torus(12, 8)
    turned = dataclasses.replace(pipeline, up="z")
    one, other = painted(turned, mesh), painted(pipeline, mesh.with_up("z"))
    assert (one.mesh.up, one.ovoxel.frame.up) == ("y", "z")
    assert torch.allclose(one.mesh.corners(), mesh.corners(), atol=1e-5)
    assert (other.mesh.up, other.ovoxel.frame.up) == ("z", "y")


def test_bad_texturing(pipeline: Trellis2Pipeline) -> None:
    mesh = torus(12, 8)
    for name in ("shape_encoder", "material_decoder"):
        fields: dict[str, Any] = {name: None, **({"material_flows": {}} if name == "material_decoder" else {})}
        with pytest.raises(RangeError, match=name):
            dataclasses.replace(pipeline, **fields).texture_mesh(mesh, picture())
    with pytest.raises(RangeError, match=r"one of \[16, 32\]"):
        pipeline.texture_mesh(mesh, picture(), 64)
    with pytest.raises(DtypeError, match="load_mesh"):
        pipeline.texture_mesh("mesh.glb", picture())  # pyright: ignore[reportArgumentType]
    with pytest.raises(MeshError, match="at least one face"):
        pipeline.texture_mesh(mesh.replace(faces=mesh.faces[:0]), picture())
    with pytest.raises(RangeError, match="2 objects"):
        pipeline.texture_mesh(mesh, [picture(), picture()])
    with pytest.raises(RangeError, match="either a picture or conditions"):
        pipeline.texture_mesh(mesh)


class Recorder(nn.Linear):
    """Remembers where it was moved to."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.moves: list[torch.device] = []

    def to(self, device: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.moves.append(torch.device(device))
        return self


def test_networks_come_back_from_the_device() -> None:
    part = Recorder()
    there, home = torch.device("cuda", 3), torch.device("cpu")
    with placed(there, part, None, object()):
        assert part.moves == [there]
    assert part.moves == [there, home]
    with pytest.raises(KeyError), placed(there, part):
        raise KeyError
    assert part.moves == [there, home] * 2
    with placed(None, part):
        pass
    assert len(part.moves) == 4


def test_low_memory_changes_nothing(pipeline: Trellis2Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    lean = dataclasses.replace(pipeline, low_memory=True, device="cpu")
    moved: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: moved.append(self) or self)
    made = lean.generate(picture(), generator=seeds(1))
    used = [
        pipeline.image_encoder,
        pipeline.structure_flow,
        pipeline.structure_decoder,
        pipeline.shape_flows[16],
        pipeline.shape_decoder,
        pipeline.shape_flows[32],
        pipeline.material_flows[32],
        pipeline.shape_decoder,
        pipeline.material_decoder,
    ]
    assert [id(m) for m in moved if m in used][:2] == [id(pipeline.image_encoder)] * 2, "to the device, and back"
    assert {id(m) for m in moved} == {id(m) for m in used}
    assert all(sum(m is part for m in moved) % 2 == 0 for part in used)
    monkeypatch.undo()
    same(made, pipeline.generate(picture(), generator=seeds(1)))


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"shape_flows": {}}, RangeError, "at least one flow"),
        ({"material_decoder": None}, RangeError, "need a material_decoder"),
        ({"samplers": {"structure": EulerSampler(2), "shape": EulerSampler(2)}}, RangeError, "'material'"),
        ({"low_memory": True}, RangeError, "low_memory needs a device"),
        ({"up": "x"}, RangeError, "up must be"),
        ({"shape_normalization": LatentNormalization((0.0,), (1.0,))}, ShapeError, "shape_normalization must have the 4 channels"),
        ({"material_flows": {16: flow(4)}}, ShapeError, r"material_flows\[16\] must read"),
        ({"image_encoder": SmallImageEncoder(32, 8, 8, halvings=2)}, ShapeError, "its flow reads 12"),
    ],
)
def test_parts_that_do_not_fit(fields: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        tiny(**fields)


def test_bad_pictures_and_conditions(pipeline: Trellis2Pipeline) -> None:
    tokens = torch.zeros(1, 3, WIDTH)
    calls: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, RangeError, "got neither"),
        ({"image": picture(), "conditions": tokens}, RangeError, "got both"),
        ({"image": []}, RangeError, "empty list"),
        ({"image": picture()[..., :3]}, RangeError, "remove_background="),
        ({"image": np.zeros((8, 8, 4), dtype=np.uint8)}, RangeError, "no object"),
        ({"image": "chair.png"}, DtypeError, "PIL"),
        ({"conditions": {"structure": tokens, "material": tokens}}, RangeError, "tokens for 'shape'"),
        ({"conditions": {16: tokens}}, RangeError, "tokens for 32"),
        ({"conditions": {16: tokens, 32: tokens.repeat(2, 1, 1)}}, ShapeError, "as many objects"),
        ({"conditions": tokens[..., :5]}, ShapeError, "12"),
        ({"image": picture(), "samples": 0}, RangeError, "samples"),
        ({"image": picture(), "resolution": 8, "cascade": False}, RangeError, "without a cascade"),
        ({"image": picture(), "resolution": 33}, RangeError, "multiple of 4"),
        ({"image": picture(), "generator": seeds(1, 2)}, ShapeError, "generator"),
    ]
    for call, error, words in calls:
        with pytest.raises(error, match=words):
            pipeline.generate(**call)
    with pytest.raises(RangeError, match="no image_encoder"):
        dataclasses.replace(pipeline, image_encoder=None).generate(picture())
    with pytest.raises(RangeError, match="needs material_flows"):
        dataclasses.replace(pipeline, material_flows={}).generate(picture(), material=True)
    whole = pipeline.generate(picture()[..., :3], assume_foreground=True, resolution=16, generator=seeds(1))
    assert len(whole.ovoxel)
