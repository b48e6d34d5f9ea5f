"""What of a preparation is done, and how finished records become shards.

A record is a part, a file of its own, from the moment it is made until all records of its shard are there; then they become one
shard, and the parts are removed. So a kill costs the assets that are being worked on, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from voxgen.core.errors import FileFormatError, RangeError

from ._fields import Packed
from ._manifest import Plan
from ._shards import Entry, Shard, index_path, read_part, write_part, write_shard
from ._work import Outcome, Rejection

MISSING, KEPT, REJECTED = 0, 1, 2


class Progress:
    """The state of a folder, read from its files.

    Args:
        folder: the prepared folder.   plan: of it.   fields: those that this run makes.
        retry: count rejected assets as missing.
    """

    PARTS = "parts"

    def __init__(self, folder: Path, plan: Plan, fields: Iterable[str], *, retry: bool) -> None:
        self.folder, self.plan, self.fields = folder, plan, tuple(fields)
        self._status = {name: bytearray(len(plan.names)) for name in plan.fields}
        self._parts: dict[str, set[int]] = {name: set() for name in plan.fields}
        self._reasons: dict[int, Rejection] = {}
        self._open: tuple[tuple[str, int], Shard] | None = None
        for name in plan.fields:
            for _, _, entries in plan.indexes(folder, name):
                for entry in entries:
                    self._note(name, entry)
            self._find_parts(name)
        if retry:
            for name in self.fields:
                for asset in self._reasons:
                    if self._status[name][asset] == REJECTED:
                        self._status[name][asset] = MISSING
        self._reasons = {a: r for a, r in self._reasons.items() if any(s[a] == REJECTED for s in self._status.values())}
        self._missing = {
            (name, shard): sum(self._status[name][asset] == MISSING for asset in plan.group(shard))
            for name in self.fields
            for shard in range(plan.shards)
        }

    @property
    def rejected(self) -> int:
        return len(self._reasons)

    def lacks(self, name: str, asset: int) -> bool:
        return self._status[name][asset] == MISSING

    def unfinished(self) -> Iterator[int]:
        """Assets that lack a field."""
        for asset in range(len(self.plan.names)):
            if any(self.lacks(name, asset) for name in self.fields):
                yield asset

    def finish_shards(self) -> int:
        """Do what needs no work on assets: pass on the reasons of rejected ones, make shards of parts that are complete."""
        made = 0
        for asset, reason in sorted(self._reasons.items()):
            lacking = {name: reason for name in self.fields if self.lacks(name, asset)}
            made += self.add(Outcome(asset, lacking))
        for name, shard in self._missing:
            assets = self.plan.group(shard)
            indexed = index_path(self.folder, name, shard).is_file()
            if self._missing[name, shard] == 0 and (not indexed or any(a in self._parts[name] for a in assets)):
                self._make_shard(name, shard)
                made += 1
        return made

    def add(self, outcome: Outcome) -> int:
        """Keep what a job gave; returns how many shards became complete by it."""
        made = 0
        for name, result in outcome.fields.items():
            if name not in self._status or not self.lacks(name, outcome.asset):
                continue
            asset, label = outcome.asset, self.plan.names[outcome.asset]
            if isinstance(result, Rejection):
                entry = Entry(asset, label, code=result.code, reason=result.reason)
            else:
                entry = Entry.of(asset, label, result, outcome.warnings.get(name, ()))
            path = self._part(name, asset)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_part(path, self._kind(name), entry, None if isinstance(result, Rejection) else result)
            self._parts[name].add(asset)
            self._note(name, entry)
            shard = asset // self.plan.assets_per_shard
            self._missing[name, shard] -= 1
            if self._missing[name, shard] == 0:
                self._make_shard(name, shard)
                made += 1
        return made

    def read(self, where: str, name: str, asset: int) -> tuple[str, Packed]:
        """A finished record and its kind.

        Raises:
            RangeError: the asset has none, because the field was never finished.
        """
        if self.lacks(name, asset):
            raise RangeError(
                f"{where}: the field {name!r} is not finished, and asset {self.plan.names[asset]!r} needs it; give its stage as well."
            )
        return self._kind(name), self._record(name, asset)[1] or Packed({})

    def _kind(self, name: str) -> str:
        return str(self.plan.fields[name]["kind"])

    def _part(self, name: str, asset: int) -> Path:
        return self.folder / self.PARTS / name / f"{asset:08d}.safetensors"

    def _note(self, name: str, entry: Entry) -> None:
        if entry.asset >= len(self.plan.names) or entry.name != self.plan.names[entry.asset]:
            raise FileFormatError(
                f"prepare: {self.folder}: {name!r} has an asset {entry.asset} named {entry.name!r}, which the list of assets does not "
                f"have there. Was the folder put together from two?"
            )
        self._status[name][entry.asset] = KEPT if entry.kept else REJECTED
        if not entry.kept:
            self._reasons[entry.asset] = Rejection(str(entry.code), str(entry.reason))

    def _find_parts(self, name: str) -> None:
        for path in sorted((self.folder / self.PARTS / name).glob("*.safetensors")):
            asset = int(path.stem)
            if asset < len(self.plan.names) and self._status[name][asset] == KEPT:
                path.unlink()  # its shard was finished, and then came the kill
                continue
            self._note(name, read_part(path)[0])
            self._parts[name].add(asset)

    def _record(self, name: str, asset: int) -> tuple[Entry, Packed | None]:
        if asset in self._parts[name]:
            return read_part(self._part(name, asset))
        key = (name, asset // self.plan.assets_per_shard)
        if self._open is None or self._open[0] != key:
            self._open = key, Shard(self.folder, *key)
        shard = self._open[1]
        entry = shard.entries[asset]
        return entry, shard.read(asset, check=True) if entry.kept else None

    def _make_shard(self, name: str, shard: int) -> None:
        records = [self._record(name, asset) for asset in self.plan.group(shard)]
        self._open = None  # it may be this shard, which is replaced now
        (self.folder / name).mkdir(exist_ok=True)
        write_shard(self.folder, name, self._kind(name), shard, records)
        for asset in self.plan.group(shard):
            if asset in self._parts[name]:
                self._part(name, asset).unlink(missing_ok=True)
                self._parts[name].discard(asset)
        folder = self.folder / self.PARTS
        for empty in (folder / name, folder):
            if empty.is_dir() and not any(empty.iterdir()):
                empty.rmdir()
