"""Box-constrained minimum of quadratic error functions: where the dual vertex of a cell goes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.checks import require_finite, require_same_device, require_tensor
from voxgen.core.errors import RangeError
from voxgen.ops._registry import Backend, Call, Op, cpu_only, no_gradient

__all__ = ["solve_box_qef"]

OP = Op(
    "qef",
    [
        Backend("numba", "voxgen.ops.qef._numba:solve_box_qef", (cpu_only, no_gradient)),
        Backend("torch", "voxgen.ops.qef._torch:solve_box_qef"),
        Backend("reference", "voxgen.ops.qef._reference:solve_box_qef"),
    ],
)


def solve_box_qef(
    q: Float[Tensor, "n 10"],
    low: Float[Tensor, "n 3"],
    high: Float[Tensor, "n 3"],
    *,
    anchor: Float[Tensor, "n 3"] | None = None,
    backend: str = "auto",
) -> Float[Tensor, "n 3"]:
    """Minimise [v, 1]ᵀ Q [v, 1] over the box low <= v <= high, for n quadratics at once.

    Args:
        q: (n, 10) float32 or float64, upper triangles of symmetric 4×4 matrices, row by row: q00 q01 q02 q03 q11 q12 q13
            q22 q23 q33. The 3×3 part must be positive semidefinite, as sums of squared distances are.
        low, high: (n, 3) same dtype, closed box of each; low <= high.
        anchor: (n, 3) same dtype. Directions that Q leaves open go as near to it as the rest allows; None means the
            middle of the box.
        backend: see docs/backends.md.
    Returns:
        (n, 3) same dtype. Differentiable in q, low, high and anchor (where the set of active bounds does not change).
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit each other.
        RangeError: a value that is not finite, or low above high.
    Empty input: returns (0, 3).
    Source: TRELLIS.2 (arXiv 2512.14692), dual vertex of the flexible dual grid; enumeration of the active bounds (interior,
        6 faces, 12 edges, 8 corners). Differences: singular systems have a unique answer (the original's depends on the
        pivots of its QR), and float64 is used inside, so that near ties between bounds do not pick a wrong one.
    Numerics: float64 inside. The open directions are decided by adding s trace(Q) |v - anchor|² with s = 1e-9 (float32 q:
        1e-6, as its rounding asks for), which moves a regular minimum by about s times its condition number.
    Example:
        >>> plane = torch.tensor([[0, 0, 0, 0, 0, 0, 0, 1.0, -0.25, 0.0625]])            # (z - 0.25)²
        >>> solve_box_qef(plane, torch.zeros(1, 3), torch.ones(1, 3))
        tensor([[0.5000, 0.5000, 0.2500]])
    """
    where = "solve_box_qef"
    require_tensor(where, "q", q, ("n", 10), (torch.float32, torch.float64))
    named = {"low": low, "high": high} if anchor is None else {"low": low, "high": high, "anchor": anchor}
    for name, value in named.items():
        require_tensor(where, name, value, (len(q), 3), (q.dtype,))
    require_same_device(where, q=q, **named)
    for name, value in {"q": q, **named}.items():
        require_finite(where, name, value)
    if bool((low > high).any()):
        row = int((low > high).any(1).nonzero()[0])
        raise RangeError(f"{where}: low must not exceed high; got {low[row].tolist()} and {high[row].tolist()} in row {row}.")
    if anchor is None:
        anchor = (low + high) / 2
    return OP.run(backend, Call.of(q, low, high, anchor), q, low, high, anchor)
