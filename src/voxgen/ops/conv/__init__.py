"""Sparse 3D convolution."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from voxgen.core.aliases import Feats
from voxgen.core.checks import FLOATS, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, ShapeError
from voxgen.core.memory import require_memory
from voxgen.ops._registry import Backend, Op, cpu_only, float_types, module, triton_device
from voxgen.ops.neighbors import NeighborTable

from ._adapters import spconv_serves, torchsparse_serves
from ._children import sparse_conv_children
from ._subdivided import sparse_conv_subdivided

CONV = Op(
    "conv",
    [
        Backend("numba", "voxgen.ops.conv._numba:conv", (cpu_only, float_types(torch.float32, torch.float16, torch.bfloat16))),
        Backend("triton", "voxgen.ops.conv._triton:conv", (triton_device, float_types(torch.float32, torch.float16, torch.bfloat16))),
        Backend("torch", "voxgen.ops.conv._torch:conv"),
        Backend("spconv", "voxgen.ops.conv._spconv:conv", (module("spconv"), spconv_serves)),
        Backend("torchsparse", "voxgen.ops.conv._torchsparse:conv", (module("torchsparse"), torchsparse_serves)),
        Backend("reference", "voxgen.ops.conv._reference:conv"),
    ],
)


MANY = 1 << 28
"""Elements of a result from which on the system is asked whether there is memory for it, which takes a part of a millisecond."""


def sparse_conv(
    feats: Feats,
    weight: Float[Tensor, "K ci co"] | Float[Tensor, "ci co"],
    bias: Float[Tensor, " co"] | None,
    table: NeighborTable,
    *,
    backend: str = "auto",
) -> Float[Tensor, "n_out co"]:
    """Convolve features of sparse cells: out[o] = bias + Σₖ feats[table[o, k]] · weight[k], absent cells left out.

    Cross-correlation, as `torch.nn.functional.conv3d`. The table says what kind: submanifold (outputs are the inputs),
    strided, transposed, generative; see `neighbor_table`. On the transposed table of a convolution with weights
    (K, ci, co), weights (K, co, ci) give its adjoint.

    Args:
        feats: (n_in, ci) float16, bfloat16, float32 or float64, one row a cell of `table.in_grid`.
        weight: (K, ci, co), offsets in the table's order, x slowest, z fastest; (ci, co) where K is 1. `layouts` converts
            from and to those of dense convolutions and other libraries.
        bias: (co,) or None.
        table: from `neighbor_table`, on the device of feats.
        backend: see docs/backends.md.
    Returns:
        (n_out, co) of the dtype of feats, one row a cell of `table.out_grid`. Differentiable once in feats, weight and
        bias (any number of times with the reference).
    Raises:
        ShapeError: rows, channels or offsets that do not fit each other.   DtypeError: not all of one float dtype.
        DeviceError: tensors on different devices.   BackendUnavailable: the backend asked for cannot serve.
        CapacityError: a result for which there is no memory.
    Empty tables and grids are legal.   Batch: other samples have no influence (numba: bit for bit; others: but for rounding).
    Memory: nothing but the result with numba in float32; two float32 copies of feats and result in half precision.
    Source: submanifold convolution as in TRELLIS.2's SC-VAE; differences: none.
    Numerics: sums in float32 (float64 for float64), each offset apart, rounded once to the dtype of feats. Under autocast
        the operands are converted as for a dense convolution. Deterministic. A NaN reaches the outputs whose window
        holds it and no others.
    Example:
        >>> table = neighbor_table(grid, kernel_size=3)
        >>> sparse_conv(torch.rand(len(grid), 8), torch.rand(27, 8, 16), None, table).shape[1]
        16
    """
    where = "sparse_conv"
    require_tensor(where, "feats", feats, (len(table.in_grid), "ci"), FLOATS, hint="One row for each cell of table.in_grid.")
    if weight.ndim == 2:
        weight = weight[None]
    require_tensor(where, "weight", weight, (table.volume, feats.shape[1], "co"), FLOATS, hint=_WEIGHT_HINT)
    if bias is not None:
        require_tensor(where, "bias", bias, (weight.shape[2],), FLOATS)
    require_same_device(where, feats=feats, weight=weight, bias=bias, table=table.table)
    kind = feats.device.type
    if torch.is_autocast_enabled(kind) and feats.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
        feats, weight, bias = feats.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    if weight.dtype != feats.dtype or (bias is not None and bias.dtype != feats.dtype):
        raise DtypeError(
            f"{where}: feats, weight and bias must have one dtype; got {feats.dtype}, {weight.dtype}"
            f"{'' if bias is None else f', {bias.dtype}'}. Convert with .to(dtype), or use torch.autocast."
        )
    if 0 in weight.shape:
        raise ShapeError(f"{where}: there must be at least one input and one output channel; weight is {tuple(weight.shape)}.")
    elements = len(table.out_grid) * weight.shape[2]
    if not torch.compiler.is_compiling() and elements > MANY:
        require_memory(where, elements * feats.element_size(), feats.device, "Split the batch, or decode in tiles.")
    return CONV.engine(backend, feats, weight, bias, **table.facts)(feats, weight, bias, table)


_WEIGHT_HINT = "(K, ci, co): K offsets, x slowest; voxgen.ops.conv.layouts converts other layouts."


__all__ = ["sparse_conv", "sparse_conv_children", "sparse_conv_subdivided"]
