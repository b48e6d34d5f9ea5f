"""ShardDataset: prepared assets as a map-style dataset that streams from disk."""

from __future__ import annotations

import copy
import hashlib
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from voxgen.core.checks import describe, require_int
from voxgen.core.errors import DtypeError, FileFormatError, FileWarning, RangeError
from voxgen.models import LatentNormalization

from ._digest import file_digest
from ._fields import unpack
from ._manifest import Plan
from ._shards import Shard, tensor_path
from ._statistics import Moments

OPEN_SHARDS = 64
"""Shards that stay mapped; mapping one again costs a millisecond or so."""


class ShardDataset(Dataset[dict[str, Any]]):
    """Assets of a folder that `prepare` made, those that have all of the fields asked for.

    An item is a dict with "name" and a record for each field: `OVoxel`, `SparseSDF`, `OrientedPoints`, `ConditionImages`, `SparseTensor`
    or `DiagonalGaussian` (latents), or a (c, x, y, z) tensor, each of one sample, on the CPU. Files are mapped, so memory holds what is
    in use. Picklable: workers of a `DataLoader` (spawned ones too) open the files themselves. A folder that is still being prepared
    shows the shards that are finished.

    Args:
        folder: the prepared folder.
        fields: which to read; None is all.
        check: compare each record with its checksum when it is read: about 1 ms a megabyte.
        skip_corrupt: read everything once now, and leave out (with a warning) the assets whose records or shards are damaged. False:
            reading such an asset raises.
    Raises:
        FileNotFoundError: no prepared folder.   RangeError: fields that it does not have.   FileFormatError: a damaged index. By item:
        FileFormatError that names shard, field and asset, and says what to do; IndexError beyond the end.
    Warns:
        FileWarning: with `skip_corrupt`, for each shard or asset that is left out.
    Batch: `collate` makes one of a list of items.
    Example:
        >>> data = ShardDataset("prepared", fields=("ovoxel", "images"))                              # doctest: +SKIP
        >>> train, measured = data.split(held_out=100)                                                # doctest: +SKIP
        >>> loader = DataLoader(train, batch_size=8, shuffle=True, collate_fn=collate)                # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        fields: Sequence[str] | None = None,
        *,
        check: bool = True,
        skip_corrupt: bool = False,
        progress: bool = False,
    ) -> None:
        where = "ShardDataset"
        self.folder = Path(folder)
        self.check = check
        plan = Plan.read(self.folder)
        if isinstance(fields, str):
            raise DtypeError(f"{where}: fields must be a sequence of names, such as ({fields!r},); got the text {fields!r}.")
        wanted = tuple(plan.fields if fields is None else fields)
        absent = [name for name in wanted if name not in plan.fields]
        if absent or not wanted:
            raise RangeError(f"{where}: {self.folder} has the fields {', '.join(plan.fields)}; asked for {', '.join(absent) or 'none'}.")
        self.fields = wanted
        self._kinds = {name: str(plan.fields[name]["kind"]) for name in wanted}
        self._per_shard = plan.assets_per_shard
        self._shards: OrderedDict[tuple[str, int], Shard] = OrderedDict()
        sizes: dict[str, dict[int, int]] = {name: {} for name in wanted}
        for name in wanted:
            for _, _, entries in plan.indexes(self.folder, name):
                sizes[name] |= {entry.asset: entry.size for entry in entries if entry.kept}
        assets = [i for i in range(len(plan.names)) if all(i in sizes[name] for name in wanted)]
        self._assets = torch.tensor(assets, dtype=torch.int64)
        self._names = [plan.names[i] for i in assets]
        self._sizes = {name: torch.tensor([sizes[name][i] for i in assets], dtype=torch.int64) for name in wanted}
        if skip_corrupt:
            self._leave_out_corrupt(progress)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"ShardDataset({len(self)} assets of {self.folder}: {', '.join(self.fields)})"

    def __getitem__(self, index: int) -> dict[str, Any]:
        i = require_int("ShardDataset", "index", index, -(1 << 62))
        if not -len(self) <= i < len(self):
            raise IndexError(f"ShardDataset: index must be below {len(self)}, the number of assets; got {i}.")
        return {"name": self._names[i], **{name: self.read(i, name) for name in self.fields}}

    def read(self, index: int, field: str) -> Any:
        """One field of one asset, and none of the others.

        Raises:
            FileFormatError: damaged.   RangeError: no such field.
        """
        self._require_field("read", field)
        asset = int(self._assets[index])
        shard = self._shard(field, asset // self._per_shard)
        where = f"{shard.where}: asset {self._names[index]!r}"
        return unpack(where, self._kinds[field], shard.read(asset, check=self.check))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the assets, in order."""
        return tuple(self._names)

    def sizes(self, field: str) -> Int64[Tensor, " n"]:
        """(n,) int64: cells, points, pictures or tokens of each asset, from the index alone: what batches are filled by."""
        self._require_field("sizes", field)
        return self._sizes[field].clone()

    def subset(self, which: Iterable[str | int] | Tensor) -> ShardDataset:
        """Some of the assets, by name or position (a tensor of positions or a mask, too), in the order given.

        Raises:
            RangeError: a name or position that is not there.
        """
        if isinstance(which, Tensor):
            which = (which.nonzero()[:, 0] if which.dtype == torch.bool and len(which) == len(self) else which).tolist()
        by_name = {name: i for i, name in enumerate(self._names)}
        rows: list[int] = []
        for item in which:
            row = by_name.get(item) if isinstance(item, str) else item
            if row is None or not -len(self) <= row < len(self):
                raise RangeError(f"ShardDataset.subset: {item!r} is none of the {len(self)} assets.")
            rows.append(int(row) % len(self))
        part = copy.copy(self)
        part._shards = OrderedDict()
        part._names = [self._names[row] for row in rows]
        index = torch.tensor(rows, dtype=torch.int64)
        part._assets = self._assets[index]
        part._sizes = {name: size[index] for name, size in self._sizes.items()}
        return part

    def split(self, held_out: int | float) -> tuple[ShardDataset, ShardDataset]:
        """Two datasets: to train on, and held out. Which asset goes where follows from its name, not from the order or from chance.

        Args:
            held_out: how many, or (a float below 1) which share: then an asset stays on its side when others are added.
        Raises:
            RangeError: more than there are, or a share outside [0, 1).   DtypeError: no number.
        """
        where = "ShardDataset.split"
        marks = [int.from_bytes(hashlib.sha256(b"split " + name.encode()).digest()[:8], "big") for name in self._names]
        if isinstance(held_out, float):
            if not 0 <= held_out < 1:
                raise RangeError(f"{where}: held_out must be a number of assets, or a share from 0 to below 1; got {held_out}.")
            away = {i for i, mark in enumerate(marks) if mark < held_out * 2.0**64}
        else:
            count = require_int(where, "held_out", held_out, 0, len(self))
            away = set(sorted(range(len(self)), key=marks.__getitem__)[:count])
        return self.subset(i for i in range(len(self)) if i not in away), self.subset(sorted(away))

    def verify(self, *, progress: bool = False) -> dict[str, str]:
        """Read all shards of these fields and compare them with their checksums.

        Returns:
            Damaged shard or record → what is wrong, empty if nothing is. Keys are "field/shard" or "field/shard/name of the asset".
        """
        wrong: dict[str, str] = {}
        for field, shard, rows in tqdm(self._groups(), desc="verify", unit="shard", disable=not progress):
            key = f"{field}/{shard:06d}"
            try:
                opened = self._shard(field, shard)
            except (FileFormatError, FileNotFoundError) as error:
                wrong[key] = str(error)
                continue
            if file_digest(tensor_path(self.folder, field, shard)) == opened.header["sha256"]:
                continue
            before = len(wrong)
            for row in rows:
                try:
                    opened.read(int(self._assets[row]), check=True)
                except FileFormatError as error:
                    wrong[f"{key}/{self._names[row]}"] = str(error)
            if len(wrong) == before:
                wrong[key] = f"{opened.where}: the file is not as it was written, but the records asked for are."
        return wrong

    def stats(self, field: str, *, progress: bool = False) -> LatentNormalization:
        """Mean and standard deviation of each channel of a latent field, over all its values: what a flow's latents are normalised by.

        Of posteriors (`DiagonalGaussian`) the deviation is that of samples: the spread of the means and the variance around them.

        Raises:
            RangeError: no such field, one that has no channels, no values, or a channel that does not vary.
        """
        self._require_field("stats", field)
        moments = Moments()
        for row in tqdm(range(len(self)), desc=f"statistics of {field}", unit="asset", disable=not progress):
            moments.add(self.read(row, field))
        return moments.normalization(f"ShardDataset.stats: {field}")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_shards": OrderedDict()}

    def _shard(self, field: str, number: int) -> Shard:
        key = (field, number)
        if key not in self._shards:
            self._shards[key] = Shard(self.folder, field, number)
            if len(self._shards) > OPEN_SHARDS:
                self._shards.popitem(last=False)
        self._shards.move_to_end(key)
        return self._shards[key]

    def _require_field(self, method: str, field: str) -> None:
        if field not in self._sizes:
            raise RangeError(f"ShardDataset.{method}: the field must be one of {', '.join(self.fields)}; got {describe(field)}.")

    def _groups(self) -> list[tuple[str, int, list[int]]]:
        """Field, shard, and rows of its assets."""
        groups: dict[int, list[int]] = {}
        for row, asset in enumerate(self._assets.tolist()):
            groups.setdefault(asset // self._per_shard, []).append(row)
        return [(field, shard, rows) for field in self.fields for shard, rows in groups.items()]

    def _leave_out_corrupt(self, progress: bool) -> None:
        wrong = self.verify(progress=progress)
        bad: set[int] = set()
        for field, shard, rows in self._groups():
            key = f"{field}/{shard:06d}"
            lost = rows if key in wrong and not self._opens(field, shard) else [r for r in rows if f"{key}/{self._names[r]}" in wrong]
            if lost:
                warnings.warn(
                    f"ShardDataset: {len(lost)} assets are left out: {next(v for k, v in wrong.items() if k.startswith(key))}",
                    FileWarning,
                    stacklevel=3,
                )
            bad |= set(lost)
        if bad:
            self.__dict__ |= self.subset(row for row in range(len(self)) if row not in bad).__dict__

    def _opens(self, field: str, shard: int) -> bool:
        try:
            self._shard(field, shard)
        except (FileFormatError, FileNotFoundError):
            return False
        return True
