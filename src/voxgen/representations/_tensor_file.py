"""Files of representations that are more than rows of cells: .safetensors with voxgen's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from voxgen.core.atomic import atomic_write
from voxgen.core.errors import FileFormatError

from .ovoxel._files import parse_json
from .ovoxel._metadata import Volume, volume_from_json, volume_to_json

SUFFIX = ".safetensors"


def write_tensors(where: str, path: str | Path, kind: str, volume: Volume, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and what they belong to, atomically.

    Raises:
        FileFormatError: another suffix.   OSError: cannot write; the old file, if any, is as it was.
    """
    from safetensors.torch import save

    require_suffix(where, path)
    held = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"format": kind, "volume": json.dumps(volume_to_json(volume))}
    with atomic_write(path) as file:
        file.write(save(held, metadata))


def read_tensors(where: str, path: str | Path, kind: str) -> tuple[Volume, dict[str, Tensor]]:
    """Inverse of `write_tensors`, on the CPU; the caller checks names and shapes.

    Raises:
        FileFormatError: another suffix, a damaged or foreign file.   OSError: cannot read.
    """
    from safetensors import SafetensorError, safe_open

    require_suffix(where, path)
    with Path(path).open("rb"):  # the system's own error where it does not exist or may not be read
        pass
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                raise FileFormatError(f"{where}: {path}: format must be {kind!r}; got {metadata.get('format', 'none')!r:.60}.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise FileFormatError(f"{where}: {path} is not a whole .safetensors file ({error}).") from None
    table = parse_json(f"{where}: {path}: metadata", metadata.get("volume", "").encode("ascii", "replace"))
    return volume_from_json(f"{where}: {path}", table), tensors


def require_names(where: str, tensors: Mapping[str, Tensor], needed: set[str], optional: set[str] = frozenset()) -> None:  # pyright: ignore[reportArgumentType]
    """Raise FileFormatError unless all needed tensors are there, and none that is not known."""
    found = set(tensors)
    if not needed <= found <= needed | optional:
        raise FileFormatError(f"{where}: must hold {sorted(needed)}, and may hold {sorted(optional)}; holds {sorted(found)}.")


def require_finite_values(where: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise FileFormatError where a float tensor holds NaN or infinity."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise FileFormatError(f"{where}: {name} must be finite.")


def require_suffix(where: str, path: str | Path) -> None:
    if Path(path).suffix.lower() != SUFFIX:
        raise FileFormatError(f"{where}: {path}: the suffix must be {SUFFIX}; got {Path(path).suffix!r}.")
