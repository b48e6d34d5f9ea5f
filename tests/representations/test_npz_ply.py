"""Voxels in .npz and .ply: the original's files, round trips, hostile archives and headers, metadata."""

import io
import json
import random
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxgen.core import Frame
from voxgen.core.errors import DtypeError, DuplicateError, FileFormatError, RangeError, ShapeError
from voxgen.representations.ovoxel._metadata import Volume, volume_from_json, volume_to_json
from voxgen.representations.ovoxel._npz import read_npz, write_npz
from voxgen.representations.ovoxel._ply import read_voxel_ply, write_voxel_ply

GOLDEN = Path(__file__).parents[1] / "golden"
ARRAYS = dict(np.load(GOLDEN / "ovoxel_files.npz"))
FORMATS = {"npz": (write_npz, read_npz), "ply": (write_voxel_ply, read_voxel_ply)}
COORDS = torch.tensor([[5, 3, 3], [0, 0, 0], [1, 0, 65535]], dtype=torch.int32)
ATTRIBUTES = {"v": torch.tensor([[1, 2], [3, 4], [5, 6]], dtype=torch.uint8), "w.x-y_0": torch.tensor([[0.5], [1e-30], [-7.25]])}


def written(kind: str, metadata: dict | None = None) -> bytes:
    file = io.BytesIO()
    FORMATS[kind][0](file, COORDS, ATTRIBUTES, metadata=metadata)
    return file.getvalue()


def archive(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=True, **arrays)
    return file.getvalue()


def members(**contents: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in contents.items():
            target.writestr(f"{name}.npy", content)
    return file.getvalue()


def array_bytes(header: str, body: bytes, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode() + body


def assert_refused(kind: str, data: bytes, message: str | None = None) -> None:
    with pytest.raises(FileFormatError, match=message) as caught:
        FORMATS[kind][1](io.BytesIO(data))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", FORMATS)
def test_files_of_the_original(kind) -> None:
    found = FORMATS[kind][1](io.BytesIO(ARRAYS[f"file_{kind}"].tobytes()))
    assert found.metadata is None
    assert found.coords.dtype == torch.int32
    # the original wrote the first 12 rows of the input
    coords = ARRAYS["in_coords"][:12, 1:]
    order = np.lexsort(coords.T[::-1])
    assert np.array_equal(found.coords.numpy(), coords[order])
    assert np.array_equal(found.attributes["vertices"].numpy(), ARRAYS["in_vertices"][:12][order])
    assert np.array_equal(found.attributes["intersected"].numpy(), ARRAYS["in_intersected"][:12][order])


def test_ply_is_that_of_the_original_byte_for_byte() -> None:
    file = io.BytesIO()
    attributes = {name: torch.from_numpy(ARRAYS[f"in_{name}"][:12]) for name in ("vertices", "intersected")}
    write_voxel_ply(file, torch.from_numpy(ARRAYS["in_coords"][:12, 1:]), attributes)
    assert file.getvalue() == ARRAYS["file_ply"].tobytes()


@settings(deadline=None, max_examples=60)
@given(
    cells=st.sets(st.tuples(*[st.integers(0, 65535)] * 3), max_size=12),
    widths=st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=4),
    metadata=st.one_of(
        st.none(), st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.floats(-2, 2), st.text(max_size=9)), max_size=3)
    ),
    kind=st.sampled_from(list(FORMATS)),
    seed=st.integers(0, 99),
)
def test_there_and_back(cells, widths, metadata, kind, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    coords = torch.tensor(list(cells), dtype=torch.int32).reshape(-1, 3)
    attributes = {}
    for i, (width, is_float) in enumerate(widths):
        value = torch.randint(0, 256, (len(coords), width), generator=generator)
        attributes[f"a_{i}"] = (value / 7).float() if is_float else value.to(torch.uint8)
    write, read = FORMATS[kind]
    file = io.BytesIO()
    write(file, coords, attributes, metadata=metadata)
    file.seek(0)
    found = read(file)
    order = torch.from_numpy(np.lexsort(coords.numpy().T[::-1]).copy())
    assert torch.equal(found.coords, coords[order])
    assert list(found.attributes) == list(attributes)
    for name, value in attributes.items():
        assert found.attributes[name].dtype == value.dtype
        assert torch.equal(found.attributes[name], value[order])
    assert found.metadata == ({} if kind == "npz" and metadata is None else metadata)
    again = io.BytesIO()
    write(again, coords.flip(0), {name: value.flip(0) for name, value in attributes.items()}, metadata=metadata)
    if kind == "npz":
        assert again.getvalue() == file.getvalue()
    again.seek(0)
    assert torch.equal(read(again).coords, found.coords)


@pytest.mark.parametrize("kind", FORMATS)
def test_paths(kind, tmp_path) -> None:
    write, read = FORMATS[kind]
    path = tmp_path / f"a.{kind}"
    write(path, COORDS, ATTRIBUTES)
    assert torch.equal(read(str(path)).coords, COORDS[[1, 2, 0]])
    with pytest.raises(FileFormatError, match=f"a.{kind}: has .* max_bytes is 10"):
        read(path, max_bytes=10)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing")
    with pytest.raises(DtypeError, match="binary mode"):
        read(io.StringIO("x"))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("coords", "attributes", "error", "message"),
    [
        (COORDS[[0, 0, 1]], ATTRIBUTES, DuplicateError, r"rows 0 and 1 = \[5, 3, 3\]"),
        (-COORDS, ATTRIBUTES, RangeError, r"\[0, 65536\)"),
        (COORDS.float(), ATTRIBUTES, DtypeError, "int32"),
        (COORDS, {}, ShapeError, "at least one"),
        (COORDS, {"a b": ATTRIBUTES["v"]}, RangeError, "names of attributes"),
        (COORDS, {"a\n": ATTRIBUTES["v"]}, RangeError, "names of attributes"),
        (COORDS, {"v": ATTRIBUTES["v"].double()}, DtypeError, "uint8 or float(16|32)"),
        (COORDS, {"v": ATTRIBUTES["v"][:2]}, ShapeError, r"\(3, c\)"),
    ],
)
def test_bad_arguments_raise_before_a_file_is_made(kind, coords, attributes, error, message, tmp_path) -> None:
    with pytest.raises(error, match=message):
        FORMATS[kind][0](tmp_path / "a", coords, attributes)
    with pytest.raises(DtypeError, match="JSON"):
        FORMATS[kind][0](tmp_path / "a", COORDS, ATTRIBUTES, metadata={"a": float("inf")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_cut_off_anywhere(kind) -> None:
    data = written(kind, {"note": "x"})
    for length in range(len(data)):
        assert_refused(kind, data[:length])


@pytest.mark.parametrize("kind", FORMATS)
def test_flipped_bits(kind) -> None:
    """Archives have checksums, so a flip that matters is found; a .ply has none, but still gives whole rows."""
    data, chance = written(kind, {"note": "x"}), random.Random(3)
    found = 0
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 5))):
            changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            result = FORMATS[kind][1](io.BytesIO(changed))
        except FileFormatError:
            found += 1
        else:
            assert result.coords.shape[1] == 3
            assert all(len(value) == len(result.coords) for value in result.attributes.values())
            assert kind == "ply" or torch.equal(result.coords, COORDS[[1, 2, 0]])
    assert found > 100


