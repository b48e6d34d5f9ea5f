"""Truncated, flipped and hostile files: an error of voxgen or a mesh; no other exception, no hang, no huge memory."""

from __future__ import annotations

import json
import random
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from glb_builder import Builder, image_bytes, pack_glb

from voxgen.core import Material, Texture, TriMesh
from voxgen.core.errors import CapacityError, DtypeError, FileFormatError, FileWarning, MeshError, RangeError, VoxgenError
from voxgen.io import load_mesh, save_mesh
from voxgen.testing.shapes import wavy_sheet

resource = pytest.importorskip("resource", reason="memory is measured as POSIX systems do")
SUFFIXES = [".glb", ".gltf", ".ply", ".obj", ".stl", ".off"]
pytestmark = pytest.mark.filterwarnings("ignore::voxgen.core.errors.FileWarning")


def sample() -> TriMesh:
    """Small, and with everything that a file can have: parts that share vertices, a texture, attributes, both uv sets."""
    sheet = wavy_sheet(4)
    image = torch.arange(4 * 4 * 4, dtype=torch.uint8).reshape(4, 4, 4)
    material = Material("m", base_color=Texture(image, (0, 1, 2), srgb=True), alpha=Texture(image, (3,)), alpha_mode="BLEND")
    return sheet.replace(
        uv1=sheet.uv,
        normals=sheet.vertex_normals(),
        attributes={"color": torch.rand(16, 3), "wide": torch.rand(16, 6)},
        materials=(material,),
        part_names=("a", "b"),
        face_part=torch.arange(sheet.num_faces) % 2,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("files")
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FileWarning)
        for suffix in SUFFIXES:
            save_mesh(sample(), folder / f"a{suffix}")
            found[suffix] = (folder / f"a{suffix}").read_bytes()
    return found


def outcome(path: Path, content: bytes) -> TriMesh | None:
    """The mesh, or None if an error of voxgen says why not. Anything else fails the test."""
    path.write_bytes(content)
    try:
        return load_mesh(path).validate()
    except VoxgenError as error:
        if path.name not in str(error):
            raise AssertionError("the message must name the file") from error
        return None


