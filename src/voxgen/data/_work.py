"""The work on one asset, as each engine does it: a source in, packed records or reasons out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from voxgen.core.errors import CapacityError, FileFormatError, MeshError, VoxgenError, VoxgenWarning

from ._failures import failure_of
from ._fields import Packed, pack, unpack
from ._sources import AssetInput, AssetSource
from ._stages import AssetRejected, Stage


@dataclass(frozen=True, eq=False)
class Job:
    """asset: its number.   stages: which are to run.   given: fields that are there already and are needed, with their kinds."""

    asset: int
    source: AssetSource
    stages: tuple[int, ...]
    given: Mapping[str, tuple[str, Packed]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejection:
    """code: a word to count by.   reason: a sentence."""

    code: str
    reason: str


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a job: for each field of its stages the record, or why there is none.

    Attributes:
        failure: an error that is no fault of the asset: to be raised, after the fields that came before it are kept.
    """

    asset: int
    fields: Mapping[str, Packed | Rejection]
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    failure: VoxgenError | OSError | None = None


def work(stages: Sequence[Stage], job: Job) -> Outcome:
    """Run the stages on one asset. The first that rejects it ends the work: the fields after it get the same reason.

    So does the first that fails for a reason that is not the asset's; the fields after it get nothing.
    """
    asset = AssetInput(job.source)
    done: dict[str, Any] = {name: unpack(f"{asset.name}: {name}", kind, packed) for name, (kind, packed) in job.given.items()}
    results: dict[str, Packed | Rejection] = {}
    told: dict[str, tuple[str, ...]] = {}
    rejection: Rejection | None = None
    for number in job.stages:
        stage = stages[number]
        if rejection is None:
            found, messages = _run(stage, asset, done)
            if isinstance(found, Exception):
                return Outcome(job.asset, results, told, found)
            if isinstance(found, Rejection):
                rejection = found
            else:
                results |= found
                told |= dict.fromkeys(found, messages)
        if rejection is not None:
            results |= dict.fromkeys(stage.fields, rejection)
    return Outcome(job.asset, results, told)


def reject_all(stages: Sequence[Stage], job: Job, rejection: Rejection) -> Outcome:
    """The outcome of a job whose process ended, or took too long."""
    return Outcome(job.asset, {name: rejection for number in job.stages for name in stages[number].fields})


def _run(
    stage: Stage, asset: AssetInput, done: dict[str, Any]
) -> tuple[dict[str, Packed] | Rejection | VoxgenError | OSError, tuple[str, ...]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", VoxgenWarning)
        try:
            records = stage.run(asset, {name: done[name] for name in stage.needs})
            packed = {name: pack(f"{asset.name}: {name}", kind, records[name]) for name, kind in stage.fields.items()}
        except Exception as error:  # the border of the process: what an asset brings up is its reason; the rest is raised by `prepare`
            return failure_of(asset, stage, error) or rejection_of(asset.name, error), ()
    own = [w for w in caught if issubclass(w.category, VoxgenWarning)]
    for warning in caught:
        if not issubclass(warning.category, VoxgenWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    # what later stages read is what the dataset will give, so that they make the same whether they run now or later
    done |= {name: unpack(f"{asset.name}: {name}", stage.fields[name], value) for name, value in packed.items()}
    return packed, tuple(dict.fromkeys(str(w.message) for w in own))


def rejection_of(name: str, error: Exception) -> Rejection:
    """The word and sentence for an error."""
    message = str(error) or type(error).__name__
    if isinstance(error, AssetRejected):
        return Rejection(error.code, message)
    if isinstance(error, FileNotFoundError):
        return Rejection("missing", message)
    if isinstance(error, FileFormatError | OSError):
        return Rejection("unreadable", message)
    if isinstance(error, MeshError):
        return Rejection("mesh", message)
    if isinstance(error, CapacityError | MemoryError):
        return Rejection("memory", message)
    if isinstance(error, VoxgenError):
        return Rejection("stage", message)
    return Rejection("error", f"{name}: {type(error).__name__}: {message}")
