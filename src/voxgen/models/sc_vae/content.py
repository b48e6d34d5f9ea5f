"""What an SC-VAE is about, shape or materials: how an O-Voxel becomes features, and what the decoder's output means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.aliases import EdgeFlags
from voxgen.core.checks import require_choice, require_finite
from voxgen.core.errors import RangeError
from voxgen.layers import DualGridPrediction, read_dual_grid, read_materials
from voxgen.ops.resample import Structure
from voxgen.representations import OVoxel
from voxgen.representations.ovoxel import DEFAULT_MATERIALS, MATERIAL_CHANNELS

from ._outputs import DecoderOutput

Result = TypeVar("Result", covariant=True)


class Content(Protocol[Result]):
    """The two ends of an SC-VAE."""

    @property
    def in_channels(self) -> int: ...

    @property
    def out_channels(self) -> int: ...

    def read(self, ovoxel: OVoxel) -> SparseTensor:
        """The encoder's input."""
        ...

    def result(self, output: DecoderOutput) -> Result:
        """The decoder's output as a record."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Plain values from which it can be made again, with its "kind"."""
        ...


@dataclass(frozen=True, eq=False)
class DecodedShape:
    """A decoded shape.

    Attributes:
        head: (n, 7) the decoder's raw output.
        prediction: what it means: dual vertices in cell-local units, logits of crossed edges, positive split weights.
        logits, structures: see `DecoderOutput`. `logits` guide the material decoder of the same shape.
    """

    head: SparseTensor
    prediction: DualGridPrediction
    logits: tuple[SparseTensor, ...]
    structures: tuple[Structure, ...]

    @property
    def grid(self) -> VoxelGrid:
        return self.head.grid

    @property
    def ovoxel(self) -> OVoxel:
        """With the predicted flags. `.to_mesh()` gives the mesh, `.to_mesh(compat="trellis2")` the original's lists."""
        return self.to_ovoxel()

    def to_ovoxel(self, intersected: EdgeFlags | None = None) -> OVoxel:
        """With given flags, as in training, where only positions and split weights are learned from the rendered mesh
        (`.to_mesh(training=True)`); None takes the predicted ones."""
        p = self.prediction
        return OVoxel(self.grid, p.dual_vertices, p.intersected if intersected is None else intersected, split_weight=p.split_weight)


@dataclass(frozen=True, eq=False)
class DecodedMaterials:
    """Decoded materials.

    Attributes:
        head: (n, c) the decoder's raw output, around [-1, 1].
        materials: (n, width) by name, around [0, 1] (normal around [-1, 1]); not clamped, as in the original.
        color_space: how base_color and emissive are encoded.
        logits, structures: see `DecoderOutput`; there are no logits where the structure was guided.
    """

    head: SparseTensor
    materials: dict[str, Tensor]
    color_space: Literal["srgb", "linear"]
    logits: tuple[SparseTensor, ...]
    structures: tuple[Structure, ...]

    @property
    def grid(self) -> VoxelGrid:
        return self.head.grid

    def onto(self, ovoxel: OVoxel) -> OVoxel:
        """The shape of an O-Voxel with these materials in place of its own.

        Raises:
            RangeError: other cells. Decode with the shape's logits as `guide`, or its structure.
        """
        if not ovoxel.grid.same_cells(self.grid):
            raise RangeError(
                f"DecodedMaterials.onto: the O-Voxel must have the cells of the materials, {self.grid!r}; got {ovoxel.grid!r}. "
                f"Decode with guide= the logits of the shape, or structure= that of its encoder, at one resolution."
            )
        return ovoxel.replace(materials=self.materials, color_space=self.color_space)


@dataclass(frozen=True)
class ShapeContent:
    """Shape: dual vertices and flags of crossed edges.

    Args:
        voxel_margin: by how much a decoded dual vertex may leave its cell, in cells.
    Input features: [dual vertex - 0.5, flags - 0.5]. Output: see `voxgen.layers.read_dual_grid`.
    """

    voxel_margin: float = 0.5

    in_channels = 6
    out_channels = 7

    def read(self, ovoxel: OVoxel) -> SparseTensor:
        require_finite("SCVAE.encode", "dual_vertices", ovoxel.dual_vertices)
        vertices = ovoxel.dual_vertices
        return SparseTensor(ovoxel.grid, torch.cat((vertices - 0.5, ovoxel.intersected.to(vertices.dtype) - 0.5), 1))

    def result(self, output: DecoderOutput) -> DecodedShape:
        prediction = read_dual_grid(output.head.feats, self.voxel_margin)
        return DecodedShape(output.head, prediction, output.logits, output.structures)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "shape", "voxel_margin": self.voxel_margin}


@dataclass(frozen=True)
class MaterialContent:
    """Materials, side by side in [-1, 1].

    Args:
        materials: names of an O-Voxel's materials, in their order among the features.
        color_space: the encoding of colours that the network works in.
    """

    materials: tuple[str, ...] = DEFAULT_MATERIALS
    color_space: Literal["srgb", "linear"] = "srgb"

    def __post_init__(self) -> None:
        object.__setattr__(self, "materials", tuple(self.materials))
        for name in self.materials:
            require_choice("MaterialContent", "an entry of materials", name, tuple(MATERIAL_CHANNELS))
        require_choice("MaterialContent", "color_space", self.color_space, ("srgb", "linear"))

    @property
    def in_channels(self) -> int:
        return sum(MATERIAL_CHANNELS[name] for name in self.materials)

    @property
    def out_channels(self) -> int:
        return self.in_channels

    def read(self, ovoxel: OVoxel) -> SparseTensor:
        where = "SCVAE.encode"
        if ovoxel.color_space != self.color_space:
            raise RangeError(
                f"{where}: colours must be stored as {self.color_space!r}; the O-Voxel says {ovoxel.color_space!r}. Convert them."
            )
        features = ovoxel.material_tensor(self.materials)
        require_finite(where, "materials", features.feats)
        return features

    def result(self, output: DecoderOutput) -> DecodedMaterials:
        parts = output.head.feats.split([MATERIAL_CHANNELS[name] for name in self.materials], 1)
        values = {name: part if name == "normal" else read_materials(part) for name, part in zip(self.materials, parts, strict=True)}
        return DecodedMaterials(output.head, values, self.color_space, output.logits, output.structures)

    def to_json(self) -> dict[str, Any]:
        return {"kind": "materials", "materials": list(self.materials), "color_space": self.color_space}


def content_from_json(values: Mapping[str, Any]) -> Content[Any]:
    """The inverse of `to_json` for the contents of this file."""
    kinds = {"shape": ShapeContent, "materials": MaterialContent}
    require_choice("SCVAE", "the kind of content", values["kind"], tuple(kinds))
    return kinds[values["kind"]](**{name: value for name, value in values.items() if name != "kind"})
