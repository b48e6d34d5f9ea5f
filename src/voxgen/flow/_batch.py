"""What a flow moves: a dense batch (b, ...) or a `SparseTensor`. Both are values with a sample for each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from voxgen.core import SparseTensor
from voxgen.core.batching import batch_index
from voxgen.core.checks import FLOATS, describe, require_same_device, require_tensor
from voxgen.core.errors import DtypeError, RangeError, ShapeError

Batch: TypeAlias = Tensor | SparseTensor
"""Dense (b, ...) with b samples, or the features of b ragged samples on the cells of a grid."""
B = TypeVar("B", Tensor, SparseTensor)


def values(x: Batch) -> Tensor:
    return x.feats if isinstance(x, SparseTensor) else x


def with_values(x: B, rows: Tensor) -> B:
    return cast(B, x.with_feats(rows) if isinstance(x, SparseTensor) else rows)


def batch_size(x: Batch) -> int:
    return x.grid.batch_size if isinstance(x, SparseTensor) else len(x)


def require_batch(where: str, name: str, x: Batch, like: Batch | None = None) -> None:
    """x is a batch of floats, of the same cells and shape as `like`."""
    if not isinstance(x, Tensor | SparseTensor):
        raise DtypeError(f"{where}: {name} must be a tensor (b, ...) or a SparseTensor; got {describe(x)}.")
    require_tensor(where, name, values(x), None, FLOATS)
    if isinstance(x, Tensor) and x.ndim < 2:
        raise ShapeError(f"{where}: {name} must be (b, ...) with at least two axes; got {tuple(x.shape)}.")
    if like is None:
        return
    if isinstance(x, SparseTensor) != isinstance(like, SparseTensor) or values(x).shape != values(like).shape:
        raise ShapeError(f"{where}: {name} must be of one kind and shape with the other; got {_shown(x)} and {_shown(like)}.")
    if (
        isinstance(x, SparseTensor)
        and isinstance(like, SparseTensor)
        and x.grid is not like.grid
        and not torch.equal(x.coords, like.coords)
    ):
        raise ShapeError(f"{where}: {name} must lie on the cells of the other; the grids differ. Build it with `with_feats`.")
    require_same_device(where, **{name: values(x), "other": values(like)})


def require_times(where: str, t: Tensor, x: Batch) -> None:
    """t is a time in [0, 1] for each sample of x."""
    require_tensor(where, "t", t, (batch_size(x),), (torch.float32, torch.float64), hint="One time a sample.")
    require_same_device(where, t=t, x=values(x))
    if len(t) and not bool(((t >= 0) & (t <= 1)).all()):
        raise RangeError(f"{where}: t must lie in [0, 1]; got values from {float(t.min())} to {float(t.max())}.")


def spread(per_sample: Tensor, x: Batch) -> Tensor:
    """(b,) numbers → a factor for the values of x, in their dtype or float32 where that is a half type."""
    dtype = torch.promote_types(values(x).dtype, torch.float32)
    if isinstance(x, SparseTensor):
        return per_sample.to(dtype).index_select(0, batch_index(x.grid.offsets))[:, None]
    return per_sample.to(dtype).reshape(-1, *[1] * (x.ndim - 1))


def filled(x: Batch, t: float) -> Tensor:
    """(b,) float64: one time for all samples of x."""
    return torch.full((batch_size(x),), t, dtype=torch.float64, device=values(x).device)


def combine(x: B, function: Callable[..., Tensor], *others: Batch | Tensor) -> B:
    """function(values of x, values of the others…) as a batch like x."""
    return with_values(x, function(values(x), *map(values, others)))


def deviation(x: Batch) -> Tensor:
    """(b,) standard deviation of each sample: of a dense one unbiased, of a sparse one biased, as TRELLIS.2 has it.

    A dense sample of one value has none; neither has an empty sparse one: NaN.
    """
    if isinstance(x, SparseTensor):
        counts = (x.grid.offsets[1:] - x.grid.offsets[:-1]).to(x.feats) * x.channels
        sample = batch_index(x.grid.offsets)
        zero = x.feats.new_zeros(x.grid.batch_size)
        mean = zero.index_add(0, sample, x.feats.sum(1)) / counts
        square = zero.index_add(0, sample, x.feats.square().sum(1)) / counts
        return (square - mean.square()).clamp(min=0).sqrt()
    return x.flatten(1).std(1)


def noise_like(x: B, generator: torch.Generator | Sequence[torch.Generator] | None = None) -> B:
    """Standard normal noise of the kind, shape, dtype and device of x.

    Args:
        x: what to match; for a `SparseTensor` the cells count, the features need only have the right width.
        generator: None is torch's own; one, for the whole batch; or one a sample: a sample then gets the same noise alone and
            in any batch. Noise is drawn in float32 on the generator's device, then moved: a CPU generator gives the same
            numbers on every device.
    Raises:
        ShapeError: as many generators as samples are needed; got another number.
    Example:
        >>> noise_like(torch.empty(2, 8, 16, 16, 16), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 8, 16, 16, 16])
    """
    require_batch("noise_like", "x", x)
    rows = values(x)
    if generator is None or isinstance(generator, torch.Generator):
        return with_values(x, _normal(rows.shape, generator, rows))
    if len(generator) != batch_size(x):
        raise ShapeError(f"noise_like: generator must be one, or one for each of the {batch_size(x)} samples; got {len(generator)}.")
    counts = (x.grid.offsets[1:] - x.grid.offsets[:-1]).tolist() if isinstance(x, SparseTensor) else [1] * len(x)
    parts = [_normal((n, *rows.shape[1:]), g, rows) for n, g in zip(counts, generator, strict=True)]
    return with_values(x, torch.cat(parts) if parts else torch.empty_like(rows))


def _normal(shape: Sequence[int], generator: torch.Generator | None, like: Tensor) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.randn(tuple(shape), generator=generator, device=device, dtype=torch.float32).to(like)


def _shown(x: Batch) -> str:
    return repr(x) if isinstance(x, SparseTensor) else f"a tensor {tuple(x.shape)}"
