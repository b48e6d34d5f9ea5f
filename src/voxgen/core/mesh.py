"""TriMesh: triangles with parts, texture coordinates, attributes and materials. A record; algorithms live elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .aliases import Faces, Vertices
from .checks import describe, require_choice, require_finite, require_same_device, require_tensor
from .errors import MeshError, RangeError, ShapeError
from .frame import UpAxis
from .material import Material


@dataclass(frozen=True, eq=False)
class TriMesh:
    """A triangle mesh, possibly of several parts with several materials, in one vertex and one face buffer.

    Vertices are what glTF calls vertices: a corner with two texture coordinates is two vertices at one position
    (`weld` finds them). Immutable; `replace` makes a changed copy.

    Args:
        vertices: (v, 3) float32 or float64, world units.
        faces: (f, 3) int32 (int64 is converted), counter-clockwise seen from the front.
        normals: (v, 3) unit vertex normals, or None.
        uv: (v, 2) texture coordinates, v up (v = 1 is the top row of an image), or None.   uv1: the second set.
        attributes: further rows for each vertex by name, (v, c). "color" is linear and multiplies the base colour (glTF
            COLOR_0); "base_color" (sRGB-encoded), "metallic", "roughness", "alpha", "emissive" replace the material's.
        materials: the materials, possibly none.
        face_material: (f,) int32 index into `materials`, -1 for none; None means material 0 everywhere, if there is one.
        part_names: names of the parts.   face_part: (f,) int32 part of each face; None means one part.
        up: which axis points up. A label; nothing is rotated by it (`with_up` rotates).
    Raises:
        ShapeError, DtypeError, DeviceError: fields that do not fit each other. Values are read by `validate` only.
    Example:
        >>> mesh = TriMesh(torch.rand(3, 3), torch.tensor([[0, 1, 2]]))
        >>> mesh.num_faces
        1
    """

    vertices: Vertices
    faces: Faces
    normals: Tensor | None = None
    uv: Tensor | None = None
    uv1: Tensor | None = None
    attributes: Mapping[str, Tensor] = field(default_factory=dict)
    materials: tuple[Material, ...] = ()
    face_material: Tensor | None = None
    part_names: tuple[str, ...] = ("",)
    face_part: Tensor | None = None
    up: UpAxis = "y"

    def __post_init__(self) -> None:
        where = "TriMesh"
        require_tensor(where, "vertices", self.vertices, ("v", 3), (torch.float32, torch.float64))
        require_tensor(where, "faces", self.faces, ("f", 3), (torch.int32, torch.int64))
        object.__setattr__(self, "faces", self.faces.int())
        object.__setattr__(self, "materials", tuple(self.materials))
        object.__setattr__(self, "part_names", tuple(self.part_names))
        v, f = len(self.vertices), len(self.faces)
        for name, value, width in (("normals", self.normals, 3), ("uv", self.uv, 2), ("uv1", self.uv1, 2)):
            if value is not None:
                require_tensor(where, name, value, (v, width), (torch.float32, torch.float64))
        for name, value in self.attributes.items():
            require_tensor(where, f"attributes[{name!r}]", value, (v, "c"))
        for name in ("face_material", "face_part"):
            value = getattr(self, name)
            if value is not None:
                require_tensor(where, name, value, (f,), (torch.int32, torch.int64))
                object.__setattr__(self, name, value.int())
        require_choice(where, "up", self.up, ("y", "z"))
        rows = {name: t for name, t in self._tensors().items() if isinstance(t, Tensor)}
        require_same_device(where, **rows)

    def _tensors(self) -> dict[str, Tensor | None]:
        names = ("vertices", "faces", "normals", "uv", "uv1", "face_material", "face_part")
        return {n: getattr(self, n) for n in names} | dict(self.attributes)

    @property
    def num_vertices(self) -> int:
        return len(self.vertices)

    @property
    def num_faces(self) -> int:
        return len(self.faces)

    @property
    def num_parts(self) -> int:
        return len(self.part_names)

    @property
    def device(self) -> torch.device:
        return self.vertices.device

    def __repr__(self) -> str:
        extra = [f"{len(self.materials)} materials"] if self.materials else []
        extra += ["uv"] if self.uv is not None else []
        extra += list(self.attributes)
        tail = f", {', '.join(extra)}" if extra else ""
        return f"TriMesh({self.num_vertices} vertices, {self.num_faces} faces, {self.num_parts} parts{tail}, up={self.up!r})"

    def validate(self, where: str = "TriMesh.validate") -> TriMesh:
        """Read the values: raise MeshError unless there are faces, all indices exist and all vertices are finite. Returns self."""
        if self.num_faces == 0:
            raise MeshError(f"{where}: mesh must have at least one face; it has {self.num_vertices} vertices and no face.")
        low, high = int(self.faces.min()), int(self.faces.max())
        if low < 0 or high >= self.num_vertices:
            bad = ((self.faces < 0) | (self.faces >= self.num_vertices)).any(1)
            row = int(bad.nonzero()[0])
            raise MeshError(
                f"{where}: faces must index {self.num_vertices} vertices; {int(bad.sum())} of {self.num_faces} faces do not, "
                f"the first is face {row} = {self.faces[row].tolist()}."
            )
        try:
            require_finite(where, "vertices", self.vertices)
        except RangeError as error:
            raise MeshError(str(error)) from None
        for name, count in (("face_material", len(self.materials)), ("face_part", self.num_parts)):
            index: Tensor | None = getattr(self, name)
            if index is not None and (int(index.max()) >= count or int(index.min()) < -1):
                raise MeshError(f"{where}: {name} must lie in [-1, {count}); got values from {int(index.min())} to {int(index.max())}.")
        return self

    def replace(self, **fields: object) -> TriMesh:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **fields)  # pyright: ignore[reportArgumentType]

    def to(self, device: torch.device | str) -> TriMesh:
        """The same mesh on another device (images of textures stay where they are)."""
        moved: dict[str, object] = {n: None if t is None else t.to(device) for n, t in self._tensors().items() if n not in self.attributes}
        moved["attributes"] = {n: t.to(device) for n, t in self.attributes.items()}
        return self.replace(**moved)

    def corners(self) -> Tensor:
        """(f, 3, 3) positions: face, corner, axis. Differentiable in the vertices."""
        # not vertices[faces], whose backward pass adds in changing order on a CPU
        return self.vertices.index_select(0, self.faces.flatten().long()).reshape(-1, 3, 3)

    def face_normals(self, normalize: bool = True) -> Tensor:
        """(f, 3) normals; zero for degenerate faces. Without `normalize` their length is twice the face's area."""
        a, b, c = self.corners().unbind(1)
        n = torch.linalg.cross(b - a, c - a)
        return torch.nn.functional.normalize(n, dim=1, eps=1e-30) if normalize else n

    def vertex_normals(self) -> Tensor:
        """(v, 3) unit normals: `normals` if there are any, else the area-weighted mean of the faces around; zero where there are none."""
        if self.normals is not None:
            return self.normals
        n = self.face_normals(normalize=False)
        total = torch.zeros_like(self.vertices)
        for corner in range(3):
            total = total.index_add(0, self.faces[:, corner].long(), n)
        return torch.nn.functional.normalize(total, dim=1, eps=1e-30)

    def face_areas(self) -> Tensor:
        """(f,) areas in world units squared."""
        return self.face_normals(normalize=False).norm(dim=1) / 2

    def bounds(self) -> tuple[Tensor, Tensor]:
        """(3,) lowest and (3,) highest position over the vertices that faces use."""
        used = self.vertices[self.faces.long().unique()]
        if len(used) == 0:
            raise MeshError("TriMesh.bounds: the mesh has no faces.")
        return used.amin(0), used.amax(0)

    def transformed(self, matrix: Tensor) -> TriMesh:
        """Apply an affine (4, 4) matrix: x' = A x + t; normals by the inverse transpose. A mirroring flips the faces' winding.

        Raises:
            ShapeError: matrix is not (4, 4).   RangeError: its linear part is singular.
        """
        require_tensor("TriMesh.transformed", "matrix", matrix, (4, 4))
        m = matrix.to(self.vertices)
        linear, shift = m[:3, :3], m[:3, 3]
        determinant = float(torch.linalg.det(linear.double()))
        if determinant == 0:
            raise RangeError("TriMesh.transformed: the matrix must not be singular; its determinant is 0.")
        normals = self.normals
        if normals is not None:
            normals = torch.nn.functional.normalize(normals @ torch.linalg.inv(linear.double()).to(normals), dim=1)
        faces = self.faces.flip(1) if determinant < 0 else self.faces
        return self.replace(vertices=self.vertices @ linear.T + shift, normals=normals, faces=faces)

    def with_up(self, up: UpAxis) -> TriMesh:
        """Rotate so that `up` points up: y → z is (x, y, z) → (x, -z, y), z → y its inverse. Exact (no rounding)."""
        require_choice("TriMesh.with_up", "up", up, ("y", "z"))
        if up == self.up:
            return self

        def turn(p: Tensor | None) -> Tensor | None:
            if p is None:
                return None
            x, y, z = p.unbind(1)
            return torch.stack((x, -z, y) if up == "z" else (x, z, -y), 1)

        return self.replace(vertices=turn(self.vertices), normals=turn(self.normals), up=up)

    def select_faces(self, keep: Tensor) -> TriMesh:
        """The mesh of some faces, (f,) bool or (m,) indices; vertices that no kept face uses are dropped."""
        faces = self.faces[keep]
        used, inverse = faces.long().unique(return_inverse=True)

        def rows(t: Tensor | None) -> Tensor | None:
            return None if t is None else t[used]

        return self.replace(
            vertices=self.vertices[used],
            faces=inverse.reshape(-1, 3),
            normals=rows(self.normals),
            uv=rows(self.uv),
            uv1=rows(self.uv1),
            attributes={n: t[used] for n, t in self.attributes.items()},
            face_material=None if self.face_material is None else self.face_material[keep],
            face_part=None if self.face_part is None else self.face_part[keep],
        )

    def weld(self) -> Tensor:
        """(v,) int64: for each vertex the index of the first one at exactly its position; welded faces are `weld()[faces]`."""
        if self.num_vertices == 0:
            return torch.zeros(0, dtype=torch.int64, device=self.device)
        group = torch.zeros(self.num_vertices, dtype=torch.int64, device=self.device)
        for axis in (self.vertices + 0.0).unbind(1):  # -0.0 becomes 0.0, so that both weld
            rank = axis.contiguous().unique(return_inverse=True)[1]
            group = (group * self.num_vertices + rank).unique(return_inverse=True)[1]  # 30 times as fast as unique(dim=0)
        first = torch.full((int(group.max()) + 1,), self.num_vertices, device=self.device)
        index = torch.arange(self.num_vertices, device=self.device)
        return first.scatter_reduce(0, group, index, "amin")[group]

    @staticmethod
    def concatenate(meshes: Sequence[TriMesh]) -> TriMesh:
        """Put meshes behind each other; parts and materials are kept apart.

        A field that only some have (normals, uv) is filled for the others: normals computed, uv zero. Attributes that
        only some have raise.

        Raises:
            MeshError: nothing to concatenate, different up axes, or attributes that not all have.
        """
        if not meshes:
            raise MeshError("TriMesh.concatenate: at least one mesh is needed; got none.")
        from ._concatenate import concatenate

        return concatenate(list(meshes))

    @staticmethod
    def from_arrays(vertices: object, faces: object, up: UpAxis = "y") -> TriMesh:
        """From anything that `torch.as_tensor` takes (NumPy arrays, lists); vertices become float32, faces int32.

        Raises:
            ShapeError: not (v, 3) and (f, 3).
        """
        v = torch.as_tensor(vertices, dtype=torch.float32)
        f = torch.as_tensor(faces, dtype=torch.int64)
        if f.ndim != 2 or f.shape[1] != 3:
            raise ShapeError(f"TriMesh.from_arrays: faces must be triangles, (f, 3); got {describe(f)}.")
        return TriMesh(v, f, up=up)
