"""Names for the tensor shapes that recur in signatures (jaxtyping)."""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Bool, Float, Int, Int32, Int64, UInt8
from torch import Tensor

Coords: TypeAlias = Int32[Tensor, "n 4"]
"""Cells: rows [batch, x, y, z]."""
Cells: TypeAlias = Int32[Tensor, "n 3"]
"""Cells of one sample: rows [x, y, z]."""
Offsets: TypeAlias = Int64[Tensor, "b+1"]
"""Bounds of the samples in a packed tensor: sample s is rows offsets[s]:offsets[s + 1]."""
Keys: TypeAlias = Int64[Tensor, "n"]
"""Packed cells, ordered like the rows they come from."""
Feats: TypeAlias = Float[Tensor, "n c"]
"""One row of features a cell."""
Points: TypeAlias = Float[Tensor, "p 3"]
"""Points in space; the frame is stated where the name is used."""
Vertices: TypeAlias = Float[Tensor, "v 3"]
Faces: TypeAlias = Int[Tensor, "f 3"]
EdgeFlags: TypeAlias = Bool[Tensor, "n 3"]
"""One boolean for each of the three edges a cell owns (x, y, z)."""
ByteRows: TypeAlias = UInt8[Tensor, "n c"]
Int3: TypeAlias = tuple[int, int, int]
Float3: TypeAlias = tuple[float, float, float]

__all__ = [
    "ByteRows",
    "Cells",
    "Coords",
    "EdgeFlags",
    "Faces",
    "Feats",
    "Float3",
    "Int3",
    "Keys",
    "Offsets",
    "Points",
    "Vertices",
]
