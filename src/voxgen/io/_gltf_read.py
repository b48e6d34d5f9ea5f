"""glTF 2.0 → TriMesh.

Read here and not through trimesh, because that loses what an asset pipeline needs (samplers, the second uv set, texCoord,
exact factors, custom attributes, more than one primitive on shared vertices) and trusts the sizes that a file declares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from voxgen.core import TriMesh
from voxgen.core.frame import UpAxis

from ._assemble import Block, assemble, check_indices, float32
from ._attributes import from_json, gather, is_display_copy
from ._gltf_buffers import Buffers, read_container
from ._gltf_materials import MaterialSlot, read_materials
from ._gltf_order import restore_order
from ._json import Item
from ._source import Begin, Source

_GEOMETRY_EXTENSIONS = {"KHR_mesh_quantization", "KHR_texture_transform", "EXT_texture_webp"}
_HARMLESS = ("KHR_materials_", "KHR_lights_", "EXT_lights_", "KHR_xmp", "KHR_animation_", "KHR_node_visibility")
_COMPRESSED = "KHR_draco_mesh_compression"
V_KEYS = ("_TEXCOORD_0_V", "_TEXCOORD_1_V")
"""Attributes that hold v where 1 - v, which glTF stores, does not give it back exactly in float32."""
_TRIANGLES, _STRIP, _FAN = 4, 5, 6


def read_gltf(source: Source, up: UpAxis | None, begin: Begin) -> TriMesh:
    """A .glb or .gltf file. `begin` as in `read_materials`."""
    root, binary = read_container(source)
    version = root.inner("asset").text("version")
    if not version.startswith("2."):
        raise source.error(f"asset.version must be 2.0; it is {version!r}. Convert the file to glTF 2.0")
    for name in root.texts("extensionsRequired"):
        if name not in _GEOMETRY_EXTENSIONS and not name.startswith(_HARMLESS):
            raise source.error(f"the file requires the extension {name}, which is not supported; export it without")
    buffers = Buffers(source, root, binary)
    nodes = list(_placed_meshes(source, root))
    materials, slots = read_materials(source, root, buffers, begin)
    reader = _Primitives(source, root, buffers, slots)
    blocks: list[Block] = []
    names: list[str] = []
    uses = Counter(mesh.where for _, mesh, _ in nodes)
    stored: dict[str, list[Block]] = {}
    for name, mesh, matrix in nodes:
        if mesh.where not in stored:
            stored[mesh.where] = reader.blocks(mesh)
            size = sum(block.nbytes for block in stored[mesh.where])
            source.claim(size * uses[mesh.where], f"{mesh.where} in {uses[mesh.where]} places")
        found = stored[mesh.where]
        blocks += [_transformed(replace(block, face_part=len(names)), matrix) for block in found]
        names += [name] if found else []
    blocks = restore_order(source, root, buffers, blocks)
    return assemble(source, blocks, materials=materials, part_names=names or ("",), up=up or "y")


def _placed_meshes(source: Source, root: Item) -> Iterator[tuple[str, Item, np.ndarray | None]]:
    """Name, mesh and world matrix (None for the identity) of each node with a mesh, depth first in the file's order."""
    nodes, meshes, scenes = root.items("nodes"), root.items("meshes"), root.items("scenes")
    children = [node.integers("children") for node in nodes]
    if scenes:
        chosen = root.integer("scene", 0)
        if chosen >= len(scenes):
            root.fail("scene", f"the index of one of {len(scenes)} scenes")
        if len(scenes) > 1:
            source.warn(f"the file has {len(scenes)} scenes; scene {chosen} is loaded")
        roots = scenes[chosen].integers("nodes")
    else:
        roots = sorted(set(range(len(nodes))).difference(*children))
    visited: set[int] = set()
    stack: list[tuple[int, np.ndarray | None]] = [(index, None) for index in reversed(roots)]
    while stack:
        index, parent = stack.pop()
        if index >= len(nodes):
            raise source.error(f"a scene or node refers to node {index}, and there are {len(nodes)}")
        if index in visited:
            raise source.error(f"nodes[{index}] hangs in the scene twice; nodes must form a tree")
        visited.add(index)
        node = nodes[index]
        own = _local_matrix(node)
        matrix = own if parent is None else parent if own is None else parent @ own
        stack += [(child, matrix) for child in reversed(children[index])]
        if "EXT_mesh_gpu_instancing" in node.inner("extensions").value:
            source.warn("EXT_mesh_gpu_instancing is not read: such nodes appear once")
        if node.has("mesh"):
            number = node.integer("mesh")
            if number >= len(meshes):
                node.fail("mesh", f"the index of one of {len(meshes)} meshes")
            if node.has("skin"):
                source.warn("skins are ignored: skinned meshes are loaded in the pose in which they are stored")
                matrix = None  # the joints place a skinned mesh, not its node
            mesh = meshes[number]
            yield node.text("name") or mesh.text("name"), mesh, matrix


