"""prepare: assets → shards of everything that training reads."""

from __future__ import annotations

import errno
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tqdm import tqdm

from voxgen.core.checks import describe, require_int
from voxgen.core.errors import DtypeError, RangeError
from voxgen.core.frame import UpAxis

from ._engines import Engine, choose_engine
from ._fields import kind_named
from ._manifest import ASSETS, MANIFEST, Manifest, Plan, merged_plan, summarize
from ._progress import Progress
from ._sources import AssetSource, Sources, find_sources
from ._stages import Stage
from ._work import Job

_FIELD = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def prepare(
    sources: Sources,
    folder: str | os.PathLike[str],
    stages: Sequence[Stage],
    *,
    workers: int | None = None,
    engine: Engine = "processes",
    assets_per_shard: int = 256,
    up: UpAxis | None = None,
    timeout: float | None = None,
    retry: bool = False,
    progress: bool = False,
) -> Manifest:
    """Run stages on assets and keep the results in shards, which `ShardDataset` reads.

    Each asset is loaded, turned +Y up and fitted to the unit cube; then the stages run in their order. An asset that a stage cannot
    use is rejected: it gets no further records, its reason stands in the manifest, and the run goes on. Errors that are no fault of
    the asset (a package or the weights of a stage are missing, no memory on the accelerator, a full disk) end the run instead.

    A run that was stopped, even by a kill or a power cut, goes on when it is started again: it does what is missing, and its files are
    equal to the byte to those of a run that was not stopped. In a finished folder the same call does nothing; with more stages it adds
    their fields, with more sources their assets.

    Args:
        sources: see `find_sources`: a folder, mesh files, a .txt list, or `procedural_sources(count)`.
        folder: where to; made if it does not exist. One `prepare` at a time may work in it.
        stages: `OVoxelStage`, `SDFStage`, `PointsStage`, `ImagesStage`, `LatentStage`, or of your own (`Stage`).
        workers: processes, each with one thread; None takes the cores there are. Engine "here" has none.
        engine: "processes" of this machine, "ray" for a cluster (pip install 'voxgen[cluster]'), "here" for this process (to debug).
        assets_per_shard: neighbouring assets that share a file of each field; a shard should have some 10 MB to 1 GB.
        up: which axis points up in files that do not say; None is y.
        timeout: seconds that an asset may take, all stages together; longer ones are rejected ("timeout"). Not with "here".
        retry: work again on assets that were rejected before.
        progress: show a bar.
    Returns:
        Manifest of the whole folder; `print` shows a table.
    Raises:
        RangeError, DtypeError: sources, stages or settings that make no sense, or differ from those that the folder was begun with.
        FileNotFoundError: a source does not exist.   FileFormatError: damaged files in the folder.   OSError: cannot write; what was
        finished is kept.   VoxgenError: worker processes cannot start.   MissingDependency: Ray, or a package that a stage needs, is
        not installed.   StageFailed, CapacityError, DeviceError, BackendUnavailable, CheckpointError: a stage cannot work, see `Stage.run`.
    Batch: records are of single assets.   Numerics: worker processes and Ray actors have one thread each; "here" has the threads of this
    process, so that sums inside networks may end in other bits.
    Example:
        >>> manifest = prepare(procedural_sources(100), "prepared", [OVoxelStage(64)], workers=2)    # doctest: +SKIP
        >>> ShardDataset("prepared")[0]["ovoxel"].resolution                                         # doctest: +SKIP
        (64, 64, 64)
    """
    where = "prepare"
    if workers is not None:
        require_int(where, "workers", workers, 1)
    require_int(where, "assets_per_shard", assets_per_shard, 1)
    if timeout is not None and not (isinstance(timeout, int | float) and math.isfinite(timeout) and timeout > 0):
        raise RangeError(f"{where}: timeout must be a number of seconds above 0; got {describe(timeout)}.")
    run = choose_engine(where, engine, workers, timeout)
    root, began = Path(folder), time.monotonic()
    plan, ordered, fields = planned(root, find_sources(sources, up=up), stages, assets_per_shard, up)
    root.mkdir(parents=True, exist_ok=True)
    with _alone(where, root), _going_on_is_possible(root):
        plan.write(root, ordered)
        state = Progress(root, plan, fields, retry=retry)
        count = state.finish_shards()
        jobs = list(state.unfinished())
        outcomes = run(stages, _jobs(where, stages, state, ordered, jobs))
        with closing(outcomes), tqdm(total=len(jobs), desc="prepare", unit="asset", disable=not progress) as bar:
            for outcome in outcomes:
                count += state.add(outcome)
                if outcome.failure is not None:
                    raise outcome.failure
                bar.update()
                bar.set_postfix(rejected=state.rejected, shards=count, refresh=False)
    return summarize(root, plan, len(jobs), time.monotonic() - began)


