"""glTF materials: every property, textures of every kind, samplers; what cannot be read is said."""

import base64
import json
import struct
import zlib

import numpy as np
import pytest
import torch
from glb_builder import Builder, image_bytes, png_16_bit

from voxgen.core import Material
from voxgen.core.errors import CapacityError, FileFormatError, FileWarning
from voxgen.io import load_mesh, save_mesh

RNG = np.random.default_rng(3)
RGBA = RNG.integers(0, 256, (3, 5, 4), np.uint8)


def loaded(builder: Builder, tmp_path) -> tuple[Material, ...]:
    if not builder.document.get("meshes"):
        builder.mesh(builder.triangle(material=0))
    return load_mesh(builder.save(tmp_path / "a.glb")).materials


def test_defaults_of_the_format(tmp_path):
    b = Builder()
    b.material()
    (m,) = loaded(b, tmp_path)
    assert (m.base_color_factor, m.alpha_factor, m.metallic_factor, m.roughness_factor) == ((1, 1, 1), 1, 1, 1)
    assert (m.emissive_factor, m.alpha_mode, m.alpha_cutoff, m.double_sided, m.textures) == ((0, 0, 0), "OPAQUE", 0.5, False, {})


def test_every_property(tmp_path):
    b = Builder()
    b.document["samplers"] = [{"wrapS": 33071, "wrapT": 33648, "magFilter": 9728}, {"magFilter": 9729}]
    first, second = b.texture(image_bytes(RGBA), sampler=0), b.texture(image_bytes(RGBA[:, :, :3]), sampler=1)
    b.document["images"][0]["name"] = "base"
    b.material(
        name="all",
        alphaMode="MASK",
        alphaCutoff=0.25,
        doubleSided=True,
        emissiveFactor=[0.5, 0.25, 0.125],
        emissiveTexture={"index": second},
        normalTexture={"index": second, "scale": 0.5},
        occlusionTexture={"index": second, "strength": 0.75},
        pbrMetallicRoughness={
            "baseColorFactor": [0.1, 0.2, 0.3, 0.4],
            "baseColorTexture": {"index": first},
            "metallicFactor": 0.6,
            "roughnessFactor": 0.7,
            "metallicRoughnessTexture": {"index": second, "texCoord": 1},
        },
        extensions={"KHR_materials_emissive_strength": {"emissiveStrength": 4}},
        extras={"key": [1, "two"]},
    )
    (m,) = loaded(b, tmp_path)
    assert (m.name, m.alpha_mode, m.alpha_cutoff, m.double_sided) == ("all", "MASK", 0.25, True)
    assert (m.base_color_factor, m.alpha_factor) == ((0.1, 0.2, 0.3), 0.4)
    assert (m.metallic_factor, m.roughness_factor, m.normal_scale, m.occlusion_strength) == (0.6, 0.7, 0.5, 0.75)
    assert m.emissive_factor == (2.0, 1.0, 0.5)
    assert m.extras == {"key": [1, "two"]}
    t = m.textures
    channels = {"base_color": (0, 1, 2), "alpha": (3,), "metallic": (2,), "roughness": (1,), "occlusion": (0,)}
    assert {slot: t[slot].channels for slot in channels} == channels
    assert {slot for slot in t if t[slot].srgb} == {"base_color", "emissive"}
    assert (t["base_color"].wrap, t["base_color"].filter, t["base_color"].name) == (("clamp", "mirror"), "nearest", "base")
    assert (t["normal"].wrap, t["normal"].filter) == (("repeat", "repeat"), "linear")
    assert (t["metallic"].uv_set, t["roughness"].uv_set, t["base_color"].uv_set) == (1, 1, 0)
    assert t["alpha"].image is t["base_color"].image
    assert t["metallic"].image is t["normal"].image
    assert torch.equal(t["base_color"].image, torch.from_numpy(RGBA)), "row 0 is the top row"


GREY = RNG.integers(0, 256, (4, 7), np.uint8)
WIDE = RNG.integers(0, 65536, (4, 7, 4)).astype(np.uint16)


