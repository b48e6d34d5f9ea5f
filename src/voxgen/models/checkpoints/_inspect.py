"""What a checkpoint is: which released network its tensors are those of, or which one comes near."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from voxgen.core.errors import FileFormatError
from voxgen.models._registry import MODELS, build

from ._direct3d_s2 import to_direct3d_s2
from ._source import PICKLED, SafetensorsSource, Source, open_source, unpickled, weights_path
from ._trellis import to_trellis
from ._trellis2 import to_trellis2
from ._triposf import to_triposf

_EXPORTS: dict[str, Callable[[nn.Module], dict[str, Tensor]]] = {
    "direct3d-s2": to_direct3d_s2,
    "trellis": to_trellis,
    "trellis2": to_trellis2,
    "triposf": to_triposf,
}
"""How the networks of each system are written."""
_ASSEMBLED = ("trellis2/shape-vae", "trellis2/material-vae")
"""Networks whose parts are released in files of their own."""
_NEAR = 0.5


@dataclass(frozen=True)
class Match:
    """A released network that a set of tensors looks like.

    Attributes:
        name: as `build` takes it.
        missing, left_over: tensors of the network that are not there, and tensors that it does not have.
        reshaped: tensors of the same name and another shape, such as another width has.
    """

    name: str
    missing: int
    left_over: int
    reshaped: int

    @property
    def exact(self) -> bool:
        return not (self.missing or self.left_over or self.reshaped)


@dataclass(frozen=True)
class CheckpointEntry:
    """One state dict of a file.

    Attributes:
        entry: its key in a file of several; "" if the file is one.
        tensors, parameters: how many tensors, and numbers in them.
        dtypes: number of tensors by dtype.
        kind: of a file of `save_pretrained`, the word for its class; None for others.
        matches: exact ones, or else the nearest, best first. Empty for what voxgen does not know.
    """

    entry: str
    tensors: int
    parameters: int
    dtypes: Mapping[str, int]
    kind: str | None
    matches: tuple[Match, ...]

    def __str__(self) -> str:
        dtypes = ", ".join(f"{count:,} {name}" for name, count in self.dtypes.items())
        lines = [f"{self.entry or 'the file'}: {self.tensors:,} tensors, {self.parameters:,} numbers ({dtypes})"]
        if self.kind is not None:
            lines.append(f"  written by voxgen's save_pretrained: {self.kind}; read it with voxgen.models.load_pretrained")
        for match in self.matches:
            if match.exact:
                lines.append(f"  {match.name}: every tensor, in name and shape")
            else:
                counts = f"{match.missing:,} tensors missing, {match.left_over:,} left over, {match.reshaped:,} of another shape"
                lines.append(f"  near {match.name}: {counts}")
        if self.kind is None and not self.matches:
            lines.append("  not a network that voxgen knows")
        return "\n".join(lines)


def inspect_checkpoint(path: str | Path) -> tuple[CheckpointEntry, ...]:
    """Say what a file of weights is, without loading it into anything.

    Args:
        path: NAME.safetensors, NAME or NAME.json of a published pair, or a .pt, .pth or .ckpt file of tensors, of which each state
            dict is looked at.
    Raises:
        FileFormatError: damaged, or not a checkpoint.   FileNotFoundError: no such file.
    Example:
        >>> inspect_checkpoint("vae/pretrained_TripoSFVAE_256i1024o.safetensors")[0].matches[0].name     # doctest: +SKIP
        'triposf/vae'
    """
    where = "inspect_checkpoint"
    file = weights_path(path)
    if Path(path).is_file() and not file.exists():
        raise FileFormatError(f"{where}: {path} must be a .safetensors, .pt, .pth or .ckpt file, or the .json beside one; it is neither.")
    if file.suffix in PICKLED:
        content = unpickled(where, file)
        nested = {key: value for key, value in content.items() if isinstance(value, Mapping)}
        entries = nested or {"": content}
        found = []
        for entry, tensors in entries.items():
            with open_source(where, tensors) as source:
                found.append(_entry(entry, source))
        return tuple(found)
    with open_source(where, file) as source:
        return (_entry("", source),)


def _entry(entry: str, source: Source) -> CheckpointEntry:
    shapes = {name: source.shape(name) for name in source.names()}
    dtypes = Counter(str(source.dtype(name)).removeprefix("torch.") for name in shapes)
    kind = source.metadata().get("voxgen.kind") if isinstance(source, SafetensorsSource) else None
    numbers = sum(int(torch.Size(shape).numel()) for shape in shapes.values())
    return CheckpointEntry(entry, len(shapes), numbers, dict(dtypes.most_common()), kind, () if kind else _matches(shapes))


def _matches(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Match, ...]:
    found: list[tuple[float, Match]] = []
    for name in MODELS:
        if name.partition("/")[0] not in _EXPORTS or name in _ASSEMBLED:
            continue
        released = _released(name)
        shared = shapes.keys() & released.keys()
        match = Match(
            name,
            len(released) - len(shared),
            len(shapes) - len(shared),
            sum(shapes[key] != released[key] for key in shared),
        )
        found.append((len(shared) / max(len(shapes.keys() | released.keys()), 1), match))
    exact = tuple(match for _, match in found if match.exact)
    if exact:
        return exact
    near = sorted((pair for pair in found if pair[0] >= _NEAR), key=lambda pair: (-pair[0], pair[1].reshaped))
    return tuple(match for _, match in near[:3])


@cache
def _released(name: str) -> Mapping[str, tuple[int, ...]]:
    """Shapes of the tensors of a released network, by their published names."""
    export = _EXPORTS[name.partition("/")[0]]
    return {key: tuple(value.shape) for key, value in export(build(name, device="meta")).items()}