def planned(
    folder: Path, sources: Sequence[AssetSource], stages: Sequence[Stage], assets_per_shard: int, up: UpAxis | None = None
) -> tuple[Plan, list[AssetSource], tuple[str, ...]]:
    """What `prepare` would make, without any writing: the plan of the folder, the sources in its order, and the fields of the stages.

    Raises:
        RangeError, DtypeError, FileFormatError: as `prepare`.
    """
    where = "prepare"
    _require_folder(where, folder)
    fields = _fields_of(where, stages)
    plan, ordered = merged_plan(folder, Plan(assets_per_shard, fields, tuple(source.name for source in sources), up), sources)
    _require_needs(where, stages, plan)
    return plan, ordered, tuple(fields)


def _require_folder(where: str, folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise RangeError(f"{where}: {folder} is a file; the results need a folder.")
    if folder.is_dir() and not (folder / MANIFEST).exists():
        other = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and p.name != ASSETS)
        if other:
            raise RangeError(f"{where}: {folder} is no prepared folder and holds other things, such as {other[0]!r}. Choose a new one.")


def _fields_of(where: str, stages: Sequence[Stage]) -> dict[str, dict[str, object]]:
    if isinstance(stages, str | bytes) or not isinstance(stages, Sequence) or not stages:
        raise RangeError(f"{where}: stages must be a list of at least one stage, such as [OVoxelStage(64)]; got {describe(stages)}.")
    fields: dict[str, dict[str, object]] = {}
    for stage in stages:
        if not all(hasattr(stage, name) for name in ("fields", "needs", "config", "run")):
            raise DtypeError(f"{where}: a stage must have fields, needs, config() and run(); got {describe(stage)}.")
        for name, kind in stage.fields.items():
            if not _FIELD.fullmatch(name) or name == Progress.PARTS:
                raise RangeError(f"{where}: a field's name must be of lower-case letters, digits and _, not 'parts'; got {name!r:.60}.")
            if name in fields:
                raise RangeError(f"{where}: two stages make the field {name!r}; give one of them another field name.")
            kind_named(where, kind)
            fields[name] = {"kind": kind, "stage": stage.config()}
    return fields


def _require_needs(where: str, stages: Sequence[Stage], plan: Plan) -> None:
    made = {name for stage in stages for name in stage.fields}
    before = set(plan.fields) - made
    for stage in stages:
        lacking = [name for name in stage.needs if name not in before]
        if lacking:
            hint = "move its stage before this one" if lacking[0] in made else "add the stage that makes it"
            raise RangeError(f"{where}: {type(stage).__name__} needs the field {lacking[0]!r}; {hint}.")
        before |= set(stage.fields)


def _jobs(where: str, stages: Sequence[Stage], state: Progress, sources: Sequence[AssetSource], assets: Sequence[int]) -> Iterator[Job]:
    for asset in assets:
        needed: list[int] = []
        wanted: set[str] = set()
        for number, stage in enumerate(stages):
            if any(state.lacks(name, asset) for name in stage.fields):
                needed.append(number)
                wanted |= set(stage.needs)
        made = {name for number in needed for name in stages[number].fields}
        given = {name: state.read(where, name, asset) for name in sorted(wanted - made)}
        yield Job(asset, sources[asset], tuple(needed), given)


@contextmanager
def _alone(where: str, folder: Path) -> Iterator[None]:
    """One preparation at a time, and no traces of one that was killed."""
    try:
        import fcntl
    except ImportError:  # Windows has no such locks; there the user takes care
        _sweep(folder)
        yield
        return
    with (folder / ".lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RangeError(f"{where}: another preparation is at work in {folder}; wait for it, or choose another folder.") from None
        _sweep(folder)
        yield


def _sweep(folder: Path) -> None:
    for path in (*folder.glob(".voxgen-*.tmp"), *folder.glob("*/.voxgen-*.tmp"), *folder.glob("*/*/.voxgen-*.tmp")):
        path.unlink(missing_ok=True)


@contextmanager
def _going_on_is_possible(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        reason = str(error.strerror).removeprefix("prepare: ")
        message = f"prepare: {reason} What was finished is kept in {folder}; make room and run the same again to go on."
        raise OSError(error.errno, message) from error
