"""What the systems' converters share beside loading: weights out under published names, networks from a published configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxgen.core.checks import FLOATS, describe
from voxgen.core.errors import DtypeError
from voxgen.models._registry import build

from ._source import config_path, read_config
from ._strict import Link


def require_float(where: str, dtype: torch.dtype | None) -> None:
    """Raise DtypeError unless it is a float dtype, or None."""
    if dtype is not None and dtype not in FLOATS:
        raise DtypeError(f"{where}: dtype must be a float dtype; got {describe(dtype)}.")


def exported(where: str, module: nn.Module, links: Sequence[Link], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors of a module under their published names and in the published layout, of a dtype or of their own."""
    require_float(where, dtype)
    own = module.state_dict()
    return {link.published: link.export(own[link.own]).to(dtype or own[link.own].dtype) for link in links}


def build_described(where: str, path: str | Path, registered: Callable[[str, str], str], overrides: Mapping[str, Any]) -> nn.Module:
    """The network that NAME.json describes, on the meta device.

    Args:
        registered: (where, published class) → name in the registry.
        overrides: fields that replace those of the file.
    """
    name, args = read_config(where, config_path(path))
    if "torso_dtype" in overrides:
        args.pop("use_fp16", None)  # the same thing said in another way
    return build(registered(where, name), device="meta", **{**args, **overrides})
