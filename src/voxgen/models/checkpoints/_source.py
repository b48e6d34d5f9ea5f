"""Where the tensors of a checkpoint come from: a dict, a .safetensors file, or a .pt file; one interface, read a tensor at a time."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from voxgen.core.checks import describe
from voxgen.core.errors import DtypeError, FileFormatError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
PICKLED = (".pt", ".pth", ".ckpt")


class Source(Protocol):
    """Named tensors whose shapes are known before any is read."""

    label: str

    def names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> torch.dtype | str:
        """The dtype, or the file's word for one that torch does not have."""
        ...

    def read(self, name: str) -> Tensor: ...


class DictSource:
    """Tensors that are in memory."""

    def __init__(self, tensors: Mapping[str, Tensor], label: str = "the given state dict") -> None:
        wrong = [name for name, value in tensors.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
        if wrong:
            raise DtypeError(
                f"load: a state dict must map names to tensors; entry {wrong[0]!r} is {describe(tensors[wrong[0]])}. "
                f"If the weights lie deeper, for example under 'state_dict', pass that entry."
            )
        self.label = label
        self._tensors = tensors

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype | str:
        return self._tensors[name].dtype

    def read(self, name: str) -> Tensor:
        return self._tensors[name].detach()


class SafetensorsSource:
    """A mapped file; `read` brings in the pages of one tensor."""

    def __init__(self, handle: Any, label: str) -> None:
        self.label = label
        self._handle = handle

    def names(self) -> list[str]:
        return list(self._handle.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._handle.get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype | str:
        word: str = self._handle.get_slice(name).get_dtype()
        return _DTYPES.get(word, word)

    def read(self, name: str) -> Tensor:
        return self._handle.get_tensor(name)

    def metadata(self) -> dict[str, str]:
        return self._handle.metadata() or {}


class Completed:
    """A source, and tensors that follow from the configuration where it leaves them out."""

    def __init__(self, source: Source, derived: Mapping[str, Callable[[], Tensor]]) -> None:
        offered = set(source.names())
        self.label = source.label
        self._source = source
        self._added = DictSource({name: make() for name, make in derived.items() if name not in offered})

    def names(self) -> list[str]:
        return self._source.names() + self._added.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._of(name).shape(name)

    def dtype(self, name: str) -> torch.dtype | str:
        return self._of(name).dtype(name)

    def read(self, name: str) -> Tensor:
        return self._of(name).read(name)

    def _of(self, name: str) -> Source:
        return self._added if name in self._added.names() else self._source


class Section:
    """The tensors of a source whose names begin in one way; the others are not looked at."""

    def __init__(self, source: Source, prefix: str) -> None:
        self.label = source.label
        self._source = source
        self._prefix = prefix
        self.shape, self.dtype, self.read = source.shape, source.dtype, source.read

    def names(self) -> list[str]:
        return [name for name in self._source.names() if name.startswith(self._prefix)]


@contextmanager
def open_source(where: str, source: Any, entry: str | None = None) -> Iterator[Source]:
    """A dict of tensors as it is, or the file at a path; of either, the state dict under `entry` where there is one.

    Raises:
        FileNotFoundError, PermissionError: of the system.   FileFormatError: not a checkpoint, or a damaged one.
        DtypeError: neither a dict nor a path.
    """
    if isinstance(source, Mapping):
        yield _entry_of(source, entry, "the given state dict")
        return
    if not isinstance(source, (str, Path)):
        raise DtypeError(f"{where}: the source must be a dict of tensors or a path; got {describe(source)}.")
    path = weights_path(source)
    if path.suffix in PICKLED:
        yield _entry_of(unpickled(where, path), entry, str(path))
        return
    with open_safetensors(where, path) as opened:
        yield opened


def _entry_of(content: Mapping[str, Any], entry: str | None, label: str) -> DictSource:
    """Files of several networks hold a state dict for each."""
    if entry is not None and isinstance(content.get(entry), Mapping):
        return DictSource(content[entry], f"{label} [{entry}]")
    return DictSource(content, label)


@contextmanager
def open_safetensors(where: str, path: Path) -> Iterator[SafetensorsSource]:
    from safetensors import SafetensorError, safe_open

    with path.open("rb"):  # the system's own error where it does not exist or may not be read
        pass
    try:
        handle = safe_open(path, framework="pt", device="cpu")
    except SafetensorError as error:
        raise FileFormatError(f"{where}: {path} is not a whole .safetensors file ({error}). Download or write it again.") from error
    with handle:
        yield SafetensorsSource(handle, str(path))


def weights_path(source: str | Path) -> Path:
    """The file of weights that a path means: NAME, NAME.json and NAME.safetensors are one pair."""
    path = Path(source)
    if path.suffix in (".safetensors", *PICKLED):
        return path
    if path.suffix == ".json":
        return path.with_suffix(".safetensors")
    return path.with_name(path.name + ".safetensors")


def config_path(source: str | Path) -> Path:
    """The file of the configuration in a pair; it need not exist."""
    return weights_path(source).with_suffix(".json")


def read_config(where: str, path: Path) -> tuple[str, dict[str, Any]]:
    """Class name and constructor arguments of a published configuration file.

    Raises:
        FileFormatError: not a JSON object with "name" and "args".
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{where}: {path} is not JSON ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("name"), str) or not isinstance(content.get("args"), dict):
        raise FileFormatError(f'{where}: {path} must be an object with "name" (a class) and "args" (its arguments).')
    return content["name"], content["args"]


def unpickled(where: str, path: Path) -> Mapping[str, Tensor]:
    with path.open("rb"):
        pass
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise FileFormatError(f"{where}: {path} is not a file of plain tensors ({error}).") from error
    if not isinstance(content, Mapping):
        raise FileFormatError(f"{where}: {path} must hold a dict of tensors; it holds {describe(content)}.")
    return content
