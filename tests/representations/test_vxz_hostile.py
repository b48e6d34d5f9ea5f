"""Damaged and hostile .vxz files: each gives FileFormatError that names the file, soon, and without taking memory."""

import functools
import io
import json
import lzma
import random
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import zstandard

from voxgen.core.errors import DtypeError, FileFormatError
from voxgen.representations.ovoxel._compression import LEVELS
from voxgen.representations.ovoxel._vxz import VxzFile, read_vxz, read_vxz_header, write_vxz

COORDS = torch.tensor([[x, y, (3 * x + y) % 7] for x in range(6) for y in range(6)] + [[40, 2, 2], [41, 2, 2]], dtype=torch.int32)
ATTRIBUTES = {
    "v": (torch.arange(len(COORDS) * 3).reshape(-1, 3) * 37 % 251).to(torch.uint8),
    "f": (COORDS.sum(1, keepdim=True) % 8).to(torch.uint8),
}
N = len(COORDS)


def written(compression: str = "none", **options: Any) -> bytes:
    file = io.BytesIO()
    write_vxz(file, COORDS, ATTRIBUTES, **{"chunk_size": 16, "compression": compression, **options})
    return file.getvalue()


def taken_apart(data: bytes) -> tuple[dict[str, Any], bytes]:
    start = int.from_bytes(data[4:8], "big")
    return json.loads(data[8:start]), data[start:]


def put_together(text: bytes, binary: bytes) -> bytes:
    return b"VXZ\x00" + (8 + len(text)).to_bytes(4, "big") + text + binary


def rebuilt(streams: dict[str, Callable[[bytes], bytes]], compression: str = "none", **facts: Any) -> bytes:
    """A file whose chunk 0 has other streams, with a header that fits them."""
    header, binary = taken_apart(written(compression, level=min(1, LEVELS[compression].highest)))
    pieces, start = [], 0
    for number, chunk in enumerate(header["chunks"]):
        first, inside = chunk["ptr"][0], 0
        for name in ("svo", "v", "f"):
            offset, length = chunk[name]
            piece = binary[first + offset : first + offset + length]
            piece = streams[name](piece) if number == 0 and name in streams else piece
            chunk[name] = [inside, len(piece)]
            inside += len(piece)
            pieces.append(piece)
        chunk["ptr"] = [start, inside]
        start += inside
    header.update(facts)
    header["raw_size"] = header["num_voxel"] * (12 + sum(c for _, c in header["attr"]))
    header.update(compressed_size=start, compress_ratio=header["raw_size"] / start)
    return put_together(json.dumps(header).encode(), b"".join(pieces))


def assert_refused(data: bytes, message: str | None = None) -> None:
    file = io.BytesIO(data)
    file.name = "bad.vxz"
    with pytest.raises(FileFormatError, match=message) as caught:
        read_vxz(file)
    assert str(caught.value).startswith("read_vxz: bad.vxz: ")
    assert len(str(caught.value)) < 2000


def assert_well_formed(found: VxzFile) -> None:
    n = found.header["num_voxel"]
    keys = (found.coords.long() * torch.tensor([1 << 32, 1 << 16, 1])).sum(1)
    assert found.coords.shape == (n, 3)
    assert n == 0 or (int(found.coords.min()) >= 0 and int(found.coords.max()) < 65536)
    assert bool((keys[1:] > keys[:-1]).all())
    assert [[name, value.shape[1]] for name, value in found.attributes.items()] == found.header["attr"]
    assert all(len(value) == n for value in found.attributes.values())


@pytest.mark.parametrize("compression", LEVELS)
def test_cut_off_anywhere(compression) -> None:
    data = written(compression, filter="parent", level=min(3, LEVELS[compression].highest))
    for length in range(len(data)):
        with pytest.raises(FileFormatError):
            read_vxz(io.BytesIO(data[:length]))
    assert_refused(data + b"\0", "something was appended")


@pytest.mark.parametrize("compression", LEVELS)
@pytest.mark.parametrize("checksum", [True, False])
def test_flipped_bits(compression, checksum) -> None:
    """With voxgen's checksum every flip is found; in a file of the original what is not found still gives whole rows."""
    options = {"level": min(3, LEVELS[compression].highest), "filter": "neighbor", "interleave": "none"}
    data = written(compression, metadata={"note": "x"} if checksum else None, **options)
    chance = random.Random(len(compression))
    found = 0
    for _ in range(250):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 4))):
            changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        if bytes(changed) == data:
            continue
        try:
            result = read_vxz(io.BytesIO(changed))
        except FileFormatError:
            found += 1
        else:
            assert_well_formed(result)
            # a flip may turn a space of the JSON into another blank, or a checksum's key into a key of its own
            same = torch.equal(result.coords, COORDS) and all(torch.equal(result.attributes[k], ATTRIBUTES[k]) for k in ATTRIBUTES)
            assert same or not checksum
    assert found > 100


