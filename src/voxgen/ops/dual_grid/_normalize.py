"""The frame that the original's data live in."""

from __future__ import annotations

import torch

from voxgen.core.aliases import Vertices
from voxgen.core.checks import require_tensor
from voxgen.core.errors import MeshError
from voxgen.core.frame import FIT_SCALE


def normalize_to_unit_box(vertices: Vertices) -> Vertices:
    """Move and scale vertices into [-0.5, 0.5]³ exactly as TRELLIS.2's dataset tools do.

    The middle of the bounding box goes to the origin and the longest side becomes 0.99999. All steps round to the dtype of
    vertices, so that float32 gives the original's bits; float64 and rounding afterwards gives the same to 1e-7.

    Args:
        vertices: (v, 3) float32 or float64, all that belongs to the asset together.
    Returns:
        (v, 3) same dtype. Differentiable.
    Raises:
        MeshError: no vertices, or all at one point.
    """
    require_tensor("normalize_to_unit_box", "vertices", vertices, ("v", 3), (torch.float32, torch.float64))
    if len(vertices) == 0:
        raise MeshError("normalize_to_unit_box: vertices must have at least one row; got none.")
    low, high = vertices.amin(0), vertices.amax(0)
    extent = (high - low).max()
    if not float(extent) > 0:
        raise MeshError(f"normalize_to_unit_box: vertices must not all lie at one point; the longest side is {float(extent)}.")
    return (vertices - (low + high) / 2) * (FIT_SCALE / extent)