def _local_matrix(node: Item) -> np.ndarray | None:
    """(4, 4) float64, or None for the identity, so that what is not moved keeps its bits."""
    if node.has("matrix"):
        matrix = np.array(node.numbers("matrix", (0.0,) * 16)).reshape(4, 4).T
    else:
        x, y, z, w = node.numbers("rotation", (0.0, 0.0, 0.0, 1.0))
        matrix = np.eye(4)
        length = x * x + y * y + z * z + w * w
        if length > 0:
            s = 2.0 / length
            matrix[:3, :3] = [
                [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
                [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
                [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
            ]
        matrix[:3, :3] *= node.numbers("scale", (1.0, 1.0, 1.0))
        matrix[:3, 3] = node.numbers("translation", (0.0, 0.0, 0.0))
    return None if np.array_equal(matrix, np.eye(4)) else matrix


def _transformed(block: Block, matrix: np.ndarray | None) -> Block:
    """In float64, rounded once. A mirroring flips the winding, so that front sides stay front sides. Changes `block`, not its arrays."""
    if matrix is None:
        return block
    linear = matrix[:3, :3]
    mirrored = bool(np.linalg.det(linear) < 0)
    block.vertices = float32(block.vertices.astype(np.float64) @ linear.T + matrix[:3, 3])
    if block.normals is not None:
        # the cofactor matrix: like the inverse transpose, up to scale and sign, but there for singular matrices too
        a, b, c = linear.T
        cofactor = np.stack((np.cross(b, c), np.cross(c, a), np.cross(a, b)), 1)
        turned = block.normals.astype(np.float64) @ (cofactor.T * (-1.0 if mirrored else 1.0))
        length = np.linalg.norm(turned, axis=1, keepdims=True)
        block.normals = float32(turned / np.where(length > 0, length, 1.0))
    if mirrored:
        block.faces = block.faces[:, ::-1]
    return block


class _Primitives:
    """From a mesh's primitives to blocks; primitives on the same accessors share their vertices."""

    def __init__(self, source: Source, root: Item, buffers: Buffers, slots: list[MaterialSlot]) -> None:
        self.source = source
        self.buffers = buffers
        self.slots = slots
        self.records = (
            from_json(root.inner("extras", "voxgen").value.get("attributes")) if isinstance(root.value.get("extras"), dict) else []
        )

    def blocks(self, mesh: Item) -> list[Block]:
        """The triangles of one mesh, where it stands in the file; its arrays may be views of the file, not to be written to."""
        if not mesh.items("primitives"):
            self.source.warn(f"{mesh.where} has no primitives")
        shared: dict[object, tuple[Block, list[np.ndarray], list[np.ndarray]]] = {}
        for primitive in mesh.items("primitives"):
            mode = primitive.integer("mode", _TRIANGLES)
            if mode < _TRIANGLES:
                self.source.warn("points and lines are ignored: triangles are read")
                continue
            if mode > _FAN:
                primitive.fail("mode", "from 0 to 6")
            if primitive.items("targets"):
                self.source.warn("morph targets are ignored: meshes are loaded in their base shape")
            accessors = dict(primitive.inner("attributes").indices())
            slot = self._slot(primitive)
            transforms = {uv: m.tobytes() for uv, m in slot.transforms.items() if not np.array_equal(m, np.eye(2, 3))}
            key = tuple(sorted(accessors.items())), tuple(sorted(transforms.items()))
            if key not in shared:
                shared[key] = self._vertices(primitive, accessors, slot), [], []
            block, faces, material = shared[key]
            triangles = self._triangles(primitive, mode, len(block.vertices))
            faces.append(triangles)
            material.append(np.full(len(triangles), slot.index, np.int32))
        for block, faces, material in shared.values():
            block.faces, block.face_material = np.concatenate(faces), np.concatenate(material)
        return [block for block, _, _ in shared.values()]

    def _slot(self, primitive: Item) -> MaterialSlot:
        if not primitive.has("material"):
            return MaterialSlot(-1)
        index = primitive.integer("material")
        if index >= len(self.slots):
            primitive.fail("material", f"the index of one of {len(self.slots)} materials")
        return self.slots[index]

    def _triangles(self, primitive: Item, mode: int, count: int) -> np.ndarray:
        """(f, 3) int64 of a list, strip or fan."""
        if primitive.has("indices"):
            number = primitive.integer("indices")
            indices = self.buffers.array(number, f"{primitive.where}.indices")
            if indices.shape[1] != 1 or indices.dtype.kind != "u":
                raise self.source.error(
                    f"{primitive.where}.indices must be unsigned scalars; they are {indices.dtype} × {indices.shape[1]}"
                )
            self.source.claim(8 * len(indices), primitive.where)
            rows = indices[:, 0].astype(np.int64)
            check_indices(self.source, rows, count, f"{primitive.where}.indices")
        else:
            rows = np.arange(count, dtype=np.int64)
        if mode == _TRIANGLES:
            if len(rows) % 3:
                raise self.source.error(f"{primitive.where} has {len(rows)} corners, which is not a multiple of 3")
            return rows.reshape(-1, 3)
        if len(rows) < 3:
            return np.zeros((0, 3), np.int64)
        if mode == _FAN:
            return np.stack((np.broadcast_to(rows[:1], len(rows) - 2), rows[1:-1], rows[2:]), 1)
        strip = np.stack((rows[:-2], rows[1:-1], rows[2:]), 1)
        strip[1::2] = strip[1::2, [1, 0, 2]]
        return strip

    def _vertices(self, primitive: Item, accessors: dict[str, int], slot: MaterialSlot) -> Block:
        if "POSITION" not in accessors:
            raise self.source.error(f"{primitive.where} has no POSITION")
        position = self.buffers.pick(self.buffers.accessors, accessors["POSITION"], primitive.where)
        if primitive.inner("extensions").has(_COMPRESSED) and not position.has("bufferView"):
            raise self.source.error(
                f"{primitive.where} is compressed with {_COMPRESSED}, which is not supported; export without compression"
            )
        arrays: dict[str, np.ndarray] = {}
        for name, number in accessors.items():
            if name.startswith(("JOINTS_", "WEIGHTS_", "TANGENT")):
                continue
            arrays[name] = self.buffers.array(number, f"{primitive.where}.attributes.{name}")
        count = len(arrays["POSITION"])
        for name, array in arrays.items():
            if len(array) != count:
                raise self.source.error(f"{primitive.where}: {name} has {len(array)} rows and POSITION {count}")
        block = Block(float32(self._columns(primitive, arrays, "POSITION", 3)), np.zeros((0, 3), np.int64))
        if "NORMAL" in arrays:
            block.normals = float32(self._columns(primitive, arrays, "NORMAL", 3))
        for number, name in enumerate(("TEXCOORD_0", "TEXCOORD_1")):
            if name in arrays:
                uv = float32(self._columns(primitive, arrays, name, 2))
                exact = arrays.pop(V_KEYS[number], None)
                setattr(block, ("uv", "uv1")[number], _flip(_moved(uv, slot.transforms.get(number)), exact))
        block.attributes = self._attributes(arrays)
        return block

    def _columns(self, primitive: Item, arrays: dict[str, np.ndarray], name: str, width: int) -> np.ndarray:
        array = arrays.pop(name)
        if array.shape[1] != width:
            raise self.source.error(f"{primitive.where}: {name} must have {width} components; it has {array.shape[1]}")
        return array

    def _attributes(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is left: attributes that voxgen wrote, colours, and custom ones (`_NAME` becomes "name")."""
        color = arrays.pop("COLOR_0", None)
        found = gather(self.source, self.records, arrays)
        for name, array in arrays.items():
            if name.startswith("COLOR_"):
                found[name.lower()] = float32(array)
            elif name.startswith("_") and len(name) > 1:
                found[name[1:].lower() if name.isupper() else name[1:]] = array
            else:
                self.source.warn(f"attribute {name} is not read")
        if color is not None and not is_display_copy(found):
            found["color"] = float32(color)
        return found


def _moved(uv: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    if matrix is None or np.array_equal(matrix, np.eye(2, 3)):
        return uv
    return float32(uv.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2])


def _flip(uv: np.ndarray, exact: np.ndarray | None) -> np.ndarray:
    """v down → v up; `exact` is v where the file has it and it agrees, bit for bit, with what glTF's own attribute says."""
    v = np.float32(1) - uv[:, 1]
    if exact is not None and exact.shape == (len(uv), 1) and exact.dtype == np.float32:
        kept = np.ascontiguousarray(exact[:, 0], np.float32)
        if np.array_equal((np.float32(1) - kept).view(np.int32), np.ascontiguousarray(uv[:, 1]).view(np.int32)):
            v = kept
    return np.stack((uv[:, 0], v), 1)
