"""glTF's binary layer: the GLB container, buffers, buffer views, accessors. Every size is checked before it is used."""

from __future__ import annotations

import base64
import binascii
import struct
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from ._json import Item
from ._source import Source

MAGIC = b"glTF"
JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942
COMPONENTS = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def read_container(source: Source) -> tuple[Item, memoryview | None]:
    """The JSON root and the binary chunk of a .glb, or the JSON root of a .gltf, whichever the content is.

    Raises:
        FileFormatError: truncated, of another version, or not glTF at all.
    """
    data = source.data
    if not data.startswith(MAGIC):
        if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            return Item.parse(source, data), None
        raise source.error("this is not a glTF file: it starts neither with 'glTF' nor with '{'")
    if len(data) < 20:
        raise source.error(f"the file is truncated: a GLB header has 20 bytes, the file has {len(data)}")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise source.error(f"GLB version must be 2; it is {version}. Convert the file to glTF 2.0")
    if length > len(data):
        raise source.error(f"the file is truncated: its header declares {length:,} bytes, it has {len(data):,}")
    if length < len(data):
        source.warn(f"{len(data) - length} bytes after the declared end are ignored")
    chunks: dict[int, memoryview] = {}
    position = 12
    while position + 8 <= length:
        size, kind = struct.unpack_from("<II", data, position)
        position += 8
        if size > length - position:
            raise source.error(f"the chunk at byte {position - 8} declares {size:,} bytes, and {length - position:,} are left")
        chunks.setdefault(kind, memoryview(data)[position : position + size])
        position += size
    if JSON_CHUNK not in chunks:
        raise source.error("the GLB has no JSON chunk")
    return Item.parse(source, bytes(chunks[JSON_CHUNK])), chunks.get(BINARY_CHUNK)


class Buffers:
    """Access to the bytes and arrays that the JSON describes."""

    def __init__(self, source: Source, root: Item, binary: memoryview | None) -> None:
        self.source = source
        self.binary = binary
        self.buffers = root.items("buffers")
        self.views = root.items("bufferViews")
        self.accessors = root.items("accessors")
        self._loaded: dict[int, memoryview] = {}
        self._arrays: dict[int, np.ndarray] = {}

    def pick(self, items: list[Item], index: int, what: str) -> Item:
        """items[index], or FileFormatError."""
        if not 0 <= index < len(items):
            raise self.source.error(f"{what} refers to number {index}, and there are {len(items)}")
        return items[index]

    def uri(self, uri: str, what: str) -> bytes | None:
        """The content of a data URI or of a file beside this one; None where there is no such file."""
        if not uri.startswith("data:"):
            return self.source.read_beside(unquote(uri))
        head, comma, body = uri.partition(",")
        if not comma:
            raise self.source.error(f"{what} has a data URI without content")
        try:
            return base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
        except (binascii.Error, ValueError) as error:
            raise self.source.error(f"{what} has a data URI that cannot be decoded ({error})") from error

    def buffer(self, index: int) -> memoryview:
        """The bytes of a buffer, as many as it declares; not a copy."""
        if index not in self._loaded:
            item = self.pick(self.buffers, index, "a buffer view")
            size = item.integer("byteLength", low=1)
            if item.has("uri"):
                uri = item.text("uri")
                content = self.uri(uri, item.where)
                if content is None:
                    raise self.source.error(
                        f"{item.where}: there is no file {uri[:200]!r} beside it; the geometry cannot be read without it"
                    )
            elif index == 0 and self.binary is not None:
                content = self.binary
            else:
                raise self.source.error(f"{item.where} has neither a uri nor the binary chunk of a GLB")
            if len(content) < size:
                raise self.source.error(f"{item.where} declares {size:,} bytes, and there are {len(content):,}: truncated")
            self._loaded[index] = memoryview(content)[:size]
        return self._loaded[index]

    def view(self, index: int) -> tuple[memoryview, int | None]:
        """The bytes of a buffer view, and its stride if it has one."""
        item = self.pick(self.views, index, "an accessor or image")
        for extension in ("EXT_meshopt_compression", "KHR_meshopt_compression"):
            if item.inner("extensions").has(extension):
                raise self.source.error(f"{item.where} is compressed with {extension}, which is not supported; export without compression")
        content = self.buffer(item.integer("buffer"))
        start, size = item.integer("byteOffset", 0), item.integer("byteLength", low=1)
        if start + size > len(content):
            raise self.source.error(f"{item.where} spans bytes {start:,} to {start + size:,} of a buffer of {len(content):,}")
        stride = item.integer("byteStride", low=4, high=252) if item.has("byteStride") else None
        return content[start : start + size], stride

    def array(self, index: int, what: str) -> np.ndarray:
        """(count, width) values of an accessor; normalised integers become float32. Not to be written to."""
        if index not in self._arrays:
            item = self.pick(self.accessors, index, what)
            width = WIDTHS.get(item.text("type"))
            if width is None:
                item.fail("type", f"one of {', '.join(WIDTHS)} where it serves as {what}")
            dtype = self._component(item)
            count = item.integer("count", low=1, high=2**40)
            if item.has("bufferView"):
                values = self._rows(item, item.integer("bufferView"), item.integer("byteOffset", 0), dtype, count, width)
            else:
                self.source.claim(count * width * dtype.itemsize, f"{item.where}, {count:,} zeros,")
                values = np.zeros((count, width), dtype)
            sparse = item.item("sparse")
            if sparse is not None:
                values = self._overlay(sparse, values, dtype)
            if item.flag("normalized") and dtype.kind in "iu":
                self.source.claim(4 * values.size, item.where)
                values = np.maximum(values.astype(np.float32) / np.float32(np.iinfo(dtype).max), np.float32(-1))
            self._arrays[index] = values
        return self._arrays[index]

    def _component(self, item: Item) -> np.dtype:
        kind = item.integer("componentType")
        if kind not in COMPONENTS:
            item.fail("componentType", f"one of {', '.join(map(str, COMPONENTS))}")
        return np.dtype(COMPONENTS[kind]).newbyteorder("<")

    def _rows(self, item: Item, view: int, offset: int, dtype: np.dtype, count: int, width: int) -> np.ndarray:
        content, stride = self.view(view)
        row = width * dtype.itemsize
        step = row if stride is None else stride
        if step < row:
            raise self.source.error(f"{item.where}: an element has {row} bytes, and the stride of its buffer view is {step}")
        if offset + step * (count - 1) + row > len(content):
            raise self.source.error(
                f"{item.where} declares {count:,} elements of {step} bytes from byte {offset}, "
                f"and its buffer view has {len(content):,} bytes"
            )
        return np.ndarray((count, width), dtype, content, offset, (step, dtype.itemsize))

    def _overlay(self, sparse: Item, base: np.ndarray, dtype: np.dtype) -> np.ndarray:
        count = sparse.integer("count", low=1, high=len(base))
        places, values = sparse.inner("indices"), sparse.inner("values")
        kind = self._component(places)
        if kind.kind != "u":
            places.fail("componentType", "an unsigned integer type")
        rows = self._rows(places, places.integer("bufferView"), places.integer("byteOffset", 0), kind, count, 1)[:, 0].astype(np.int64)
        new = self._rows(values, values.integer("bufferView"), values.integer("byteOffset", 0), dtype, count, base.shape[1])
        if int(rows.max()) >= len(base):
            raise self.source.error(f"{sparse.where}: an index is {int(rows.max())}, and the accessor has {len(base)} elements")
        self.source.claim(base.nbytes, sparse.where)
        full = base.copy()
        full[rows] = new
        return full