def test_random_bytes_behind_the_magic() -> None:
    chance = random.Random(5)
    for _ in range(300):
        text = chance.randbytes(chance.randrange(60))
        start = chance.choice([0, 7, 8, 9, len(text), 1 << 20, (1 << 32) - 1])
        assert_refused(b"VXZ\x00" + start.to_bytes(4, "big") + text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no .vxz file"),
        (b"VXZ", "no .vxz file"),
        (b"VXZ\x00", "truncated"),
        (b"VXZ\x01" + bytes(40), "no .vxz file"),
        (b"VXZ\x00\xff\xff\xff\xff{}", "must start at byte 4294967295, but the file has 10"),
        (b"PK\x03\x04" + bytes(40), "it starts with b'PK"),
        (put_together(b"", b""), "not ASCII JSON"),
        (put_together(b"[]", b""), "must be a JSON object"),
        (put_together(b"{}", b""), "'num_voxel' is missing"),
        (put_together(b'{"num_voxel": NaN}', b""), "NaN is no number"),
        (put_together(b'{"num_voxel": -Infinity}', b""), "no number"),
        (put_together(b'{"a": 1, "a": 2}', b""), "a key stands twice"),
        (put_together('{"ä": 1}'.encode(), b""), "ASCII"),
        (put_together(b"[" * 100_000, b""), "not ASCII JSON"),
        (put_together(b'{"num_voxel": ' + b"9" * 5000 + b"}", b""), "not ASCII JSON"),
        (put_together(b"\x00" * 50, b""), "not ASCII JSON"),
    ],
    ids=range(16),
)
def test_no_header_at_all(data, message) -> None:
    assert_refused(data, message)


