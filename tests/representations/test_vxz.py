"""The .vxz format: the original's files byte for byte, its octree and filters against definitions, every option both ways."""

import io
import itertools
import json
import lzma
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from voxgen.core.errors import DtypeError, DuplicateError, RangeError, ShapeError
from voxgen.ops.space_curve import encode_z_order
from voxgen.representations.ovoxel._filters import add, neighbor_plan, parent_plan, subtract
from voxgen.representations.ovoxel._octree import decode_octree, encode_octrees
from voxgen.representations.ovoxel._rows import lexicographic
from voxgen.representations.ovoxel._vxz import read_vxz, read_vxz_header, write_vxz

GOLDEN = Path(__file__).parents[1] / "golden"
ARRAYS = dict(np.load(GOLDEN / "ovoxel_files.npz"))
CASES = json.loads((GOLDEN / "ovoxel_files.json").read_text())["cases"]
ATTRIBUTES = {"material": ["base_color", "metallic", "roughness", "alpha"], "wide": ["q"]}
OPTION = {"attr_interleave": "interleave", "compression_level": "level"}
UNPACK = {
    "none": lambda data: data,
    "deflate": lambda data: zlib.decompress(data, -15),
    "lzma": lambda data: lzma.decompress(data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}]),
    "zstd": lambda data: zstandard.ZstdDecompressor().decompress(data),
}


