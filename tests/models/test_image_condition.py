"""Pictures of any kind to condition tokens: crops of the originals, modes and bad input, removers, encoders."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from golden.reader import Golden  # pyright: ignore[reportMissingImports]
from voxgen.core.errors import CheckpointError, DtypeError, FileFormatError, MissingDependency, RangeError, ShapeError
from voxgen.models import build, load_pretrained, save_pretrained
from voxgen.models.image_condition import (
    BackgroundRemover,
    DINOv2Encoder,
    DINOv3Encoder,
    ImageConditioner,
    PlainBackground,
    SmallImageEncoder,
    cut_out,
    prepare_image,
)
from voxgen.models.image_condition.crops import inference_crop, training_crop
from voxgen.models.texture_vae import ImageEncoder
from voxgen.testing.compare import assert_same

FOLDER = Path(__file__).parents[1] / "golden"
WORST = 1e-4
"""Of the largest value, as the goldens state."""


def conforms(encoder: object, protocol: type) -> bool:
    return isinstance(encoder, protocol)


def disc(height: int = 40, width: int = 60, radius: float = 12.0) -> np.ndarray:
    """An RGBA picture of a coloured disc."""
    y, x = np.mgrid[:height, :width]
    inside = (x - 30) ** 2 + (y - 18) ** 2 < radius**2
    image = np.zeros((height, width, 4), dtype=np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 200, 3 * y, 4 * x
    image[..., 3] = 255 * inside
    return image


def test_crop_is_that_of_trellis2() -> None:
    about = json.loads((FOLDER / "trellis2_conditions.json").read_text())
    with np.load(FOLDER / "trellis2_conditions.npz") as arrays:
        rgba, wanted = arrays["rgba"], arrays["prepared"]
    assert np.array_equal(inference_crop("", cut_out(rgba)), wanted)
    tall = np.zeros((1300, 40, 4), dtype=np.uint8)
    tall[100:1200, 5:30] = 200
    tall[100:1200, 5:30, 3] = 255
    step = about["steps"]["tall 1300 x 40 image, rows 100..1199, columns 5..29 opaque value 200"]
    found = inference_crop("", cut_out(tall))
    assert [found.shape[1], found.shape[0]] == step["size (w, h)"]
    assert int(found.sum()) == step["sum"]
    assert np.count_nonzero(found.any(2)) == step["nonzero"]
    prepared = prepare_image(rgba, "trellis2", size=32)
    resized = np.asarray(Image.fromarray(wanted).resize((32, 32), Image.Resampling.LANCZOS))
    assert torch.equal(prepared, torch.from_numpy(resized / np.float32(255)).permute(2, 0, 1))


def test_crop_is_that_of_direct3d_s2() -> None:
    golden = Golden.read("direct3d_s2_conventions")
    image = prepare_image(golden.arrays["in/rgba"].numpy(), "direct3d-s2")
    assert_same(image[:, ::37, ::37], golden.arrays["out/preprocessed_every_37"], "preprocessed", golden.tolerance)
    golden.check_statistics("preprocessed", image)
    small = prepare_image(golden.arrays["in/rgba"].numpy(), "direct3d-s2", size=128)
    assert small.shape == (4, 128, 128)
    assert bool((small[:3, 0] == 1).all())


def test_crop_of_trellis_is_wider_and_that_of_training_sees_all_that_is_not_clear() -> None:
    image = np.zeros((64, 64, 4), dtype=np.uint8)
    image[20:41, 20:41] = 255  # 20 pixels from the first to the last
    image[20:41, 10:20] = 100  # half transparent: seen in training alone
    assert inference_crop("", image).shape == (20, 20, 3)
    assert inference_crop("", image, 1.2).shape == (24, 24, 3)
    tight = training_crop("", image, 64)
    assert tight.shape == (64, 64, 3)
    assert 0 < tight[32, 5, 0] < 0.4  # 100 / 255 squared: colour times alpha
    wide = prepare_image(image, "trellis", size=48)
    assert float(wide[:, 24, 1].max()) < 0.2  # the margin
    assert float(wide[:, 24, 24].min()) == 1
    assert prepare_image(image, "trellis", size=48, training=True).shape == (3, 48, 48)


def modes(image: np.ndarray) -> dict[str, Any]:
    """One picture in all the ways in which a caller may have it."""
    pil = Image.fromarray(image)
    gray = np.asarray(Image.fromarray(image[..., :3]).convert("L"))
    floats = image.astype(np.float32) / 255
    return {
        "RGBA": pil,
        "RGBa": pil.convert("RGBa"),
        "LA": pil.convert("LA"),
        "PA": pil.convert("PA") if "PA" in Image.MODES else pil,
        "uint8": image,
        "uint16": image.astype(np.uint16) * 257,
        "float32": floats,
        "float64": floats.astype(np.float64),
        "channels first": torch.from_numpy(image).permute(2, 0, 1),
        "channels last": torch.from_numpy(image),
        "float tensor": torch.from_numpy(floats).permute(2, 0, 1),
        "half tensor": torch.from_numpy(floats).half().permute(2, 0, 1),
        "palette": transparent_palette(image),
        "gray": np.dstack([gray, gray, gray, image[..., 3]]),
    }


def transparent_palette(image: np.ndarray) -> Image.Image:
    """The disc with one colour and a transparent one."""
    palette = Image.fromarray((image[..., 3] > 0).astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 200, 60, 120])
    palette.info["transparency"] = 0
    return palette


def test_pictures_of_every_mode() -> None:
    image = disc()
    wanted = cut_out(image)
    for name, picture in modes(image).items():
        found = cut_out(picture)
        assert found.shape == (40, 60, 4), name
        assert np.array_equal(found[..., 3] > 0, wanted[..., 3] > 0), name
        if name in ("RGBA", "uint8", "uint16", "float32", "float64", "channels first", "channels last", "float tensor"):
            assert np.array_equal(found, wanted), name
        assert prepare_image(picture, size=16).shape == (3, 16, 16), name


def test_pictures_without_alpha() -> None:
    colour = disc()[..., :3]
    pil = Image.fromarray(colour)
    sixteen = Image.fromarray(colour[..., 0].astype(np.uint16) * 257)
    assert sixteen.mode == "I;16"
    pictures = [colour, pil, pil.convert("L"), pil.convert("CMYK"), pil.convert("P"), pil.convert("1"), pil.convert("YCbCr"), sixteen]
    pictures += [colour[..., 0], colour[..., :1], torch.from_numpy(colour).permute(2, 0, 1), torch.from_numpy(colour[..., :1])]
    for picture in pictures:
        with pytest.raises(RangeError, match="remove_background="):
            cut_out(picture)
        whole = cut_out(picture, assume_foreground=True)
        assert whole.shape == (40, 60, 4)
        assert whole[..., 3].min() == 255
    # 16 bits are scaled, not cut
    assert np.array_equal(cut_out(sixteen, assume_foreground=True)[..., 0], colour[..., 0])
    opaque = np.dstack([colour, np.full((40, 60), 255, dtype=np.uint8)])
    with pytest.raises(RangeError, match="no transparent pixel"):
        cut_out(opaque)
    assert prepare_image(opaque, "direct3d-s2").shape == (4, 518, 518)  # takes any alpha, as its original


@pytest.mark.parametrize(
    ("picture", "error", "words"),
    [
        ("chair.png", DtypeError, "PIL.Image.open"),
        (Path("chair.png"), DtypeError, "PIL.Image.open"),
        (None, DtypeError, "PIL image"),
        (np.zeros((2, 40, 60, 4), dtype=np.uint8), ShapeError, "one picture"),
        (np.zeros((3, 40, 60), dtype=np.uint8), ShapeError, "one picture"),
        (np.zeros((40, 60, 2), dtype=np.uint8), ShapeError, "one picture"),
        (np.zeros((0, 60, 4), dtype=np.uint8), ShapeError, "at least one pixel"),
        (torch.zeros(4, 60, 4), ShapeError, "first or last"),
        (torch.zeros(2, 3, 40, 60), ShapeError, "one picture"),
        (np.zeros((40, 60, 4), dtype=np.int64), DtypeError, "uint16"),
        (np.full((40, 60, 4), np.nan), RangeError, "finite"),
        (np.full((40, 60, 4), 255.0), RangeError, "255"),
        (np.full((40, 60, 4), -0.1), RangeError, "-0.1"),
        (np.zeros((40, 60, 4), dtype=np.uint8), RangeError, "no object"),
        (Image.fromarray(np.zeros((4, 4), dtype=np.int32)), DtypeError, "'I'"),
        (Image.fromarray(np.zeros((4, 4), dtype=np.float32)), DtypeError, "'F'"),
        (Image.new("RGBA", (0, 4)), ShapeError, "0 × 4"),
    ],
)
def test_bad_pictures(picture: Any, error: type[Exception], words: str) -> None:
    for system in ("trellis2", "trellis", "direct3d-s2"):
        with pytest.raises(error, match=words):
            prepare_image(picture, system)  # pyright: ignore[reportArgumentType]


def test_bad_calls() -> None:
    image = disc()
    with pytest.raises(RangeError, match="system must be one of"):
        prepare_image(image, "trellis3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="training crop"):
        prepare_image(image, "direct3d-s2", training=True)
    with pytest.raises(RangeError, match="size"):
        prepare_image(image, size=0)
    dot = np.zeros((9, 9, 4), dtype=np.uint8)
    dot[4, 4] = 255
    with pytest.raises(RangeError, match="at most two pixels"):
        prepare_image(dot)
    with pytest.raises(RangeError, match="single pixel"):
        prepare_image(dot, training=True)
    faint = image.copy()
    faint[..., 3] = faint[..., 3] // 2
    with pytest.raises(RangeError, match="more opaque than 204"):
        prepare_image(faint)
    for returned, error in ((None, DtypeError), (np.zeros((2, 2)), ShapeError), (np.full((40, 60), 2.0), RangeError)):
        with pytest.raises(error, match="remove_background"):
            cut_out(image[..., :3], remove_background=lambda _, r=returned: r)
    with pytest.raises(DtypeError, match="remove_background"):
        cut_out(image[..., :3], remove_background=lambda c: c[..., 0].astype(np.int64))
    with pytest.raises(RangeError, match="alpha is 0"):
        cut_out(image[..., :3], remove_background=lambda c: np.zeros(c.shape[:2], dtype=bool))


def test_removers() -> None:
    image = disc()
    white = np.where(image[..., 3:] > 0, image[..., :3], 255).astype(np.uint8)
    found = cut_out(white, remove_background=PlainBackground())
    assert np.array_equal(found[..., 3], image[..., 3])
    hole = white.copy()
    hole[17:20, 29:32] = 255  # white inside the object is object
    assert np.array_equal(PlainBackground()(hole), image[..., 3])
    with pytest.raises(RangeError, match="of one colour"):
        PlainBackground()(image[..., :3])
    with pytest.raises(RangeError, match="tolerance"):
        PlainBackground(1.5)
    truth = torch.from_numpy(image[..., 3] > 0)
    for alpha in (truth, truth.float(), truth.bfloat16(), truth.to(torch.uint8) * 255, truth.numpy()):
        assert np.array_equal(cut_out(white, remove_background=lambda _, a=alpha: a)[..., 3], image[..., 3])
    large = np.zeros((30, 2048, 3), dtype=np.uint8)
    seen: list[tuple[int, ...]] = []

    def remember(colour: np.ndarray) -> np.ndarray:
        seen.append(colour.shape)
        return np.ones(colour.shape[:2], dtype=bool)

    for system in ("trellis2", "trellis", "direct3d-s2"):
        cut_out(large, system, remove_background=remember)  # pyright: ignore[reportArgumentType]
    assert seen == [(15, 1024, 3), (15, 1024, 3), (30, 2048, 3)]


class Segments(nn.Module):
    """White is background."""

    def __init__(self, wrapped: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.wrapped = wrapped

    def forward(self, images: Tensor) -> Any:
        logits = self.scale * (2.0 - images.mean(1, keepdim=True))
        return SimpleNamespace(logits=logits) if self.wrapped else [logits * 0, logits]


@pytest.mark.parametrize("wrapped", [True, False])
def test_remover_by_a_network(wrapped: bool, tmp_path: Path) -> None:
    image = disc()
    white = np.where(image[..., 3:] > 0, image[..., :3], 255).astype(np.uint8)
    alpha = BackgroundRemover(Segments(wrapped), size=128)(white)
    assert alpha.shape == (40, 60)
    assert ((alpha > 127) == (image[..., 3] > 127)).mean() > 0.97  # but for the rim, where the mask is resized
    with pytest.raises(ShapeError, match="logits"):
        BackgroundRemover(nn.Conv2d(3, 2, 1), size=16)(white)
    with pytest.raises(FileNotFoundError, match="no folder"):
        BackgroundRemover.from_folder(tmp_path / "none")


def test_remover_from_a_folder_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(FileFormatError, match="trust_code=True"):
        BackgroundRemover.from_folder(tmp_path)


@pytest.fixture(scope="module")
def dinov3(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    about = json.loads((FOLDER / "trellis2_image_features.json").read_text())
    network = about["networks"]["dinov3"]
    model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**network["constructor"]))
    state = {n: torch.from_numpy(recipe.weight(n, tuple(shape), network["seed"])) for n, shape in network["tensors"]}
    model.load_state_dict(state, strict=False)
    assert {name for name in model.state_dict() if name not in state} <= {"rope_embeddings.inv_freq"}
    folder = tmp_path_factory.mktemp("dinov3")
    model.save_pretrained(folder)
    return folder, about


def test_tokens_are_those_of_trellis2(dinov3: tuple[Path, dict[str, Any]]) -> None:
    folder, about = dinov3
    encoder = DINOv3Encoder(folder, size=64)
    assert conforms(encoder, ImageConditioner)
    assert (encoder.channels, encoder.patch, encoder.special, encoder.image_size) == (48, 16, 5, 64)
    assert not any(p.requires_grad for p in encoder.parameters())
    images = torch.from_numpy(recipe.normal("image", (2, 3, 64, 64), about["seed"])).sigmoid()
    with np.load(FOLDER / "trellis2_image_features.npz") as arrays:
        assert_same(encoder.tokens(images), torch.from_numpy(arrays["tokens"]), "tokens", WORST)
    assert encoder.tokens(images.repeat(1, 1, 2, 2)).shape == (2, 5 + 64, 48)  # the cascade's second size
    assert encoder.tokens(images[:0]).shape == (0, 21, 48)
    for bad in (images[..., :48], images[..., :40, :40], images[:, :2]):
        with pytest.raises(ShapeError, match="images must be"):
            encoder.tokens(bad)
    with pytest.raises(DtypeError, match="images"):
        encoder.tokens((images * 255).to(torch.uint8))
    with pytest.raises(ShapeError, match="multiple of the model's patch"):
        DINOv3Encoder(folder, size=100)
    with pytest.raises(CheckpointError, match="holds a dinov3_vit"):
        DINOv2Encoder(folder, size=64)


def test_dinov2_gives_tokens_and_maps(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, num_register_tokens=4
    )
    transformers.Dinov2WithRegistersModel(config).save_pretrained(tmp_path)
    encoder = DINOv2Encoder(tmp_path, size=42)
    assert conforms(encoder, ImageConditioner)
    assert conforms(encoder, ImageEncoder)
    images = torch.rand(2, 3, 42, 42)
    tokens, maps = encoder.tokens(images), encoder(images)
    assert tokens.shape == (2, 5 + 9, 24)
    assert maps.shape == (2, 24, 3, 3)
    patches = maps.flatten(2).transpose(1, 2)
    assert torch.allclose(tokens[:, 5:], nn.functional.layer_norm(patches, (24,)), atol=1e-5)
    assert torch.allclose(tokens.mean(2), torch.zeros(2, 14), atol=1e-5)


def test_folders_that_hold_no_such_model(dinov3: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = dinov3
    with pytest.raises(FileNotFoundError, match="no folder"):
        DINOv3Encoder(tmp_path / "none")
    with pytest.raises(FileFormatError, match="cannot read"):
        DINOv3Encoder(tmp_path)
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    state = load_file(folder / "model.safetensors")
    lost = next(name for name in state if name.endswith("mlp.up_proj.weight"))
    save_file({n: v for n, v in state.items() if n != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="1 missing keys"):
        DINOv3Encoder(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingDependency, match="transformers"):
        DINOv3Encoder(folder)


def test_small_encoder(tmp_path: Path) -> None:
    encoder: Any = build("voxgen/image-encoder-small")
    assert conforms(encoder, ImageConditioner)
    assert 1.5e5 < sum(p.numel() for p in encoder.parameters()) < 2.5e5
    images = torch.rand(2, 3, 128, 128)
    tokens = encoder.tokens(images)
    assert tokens.shape == (2, 64, 128)
    assert_same(encoder(images[1:]), tokens[1:], "alone", 1e-5)
    assert torch.allclose(tokens.std(2, correction=0), torch.ones(2, 64), atol=1e-2)
    tokens.square().mul(torch.linspace(0, 1, 128)).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in encoder.parameters())
    save_pretrained(encoder, tmp_path / "encoder.safetensors")
    again: Any = load_pretrained(tmp_path / "encoder.safetensors")
    assert torch.equal(again(images), tokens)
    with pytest.raises(ShapeError, match="images"):
        encoder(images[..., :64, :64])
    with pytest.raises(RangeError, match="multiple of 16"):
        SmallImageEncoder(120)
    with pytest.raises(RangeError, match="channels"):
        SmallImageEncoder(channels=0)
    assert SmallImageEncoder(32, 24, 16, halvings=2, num_blocks=0)(torch.rand(0, 3, 32, 32)).shape == (0, 64, 24)


@pytest.mark.parametrize("item", [SmallImageEncoder, PlainBackground, cut_out, prepare_image], ids=lambda item: item.__name__)
def test_examples_in_docstrings(item: Any) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(item, globs={**globals()})
    report: list[str] = []
    result = doctest.DocTestRunner().run(test, out=report.append)
    assert result.attempted
    assert not result.failed, "".join(report)
