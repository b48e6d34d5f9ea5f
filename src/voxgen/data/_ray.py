"""Work on a Ray cluster. Outcomes come back through Ray's object store, so only this process needs the prepared folder."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from voxgen.core.errors import MissingDependency

from ._engines import Run
from ._stages import Stage
from ._work import Job, Outcome, Rejection, reject_all, work

POLL = 1.0
"""Seconds between looks at the clock."""


def ray_engine(where: str, workers: int | None, timeout: float | None) -> Run:
    """Jobs as Ray tasks of one CPU each, at most `workers` at a time (None: twice the cluster's CPUs are submitted).

    Joins the cluster that `ray.init` or the environment names, or starts one on this machine.

    Raises:
        MissingDependency: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependency(f"{where}: engine 'ray' needs Ray: pip install 'voxgen[cluster]'.") from error

    def run(stages: Sequence[Stage], jobs: Iterator[Job]) -> Iterator[Outcome]:
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        cpus = int(ray.cluster_resources().get("CPU", 1))
        # a task that waits for a CPU must not use up its time
        most = min(cpus, workers or cpus) if timeout is not None else workers or 2 * cpus
        shared: Any = ray.put(tuple(stages))
        task = ray.remote(num_cpus=1, max_retries=0)(_task)
        running: dict[Any, tuple[Job, float]] = {}
        waiting = next(jobs, None)
        while waiting is not None or running:
            while waiting is not None and len(running) < most:
                running[task.remote(shared, waiting)] = (waiting, time.monotonic())
                waiting = next(jobs, None)
            finished, _ = ray.wait(list(running), num_returns=1, timeout=POLL)
            for reference in finished:
                job, _ = running.pop(reference)
                yield _result(ray, stages, job, reference)
            late = [] if timeout is None else [r for r, (_, since) in running.items() if time.monotonic() - since > timeout]
            for reference in late:
                job, _ = running.pop(reference)
                ray.cancel(reference, force=True)
                yield reject_all(stages, job, Rejection("timeout", f"{job.source.name}: took longer than {timeout:g} seconds."))

    return run


def _task(stages: Sequence[Stage], job: Job) -> Outcome:
    from ._pool import one_thread

    one_thread()
    return work(stages, job)


def _result(ray: Any, stages: Sequence[Stage], job: Job, reference: Any) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.WorkerCrashedError as error:
        return reject_all(stages, job, Rejection("crash", f"{job.source.name}: its process ended: {error}"))
    except ray.exceptions.OutOfMemoryError as error:
        return reject_all(stages, job, Rejection("memory", f"{job.source.name}: {error}"))