@pytest.mark.parametrize(
    ("content", "expected", "color", "alpha", "roughness", "metallic"),
    [
        (image_bytes(GREY), GREY[:, :, None], (0, 0, 0), None, (0,), (0,)),
        (image_bytes(RGBA[:, :, :2]), RGBA[:, :, :2], (0, 0, 0), (1,), (0,), (0,)),
        (image_bytes(RGBA[:, :, :3]), RGBA[:, :, :3], (0, 1, 2), None, (1,), (2,)),
        (image_bytes(RGBA), RGBA, (0, 1, 2), (3,), (1,), (2,)),
        (png_16_bit(WIDE[:, :, :1]), WIDE[:, :, :1], (0, 0, 0), None, (0,), (0,)),
        (png_16_bit(WIDE[:, :, :2]), WIDE[:, :, :2], (0, 0, 0), (1,), (0,), (0,)),
        (png_16_bit(WIDE[:, :, :3]), WIDE[:, :, :3], (0, 1, 2), None, (1,), (2,)),
        (png_16_bit(WIDE), WIDE, (0, 1, 2), (3,), (1,), (2,)),
    ],
    ids=["grey", "grey-alpha", "rgb", "rgba", "grey16", "grey-alpha16", "rgb16", "rgba16"],
)
def test_images_of_every_depth(tmp_path, content, expected, color, alpha, roughness, metallic):
    b = Builder()
    info = {"index": b.texture(content)}
    b.material(pbrMetallicRoughness={"baseColorTexture": info, "metallicRoughnessTexture": info})
    (m,) = loaded(b, tmp_path)
    assert m.base_color is not None
    assert m.roughness is not None
    assert m.metallic is not None
    image = m.base_color.image
    if expected.dtype == np.uint8:
        assert torch.equal(image, torch.from_numpy(expected))
    else:
        assert torch.equal(image, torch.from_numpy(expected.astype(np.float32) / np.float32(65535)))
    assert (m.base_color.channels, None if m.alpha is None else m.alpha.channels) == (color, alpha)
    assert (m.roughness.channels, m.metallic.channels) == (roughness, metallic)


def test_palettes_jpeg_webp_and_bits(tmp_path):
    from PIL import Image

    picture = Image.fromarray(np.repeat(np.arange(0, 250, 25, np.uint8)[None, :, None], 3, axis=2).repeat(8, axis=0))
    palette = picture.quantize(16)
    clear = palette.copy()
    clear.info["transparency"] = 0
    grey = picture.convert("L")
    grey.info["transparency"] = 25
    bits = Image.fromarray(np.tile(np.array([[0, 255]], np.uint8), (8, 5))).convert("1")
    found = {}
    for name, image, kind in (
        ("p", palette, "PNG"),
        ("clear", clear, "PNG"),
        ("jpeg", picture, "JPEG"),
        ("webp", picture, "WEBP"),
        ("1", bits, "PNG"),
        ("grey", grey, "PNG"),
    ):
        image.save(tmp_path / name, kind)
        b = Builder()
        b.material(pbrMetallicRoughness={"baseColorTexture": {"index": b.texture((tmp_path / name).read_bytes())}})
        (m,) = loaded(b, tmp_path)
        assert m.base_color is not None
        found[name] = m.base_color.image
        assert (m.alpha is not None) == (name in ("clear", "grey"))
    assert {name: tuple(image.shape) for name, image in found.items()} == {
        "p": (8, 10, 3), "clear": (8, 10, 4), "jpeg": (8, 10, 3), "webp": (8, 10, 3), "1": (8, 10, 1), "grey": (8, 10, 2),
    }  # fmt: skip
    original = torch.from_numpy(np.array(picture)).int()
    assert (found["p"].int() - original).abs().max() <= 2
    assert (found["jpeg"].int() - original).abs().max() <= 12
    assert found["1"].unique().tolist() == [0, 255]


def test_external_and_embedded_images(tmp_path):
    b = Builder()
    b.mesh(b.triangle(material=0))
    b.material(pbrMetallicRoughness={"baseColorTexture": {"index": 0}}, normalTexture={"index": 1})
    content = image_bytes(RGBA)
    embedded = "data:image/png;base64," + base64.b64encode(content).decode()
    b.document |= {"textures": [{"source": 0}, {"source": 1}], "images": [{"uri": "a%20b.png"}, {"uri": embedded}]}
    b.document["buffers"] = [{"byteLength": len(b.binary), "uri": "a.bin"}]
    (tmp_path / "a.bin").write_bytes(b.binary)
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps(b.document))
    with pytest.warns(FileWarning, match="texture file 'a%20b.png' is missing"):
        (m,) = load_mesh(path).materials
    assert set(m.textures) == {"normal"}
    (tmp_path / "a b.png").write_bytes(content)
    (m,) = load_mesh(path).materials
    assert torch.equal(m.textures["base_color"].image, torch.from_numpy(RGBA))
    assert torch.equal(m.textures["normal"].image, torch.from_numpy(RGBA))
    assert (m.textures["base_color"].name, m.textures["normal"].name) == ("a%20b.png", "")


