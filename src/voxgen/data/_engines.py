"""Engines: who does the work on the assets. All take jobs one by one and give outcomes in any order."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Literal, TypeAlias

from voxgen.core.checks import require_choice
from voxgen.core.errors import DtypeError, RangeError

from ._stages import Stage
from ._work import Job, Outcome, work

Engine: TypeAlias = Literal["processes", "ray", "here"]
Run: TypeAlias = Callable[[Sequence[Stage], Iterator[Job]], Generator[Outcome, None, None]]
"""Closed before its end, it stops the workers."""


def choose_engine(where: str, engine: str, workers: int | None, timeout: float | None) -> Run:
    """The function that does the jobs.

    Args:
        engine: "processes" on this machine, "ray" on a cluster, "here" in this process.
        workers: processes; None takes the cores there are.
        timeout: seconds an asset may take.
    Raises:
        RangeError: no such engine; a timeout, which "here" cannot keep.   MissingDependency: Ray is not installed.
    """
    require_choice(where, "engine", engine, ("processes", "ray", "here"))
    if engine == "here":
        if timeout is not None:
            raise RangeError(f"{where}: timeout needs processes that can be ended; engine 'here' works in this one. Use 'processes'.")
        return _here
    if engine == "ray":
        from ._ray import ray_engine

        return ray_engine(where, workers, timeout)
    from ._pool import pool_engine

    return pool_engine(workers, timeout)


def _here(stages: Sequence[Stage], jobs: Iterator[Job]) -> Generator[Outcome, None, None]:
    return (work(stages, job) for job in jobs)


def to_bytes(where: str, what: str, value: object) -> bytes:
    """Pickled for another process. Plain pickle: torch's own way would share memory through file descriptors, which run out.

    Raises:
        DtypeError: it cannot be pickled.
    """
    try:
        return pickle.dumps(value, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DtypeError(
            f"{where}: {what} must be picklable, to be sent to other processes; {error}. Define its class at the top level of a module "
            f"that can be imported, or use engine='here'."
        ) from None