HUGE = 10**12
LIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "fewer voxels": (
        lambda h: h.update(num_voxel=N - 1, raw_size=(N - 1) * 16, compress_ratio=(N - 1) * 16 / h["compressed_size"]),
        "more leaves",
    ),
    "more voxels": (
        lambda h: h.update(num_voxel=N + 1, raw_size=(N + 1) * 16, compress_ratio=(N + 1) * 16 / h["compressed_size"]),
        "the octrees hold 38",
    ),
    "huge num_voxel": (lambda h: h.update(num_voxel=HUGE), "raw_size must be 16000000000000"),
    "huge voxels": (lambda h: h.update(num_voxel=HUGE, raw_size=HUGE * 16, compress_ratio=HUGE * 16 / h["compressed_size"]), "cannot hold"),
    "huge chunks": (
        lambda h: h.update(num_voxel=2**31, raw_size=2**35, chunk_size=1024, compress_ratio=2**35 / h["compressed_size"]),
        "max_bytes is",
    ),
    "no voxels": (lambda h: h.update(num_voxel=0, raw_size=0, compress_ratio=0.0), "cannot hold 0 voxels"),
    "negative": (lambda h: h.update(num_voxel=-1), "num_voxel must be a whole number"),
    "float": (lambda h: h.update(num_voxel=float(N)), "num_voxel must be a whole number"),
    "bool": (lambda h: h.update(num_voxel=True), "num_voxel must be a whole number"),
    "null": (lambda h: h.update(num_voxel=None), "num_voxel must be a whole number"),
    "text": (lambda h: h.update(num_voxel="38"), "num_voxel must be a whole number"),
    "giant": (lambda h: h.update(num_voxel=10**4000), "num_voxel must be a whole number"),
    "raw_size": (lambda h: h.update(raw_size=1), "raw_size must be 608"),
    "compressed_size": (lambda h: h.update(compressed_size=1), "announces 1 bytes of data"),
    "ratio": (lambda h: h.update(compress_ratio=2.0), "compress_ratio must be"),
    "ratio text": (lambda h: h.update(compress_ratio="2"), "compress_ratio must be"),
    "ratio huge": (lambda h: h.update(compress_ratio=10**400), "compress_ratio must be"),
    **{
        f"chunk_size {n}": (lambda h, n=n: h.update(chunk_size=n), "chunk_size must be a power of two")
        for n in (0, 1, 3, 24, 2048, -16, 16.0, 2**40)
    },
    "other chunk_size": (lambda h: h.update(chunk_size=8), "octree is damaged"),
    "filter": (lambda h: h.update(filter="left"), "filter must be one of"),
    "filter list": (lambda h: h.update(filter=["none"]), "filter must be one of"),
    "compression": (lambda h: h.update(compression="zip"), "compression must be one of"),
    "other compression": (lambda h: h.update(compression="deflate", compression_level=9), "deflate data are damaged"),
    "zstd": (lambda h: h.update(compression="zstd", compression_level=9), "zstd data are damaged"),
    "lzma": (lambda h: h.update(compression="lzma", compression_level=9), "lzma data are damaged"),
    "level": (lambda h: h.update(compression_level=9), "compression_level must be from 0 to 0"),
    "lzma level": (lambda h: h.update(compression="lzma", compression_level=2**31 + 9), "compression_level must be from 1 to 9"),
    "interleave": (lambda h: h.update(attr_interleave="some"), "attr_interleave must be one of"),
    "other interleave": (lambda h: h.update(attr_interleave="all"), "must have the keys"),
    "attr": (lambda h: h.update(attr={"v": 3}), "attr must be a list"),
    "no attr": (lambda h: h.update(attr=[], raw_size=N * 12), "attr must be a list"),
    "channels": (
        lambda h: h["attr"].__setitem__(0, ["v", 4]) or h.update(raw_size=N * 17, compress_ratio=N * 17 / h["compressed_size"]),
        "must hold 144 bytes",
    ),
    "huge channels": (lambda h: h["attr"].__setitem__(0, ["v", HUGE]), "1000000000001 channels; at most 65536"),
    "more channels": (lambda h: h["attr"].__setitem__(0, ["v", 65535]), "raw_size must be"),
    "huge channels of no voxels": (
        lambda h: h.update(num_voxel=0, raw_size=0, chunks=[], compress_ratio=0.0, attr=[["v", HUGE]], attr_interleave="none"),
        "1000000000000 channels; at most 65536",
    ),
    "no channels": (lambda h: h["attr"].__setitem__(0, ["v", 0]), "channels >= 1"),
    "name twice": (lambda h: h["attr"].__setitem__(1, ["v", 1]), "named before"),
    "reserved": (lambda h: h["attr"].__setitem__(1, ["svo", 1]), "reserved"),
    "name no text": (lambda h: h["attr"].__setitem__(1, [5, 1]), "attr must be a list"),
    "chunks": (lambda h: h.update(chunks=7), "chunks cannot hold"),
    "no chunks": (lambda h: h.update(chunks=[]), "chunks cannot hold"),
    "chunk": (lambda h: h["chunks"].__setitem__(0, []), "chunk 0 must have the keys"),
    "stream missing": (lambda h: h["chunks"][0].pop("v"), "chunk 0 must have the keys"),
    "stream too many": (lambda h: h["chunks"][0].update(w=[0, 1]), "chunk 0 must have the keys"),
    **{
        f"idx {i}": (lambda h, i=i: h["chunks"][0].update(idx=i), "chunk 0: idx must be")
        for i in ([-1, 0, 0], [4096, 0, 0], [0, 10**30, 0], [0, 0], [0, 0, 0, 0], [0, 0, 0.0], "000", None, [True, 0, 0])
    },
    "idx twice": (lambda h: h["chunks"][1].update(idx=[0, 0, 0]), "two chunks have one idx"),
    **{
        f"svo {e}": (lambda h, e=e: h["chunks"][0].update(svo=e), "chunk 0: svo must be")
        for e in ([-1, 5], [0, -5], [1, 5], [0, 5.0], [0], 5, None, [0, 2**70], [0, [1]])
    },
    "overlap": (lambda h: h["chunks"][0].update(f=[0, 36]), "chunk 0: f must be"),
    "too long": (lambda h: h["chunks"][0]["v"].__setitem__(1, 10**9), "chunk 0: f must be"),
    "ptr": (lambda h: h["chunks"][1].update(ptr=[0, 10]), "chunk 1: ptr must be"),
    "ptr length": (lambda h: h["chunks"][1]["ptr"].__setitem__(1, 10**9), "chunk 1: ptr must give"),
    "beyond": (
        lambda h: (
            h["chunks"][1]["f"].__setitem__(1, 10**6)
            or h["chunks"][1]["ptr"].__setitem__(1, sum(h["chunks"][1][k][1] for k in "vf") + h["chunks"][1]["svo"][1])
        ),
        "but the file holds",
    ),
    "metadata": (lambda h: h.update(voxgen=[1]), "voxgen must be an object"),
    "checksum": (lambda h: h.update(voxgen={"crc32": 5}), "checksum"),
    "checksum text": (lambda h: h.update(voxgen={"crc32": "x"}), "checksum"),
    **{
        f"without {key}": (lambda h, key=key: h.pop(key), f"'{key}' is missing")
        for key in ("raw_size", "attr", "chunks", "compress_ratio", "filter")
    },
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(lie) -> None:
    header, binary = taken_apart(written())
    LIES[lie][0](header)
    assert_refused(put_together(json.dumps(header).encode(), binary), LIES[lie][1])


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (b"\xff" * 700, "must hold at most 152 bytes"),
        (b"\xff" * 100, "more leaves than the 38 voxels"),
        (b"\xff" * 7, "nodes stop before"),
        (b"", "nodes stop before"),
        (b"\x00", "a node without children"),
        (b"\x01\x00\x01\x01", "a node without children"),
        (b"\x01\x01\x01\x01\x01", "nodes are left over"),
        (b"\x01\x01\x01\xff", "announces 38 voxels, the octrees hold 10"),
        (b"\x01\xff" + b"\xff" * 72, "more leaves than the 38 voxels"),
    ],
)
def test_octrees_that_lie(nodes, message) -> None:
    assert_refused(rebuilt({"svo": lambda _: nodes}), message)