# npz


GOOD = {"format": np.array("voxgen-ovoxel"), "version": np.array(1), "metadata": np.frombuffer(b"{}", np.uint8)}
GOOD |= {"coords": np.zeros((1, 3), "<u2"), "attributes.v": np.zeros((1, 1), np.uint8)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": np.array("other")}, "format must be 'voxgen-ovoxel'; got 'other'"),
        ({"format": np.array(["voxgen-ovoxel"])}, "format must be"),
        ({"version": np.array(2)}, "version 2; this voxgen reads version 1"),
        ({"version": np.array(1.0)}, "version"),
        ({"coords": np.zeros((1, 3), np.int32)}, r"coordinates must be \(n, 3\) uint16; got \(1, 3\) int32"),
        ({"coords": np.zeros(3, "<u2")}, "coordinates must be"),
        ({"coords": np.zeros((2, 3), "<u2")}, "'v' must be"),
        ({"coords": np.zeros((2, 3), "<u2"), "attributes.v": np.zeros((2, 1), np.uint8)}, "coords must be unique"),
        ({"attributes.v": np.zeros((2, 1), np.uint8)}, r"'v' must be \(1, c\) uint8, float16 or float32; got \(2, 1\)"),
        ({"attributes.v": np.zeros((1, 1))}, "float16 or float32; got .* float64"),
        ({"attributes.v": np.zeros((1, 1), ">f4")}, "float16 or float32"),
        ({"attributes.v": np.array([[{}]])}, "must hold numbers"),
        ({"attributes.v": np.zeros(1, [("a", "u1")])}, "must hold numbers"),
        ({"attributes.v": np.zeros((1, 1, 1), np.uint8)}, "at most two"),
        ({"metadata": np.array("{}")}, "metadata must be"),
        ({"metadata": np.frombuffer(b"[]", np.uint8)}, "metadata must be a JSON object"),
        ({"metadata": np.frombuffer(b'{"a": NaN}', np.uint8)}, "NaN is no number"),
        ({"v": np.zeros(1)}, r"does not know: \['v'\]"),
        ({"coords": None}, "missing: coords"),
        ({"format": None}, "must hold an array 'coord'"),
    ],
)
def test_archives_that_are_not_ours(change, message) -> None:
    assert read_npz(io.BytesIO(archive(**GOOD))).coords.tolist() == [[0, 0, 0]]
    assert_refused("npz", archive(**{name: value for name, value in (GOOD | change).items() if value is not None}), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no .npy array"),
        (b"\x93NUMPY\x09\x00\x05\x00", "no .npy array"),
        (
            array_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1000000000)}", b""),
            "takes 1000000000000000000 bytes; it has 0",
        ),
        (array_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 3)}", b""), "its shape must be"),
        (array_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (1.5, 3)}", b""), "its shape must be"),
        (array_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': 3}", b"123"), "its shape must be"),
        (array_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (3,)}", b"12"), "takes 3 bytes; it has 2"),
        (array_bytes("{'descr': '|u1', 'fortran_order': False, 'shape': (3,)}", b"1234"), "takes 3 bytes; it has 4"),
        (array_bytes("{'descr': '|u1', 'fortran_order': 0, 'shape': (3,)}", b"123"), "must hold numbers"),
        (array_bytes("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"12345678"), "must hold numbers"),
        (array_bytes("{'descr': '<u3', 'fortran_order': False, 'shape': (1,)}", b"123"), "must hold numbers"),
        (array_bytes("{'descr': '<U0', 'fortran_order': False, 'shape': (9,)}", b""), "damaged"),
        (array_bytes("{'descr': '|u1'}", b""), "header is damaged"),
        (array_bytes("[1, 2", b""), "header is damaged"),
        (array_bytes("(" * 9000, b""), "header is damaged"),
        (array_bytes("__import__('os')", b""), "header is damaged"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "no .npy array"),
    ],
)
def test_arrays_that_lie(content, message) -> None:
    assert_refused("npz", members(coord=content), message)


def test_archives_that_lie(tmp_path) -> None:
    assert_refused("npz", b"", "archive is damaged")
    assert_refused("npz", b"PK\x05\x06" + bytes(18), "'coord'")
    assert_refused("npz", members(coord=array_bytes("{'descr': '<u2', 'fortran_order': False, 'shape': (0, 3)}", b""))[:-30], "damaged")
    bomb = members(coord=bytes(60_000_000))
    assert len(bomb) < 100_000
    with pytest.raises(FileFormatError, match="announces 60000000 bytes; max_bytes is 1000000"):
        read_npz(io.BytesIO(bomb), max_bytes=1_000_000)
    small = bomb.replace((60_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little"))  # the sizes lie in both of its headers
    assert_refused("npz", small, "damaged")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as target:
        target.writestr("coord.npy", b"123")
    assert_refused("npz", file.getvalue(), "stored or deflated")
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as target:
        target.writestr("coord.npy", b"1")
        target.writestr("coord", b"1")
    assert_refused("npz", twice.getvalue(), "two arrays have one name")


def test_arrays_in_fortran_order() -> None:
    arrays = {"coord": np.asfortranarray([[1, 2, 3], [0, 5, 6]], "<u2"), "v": np.asfortranarray([[1, 2], [3, 4]], np.uint8)}
    found = read_npz(io.BytesIO(archive(**arrays)))
    assert found.coords.tolist() == [[0, 5, 6], [1, 2, 3]]
    assert found.attributes["v"].tolist() == [[3, 4], [1, 2]]


# ply


def ply(*lines: str, body: bytes = b"") -> bytes:
    return "\n".join(["ply", *lines, "end_header\n"]).encode() + body


BINARY = "format binary_little_endian 1.0"
XYZ = ("property float x", "property float y", "property float z")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no .ply file"),
        (b"ply\n" + b"x" * 1000, "'end_header' is missing"),
        (ply(), "format must be"),
        (ply("format ascii 1.0", "element vertex 0", *XYZ), "binary_little_endian 1.0; got 'format ascii"),
        (ply(BINARY), "element vertex COUNT"),
        (ply(BINARY, "element face 1"), "element vertex COUNT"),
        (ply(BINARY, "element vertex -1", *XYZ), "element vertex COUNT"),
        (ply(BINARY, "element vertex 1e3", *XYZ), "element vertex COUNT"),
        (ply(BINARY, "element vertex " + "9" * 5000, *XYZ), "element vertex COUNT"),
        (ply(BINARY, "element vertex 999999999999999", *XYZ), "999999999999999 vertices of 12 bytes need"),
        (ply(BINARY, "element vertex 1", *XYZ, body=bytes(11)), "need 12 bytes; 11 follow"),
        (ply(BINARY, "element vertex 1", *XYZ, body=bytes(13)), "need 12 bytes; 13 follow"),
        (ply(BINARY, "element vertex 0", "property double x"), "got 'property double x'. A mesh"),
        (ply(BINARY, "element vertex 0", "property list uchar int vertex_indices"), "A mesh"),
        (ply(BINARY, "element vertex 0", *XYZ, "element face 0"), "A mesh"),
        (ply(BINARY, "element vertex 0", *XYZ[:2]), "first properties must be"),
        (ply(BINARY, "element vertex 0", *XYZ[::-1]), "first properties must be"),
        (ply(BINARY, "element vertex 0", "property uchar x", *XYZ[1:]), "first properties must be"),
        (ply(BINARY, "element vertex 0", *XYZ, "property float nx"), "NAME_0, NAME_1"),
        (ply(BINARY, "element vertex 0", *XYZ, "property uchar v_1"), "from 0 up"),
        (ply(BINARY, "element vertex 0", *XYZ, "property uchar v_0", "property uchar v_0"), "from 0 up"),
        (ply(BINARY, "element vertex 0", *XYZ, "property uchar v_00"), "NAME_0, NAME_1"),
        (ply(BINARY, "element vertex 0", *XYZ, "property uchar v_0", "property float v_1"), "of one type"),
        (ply(BINARY, "element vertex 0", *XYZ, "property uchar v_0", "property uchar w_0", "property uchar v_1"), "follow each other"),
        (ply(BINARY, "element vertex 0", *XYZ, "property uchar _0"), "NAME_0, NAME_1"),
        (ply(BINARY, "comment voxgen {", "element vertex 0", *XYZ), "the voxgen comment is not ASCII JSON"),
        (ply(BINARY, "comment ä", "element vertex 0", *XYZ), "not ASCII"),
        *(
            (ply(BINARY, "element vertex 1", *XYZ, body=np.array([0, value, 0], "<f4").tobytes()), "whole numbers in")
            for value in (0.5, -1, 65536, np.nan, np.inf, -np.inf)
        ),
        (ply(BINARY, "element vertex 2", *XYZ, body=bytes(24)), "coords must be unique"),
    ],
    ids=range(34),
)
def test_ply_headers_that_lie(data, message) -> None:
    assert_refused("ply", data, message)


def test_ply_comments_are_passed_over() -> None:
    data = ply("comment made by hand", BINARY, "obj_info x", "comment", "element vertex 1", *XYZ, body=bytes(12))
    found = read_voxel_ply(io.BytesIO(data))
    assert (found.coords.tolist(), found.attributes, found.metadata) == ([[0, 0, 0]], {}, None)


# metadata


FRAME = Frame((-0.5, 0.1, 2.0), (0.25, 1 / 3, 1e-7), "z")


def test_metadata_there_and_back() -> None:
    volume = Volume((64, 32, 65536), FRAME, "round", {"color_space": "srgb"})
    text = json.dumps(volume_to_json(volume), allow_nan=False)
    assert volume_from_json("here", json.loads(text)) == volume
    assert volume_from_json("here", {**json.loads(text), "crc32": 5}) == volume
    for extra, quantizer in (({"up": "y"}, "round"), ({}, "floor")):
        with pytest.raises(RangeError, match="quantizer must be"):
            volume_to_json(Volume((1, 1, 1), FRAME, quantizer, extra))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": True},
        {"version": "1"},
        {"resolution": [0, 1, 1]},
        {"resolution": [1, 1]},
        {"resolution": [1.0, 1, 1]},
        {"resolution": 65537},
        {"resolution": None},
        {"resolution": [10**400, 1, 1]},
        {"origin": [0, 0]},
        {"origin": ["0", 0, 0]},
        {"origin": [10**400, 0, 0]},
        {"origin": None},
        {"voxel_size": [0, 1, 1]},
        {"voxel_size": [-1, 1, 1]},
        {"voxel_size": [True, 1, 1]},
        {"up": "x"},
        {"up": ["y"]},
        {"quantizer": "floor"},
        {"quantizer": ["round"]},
        *({key: ...} for key in ("version", "resolution", "origin", "voxel_size", "up", "quantizer")),
    ],
)
def test_metadata_that_lie(change) -> None:
    table = {**volume_to_json(Volume((4, 4, 4), FRAME, "round", {})), **change}
    with pytest.raises(FileFormatError, match=re.escape("here: metadata")):
        volume_from_json("here", {key: value for key, value in table.items() if value is not ...})
