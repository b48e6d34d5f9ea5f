"""Shards: one .safetensors file with the tensors of some hundred assets, and beside it an index with a line for each of them.

The index is what makes a shard exist: it is written after the tensors, and holds their checksums.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxgen.core.atomic import atomic_write
from voxgen.core.errors import FileFormatError

from ._digest import file_digest, tensors_digest
from ._fields import Packed

FORMAT = "voxgen-shard"
VERSION = 1
ANEW = "Delete the shard and its index and run prepare again to make them anew"
REMEDY = f"{ANEW}, or open the dataset with skip_corrupt=True."


@dataclass(frozen=True)
class Entry:
    """What an index says of one asset: that a record is there, or why there is none.

    Attributes:
        asset: its number in the prepared folder.   name: its name.
        size: cells, points, pictures or tokens.   bytes: of its tensors.   sha256: of its tensors and facts.   facts: see `Packed`.
        warnings: what was remarkable while it was made.
        code: None, or a word for the kind of rejection, and `reason` the sentence.
    """

    asset: int
    name: str
    size: int = 0
    bytes: int = 0
    sha256: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    code: str | None = None
    reason: str | None = None

    @property
    def kept(self) -> bool:
        return self.code is None

    def to_json(self) -> dict[str, Any]:
        if not self.kept:
            return {"asset": self.asset, "name": self.name, "code": self.code, "reason": self.reason}
        values = {"asset": self.asset, "name": self.name, "size": self.size, "bytes": self.bytes, "sha256": self.sha256}
        values["facts"] = self.facts
        return values | ({"warnings": list(self.warnings)} if self.warnings else {})

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Entry:
        known = dict(values)
        known["warnings"] = tuple(known.get("warnings", ()))
        return Entry(**known)

    @staticmethod
    def of(asset: int, name: str, packed: Packed, warnings: Sequence[str] = ()) -> Entry:
        count = sum(t.numel() * t.element_size() for t in packed.tensors.values())
        return Entry(asset, name, packed.size, count, digest(packed), packed.facts, tuple(warnings))


def digest(packed: Packed) -> str:
    """sha256 over the facts and the tensors."""
    return tensors_digest(_text(packed.facts), packed.tensors)


def write_part(path: Path, kind: str, entry: Entry, packed: Packed | None) -> None:
    """One asset's record of one field, until its shard is complete."""
    from voxgen.models.checkpoints._safetensors import write_safetensors

    tensors = {} if packed is None else packed.tensors
    write_safetensors(path, tensors, {"format": "pt", "voxgen.kind": kind, "voxgen.entry": _text(entry.to_json()).decode()})


def read_part(path: Path) -> tuple[Entry, Packed | None]:
    """Inverse of `write_part`; the tensors are views of the mapped file.

    Raises:
        FileFormatError: a damaged file, which the way it was written excludes.
    """
    tensors, metadata = _open(f"prepare: {path}", path, "Delete it; what it held will be made again.")
    entry = Entry.from_json(json.loads(metadata["voxgen.entry"]))
    if not entry.kept:
        return entry, None
    return entry, Packed({name: tensors.get_tensor(name) for name in tensors.keys()}, dict(entry.facts), entry.size)  # noqa: SIM118


def tensor_path(folder: Path, name: str, shard: int) -> Path:
    return folder / name / f"{shard:06d}.safetensors"


def index_path(folder: Path, name: str, shard: int) -> Path:
    return folder / name / f"{shard:06d}.jsonl"


def write_shard(folder: Path, name: str, kind: str, shard: int, records: Sequence[tuple[Entry, Packed | None]]) -> None:
    """Write tensors, then the index. Equal records give equal files, to the byte.

    Args:
        folder: the prepared folder.   name: of the field.   records: in order of the assets; mapped tensors are streamed.
    Raises:
        OSError: as `atomic_write`; without an index the shard does not exist.
    """
    from voxgen.models.checkpoints._safetensors import write_safetensors

    tensors = {f"{e.asset:08d}/{key}": t for e, packed in records if packed is not None for key, t in packed.tensors.items()}
    path = tensor_path(folder, name, shard)
    write_safetensors(path, tensors, {"format": "pt", "voxgen.field": name, "voxgen.kind": kind})
    lines = b"".join(_text(entry.to_json()) + b"\n" for entry, _ in records)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "field": name,
        "kind": kind,
        "shard": shard,
        "assets": len(records),
        "bytes": path.stat().st_size,
        "sha256": file_digest(path),
        "index_sha256": hashlib.sha256(lines).hexdigest(),
    }
    with atomic_write(index_path(folder, name, shard)) as file:
        file.write(_text(header) + b"\n" + lines)


def read_index(folder: Path, name: str, shard: int) -> tuple[dict[str, Any], list[Entry]]:
    """The header of a shard's index and its entries.

    Raises:
        FileFormatError: a damaged index, or of another version.   OSError: cannot read.
    """
    path = index_path(folder, name, shard)
    where = f"shard {shard} of {name!r}: {path}"
    first, _, rest = path.read_bytes().partition(b"\n")
    try:
        header = json.loads(first)
        if header["format"] != FORMAT:
            raise FileFormatError(f"{where}: format must be {FORMAT!r}; got {header['format']!r:.60}.")
        if header["version"] != VERSION:
            raise FileFormatError(f"{where}: is of version {header['version']!r:.20}; this voxgen reads version {VERSION}.")
        if hashlib.sha256(rest).hexdigest() != header["index_sha256"]:
            raise FileFormatError(f"{where}: the index does not have the checksum that it was written with. {ANEW}.")
        return header, [Entry.from_json(json.loads(line)) for line in rest.splitlines()]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{where}: the index is damaged ({error!r:.80}). {ANEW}.") from None


class Shard:
    """An open shard: mapped tensors and their index."""

    def __init__(self, folder: Path, name: str, shard: int) -> None:
        self.where = f"shard {shard} of {name!r}: {tensor_path(folder, name, shard)}"
        self.header, entries = read_index(folder, name, shard)
        self.entries = {entry.asset: entry for entry in entries}
        self._tensors, _ = _open(self.where, tensor_path(folder, name, shard), REMEDY)
        self._names: dict[int, list[str]] = {}
        for key in self._tensors.keys():  # noqa: SIM118 (not a dict)
            asset, _, rest = key.partition("/")
            self._names.setdefault(int(asset), []).append(rest)

    def read(self, asset: int, *, check: bool) -> Packed:
        """The tensors of an asset, copied out of the mapped file.

        Raises:
            FileFormatError: they are not there, or (with `check`) do not have their checksum.
        """
        entry = self.entries[asset]
        held = {name: self._tensors.get_tensor(f"{asset:08d}/{name}").clone() for name in self._names.get(asset, [])}
        packed = Packed(held, dict(entry.facts), entry.size)
        if check and digest(packed) != entry.sha256:
            raise FileFormatError(
                f"{self.where}: asset {entry.name!r} does not have the checksum that it was written with: the file was damaged "
                f"on disk or in transfer. {REMEDY}"
            )
        return packed


def _open(where: str, path: Path, remedy: str) -> tuple[Any, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    with path.open("rb"):  # the system's own error where it does not exist or may not be read
        pass
    try:
        file = safe_open(path, framework="pt", device="cpu")
        return file, file.metadata() or {}
    except SafetensorError as error:
        raise FileFormatError(f"{where} is not a whole .safetensors file ({error}). {remedy}") from None


def _text(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
