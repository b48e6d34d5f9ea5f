"""TriMesh → glTF 2.0: the JSON document and its binary part."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from voxgen._version import __version__
from voxgen.core import Material, TriMesh
from voxgen.core.errors import CapacityError

from ._attributes import display_color, plan, to_json
from ._gltf_buffers import BINARY_CHUNK, JSON_CHUNK, MAGIC
from ._gltf_materials import DISPLAY_ONLY
from ._gltf_order import FACE_ORDER, VERTEX_ORDER, split_in_parts
from ._gltf_read import V_KEYS
from ._gltf_write_materials import MaterialWriter
from ._source import Begin, Note

_VERTICES, _INDICES = 34962, 34963
_MATERIAL_ATTRIBUTES = {"base_color", "metallic", "roughness", "alpha", "emissive"}


def glb_pieces(mesh: TriMesh, where: str, note: Note, begin: Begin) -> list[bytes]:
    """The bytes of a .glb in pieces, in order."""
    document = _Document(mesh, note, begin)
    text = _padded(document.text(None), b" ")
    length = 12 + 8 + len(text) + 8 + document.size
    if length >= 2**32:
        raise CapacityError(f"{where}: a GLB holds at most 4 GiB; this mesh needs {length:,} bytes. Save as .ply or in parts.")
    head = MAGIC + struct.pack("<II", 2, length) + struct.pack("<II", len(text), JSON_CHUNK)
    return [head, text, struct.pack("<II", document.size, BINARY_CHUNK), *document.chunks]


def gltf_pieces(mesh: TriMesh, where: str, note: Note, begin: Begin) -> list[bytes]:
    """The bytes of a .gltf, with its buffer inside as base64: one file, nothing beside it."""
    document = _Document(mesh, note, begin)
    body = base64.b64encode(b"".join(document.chunks)).decode("ascii")
    return [document.text(f"data:application/octet-stream;base64,{body}")]


def _padded(content: bytes, filler: bytes = b"\0") -> bytes:
    return content + filler * (-len(content) % 4)


class _Document:
    def __init__(self, mesh: TriMesh, note: Note, begin: Begin) -> None:
        self.mesh = mesh
        self.note = note
        self.chunks: list[bytes] = []
        self.size = 0
        self.views: list[dict[str, object]] = []
        self.accessors: list[dict[str, object]] = []
        self.record: dict[str, object] = {}
        parts, vertex_order, face_order = split_in_parts(mesh)
        columns = dict(self._columns(parts_use_materials=bool(mesh.materials)))
        materials = MaterialWriter(note, self.view)
        indices = [materials.add(m) for m in mesh.materials]
        self.nodes: list[dict[str, object]] = []
        self.meshes: list[dict[str, object]] = []
        stand_in: int | None = None
        for part in parts:
            rows = slice(None) if len(parts) == 1 else part.vertices
            attributes = {name: self.accessor(values[rows], _VERTICES, bounds=name == "POSITION") for name, values in columns.items()}
            primitives: list[dict[str, object]] = []
            for material, faces in part.primitives:
                if material < 0 and stand_in is None:
                    stand_in = materials.add(self._stand_in(columns), {DISPLAY_ONLY: True})
                dtype = np.uint16 if len(part.vertices) < 2**16 else np.uint32
                index = self.accessor(faces.reshape(-1, 1).astype(dtype), _INDICES)
                number = stand_in if material < 0 else indices[material]
                primitives.append({"attributes": attributes, "indices": index, "mode": 4, "material": number})
            self.nodes.append({"name": part.name, "mesh": len(self.meshes)})
            self.meshes.append({"name": part.name, "primitives": primitives})
        for key, order in ((VERTEX_ORDER, vertex_order), (FACE_ORDER, face_order)):
            if order is not None:
                self.record[key] = self.accessor(order.reshape(-1, 1).astype(np.uint32))
        materials.write_images(begin)
        self.materials = materials

    def view(self, content: bytes, target: int | None = None) -> int:
        entry: dict[str, object] = {"buffer": 0, "byteOffset": self.size, "byteLength": len(content)}
        self.views.append(entry if target is None else entry | {"target": target})
        self.chunks.append(_padded(content))
        self.size += len(self.chunks[-1])
        return len(self.views) - 1

    def accessor(self, rows: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        component = {"float32": 5126, "uint16": 5123, "uint32": 5125}[rows.dtype.name]
        kind = ("SCALAR", "VEC2", "VEC3", "VEC4")[rows.shape[1] - 1]
        entry: dict[str, object] = {"componentType": component, "count": len(rows), "type": kind}
        entry["bufferView"] = self.view(np.ascontiguousarray(rows).tobytes(), target)
        if bounds:
            entry |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def _columns(self, parts_use_materials: bool) -> Iterator[tuple[str, np.ndarray]]:
        """Name in the file and (v, 1..4) float32 for everything that vertices carry."""
        mesh = self.mesh
        yield "POSITION", mesh.vertices.numpy()
        if mesh.normals is not None:
            yield "NORMAL", mesh.normals.numpy()
        uv, uv1 = mesh.uv, mesh.uv1
        if uv is None and uv1 is not None:  # sets are numbered without a gap
            uv = torch.zeros_like(uv1)
        for number, values in enumerate((uv, uv1)):
            if values is not None:
                yield from _flipped(values.numpy(), number)
        own = dict(mesh.attributes)
        shown = display_color(mesh)
        copied = bool({"base_color", "alpha"} & set(own))
        color = own.get("color")
        if shown is not None and color is not None and not copied and color.dtype == torch.float32:
            del own["color"]  # COLOR_0 is exactly this
        if shown is not None and (not copied or all(map(_is_white, self._used_materials()))):
            yield "COLOR_0", shown.numpy()
        records = plan(own, 4, {*V_KEYS}, _spell)
        if records:
            self.record["attributes"] = to_json(records)
        for record in records:
            stored = self._float_rows(record.name, own[record.name])
            for number, key in enumerate(record.keys):
                yield key, stored[:, 4 * number : 4 * number + 4]

    def _used_materials(self) -> list[Material]:
        mesh = self.mesh
        if mesh.face_material is None:
            return list(mesh.materials[:1])
        return [mesh.materials[i] for i in mesh.face_material.unique().tolist() if i >= 0]

    def _float_rows(self, name: str, values: Tensor) -> np.ndarray:
        rows = values.float()
        if not torch.equal(rows.to(values.dtype).nan_to_num(), values.nan_to_num()):
            self.note(f"attribute {name!r} is rounded to float32")
        return rows.numpy()

    def _stand_in(self, columns: dict[str, np.ndarray]) -> Material:
        """What other programs show on faces without a material."""
        own = self.mesh.attributes
        if "COLOR_0" not in columns and not _MATERIAL_ATTRIBUTES & set(own):
            return Material.plain()
        metallic, roughness = (
            float(own[n].float().mean().nan_to_num()) if n in own else d for n, d in (("metallic", 0.0), ("roughness", 0.5))
        )
        color = columns.get("COLOR_0")
        see_through = color is not None and color.shape[1] == 4 and bool((color[:, 3] < 1).any())
        return Material(
            "vertex attributes",
            metallic_factor=min(max(metallic, 0.0), 1.0),
            roughness_factor=min(max(roughness, 0.0), 1.0),
            alpha_mode="BLEND" if see_through else "OPAQUE",
            double_sided=True,
        )

    def text(self, uri: str | None) -> bytes:
        buffer: dict[str, object] = {"byteLength": self.size}
        document = {
            "asset": {"version": "2.0", "generator": f"voxgen {__version__}"},
            "scene": 0,
            "scenes": [{"nodes": list(range(len(self.nodes)))}],
            "nodes": self.nodes,
            "meshes": self.meshes,
            "accessors": self.accessors,
            "bufferViews": self.views,
            "buffers": [buffer if uri is None else buffer | {"uri": uri}],
            **self.materials.sections(),
        }
        if self.record:
            document["extras"] = {"voxgen": self.record}
        return json.dumps(document, separators=(",", ":")).encode("ascii")


def _flipped(uv: np.ndarray, number: int) -> Iterator[tuple[str, np.ndarray]]:
    """v up → v down; where 1 - v does not give v back, v itself goes along as an attribute of its own."""
    v = np.ascontiguousarray(uv[:, 1])
    down = np.float32(1) - v
    yield f"TEXCOORD_{number}", np.stack((uv[:, 0], down), 1)
    if not np.array_equal((np.float32(1) - down).view(np.int32), v.view(np.int32)):
        yield V_KEYS[number], v[:, None]


def _is_white(material: Material) -> bool:
    return material.base_color is None and material.alpha is None and (*material.base_color_factor, material.alpha_factor) == (1, 1, 1, 1)


def _spell(name: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
    return f"_{plain.upper() or 'ATTRIBUTE'}"
