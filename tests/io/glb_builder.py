"""Small glTF documents for tests, put together by hand so that they do not depend on voxgen's own writer."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COMPONENT = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
KIND = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)


class Builder:
    """Collects accessors and images in one buffer; `document` is the JSON to edit at will."""

    def __init__(self) -> None:
        self.binary = b""
        self.document: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": []}

    def view(self, content: bytes, **fields: Any) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.document["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(content), **fields})
        self.binary += content
        return len(self.document["bufferViews"]) - 1

    def accessor(self, array: np.ndarray, **fields: Any) -> int:
        rows = array.reshape(len(array), -1)
        entry = {"componentType": COMPONENT[array.dtype.name], "count": len(rows), "type": KIND[rows.shape[1]]}
        self.document["accessors"].append({"bufferView": self.view(array.tobytes()), **entry, **fields})
        return len(self.document["accessors"]) - 1

    def mesh(self, *primitives: dict[str, Any], **node: Any) -> None:
        """A mesh and a node for it."""
        self.document.setdefault("meshes", []).append({"primitives": list(primitives)})
        self.document.setdefault("nodes", []).append({"mesh": len(self.document["meshes"]) - 1, **node})

    def triangle(self, shift: float = 0.0, **fields: Any) -> dict[str, Any]:
        """A primitive of one triangle."""
        return {"attributes": {"POSITION": self.accessor(TRIANGLE + np.float32(shift))}, **fields}

    def texture(self, content: bytes, mime: str = "image/png", **texture: Any) -> int:
        self.document.setdefault("images", []).append({"bufferView": self.view(content), "mimeType": mime})
        self.document.setdefault("textures", []).append({"source": len(self.document["images"]) - 1, **texture})
        return len(self.document["textures"]) - 1

    def material(self, **fields: Any) -> int:
        self.document.setdefault("materials", []).append(fields)
        return len(self.document["materials"]) - 1

    def glb(self) -> bytes:
        document = {**self.document, "buffers": [{"byteLength": len(self.binary)}]} if self.binary else self.document
        return pack_glb(json.dumps(document).encode(), self.binary)

    def save(self, path: Path) -> Path:
        path.write_bytes(self.glb())
        return path


def pack_glb(text: bytes, binary: bytes = b"") -> bytes:
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text
    if binary:
        body += struct.pack("<II", len(binary), 0x004E4942) + binary
    return b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body


def image_bytes(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def png_16_bit(pixels: np.ndarray) -> bytes:
    """A PNG of (h, w, c) uint16, which Pillow cannot write for c > 1; rows unfiltered."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    raw = np.concatenate((np.zeros((height, 1), np.uint8), rows), 1).tobytes()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