def test_specular_glossiness_gives_its_diffuse_part(tmp_path):
    b = Builder()
    glossy = {
        "diffuseFactor": [0.5, 0.25, 0.125, 0.75],
        "glossinessFactor": 0.75,
        "diffuseTexture": {"index": b.texture(image_bytes(RGBA))},
    }
    b.material(extensions={"KHR_materials_pbrSpecularGlossiness": glossy})
    with pytest.warns(FileWarning, match="diffuse colour and glossiness factor only"):
        (m,) = loaded(b, tmp_path)
    assert (m.base_color_factor, m.alpha_factor, m.metallic_factor, m.roughness_factor) == ((0.5, 0.25, 0.125), 0.75, 0.0, 0.25)
    assert set(m.textures) == {"base_color", "alpha"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda b: b.document["materials"][0].update(extensions={"KHR_materials_clearcoat": {}}),
            "KHR_materials_clearcoat, which is not read",
        ),
        (lambda b: b.document["textures"].__setitem__(0, {"extensions": {"KHR_texture_basisu": {"source": 0}}}), "no image in PNG"),
        (lambda b: b.document["materials"][0]["normalTexture"].update(texCoord=2), "TEXCOORD_2"),
    ],
)
def test_what_materials_lose_is_said(tmp_path, edit, message):
    b = Builder()
    b.material(normalTexture={"index": b.texture(image_bytes(RGBA))})
    edit(b)
    with pytest.warns(FileWarning, match=message):
        loaded(b, tmp_path)


def broken(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda b: b.document["materials"][0].update(alphaMode="GLASS"), FileFormatError, "alphaMode must be OPAQUE, MASK or BLEND"),
        (lambda b: b.document["materials"][0].update(alphaCutoff="0.5"), FileFormatError, "alphaCutoff must be a finite number"),
        (lambda b: b.document["materials"][0].update(doubleSided=1), FileFormatError, "doubleSided must be true or false"),
        (lambda b: b.document["materials"][0]["normalTexture"].update(index=4), FileFormatError, "refers to number 4"),
        (lambda b: b.document["textures"][0].update(source=4), FileFormatError, "refers to number 4"),
        (lambda b: b.document["textures"][0].update(sampler=4), FileFormatError, "refers to number 4"),
        (
            lambda b: b.document.update(samplers=[{"wrapS": 1}]) or b.document["textures"][0].update(sampler=0),
            FileFormatError,
            "wrapS must be",
        ),
        (lambda b: b.texture(broken(image_bytes(RGBA))) and b.document["textures"][0].update(source=1), FileFormatError, "cannot be read"),
        (lambda b: b.texture(b"GIF89a") and b.document["textures"][0].update(source=1), FileFormatError, "cannot be read"),
        (lambda b: b.texture(b"\0") and b.document["textures"][0].update(source=1), FileFormatError, "cannot be read"),
    ],
)
def test_materials_that_do_not_fit(tmp_path, edit, error, message):
    b = Builder()
    b.material(normalTexture={"index": b.texture(image_bytes(RGBA))})
    edit(b)
    with pytest.raises(error, match=message):
        loaded(b, tmp_path)


@pytest.mark.parametrize(("side", "error"), [(12_000, CapacityError), (30_000, FileFormatError)])
def test_decompression_bomb(tmp_path, side, error):
    """A few hundred bytes that declare a gigapixel: refused by the size of the file, or by Pillow's own limit."""
    content = bytearray(image_bytes(np.zeros((1, 1, 4), np.uint8)))
    content[16:24] = struct.pack(">II", side, side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    b = Builder()
    b.material(normalTexture={"index": b.texture(bytes(content))})
    with pytest.raises(error, match=r"a\.glb: image"):
        loaded(b, tmp_path)


def test_the_material_of_attributes_is_not_loaded_again(tmp_path):
    """Faces without a material are written with one to be seen by; loading gives them none again."""
    b = Builder()
    b.mesh(b.triangle())
    mesh = load_mesh(b.save(tmp_path / "a.glb"))
    save_mesh(mesh, tmp_path / "b.glb")
    again = load_mesh(tmp_path / "b.glb")
    assert (again.materials, again.face_material) == ((), None)
