"""A pipeline in a folder: pipeline.json says what it is, and names the file of each network with its checksum."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import nn

from voxgen._version import __version__
from voxgen.core.atomic import atomic_write
from voxgen.core.checks import describe
from voxgen.core.errors import DtypeError, FileFormatError, RangeError
from voxgen.models._pretrained import load_pretrained, require_saveable, write_pretrained

__all__ = [
    "MANIFEST",
    "PipelineFolder",
    "named_under",
    "parts_under",
    "read_manifest",
    "read_pipeline_folder",
    "write_pipeline_folder",
]

MANIFEST = "pipeline.json"
_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, eq=False)
class PipelineFolder:
    """What a folder holds.

    Attributes:
        kind: which pipeline, such as "trellis2".
        networks: by the names under which they were written. Names that were one module are one again.
        settings: plain values: what the pipeline needs beside its networks.
    """

    kind: str
    networks: dict[str, nn.Module]
    settings: dict[str, Any]

    def by_resolution(self, name: str) -> dict[int, nn.Module]:
        """Networks that were written by `named_under`, for each of several resolutions."""
        return {int(resolution): part for resolution, part in parts_under(name, self.networks).items()}

    def image_encoder(self) -> Any:
        """One encoder, one by stage, or None."""
        return parts_under("image_encoder", self.networks) or self.networks.get("image_encoder")


def write_pipeline_folder(
    folder: str | os.PathLike[str],
    kind: str,
    networks: Mapping[str, nn.Module],
    settings: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
    overwrite: bool = True,
) -> None:
    """Write a pipeline: pipeline.json, and NAME.safetensors for each network, as `save_pretrained` writes it.

    All files are on disk under temporary names before the first gets its own, so a crash or a full disk leaves the folder as it was. One
    module under several names is written once.

    Args:
        folder: made where it does not exist (its parent must).
        kind: which pipeline.
        networks: by name: letters, digits, "_", "." and "-".
        settings: values that JSON has.
        dtype: in which weights are stored; see `save_pretrained`.
        overwrite: False raises where a file of that name exists. Other files in the folder stay.
    Raises:
        RangeError: a name that makes no file name, settings with NaN or infinity.   DtypeError: settings that JSON does not have, a network
        that `save_pretrained` does not take.   OSError: as `core.atomic.atomic_write`.
    """
    where = "write_pipeline_folder"
    path = Path(os.fspath(folder))
    files: dict[int, str] = {}  # of a module, by identity
    for name, module in networks.items():
        if not _NAME.fullmatch(name):
            raise RangeError(f"{where}: names of networks must be of letters, digits, '_', '.' and '-'; got {name!r}.")
        require_saveable(where, module, dtype)
        files.setdefault(id(module), f"{name}.safetensors")
    manifest: dict[str, Any] = {
        "voxgen.pipeline": kind,
        "voxgen.format": _FORMAT,
        "voxgen.version": __version__,
        "settings": dict(settings),
        "networks": {},
    }
    _text(where, manifest)  # before anything is written
    path.mkdir(exist_ok=True)
    with ExitStack() as stack:  # left in reverse: pipeline.json is the last to get its name
        listing = stack.enter_context(atomic_write(path / MANIFEST, "w", overwrite=overwrite))
        written: dict[int, dict[str, Any]] = {}
        for name, module in networks.items():
            if id(module) not in written:
                file = _Hashing(stack.enter_context(atomic_write(path / files[id(module)], overwrite=overwrite)))
                write_pretrained(cast(IO[bytes], file), module, dtype)
                written[id(module)] = {"file": files[id(module)], "sha256": file.digest.hexdigest()}
            manifest["networks"][name] = written[id(module)]
        listing.write(_text(where, manifest))


def read_pipeline_folder(
    folder: str | os.PathLike[str],
    kind: str,
    *,
    device: torch.device | str | None = None,
    torso_dtype: torch.dtype | None = None,
    verify: bool = True,
) -> PipelineFolder:
    """Read what `write_pipeline_folder` wrote; networks in evaluation mode.

    Args:
        folder: the folder.
        kind: which pipeline it must be.
        device, torso_dtype: see `load_pretrained`.
        verify: compare the checksum of each file, which reads it once more.
    Raises:
        FileNotFoundError: no such folder, or a file that pipeline.json names is missing.   FileFormatError: another pipeline or format, or
        a file that is not the one that was written.   CheckpointError: weights that do not fit their configuration.
    """
    where = "read_pipeline_folder"
    path = Path(os.fspath(folder))
    manifest = read_manifest(where, path)
    found = manifest.get("voxgen.pipeline")
    if found is None:
        raise FileFormatError(f"{where}: {path / MANIFEST} was not written by voxgen.")
    if manifest.get("voxgen.format") != _FORMAT:
        raise FileFormatError(
            f"{where}: {path} has format {manifest.get('voxgen.format')}; this voxgen reads format {_FORMAT}. Install a newer voxgen."
        )
    if found != kind:
        raise FileFormatError(f"{where}: {path} holds a pipeline {found!r}; a {kind!r} is needed here.")
    entries, settings = manifest.get("networks"), manifest.get("settings")
    if not isinstance(entries, dict) or not isinstance(settings, dict):
        raise FileFormatError(f"{where}: {path / MANIFEST} must have objects 'networks' and 'settings'.")
    loaded: dict[str, nn.Module] = {}
    networks: dict[str, nn.Module] = {}
    for name, entry in entries.items():
        file = entry.get("file") if isinstance(entry, dict) else None
        if not isinstance(file, str) or not _NAME.fullmatch(file):
            raise FileFormatError(f"{where}: {path / MANIFEST} must name a file in the folder for {name!r}; got {describe(file)}.")
        if file not in loaded:
            if not (path / file).is_file():
                raise FileNotFoundError(f"{where}: {path / file}, the network {name!r}, is missing. Copy or download it again.")
            if verify:
                _verify(where, path / file, entry.get("sha256"))
            loaded[file] = load_pretrained(path / file, device=device, torso_dtype=torso_dtype).eval()
        networks[name] = loaded[file]
    return PipelineFolder(kind, networks, settings)


def read_manifest(where: str, folder: Path, name: str = MANIFEST) -> dict[str, Any]:
    """The content of pipeline.json (or of another file), of voxgen's folders and of released ones alike.

    Raises:
        FileNotFoundError: no folder, or none with that file.   FileFormatError: not a JSON object.
    """
    path = folder / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{where}: there is no folder {folder}.")
    if not path.is_file():
        raise FileNotFoundError(f"{where}: there is no {name} in {folder}. Give the folder of a whole pipeline.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{where}: {path} is not JSON ({error}).") from error
    if not isinstance(manifest, dict):
        raise FileFormatError(f"{where}: {path} must hold an object; it holds {describe(manifest)}.")
    return manifest


class _Hashing:
    """A file that is written, and the digest of what was."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, content: Any) -> int:
        self.digest.update(content)
        return self._file.write(content)


def _verify(where: str, path: Path, expected: Any) -> None:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    found = digest.hexdigest()
    if found != expected:
        raise FileFormatError(
            f"{where}: {path} is not the file that was written: its sha256 is {found}, and {MANIFEST} has {expected}. "
            "Copy or download it again."
        )


def _text(where: str, manifest: Mapping[str, Any]) -> str:
    try:
        return json.dumps(manifest, indent=2, allow_nan=False) + "\n"
    except TypeError as error:
        raise DtypeError(f"{where}: settings must be values that JSON has: {error}.") from error
    except ValueError as error:
        raise RangeError(f"{where}: settings must be finite: {error}.") from error


def named_under(prefix: str, parts: Mapping[Any, nn.Module]) -> dict[str, nn.Module]:
    """Networks of one kind by the names that a folder has for them: "flows.512" of {512: …} under "flows"."""
    return {f"{prefix}.{key}": part for key, part in parts.items()}


def parts_under(prefix: str, networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The inverse of `named_under`; keys are text."""
    return {name.removeprefix(f"{prefix}."): part for name, part in networks.items() if name.startswith(f"{prefix}.")}
