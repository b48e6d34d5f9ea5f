"""Work on a Ray cluster. Outcomes come back through Ray's object store, so only this process needs the prepared folder."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from voxgen.core.errors import MissingDependency, VoxgenError

from ._engines import Run, to_bytes
from ._stages import Stage
from ._work import Job, Outcome, Rejection, reject_all, work

POLL = 1.0
"""Seconds between looks at the clock."""


def ray_engine(where: str, workers: int | None, timeout: float | None) -> Run:
    """Jobs on Ray actors of one CPU each, at most `workers` of them (None: one for each CPU that the cluster has now).

    Joins the cluster that `ray.init` or the environment names, or starts one on this machine. Actors, not tasks: each keeps the
    networks that it has loaded, and one that takes too long can be ended.

    Raises:
        MissingDependency: Ray is not installed.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]  # an extra: not where the types are checked
    except ImportError as error:
        raise MissingDependency(f"{where}: engine 'ray' needs Ray: pip install 'voxgen[cluster]'.") from error

    def run(stages: Sequence[Stage], jobs: Iterator[Job]) -> Generator[Outcome, None, None]:
        shared = to_bytes(where, "stages", tuple(stages))
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        make: Any = ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        stored: Any = ray.put(shared)
        hands: list[_Hand] = []
        waiting = next(jobs, None)
        try:
            while waiting is not None or hands:
                while waiting is not None and len(hands) < count:
                    hands.append(_Hand(ray, make.remote(stored), waiting))
                    waiting = next(jobs, None)
                ray.wait([hand.reference for hand in hands], timeout=POLL)
                for hand in list(hands):
                    outcome = hand.outcome(stages, timeout)
                    if outcome is None:
                        continue
                    if hand.alive and waiting is not None:
                        hand.start(waiting)
                        waiting = next(jobs, None)
                    else:
                        hands.remove(hand)
                        hand.end()
                    yield outcome
        finally:
            for hand in hands:
                hand.end()

    return run


class _Actor:
    """A process of the cluster."""

    def __init__(self, stages: bytes) -> None:
        import pickle

        from ._pool import one_thread

        one_thread()
        self.stages: Sequence[Stage] = pickle.loads(stages)

    def ready(self) -> bool:
        return True

    def work(self, job: Job) -> Outcome:
        return work(self.stages, job)


class _Hand:
    """An actor, and the job that it is at. The clock starts when the actor is there, not when it was asked for."""

    def __init__(self, ray: Any, actor: Any, job: Job) -> None:
        self.ray, self.actor = ray, actor
        self.alive = True
        self._ready = actor.ready.remote()
        self.start(job)
        self._since: float | None = None

    def start(self, job: Job) -> None:
        self.job = job
        self.reference = self.actor.work.remote(job)
        self._since = time.monotonic()

    def outcome(self, stages: Sequence[Stage], timeout: float | None) -> Outcome | None:
        """What became of the job, if that is known."""
        errors, name = self.ray.exceptions, self.job.source.name
        if self._since is None:
            if not self._done(self._ready):
                return None
            try:
                self.ray.get(self._ready)
            except errors.RayError as error:
                raise VoxgenError(f"prepare: a Ray actor could not start: {error}") from error
            self._since = time.monotonic()
        if self._done(self.reference):
            try:
                return self.ray.get(self.reference)
            except errors.OutOfMemoryError as error:
                return self._lost(stages, Rejection("memory", f"{name}: {error}"))
            except errors.RayActorError as error:
                return self._lost(stages, Rejection("crash", f"{name}: its process ended: {error}"))
        if timeout is not None and time.monotonic() - self._since > timeout:
            return self._lost(stages, Rejection("timeout", f"{name}: took longer than {timeout:g} seconds."))
        return None

    def end(self) -> None:
        self.ray.kill(self.actor)

    def _done(self, reference: Any) -> bool:
        return bool(self.ray.wait([reference], timeout=0)[0])

    def _lost(self, stages: Sequence[Stage], rejection: Rejection) -> Outcome:
        self.alive = False
        return reject_all(stages, self.job, rejection)
