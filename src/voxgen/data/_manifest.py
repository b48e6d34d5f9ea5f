"""What a prepared folder holds: its assets, its fields with the configuration of their stages, and what became of each asset."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxgen.core.atomic import atomic_write_together
from voxgen.core.errors import FileFormatError, RangeError
from voxgen.core.frame import UpAxis

from ._shards import Entry, index_path, read_index
from ._sources import AssetSource

FORMAT = "voxgen-prepared"
VERSION = 1
MANIFEST, ASSETS = "manifest.json", "assets.jsonl"


@dataclass(frozen=True)
class Plan:
    """What a preparation makes, as `manifest.json` records it.

    Attributes:
        assets_per_shard: how many neighbouring assets share a file.
        fields: for each its kind, and the configuration of the stage that makes it.
        names: of the assets in their order (in `assets.jsonl`).
        up: which axis was taken to point up in files that do not say.
    """

    assets_per_shard: int
    fields: Mapping[str, Mapping[str, Any]]
    names: tuple[str, ...] = ()
    up: UpAxis | None = None

    @property
    def shards(self) -> int:
        return -(-len(self.names) // self.assets_per_shard)

    def group(self, shard: int) -> range:
        """The numbers of a shard's assets."""
        first = shard * self.assets_per_shard
        return range(first, min(first + self.assets_per_shard, len(self.names)))

    @staticmethod
    def read(folder: Path) -> Plan:
        """
        Raises:
            FileNotFoundError: no prepared folder.   FileFormatError: damaged, or of another version.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"{folder} is no prepared folder: it has no {MANIFEST}. Make one with voxgen prepare.")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT or values["version"] != VERSION:
                raise FileFormatError(
                    f"{path}: must be {FORMAT!r} of version {VERSION}; got {values['format']!r:.40} of {values['version']!r:.20}."
                )
            lines = (folder / ASSETS).read_text(encoding="utf-8").splitlines()
            names = tuple(json.loads(line)["name"] for line in lines)
            return Plan(values["assets_per_shard"], values["fields"], names, values.get("up"))
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, FileFormatError):
                raise
            raise FileFormatError(f"{path} or {ASSETS} beside it is damaged ({error!r:.80}).") from None

    def write(self, folder: Path, sources: Sequence[AssetSource]) -> None:
        """`sources` are the assets that `names` names."""
        lines = [json.dumps(_described(source), ensure_ascii=False, sort_keys=True) + "\n" for source in sources]
        values = {"format": FORMAT, "version": VERSION, "assets_per_shard": self.assets_per_shard, "up": self.up, "fields": self.fields}
        text = json.dumps(values, ensure_ascii=False, indent=1)
        atomic_write_together([(folder / ASSETS, "".join(lines).encode()), (folder / MANIFEST, f"{text}\n".encode())])

    def indexes(self, folder: Path, name: str) -> Iterator[tuple[int, dict[str, Any], list[Entry]]]:
        """Shard, header and entries of all indexes of a field that are there."""
        for shard in range(self.shards):
            if index_path(folder, name, shard).is_file():
                yield shard, *read_index(folder, name, shard)


def merged_plan(folder: Path, wanted: Plan, sources: Sequence[AssetSource]) -> tuple[Plan, list[AssetSource]]:
    """The plan of a folder that may have one already, and the sources in its order: assets that are new come last.

    Raises:
        RangeError: what is there was made with other settings, or of assets that are not among the sources.
    """
    if not (folder / MANIFEST).exists():
        return wanted, list(sources)
    there = Plan.read(folder)
    where = f"prepare: {folder}"
    if there.assets_per_shard != wanted.assets_per_shard:
        raise RangeError(f"{where} has {there.assets_per_shard} assets a shard; got {wanted.assets_per_shard}. Choose another folder.")
    if (there.up or "y") != (wanted.up or "y"):
        raise RangeError(f"{where} was begun with up={there.up!r}; got up={wanted.up!r}. Choose another folder.")
    for name, entry in wanted.fields.items():
        if name in there.fields and there.fields[name] != entry:
            raise RangeError(
                f"{where}: the field {name!r} was prepared otherwise: {_difference(there.fields[name], entry)}. Give the settings that "
                f"it was made with, another field name, or another folder."
            )
    by_name = {source.name: source for source in sources}
    gone = [name for name in there.names if name not in by_name]
    if gone:
        raise RangeError(
            f"{where} holds {len(gone)} of {len(there.names)} assets that are not among the sources, the first is {gone[0]!r}. Give all "
            f"sources that it was begun with (more are welcome), or another folder."
        )
    ordered = [by_name.pop(name) for name in there.names] + list(by_name.values())
    return Plan(there.assets_per_shard, {**there.fields, **wanted.fields}, tuple(s.name for s in ordered), there.up), ordered


def _difference(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    one, other = ({"kind": e["kind"], **e["stage"]} for e in (there, wanted))
    keys = [k for k in (*one, *(k for k in other if k not in one)) if one.get(k) != other.get(k)]
    return ", ".join(f"{k} was {one.get(k)!r} and is {other.get(k)!r} now" for k in keys)


def _described(source: AssetSource) -> dict[str, str]:
    path = getattr(source, "path", None)
    return {"name": source.name} | ({"path": os.fspath(path)} if path is not None else {})


@dataclass(frozen=True)
class FieldSummary:
    """kind: what it holds.   config: of its stage.   kept: assets that have it.   size: cells, points or tokens.   bytes: of files."""

    kind: str
    config: Mapping[str, Any]
    kept: int
    size: int
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a prepared folder holds.

    Attributes:
        folder: where.
        names: of all assets.
        fields: a summary of each.
        rejected: name → (code, reason) of the assets that were left out.
        warnings: name → what was remarkable about an asset that was kept.
        missing: how many assets still lack a field, because the preparation was stopped.
        worked: assets that the call worked on.   seconds: that it took. 0 from `read`.
    Example:
        >>> manifest = prepare("assets", "prepared", [OVoxelStage(64)])                  # doctest: +SKIP
        >>> print(manifest)                                                              # doctest: +SKIP
    """

    folder: Path
    names: tuple[str, ...]
    fields: Mapping[str, FieldSummary]
    rejected: Mapping[str, tuple[str, str]]
    warnings: Mapping[str, tuple[str, ...]]
    missing: int = 0
    worked: int = 0
    seconds: float = field(default=0.0, compare=False)

    @staticmethod
    def read(folder: str | os.PathLike[str]) -> Manifest:
        """Of a folder that `prepare` made, also of one that is not finished.

        Raises:
            FileNotFoundError: no prepared folder.   FileFormatError: a damaged index; the message names it.
        """
        return summarize(Path(folder), Plan.read(Path(folder)))

    @property
    def kept(self) -> int:
        """Assets with a record of every field."""
        return len(self.names) - len(self.rejected) - self.missing

    @property
    def bytes(self) -> int:
        """Of all shards."""
        return sum(f.bytes for f in self.fields.values())

    def reasons(self) -> dict[str, int]:
        """How many assets were rejected under each code, most frequent first."""
        return dict(Counter(code for code, _ in self.rejected.values()).most_common())

    def __str__(self) -> str:
        """A table for people."""
        lines = [f"{self.folder}: {len(self.names):,} assets, {self.kept:,} kept, {len(self.rejected):,} rejected"]
        if self.missing:
            lines[0] += f", {self.missing:,} not finished"
        width = max([len(n) for n in (*self.fields, *self.reasons(), "rejected")])
        lines += [f"  {'field':<{width}}  {'assets':>9}  {'size':>14}  {'a piece':>9}  {'bytes':>14}"]
        for name, f in self.fields.items():
            each = f.size / f.kept if f.kept else 0
            lines.append(f"  {name:<{width}}  {f.kept:>9,}  {f.size:>14,}  {each:>9,.0f}  {f.bytes:>14,}")
        if self.rejected:
            lines.append(f"  {'rejected':<{width}}  {'assets':>9}  for example")
        for code, count in self.reasons().items():
            first = next(reason for c, reason in self.rejected.values() if c == code)
            lines.append(f"  {code:<{width}}  {count:>9,}  {first if len(first) <= 110 else first[:107] + '...'}")
        if self.seconds:
            lines.append(f"  worked on {self.worked:,} assets in {self.seconds:,.1f} s; {self.bytes:,} bytes in all")
        return "\n".join(lines)


def summarize(folder: Path, plan: Plan, worked: int = 0, seconds: float = 0.0) -> Manifest:
    """Read all indexes."""
    fields: dict[str, FieldSummary] = {}
    rejected: dict[int, tuple[str, str]] = {}
    warnings: dict[str, tuple[str, ...]] = {}
    there = Counter[int]()
    for name, about in plan.fields.items():
        kept = size = count = 0
        for _, header, entries in plan.indexes(folder, name):
            count += header["bytes"]
            for entry in entries:
                there[entry.asset] += 1
                if not entry.kept:
                    rejected.setdefault(entry.asset, (str(entry.code), str(entry.reason)))
                    continue
                kept, size = kept + 1, size + entry.size
                if entry.warnings:
                    warnings[entry.name] = (*warnings.get(entry.name, ()), *entry.warnings)
        fields[name] = FieldSummary(about["kind"], about["stage"], kept, size, count)
    missing = sum(there[i] < len(fields) and i not in rejected for i in range(len(plan.names)))
    by_name = {plan.names[i]: why for i, why in sorted(rejected.items())}
    return Manifest(folder, plan.names, fields, by_name, warnings, missing, worked, seconds)
