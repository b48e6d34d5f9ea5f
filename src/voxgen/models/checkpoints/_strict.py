"""Strict loading: every tensor of the module from exactly one of the checkpoint, all checked before one is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxgen.core.errors import CheckpointError, DeviceError
from voxgen.ops.conv.layouts import Layout, from_layout, to_layout

from ._source import Source

_SHOWN = 10
HALF_MAX = 65504.0
"""The largest float16."""


@dataclass(frozen=True)
class Link:
    """One tensor of a module and what a checkpoint calls it.

    Args:
        own: its name in the module's state dict.
        published: its name in the checkpoint.
        layout: how the checkpoint lays out a convolution's weight; None if as it is.
        kernel_size: of that convolution.
        linear: the module has a convolution of one cell as a linear layer, whose weight is (co, ci).
    """

    own: str
    published: str
    layout: Layout | None = None
    kernel_size: tuple[int, int, int] = (1, 1, 1)
    linear: bool = False

    def export(self, tensor: Tensor) -> Tensor:
        """The tensor as the checkpoint has it."""
        return tensor if self.layout is None else to_layout(tensor.t() if self.linear else tensor, self.layout, self.kernel_size)

    def convert(self, tensor: Tensor) -> Tensor:
        """The checkpoint's tensor as the module has it."""
        if self.layout is None:
            return tensor
        own = from_layout(tensor, self.layout, self.kernel_size)
        return own.t() if self.linear else own


@dataclass(frozen=True)
class Part:
    """A module, the links of all its tensors, and where they come from."""

    module: nn.Module
    links: Sequence[Link]
    source: Source


def load_strictly(where: str, parts: Sequence[Part], device: torch.device | str | None = None) -> None:
    """Check everything, then copy tensor by tensor into the modules, in their dtypes.

    Parameters on the meta device are replaced by new ones on `device` (None: the CPU); others keep their storage.

    Raises:
        CheckpointError: names, shapes or dtypes do not agree. Nothing has been written then.
        DeviceError: a device is given, and parameters lie on another.
    """
    place = torch.empty(0, device="cpu" if device is None else device).device
    for part in parts:
        _check(where, part)
        if device is not None:
            _check_device(where, part, place)
    for part in parts:
        own = part.module.state_dict(keep_vars=True)
        for link in part.links:
            target = own[link.own]
            value = link.convert(part.source.read(link.published))
            with torch.no_grad():
                if target.is_meta:  # always a copy: the module must not change with the caller's dict, nor with the file
                    fresh = torch.empty(target.shape, dtype=target.dtype, device=place).copy_(value)
                    _replace(part.module, link.own, fresh, target)
                else:
                    target.copy_(value)


def _check_device(where: str, part: Part, place: torch.device) -> None:
    for name, tensor in part.module.state_dict(keep_vars=True).items():
        if not tensor.is_meta and tensor.device != place:
            raise DeviceError(
                f"{where}: {name} lies on {tensor.device} and device={place} was asked for. Only parameters on the meta "
                f"device are placed; move the module with .to(device) instead."
            )


def _check(where: str, part: Part) -> None:
    links, source, own = part.links, part.source, part.module.state_dict(keep_vars=True)
    offered = set(source.names())
    wanted = {link.published for link in links}
    missing, left_over = sorted(wanted - offered), sorted(offered - wanted)
    shapes: list[str] = []
    dtypes: list[str] = []
    for link in links:
        if link.published not in offered:
            continue
        target = own[link.own]
        expected = tuple(link.export(torch.empty(target.shape, dtype=target.dtype, device="meta")).shape)
        found, dtype = source.shape(link.published), source.dtype(link.published)
        if found != expected:
            shapes.append(f"{link.published}: {found} in the checkpoint, {expected} in the module")
        elif not isinstance(dtype, torch.dtype) or dtype.is_floating_point != target.dtype.is_floating_point or dtype.is_complex:
            dtypes.append(f"{link.published}: {_word(dtype)} in the checkpoint, {_word(target.dtype)} in the module")
        elif _may_overflow(dtype, target.dtype) and (top := largest(source.read(link.published))) > HALF_MAX:
            dtypes.append(f"{link.published}: holds {top:.3g}, beyond the range of the module's float16")
    problems = [
        _listing("missing from the checkpoint", missing),
        _listing("left over in the checkpoint", left_over),
        _listing("of another shape", shapes),
        _listing("that cannot be converted", dtypes),
    ]
    if any(problems):
        raise CheckpointError(
            f"{where}: {source.label} does not fit {type(part.module).__name__} ({len(links)} tensors); nothing was loaded.\n"
            + "\n".join(p for p in problems if p)
            + _hint(missing, left_over)
        )


def _listing(what: str, items: list[str]) -> str:
    if not items:
        return ""
    rest = f"\n    … and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"  {len(items)} {what}:\n    " + "\n    ".join(items[:_SHOWN]) + rest


def _hint(missing: list[str], left_over: list[str]) -> str:
    """Where the names differ by what comes before the first dot, say so: wrapped modules look like that."""
    prefix = left_over[0].partition(".")[0] + "." if left_over else ""
    if missing and {name.removeprefix(prefix) for name in left_over} >= set(missing):
        return f"\nWithout {prefix!r} at their front the left over names fit. Strip it and load again."
    return "\nBuild the module in the checkpoint's configuration, or pass the state dict of this part alone."


def _may_overflow(source: torch.dtype, target: torch.dtype) -> bool:
    return target == torch.float16 and source != torch.float16


def largest(tensor: Tensor) -> float:
    """The largest finite magnitude, 0 where there is none."""
    if tensor.numel() == 0:
        return 0.0
    low, high = tensor.detach().aminmax()
    top = float(torch.maximum(-low, high))
    if math.isfinite(top):
        return top
    return float(tensor.detach().nan_to_num(0, 0, 0).abs().max())


def _word(dtype: torch.dtype | str) -> str:
    return str(dtype).removeprefix("torch.")


def _replace(module: nn.Module, name: str, value: Tensor, old: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=old.requires_grad)
    else:
        owner._buffers[leaf] = value