@functools.cache
def pack(data: bytes, method: str) -> bytes:
    if method == "lzma":
        return lzma.compress(data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 1}])
    if method == "deflate":
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(data) + packer.flush()
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("method", ["lzma", "deflate", "zstd"])
@pytest.mark.parametrize("stream", ["svo", "v"])
def test_bombs_are_not_unpacked(method, stream) -> None:
    bomb = pack(bytes(200_000_000), method)
    data = rebuilt({stream: lambda _: bomb}, method)
    assert len(data) < 1_000_000
    tracemalloc.start()
    assert_refused(data, "must hold at most")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_a_full_cube_is_read_only_if_allowed() -> None:
    """A legal bomb: all 2 million cells of a chunk, 1,000 bytes of file. `max_bytes` is the only thing that can stop it."""
    nodes = b"\xff" * ((8**7 - 1) // 7)
    n = 8**7
    octree, values = pack(nodes, "zstd"), pack(bytes(n), "zstd")
    size = len(octree) + len(values)
    chunk = {"idx": [0, 0, 0], "svo": [0, len(octree)], "v": [len(octree), len(values)], "ptr": [0, size]}
    header = {
        **{"num_voxel": n, "chunk_size": 128, "filter": "none", "compression": "zstd", "compression_level": 22},
        **{"raw_size": 13 * n, "compressed_size": size, "compress_ratio": 13 * n / size, "attr_interleave": "as_is"},
        **{"attr": [["v", 1]], "chunks": [chunk]},
    }
    data = put_together(json.dumps(header).encode(), octree + values)
    assert len(data) < 2000
    with pytest.raises(FileFormatError, match=f"{13 * n} bytes decoded; max_bytes is 20000000. Raise max_bytes"):
        read_vxz(io.BytesIO(data), max_bytes=20_000_000)
    assert_well_formed(read_vxz(io.BytesIO(data)))


def test_metadata_nested_deep() -> None:
    """Somewhere between the depth that JSON cannot write and the one it cannot read there must be no gap."""
    header, binary = taken_apart(written())
    for depth in range(400, 3000, 10):
        text = json.dumps(header)[:-1] + ', "voxgen": {"crc32": 1, "a": ' + "[" * depth + "]" * depth + "}}"
        assert_refused(put_together(text.encode(), binary))


def test_streams_with_something_behind_them() -> None:
    for method in ("lzma", "deflate", "zstd"):
        assert_refused(rebuilt({"v": lambda piece: piece + b"\0"}, method), f"{method} data are damaged")
        assert_refused(rebuilt({"v": lambda piece: piece[:-1]}, method), f"{method} data are damaged")
        assert_refused(rebuilt({"v": lambda _: b""}, method), f"{method} data are damaged")
        assert_refused(
            rebuilt({"v": lambda _, m=method: pack(bytes(5), m)}, method), "must hold 108 bytes for the chunk's 36 voxels; got 5"
        )


def test_zstd_frames_that_hide_their_size() -> None:
    hidden = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(108))
    assert_refused(rebuilt({"v": lambda _: hidden}, "zstd"), "does not say how many bytes")


def test_a_large_file_by_path_is_not_even_read(tmp_path) -> None:
    path = tmp_path / "a.vxz"
    path.write_bytes(written())
    with pytest.raises(FileFormatError, match=r"a\.vxz: has \d+ bytes; max_bytes is 100"):
        read_vxz(path, max_bytes=100)


def test_a_file_open_in_text_mode() -> None:
    with pytest.raises(DtypeError, match="binary mode"):
        read_vxz(io.StringIO("VXZ"))  # pyright: ignore[reportArgumentType]


def test_the_header_alone_is_checked_too() -> None:
    header, binary = taken_apart(written())
    assert read_vxz_header(io.BytesIO(written())) == header
    header["num_voxel"] = HUGE
    with pytest.raises(FileFormatError, match="read_vxz_header"):
        read_vxz_header(io.BytesIO(put_together(json.dumps(header).encode(), binary)))