def golden_input(name: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    prefix = "in_wide_" if name == "wide" else "in_"
    names = ATTRIBUTES.get(name, ["vertices", "intersected"])
    coords = torch.from_numpy(ARRAYS[f"{prefix}coords"])[:, 1:]
    return coords, {n: torch.from_numpy(ARRAYS[f"{prefix}{n}"]) for n in names}


def in_order(coords: torch.Tensor, attributes: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    rows = torch.from_numpy(np.lexsort(coords.numpy().T[::-1]).copy())
    return coords[rows], {name: value[rows] for name, value in attributes.items()}


def assert_holds(file: io.BytesIO | Path, coords: torch.Tensor, attributes: dict[str, torch.Tensor], **options) -> None:
    found = read_vxz(file, **options)
    coords, attributes = in_order(coords, attributes)
    assert found.coords.dtype == torch.int32
    assert torch.equal(found.coords, coords.int())
    assert list(found.attributes) == list(attributes)
    for name, value in attributes.items():
        assert torch.equal(found.attributes[name], value), name


def split(data: bytes) -> tuple[dict, list[bytes]]:
    """Header without sizes, and every stream unpacked: what must agree whatever version a compressor has."""
    start = int.from_bytes(data[4:8], "big")
    header, binary = json.loads(data[8:start]), data[start:]
    streams = []
    for chunk in header["chunks"]:
        first = chunk["ptr"][0]
        for key in chunk.keys() - {"idx", "ptr"}:
            offset, length = chunk[key]
            streams.append((tuple(chunk["idx"]), key, UNPACK[header["compression"]](binary[first + offset : first + offset + length])))
    outline = {key: value for key, value in header.items() if key not in ("chunks", "compressed_size", "compress_ratio")}
    return outline, sorted(streams)


@pytest.mark.parametrize("name", CASES)
def test_files_of_the_original(name) -> None:
    original = ARRAYS[f"file_{name}"].tobytes()
    coords, attributes = golden_input(name)
    assert_holds(io.BytesIO(original), coords, attributes)
    ours = io.BytesIO()
    write_vxz(ours, coords, attributes, **{OPTION.get(key, key): value for key, value in CASES[name]["written_with"].items()})
    assert split(ours.getvalue()) == split(original)
    if CASES[name]["header"]["compression"] == "none":  # other bytes may differ with the version of the compressor's library
        assert ours.getvalue() == original


@pytest.mark.parametrize("name", ["geometry", "material", "wide"])
def test_files_of_the_original_by_path(name) -> None:
    path = GOLDEN / f"ovoxel_{name}.vxz"
    assert_holds(path, *golden_input(name), threads=2)
    assert read_vxz_header(str(path)) == read_vxz(path).header
    assert read_vxz_header(path)["num_voxel"] == CASES[name]["header"]["num_voxel"]


def test_order_inside_a_file_is_that_of_the_original() -> None:
    """Rows of an uncompressed file as they stand: chunks in lexicographic order, Z-order inside."""
    coords, attributes = golden_input("none_none_as_is")
    file = io.BytesIO()
    write_vxz(file, coords.flip(0), {n: v.flip(0) for n, v in attributes.items()}, compression="none", chunk_size=16)
    data = file.getvalue()
    start = int.from_bytes(data[4:8], "big")
    rows = []
    for chunk in json.loads(data[8:start])["chunks"]:
        first, (offset, length) = start + chunk["ptr"][0], chunk["vertices"]
        rows.append(np.frombuffer(data[first + offset : first + offset + length], np.uint8).reshape(-1, 3))
    assert np.array_equal(np.concatenate(rows), ARRAYS["chunk16_vertices"])


def test_a_file_worked_out_by_hand() -> None:
    coords = torch.tensor([[2, 1, 0], [0, 0, 0], [5, 3, 3], [1, 0, 0]], dtype=torch.int32)
    v = torch.tensor([[10, 11], [20, 21], [30, 31], [40, 41]], dtype=torch.uint8)
    f = torch.tensor([[1], [2], [3], [4]], dtype=torch.uint8)
    file = io.BytesIO()
    write_vxz(file, coords, {"v": v, "f": f}, chunk_size=4, compression="none")
    data = file.getvalue()
    assert data[:8].hex() == "56585a0000000197"
    assert list(data[0x197:]) == [17, 17, 4, 20, 21, 40, 41, 10, 11, 2, 4, 1, 8, 128, 30, 31, 3]
    found = read_vxz(io.BytesIO(data))
    assert found.coords.tolist() == [[0, 0, 0], [1, 0, 0], [2, 1, 0], [5, 3, 3]]
    assert found.attributes["f"][:, 0].tolist() == [2, 4, 1, 3]


# octree and filters alone


def octree_of(codes: list[int], depth: int) -> list[int]:
    """The definition, recursively."""
    if depth == 0:
        return []
    children: dict[int, list[int]] = {}
    for code in codes:
        children.setdefault(code >> 3 * (depth - 1), []).append(code & (8 ** (depth - 1) - 1))
    below = [octree_of(inner, depth - 1) for _, inner in sorted(children.items())]
    return [sum(1 << c for c in children), *(node for nodes in below for node in nodes)]


def parent_rows(codes: list[int], values: list[int], depth: int) -> list[int]:
    """Filter "parent", recursively: the differences of a node's later children, then those of the children's own nodes."""
    if depth == 0:
        return []
    children: dict[int, list[int]] = {}
    for row, code in enumerate(codes):
        children.setdefault(code >> 3 * (depth - 1), []).append(row)
    groups = [rows for _, rows in sorted(children.items())]
    firsts = [values[rows[0]] for rows in groups]
    out = [(b - a) % 256 for a, b in itertools.pairwise(firsts)]
    for rows in groups:
        out += parent_rows([codes[r] & (8 ** (depth - 1) - 1) for r in rows], [values[r] for r in rows], depth - 1)
    return out


def neighbor_rows(coords: list[tuple[int, int, int]], values: list[int], size: int) -> list[int]:
    """Filter "neighbor" by its priority list, the last existing neighbour counts."""
    known = dict(zip(coords, values, strict=True))
    steps = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)]
    out = []
    for cell, value in zip(coords, values, strict=True):
        predicted = 0
        for step in steps:
            other = (cell[0] - step[0], cell[1] - step[1], cell[2] - step[2])
            if other in known and all(a // size == b // size for a, b in zip(cell, other, strict=True)):
                predicted = known[other]
        out.append((value - predicted) % 256)
    return out


def test_octree_and_filters_of_the_original() -> None:
    codes, offsets = ARRAYS["octree_codes"], np.array([0, len(ARRAYS["octree_codes"])])
    octrees = encode_octrees(codes, offsets, 6)
    assert np.array_equal(octrees.nodes, ARRAYS["octree_bytes"])
    assert np.array_equal(decode_octree("here", octrees.nodes.tobytes(), 6, len(codes)), codes)
    coords = ARRAYS["decoded_coords"][:, 1:]
    assert np.array_equal(encode_z_order(torch.from_numpy(coords)).numpy(), codes)
    values = np.concatenate([ARRAYS["decoded_vertices"], ARRAYS["decoded_intersected"]], 1)
    for plan, name in (
        (parent_plan(codes, offsets, octrees.nodes, 6), "octree_parent"),
        (neighbor_plan(*lexicographic(coords), 64), "octree_neighbor"),
    ):
        assert np.array_equal(subtract(values, plan), ARRAYS[name])
        assert np.array_equal(add(ARRAYS[name], plan), values)


def test_octree_and_filters_worked_out_by_hand() -> None:
    coords = np.array([[0, 0, 0], [1, 0, 0], [2, 1, 0], [3, 3, 3]], np.int32)
    codes, offsets = encode_z_order(torch.from_numpy(coords)).numpy(), np.array([0, 4])
    assert codes.tolist() == [0, 4, 34, 63]
    octrees = encode_octrees(codes, offsets, 2)
    assert octrees.nodes.tolist() == [145, 17, 4, 128]
    values = np.array([[10], [13], [40], [44]], np.uint8)
    assert subtract(values, parent_plan(codes, offsets, octrees.nodes, 2))[:, 0].tolist() == [10, 30, 4, 3]
    assert subtract(values, neighbor_plan(*lexicographic(coords), 4))[:, 0].tolist() == [10, 3, 27, 44]


@settings(deadline=None, max_examples=60)
@given(
    st.sets(st.tuples(*[st.integers(0, 31)] * 3), min_size=1, max_size=60),
    st.sampled_from([2, 4, 8, 32]),
    st.randoms(use_true_random=False),
)
def test_octree_and_filters_follow_their_definitions(cells, size, random) -> None:
    depth = size.bit_length() - 1
    coords = np.array(sorted(cells), np.int32)
    codes = encode_z_order(torch.from_numpy(coords % size)).numpy()
    order = np.lexsort([codes, *(coords // size).T[::-1]])
    coords, codes = coords[order], codes[order]
    blocks = coords // size
    starts = [i for i in range(len(blocks)) if i == 0 or (blocks[i] != blocks[i - 1]).any()]
    offsets = np.array([*starts, len(codes)])
    values = [random.randrange(256) for _ in codes]
    column = np.array(values, np.uint8)[:, None]

    octrees = encode_octrees(codes, offsets, depth)
    bounds = [slice(a, b) for a, b in itertools.pairwise(offsets)]
    nodes = [octree_of(codes[b].tolist(), depth) for b in bounds]
    assert octrees.nodes.tolist() == [n for chunk in nodes for n in chunk]
    assert octrees.offsets.tolist() == np.cumsum([0, *map(len, nodes)]).tolist()
    for b, chunk in zip(bounds, nodes, strict=True):
        assert np.array_equal(decode_octree("here", bytes(chunk), depth, b.stop - b.start), codes[b])

    parent = parent_plan(codes, offsets, octrees.nodes, depth)
    expected = [[values[b.start], *parent_rows(codes[b].tolist(), values[b], depth)] for b in bounds]
    assert subtract(column, parent)[:, 0].tolist() == [v for chunk in expected for v in chunk]
    neighbor = neighbor_plan(*lexicographic(coords), size)
    assert subtract(column, neighbor)[:, 0].tolist() == neighbor_rows([tuple(c) for c in coords.tolist()], values, size)
    for plan in (parent, neighbor):
        assert np.array_equal(add(subtract(column, plan), plan), column)


# options


@settings(deadline=None, max_examples=150)
@given(
    cells=st.sets(st.tuples(*[st.one_of(st.integers(0, 20), st.integers(0, 65535))] * 3), max_size=30),
    filter=st.sampled_from(["none", "parent", "neighbor"]),
    compression=st.sampled_from(["none", "deflate", "lzma", "zstd"]),
    interleave=st.sampled_from(["as_is", "none", "all"]),
    chunk_size=st.sampled_from([2, 16, 256, 1024]),
    widths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    metadata=st.one_of(
        st.none(), st.dictionaries(st.text(max_size=4), st.one_of(st.integers(), st.text(max_size=5), st.floats(-9, 9)), max_size=3)
    ),
    seed=st.integers(0, 99),
)
def test_every_option_there_and_back(cells, filter, compression, interleave, chunk_size, widths, metadata, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    coords = torch.tensor(list(cells), dtype=torch.int32).reshape(-1, 3)
    attributes = {f"a{i}": torch.randint(0, 256, (len(coords), c), generator=generator).to(torch.uint8) for i, c in enumerate(widths)}
    options = {"filter": filter, "compression": compression, "interleave": interleave, "chunk_size": chunk_size}
    options["level"] = 0 if compression == "none" else 1  # LZMA at 9 clears 64 MB a stream, and there are many streams here
    file, again = io.BytesIO(), io.BytesIO()
    write_vxz(file, coords, attributes, metadata=metadata, **options)
    shuffled = torch.randperm(len(coords), generator=generator)
    write_vxz(again, coords[shuffled], {n: v[shuffled] for n, v in attributes.items()}, metadata=metadata, threads=3, **options)
    assert file.getvalue() == again.getvalue()
    file.seek(0)
    found = read_vxz(file).header.get("voxgen")
    assert found == (None if metadata is None else {**metadata, "crc32": found["crc32"]})
    file.seek(0)
    assert_holds(file, coords, attributes, threads=2)


def test_every_combination_of_filter_compression_and_interleave() -> None:
    coords, attributes = golden_input("geometry")
    for filter in ("none", "parent", "neighbor"):
        for compression, level in (("none", None), ("deflate", 1), ("lzma", 3), ("zstd", 5), ("zstd", 0)):
            for interleave in ("as_is", "none", "all"):
                file = io.BytesIO()
                write_vxz(file, coords, attributes, filter=filter, compression=compression, level=level, interleave=interleave)
                file.seek(0)
                assert_holds(file, coords, attributes)


def test_no_voxels_and_one() -> None:
    for n in (0, 1):
        coords = torch.full((n, 3), 65535, dtype=torch.int32)
        attributes = {"v": torch.full((n, 3), 9, dtype=torch.uint8), "f": torch.zeros(n, 1, dtype=torch.uint8)}
        for filter in ("none", "parent", "neighbor"):
            for interleave in ("as_is", "none", "all"):
                file = io.BytesIO()
                write_vxz(file, coords, attributes, filter=filter, interleave=interleave, compression="zstd", metadata={})
                file.seek(0)
                assert_holds(file, coords, attributes)


def test_int64_and_strided_rows() -> None:
    coords, _ = golden_input("geometry")
    wide = torch.cat((coords, coords), 1).long()[::2, 1:4]
    wide = wide.unique(dim=0)
    value = torch.arange(4 * len(wide)).to(torch.uint8).reshape(2, -1).T[::2].repeat(2, 2)[: len(wide), 1:3]
    file = io.BytesIO()
    write_vxz(file, wide, {"v": value})
    file.seek(0)
    assert_holds(file, wide, {"v": value})


def test_metadata_stand_behind_the_header_of_the_original() -> None:
    coords, attributes = golden_input("geometry")
    plain, described = io.BytesIO(), io.BytesIO()
    write_vxz(plain, coords, attributes)
    write_vxz(described, coords, attributes, metadata={"note": "ü", "resolution": [64, 64, 64]})
    a, b = plain.getvalue(), described.getvalue()
    start, start_b = int.from_bytes(a[4:8], "big"), int.from_bytes(b[4:8], "big")
    assert b[8:start_b].startswith(a[8 : start - 1] + b', "voxgen": {"note": "\\u00fc"')
    assert b[start_b:] == a[start:]


def test_a_path_keeps_its_old_file_when_writing_fails(tmp_path) -> None:
    coords, attributes = golden_input("geometry")
    path = tmp_path / "a.vxz"
    write_vxz(path, coords, attributes)
    before = path.read_bytes()
    with pytest.raises(DuplicateError):
        write_vxz(path, torch.cat((coords, coords[:1])), {n: torch.cat((v, v[:1])) for n, v in attributes.items()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        write_vxz(tmp_path / "missing" / "a.vxz", coords, attributes)
    with pytest.raises(FileNotFoundError):
        read_vxz(tmp_path / "missing.vxz")


def test_progress_shows_a_bar(tmp_path, capfd) -> None:
    coords, attributes = golden_input("geometry")
    write_vxz(tmp_path / "a.vxz", coords, attributes, progress=True, threads=2)
    read_vxz(tmp_path / "a.vxz", progress=True)
    shown = capfd.readouterr().err
    assert "write" in shown
    assert "read" in shown
    assert "3/3" in shown


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"coords": torch.tensor([[0, 0, 0], [3, 1, 2], [3, 1, 2]])}, DuplicateError, r"rows 1 and 2 = \[3, 1, 2\]"),
        ({"coords": torch.tensor([[0, 0, 0], [0, -1, 0], [0, 0, 1]])}, RangeError, r"\[0, 65536\); got values from -1"),
        ({"coords": torch.tensor([[0, 0, 0], [0, 65536, 0], [0, 0, 1]])}, RangeError, "to 65536"),
        ({"coords": torch.zeros(3, 4, dtype=torch.int32)}, ShapeError, r"\(n, 3\)"),
        ({"coords": torch.rand(3, 3)}, DtypeError, "int32"),
        ({"attributes": {}}, ShapeError, "at least one tensor"),
        ({"attributes": [torch.zeros(3, 1)]}, DtypeError, "dict of tensors"),
        ({"attributes": {"v": torch.zeros(3, 1)}}, DtypeError, "uint8; got .* float32. Quantise"),
        ({"attributes": {"v": torch.zeros(2, 1, dtype=torch.uint8)}}, ShapeError, r"\(3, c\)"),
        ({"attributes": {"v": torch.zeros(3, 0, dtype=torch.uint8)}}, ShapeError, "at least one channel"),
        ({"attributes": {"v": torch.zeros(3, dtype=torch.uint8)}}, ShapeError, r"\(3, c\)"),
        ({"attributes": {"v": torch.zeros(3, 65537, dtype=torch.uint8)}}, RangeError, "at most 65536 channels together; got 65537"),
        *(
            ({"attributes": {n: torch.zeros(3, 1, dtype=torch.uint8)}}, RangeError, "names of attributes")
            for n in ("svo", "ptr", "idx", "", 3)
        ),
        *(({"chunk_size": n}, RangeError, "chunk_size") for n in (0, 1, 3, -4, 2048)),
        ({"chunk_size": 16.0}, DtypeError, "chunk_size"),
        ({"filter": "left"}, RangeError, "'none', 'parent', 'neighbor'"),
        ({"compression": "zip"}, RangeError, "'lzma', 'zstd', 'deflate', 'none'"),
        ({"interleave": "some"}, RangeError, "'as_is', 'none', 'all'"),
        ({"level": 10}, RangeError, "from 1 to 9"),
        ({"compression": "none", "level": 1}, RangeError, "from 0 to 0"),
        ({"level": True}, DtypeError, "whole number"),
        ({"threads": 0}, RangeError, "threads"),
        ({"metadata": {"a": float("nan")}}, DtypeError, "JSON"),
        ({"metadata": {"a": torch.zeros(1)}}, DtypeError, "JSON"),
        ({"metadata": [1]}, DtypeError, "dict"),
        ({"metadata": {"crc32": 1}}, RangeError, "crc32"),
    ],
)
def test_bad_arguments_raise_before_a_file_is_made(tmp_path, change, error, message) -> None:
    arguments = {
        "coords": torch.tensor([[0, 0, 0], [1, 0, 0], [0, 5, 1]]),
        "attributes": {"v": torch.zeros(3, 2, dtype=torch.uint8)},
    }
    with pytest.raises(error, match=message):
        write_vxz(tmp_path / "a.vxz", **{**arguments, **change})
    assert list(tmp_path.iterdir()) == []
