"""Writing .safetensors files a tensor at a time, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import IO

import torch
from torch import Tensor

from voxgen.core.atomic import atomic_write
from voxgen.core.checks import describe
from voxgen.core.errors import DeviceError, DtypeError

_WORDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def file_header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> tuple[bytes, list[str]]:
    """The first bytes of a file with these tensors, and the order in which their data follow: wider dtypes first, then by name.

    The safetensors library orders and pads in this way, so a file is the same to the byte. Takes meta tensors too.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in _WORDS:
            raise DtypeError(f"write_safetensors: {name} has a dtype that the format does not know; got {describe(tensor)}.")
        start, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _WORDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, order


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    convert: Callable[[str, Tensor], Tensor] | None = None,
    overwrite: bool = True,
) -> None:
    """Write a file atomically, with no second copy of the tensors in memory.

    Args:
        convert: what is written of a tensor, by its name; called twice, once with a tensor on the meta device.
    Raises:
        DtypeError: a dtype that the format does not know.   DeviceError: a tensor on the meta device.
        OSError: as `atomic_write`.
    """
    require_values(tensors)
    with atomic_write(path, overwrite=overwrite) as file:
        write_tensors(file, tensors, metadata, convert=convert)


def require_values(tensors: Mapping[str, Tensor]) -> None:
    """Raise DeviceError if a tensor lies on the meta device."""
    absent = [name for name, tensor in tensors.items() if tensor.is_meta]
    if absent:
        raise DeviceError(
            f"write_safetensors: {len(absent)} tensors lie on the meta device and have no values, the first is {absent[0]}. "
            f"Load or initialise the module first."
        )


def write_tensors(
    file: IO[bytes],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    convert: Callable[[str, Tensor], Tensor] | None = None,
) -> None:
    """The content of a .safetensors file into one that is open; arguments and errors as `write_safetensors`."""
    shown = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    if convert is not None:
        shown = {name: convert(name, tensor) for name, tensor in shown.items()}
    header, order = file_header(shown, metadata)
    file.write(header)
    for name in order:
        _write(file, tensors[name] if convert is None else convert(name, tensors[name]))


def _write(file: IO[bytes], tensor: Tensor) -> None:
    values = tensor.detach().cpu().contiguous().reshape(-1)
    if values.numel():
        file.write(values.view(torch.uint8).numpy().data)