@pytest.fixture(autouse=True)
def _limits() -> Iterator[None]:
    """No file of a few kilobytes may take more than 1 GiB of memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20


def test_truncated_glb_at_every_cut(tmp_path, files):
    content = files[".glb"]
    cuts = sorted({0, 1, 3, 4, 8, 11, 12, 16, 19, 20, len(content) - 1, *np.linspace(21, len(content) - 2, 200).astype(int).tolist()})
    assert len(cuts) > 200
    for cut in cuts:
        path = tmp_path / "cut.glb"
        path.write_bytes(content[:cut])
        with pytest.raises(FileFormatError, match=r"cut\.glb.*(truncated|empty|not a glTF)"):
            load_mesh(path)


@pytest.mark.parametrize("suffix", [".gltf", ".ply", ".stl"])
def test_other_truncated_files(tmp_path, files, suffix):
    content = files[suffix]
    for cut in np.linspace(0, len(content) - 1, 60).astype(int).tolist():
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(content[:cut])
        with pytest.raises(FileFormatError, match=r"cut\."):
            load_mesh(path)


@pytest.mark.parametrize("suffix", [".obj", ".off"])
def test_truncated_text_files(tmp_path, files, suffix):
    """A text cut between two lines of faces is a sound OBJ; nothing but a mesh or an error of voxgen may come."""
    content = files[suffix]
    found = [outcome(tmp_path / f"cut{suffix}", content[:cut]) for cut in np.linspace(1, len(content) - 1, 80).astype(int).tolist()]
    assert None in found


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("seed", range(2))
def test_flipped_bits(tmp_path, files, suffix, seed):
    content, chance = files[suffix], random.Random(seed)
    found = []
    for _ in range(200 if suffix == ".glb" else 60):
        broken = bytearray(content)
        for _ in range(chance.choice((1, 1, 1, 2, 5, 20))):
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        found.append(outcome(tmp_path / f"flipped{suffix}", bytes(broken)))
    assert any(mesh is not None for mesh in found), "some flips change a number only"
    if suffix != ".stl":  # a flipped STL is another STL
        assert any(mesh is None for mesh in found)


def test_flipped_json(tmp_path, files):
    """All flips in the JSON part, where every number and key decides about the rest."""
    content, chance = files[".glb"], random.Random(5)
    (size,) = struct.unpack_from("<I", content, 12)
    for _ in range(300):
        broken = bytearray(content)
        place = 20 + chance.randrange(size)
        broken[place] = chance.choice((broken[place] ^ (1 << chance.randrange(8)), ord("9"), ord("-"), ord('"'), ord("[")))
        outcome(tmp_path / "flipped.glb", bytes(broken))


@pytest.mark.parametrize("offset", [4, 8, 12, 16])
@pytest.mark.parametrize("value", [0, 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_container_fields(tmp_path, files, offset, value):
    content = bytearray(files[".glb"])
    struct.pack_into("<I", content, offset, value)
    assert outcome(tmp_path / "a.glb", bytes(content)) is None


def test_chunk_that_leaves_the_file(tmp_path):
    content = bytearray(pack_glb(b'{"asset":{"version":"2.0"}}', bytes(8)))
    struct.pack_into("<I", content, len(content) - 16, 2**31)
    (tmp_path / "a.glb").write_bytes(content)
    with pytest.raises(FileFormatError, match=r"declares 2,147,483,648 bytes, and 8 are left"):
        load_mesh(tmp_path / "a.glb")


def test_zeros_that_no_byte_stands_for(tmp_path):
    """An accessor without a buffer view is all zero, however many it declares."""
    b = Builder()
    b.document["accessors"] = [{"componentType": 5126, "count": 2**36, "type": "VEC3"}]
    b.mesh({"attributes": {"POSITION": 0}})
    with pytest.raises(CapacityError, match=r"accessors\[0\], 68,719,476,736 zeros"):
        load_mesh(b.save(tmp_path / "a.glb"))


def test_instances_without_end(tmp_path):
    """Ten bytes of JSON repeat a whole mesh."""
    b = Builder()
    points = np.random.default_rng(0).random((60_000, 3)).astype(np.float32)
    b.mesh({"attributes": {"POSITION": b.accessor(points)}, "indices": b.accessor(np.arange(60_000, dtype=np.uint32))})
    b.document["nodes"] = [{"mesh": 0, "translation": [i, 0, 0]} for i in range(20_000)]
    with pytest.raises(CapacityError, match="times the size of the file"):
        load_mesh(b.save(tmp_path / "a.glb"))


def test_deep_nodes_and_deep_json(tmp_path):
    b = Builder()
    b.mesh(b.triangle())
    b.document["nodes"] = [{"children": [i + 1]} for i in range(20_000)] + [{"mesh": 0}]
    assert load_mesh(b.save(tmp_path / "a.glb")).num_faces == 1
    (tmp_path / "b.glb").write_bytes(pack_glb(b'{"a":' * 50_000))
    with pytest.raises(FileFormatError, match="JSON"):
        load_mesh(tmp_path / "b.glb")


def test_numbers_of_thousands_of_digits(tmp_path):
    (tmp_path / "a.glb").write_bytes(pack_glb(b'{"asset":{"version":"2.0"},"scene":' + b"9" * 10_000 + b"}"))
    with pytest.raises(FileFormatError, match="JSON"):
        load_mesh(tmp_path / "a.glb")
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 " + "9" * 10_000)
    with pytest.raises(FileFormatError, match="whole numbers that fit"):
        load_mesh(tmp_path / "a.obj")
    (tmp_path / "a.ply").write_text("ply\nformat ascii 1.0\nelement vertex " + "9" * 10_000 + "\nend_header\n")
    with pytest.raises(FileFormatError, match="not one that PLY knows"):
        load_mesh(tmp_path / "a.ply")


@pytest.mark.parametrize(
    "uri", ["/dev/zero", "../../../../../../dev/zero", "http://localhost/x.png", "a\0b", "x" * 5000, "\ud800", "", "."]
)
def test_names_of_files_that_are_none(tmp_path, uri):
    """Devices and addresses are not opened; a texture is missing, a buffer an error."""
    b = Builder()
    b.mesh(b.triangle(material=0))
    b.material(normalTexture={"index": 0})
    b.document |= {"textures": [{"source": 0}], "images": [{"uri": uri}]}
    with pytest.warns(FileWarning, match="is missing"):
        assert load_mesh(b.save(tmp_path / "a.glb")).materials[0].textures == {}
    b.document["buffers"] = [{"byteLength": 10, "uri": uri}]
    (tmp_path / "b.glb").write_bytes(pack_glb(json.dumps(b.document).encode()))
    with pytest.raises(FileFormatError, match="there is no file"):
        load_mesh(tmp_path / "b.glb")


def test_flipped_images(tmp_path):
    """Pictures broken in every way that a decoder can trip over."""
    picture = np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)
    chance = random.Random(1)
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TGA", "TIFF"):
        content = image_bytes(picture, kind)
        for _ in range(60):
            broken = bytearray(content)
            for _ in range(chance.choice((1, 3, 10))):
                broken[chance.randrange(min(len(broken), 400))] ^= 1 << chance.randrange(8)
            b = Builder()
            b.mesh(
                b.triangle(
                    material=b.material(normalTexture={"index": b.texture(bytes(broken[: chance.choice((len(broken), len(broken) // 2))]))})
                )
            )
            outcome(tmp_path / "a.glb", b.glb())


def test_files_that_are_none(tmp_path):
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix}"
        with pytest.raises(FileNotFoundError, match=r"load_mesh: there is no file .*check the spelling"):
            load_mesh(path)
        path.write_bytes(b"")
        with pytest.raises(FileFormatError, match="the file is empty"):
            load_mesh(path)
        path.unlink()
        path.mkdir()
        with pytest.raises(IsADirectoryError, match="is a folder"):
            load_mesh(path)
    with pytest.raises(FileFormatError, match=r"must end in one of .*; got 'a\.fbx'"):
        load_mesh(tmp_path / "a.fbx")
    (tmp_path / "null.glb").symlink_to("/dev/null")
    with pytest.raises(FileFormatError, match="not a regular file"):
        load_mesh(tmp_path / "null.glb")
    b = Builder()
    b.mesh(b.triangle(mode=0))
    with pytest.raises(MeshError, match="no face"):
        load_mesh(b.save(tmp_path / "points.glb"))


def test_odd_numbers_and_records(tmp_path, files):
    """Cases that a fuzzing loop found."""
    b = Builder()
    primitive = b.triangle()
    signalling = np.full((3, 2), 0x7F800001, np.uint32).view(np.float32)  # a NaN that complains when it is computed with
    primitive["attributes"]["TEXCOORD_0"] = b.accessor(signalling)
    b.mesh(primitive)
    assert load_mesh(b.save(tmp_path / "nan.glb")).uv.tolist() == [[0, 0]] * 3
    repeated = files[".ply"].replace(b'"wide_0", "wide_1"', b'"wide_0", "wide_0"')
    assert repeated != files[".ply"]
    assert "wide_0" not in outcome(tmp_path / "repeated.ply", repeated).attributes
    assert outcome(tmp_path / "digit.ply", b"ply\nformat ascii 1.0\nelement vertex \xb2\nend_header\n") is None
    b = Builder()
    b.mesh(b.triangle(), scale=[1e200, 1, 1])
    b.document["nodes"].append({"children": [0], "scale": [1e200, 1, 1]})
    assert outcome(tmp_path / "overflow.glb", b.glb()) is None


def test_arguments():
    with pytest.raises(DtypeError, match="path must be a text or a path"):
        load_mesh(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="up must be one of 'y', 'z'"):
        load_mesh("a.glb", up="x")  # pyright: ignore[reportArgumentType]
