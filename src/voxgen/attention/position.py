"""Where a token is: embeddings that are added to it, and rotations of queries and keys."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from voxgen.core.checks import FLOATS, INTEGERS, require_int, require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError

__all__ = ["absolute_embedding", "apply_rope", "grid_positions", "rope_phases"]


def grid_positions(resolution: int, *, device: torch.device | str | None = None) -> Float[Tensor, "n 3"]:
    """The cells of a whole cube, x slowest: (resolution³, 3) float32 indices, the token order of dense networks."""
    side = torch.arange(require_int("grid_positions", "resolution", resolution, 1), dtype=torch.float32, device=device)
    return torch.cartesian_prod(side, side, side)


def absolute_embedding(positions: Shaped[Tensor, "... 3"], channels: int) -> Float[Tensor, "... c"]:
    """Sines and cosines of a position, to be added to a token.

    Args:
        positions: (..., 3) floats or integers, in cells: the index of a cell is its position, with no half-cell offset.
            Multiply them first to match another resolution.
        channels: width of the result, at least 6.
    Returns:
        (..., channels) float32, or float64 for float64 positions. For each of x, y, z: sin(p·f_i), then cos(p·f_i), with
        f_i = 10000^(−i / F) and F = channels // 6; zeros fill what 6 F leaves.
    Raises:
        ShapeError: the last axis is not 3.   DtypeError: neither floats nor integers.   RangeError: fewer than 6 channels.
    Source: TRELLIS, TRELLIS.2 (`pe_mode="ape"`) and Direct3D-S2; differences: none. Sines come first here, cosines in
        `timestep_features`.
    Example:
        >>> absolute_embedding(torch.tensor([[3, 5, 7]]), 1024)[0, [0, 170]].tolist()
        [0.14112000167369843, -0.9899924993515015]
    """
    wide = _positions("absolute_embedding", positions)
    frequencies = _frequencies(require_int("absolute_embedding", "channels", channels, 6) // 6, 1.0, 10_000.0, wide)
    angles = wide[..., None] * frequencies
    code = torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)
    return torch.nn.functional.pad(code, (0, channels - code.shape[-1]))


def rope_phases(
    positions: Shaped[Tensor, "... 3"], head_channels: int, frequencies: tuple[float, float] = (1.0, 10_000.0)
) -> Float[Tensor, "... d/2 2"]:
    """Rotations of a position, one for each pair of a head's channels, for `apply_rope`.

    Args:
        positions: (..., 3) floats or integers, in cells.
        head_channels: width of a head, even, at least 6.
        frequencies: (a, b) of f_i = a / b^(i / F), with F = head_channels // 6; both positive.
    Returns:
        (..., head_channels / 2, 2) float32, or float64 for float64 positions: cosine and sine of x·f_i, then y·f_i, then z·f_i;
        pairs that 3 F leaves do not turn.
    Raises:
        ShapeError, DtypeError: as `absolute_embedding`.   RangeError: odd or fewer than 6 head channels, a frequency that is
        not positive.
    Source: TRELLIS.2's rotary embedding; differences: real numbers in place of complex ones.
    Example:
        >>> rope_phases(torch.tensor([[0, 5, 0]]), 8)[0, [0, 2, 3]].tolist()          # x and z are 0, the last pair is left over
        [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]
    """
    where = "rope_phases"
    wide = _positions(where, positions)
    if require_int(where, "head_channels", head_channels, 6) % 2:
        raise RangeError(f"{where}: head_channels must be even, since channels turn in pairs; got {head_channels}.")
    if not all(f > 0 for f in frequencies):
        raise RangeError(f"{where}: frequencies must be positive; got {frequencies}.")
    angles = (wide[..., None] * _frequencies(head_channels // 6, *frequencies, wide)).flatten(-2)
    angles = torch.nn.functional.pad(angles, (0, head_channels // 2 - angles.shape[-1]))
    return torch.stack([angles.cos(), angles.sin()], -1)


def apply_rope(x: Float[Tensor, "... n h d"], phases: Float[Tensor, "... n d/2 2"]) -> Float[Tensor, "... n h d"]:
    """Turn each pair of neighbouring channels (2p, 2p + 1) of every head by the angle of its token.

    Args:
        x: (..., n, h, d) floats: queries or keys, heads split.
        phases: (..., n, d / 2, 2) of `rope_phases`; leading axes broadcast.
    Returns:
        As x, in its dtype: (a, b) → (a cos − b sin, a sin + b cos). Differentiable.
    Raises:
        ShapeError: phases of another number of tokens or another head width.   DtypeError, DeviceError: other tensors.
    Source: TRELLIS.2; differences: none.
    Numerics: in float32, or float64 for float64, rounded once.
    Example:
        >>> x = torch.tensor([1.0, 0.0]).repeat(4).view(1, 1, 8)          # one token, one head of 8 channels
        >>> apply_rope(x, rope_phases(torch.tensor([[0, 0, 0]]), 8)).flatten().tolist()
        [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    """
    where = "apply_rope"
    require_same_device(where, x=x, phases=phases)
    if x.ndim < 3 or phases.ndim < 3 or phases.shape[-3:] != (x.shape[-3], x.shape[-1] // 2, 2) or x.shape[-1] % 2:
        raise ShapeError(
            f"{where}: x must be (..., n, h, d) and phases (..., n, d / 2, 2); got {tuple(x.shape)} and {tuple(phases.shape)}. "
            "Make phases with rope_phases(positions, head_channels) of the same tokens."
        )
    wide = torch.promote_types(x.dtype, torch.float32)
    a, b = x.to(wide).unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = phases.to(wide)[..., None, :, :].unbind(-1)
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2).to(x.dtype)


def _positions(where: str, positions: Tensor) -> Tensor:
    require_tensor(where, "positions", positions, None, (*FLOATS, *INTEGERS))
    if positions.ndim == 0 or positions.shape[-1] != 3:
        raise ShapeError(f"{where}: positions must be (..., 3); got {tuple(positions.shape)}. Coords? Leave out their batch column.")
    return positions if positions.dtype == torch.float64 else positions.float()


def _frequencies(count: int, first: float, base: float, like: Tensor) -> Tensor:
    steps = torch.arange(count, dtype=like.dtype, device=like.device) / count
    return first / torch.pow(base, steps)
