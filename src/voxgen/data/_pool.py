"""Worker processes of this machine, each with one thread. One that dies or takes too long costs its asset, not the run."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import cast

from voxgen.core.errors import VoxgenError

from ._engines import Run, to_bytes
from ._stages import Stage, StageFailed
from ._work import Job, Outcome, Rejection, reject_all, work

READY = b"ready"
POLL = 0.5
"""Seconds between looks at the clock."""


def pool_engine(workers: int | None, timeout: float | None) -> Run:
    """Jobs on `workers` processes (None: the cores that this process may use)."""
    count = workers if workers is not None else _cores()

    def run(stages: Sequence[Stage], jobs: Iterator[Job]) -> Generator[Outcome, None, None]:
        shared = to_bytes("prepare", "stages", tuple(stages))
        pool: list[_Worker] = []
        try:
            yield from _drive(stages, shared, jobs, pool, count, timeout)
        finally:
            for worker in pool:
                worker.end()

    return run


def _drive(
    stages: Sequence[Stage], shared: bytes, jobs: Iterator[Job], pool: list[_Worker], count: int, timeout: float | None
) -> Iterator[Outcome]:
    waiting = next(jobs, None)
    while waiting is not None or any(worker.job is not None for worker in pool):
        if waiting is not None and all(worker.job is not None for worker in pool) and len(pool) < count:
            pool.append(_Worker(shared, timeout))
        for worker in list(pool):
            if waiting is not None and worker.job is None:
                if worker.start(waiting):
                    waiting = next(jobs, None)
                else:  # it ended while it had nothing to do; another takes the job
                    worker.end()
                    pool.remove(worker)
        if waiting is not None and len(pool) < count:
            continue
        wait([worker.connection for worker in pool if worker.job is not None], POLL)
        for worker in list(pool):
            outcome = worker.outcome(stages)
            if outcome is not None:
                if worker.dead:
                    worker.end()
                    pool.remove(worker)
                yield outcome


class _Worker:
    """One process, and the job that it is at."""

    def __init__(self, shared: bytes, timeout: float | None) -> None:
        context = multiprocessing.get_context("spawn")  # threads do not survive a fork
        self.connection, other = cast("tuple[Connection, Connection]", context.Pipe())
        self.process: SpawnProcess = context.Process(target=_serve, args=(other,), daemon=True)
        self.process.start()
        other.close()  # else the end of the process would not be heard
        self.shared = shared
        self.timeout = timeout
        self.job: Job | None = None
        self.ready = False
        self.dead = False
        self.since = 0.0

    def start(self, job: Job) -> bool:
        """Give it a job. False: its process has ended, which is no fault of the job.

        Raises:
            VoxgenError: the process ended before it began.
        """
        data = to_bytes("prepare", "a source", job)
        try:
            if not self.ready:
                self.connection.send_bytes(self.shared)
            elif not self.process.is_alive():
                return False
            self.connection.send_bytes(data)
        except (BrokenPipeError, ConnectionResetError):
            if not self.ready:
                raise self._never_began() from None
            return False
        self.job = job
        self.since = time.monotonic()
        return True

    def outcome(self, stages: Sequence[Stage]) -> Outcome | None:
        """What became of the job, if that is known."""
        if self.job is None:
            return None
        try:
            while self.connection.poll():
                data = self.connection.recv_bytes()
                if not self.ready:
                    self._require_ready(data)
                    continue
                self.job = None
                return pickle.loads(data)
        except (EOFError, ConnectionResetError):
            return self._ended(stages)
        if self.timeout is not None and self.ready and time.monotonic() - self.since > self.timeout:
            self.dead = True
            reason = f"{self.job.source.name}: took longer than {self.timeout:g} seconds."
            return reject_all(stages, self.job, Rejection("timeout", reason))
        return None

    def _require_ready(self, data: bytes) -> None:
        if data != READY:
            raise VoxgenError(f"prepare: a worker process could not read the stages: {data.decode()}")
        self.ready = True
        self.since = time.monotonic()

    def _ended(self, stages: Sequence[Stage]) -> Outcome:
        if not self.ready or self.job is None:
            raise self._never_began()
        self.process.join(5)
        code = self.process.exitcode
        self.dead = True
        how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        return reject_all(stages, self.job, Rejection("crash", f"{self.job.source.name}: its process {how}. Out of memory?"))

    def _never_began(self) -> VoxgenError:
        self.process.join(5)
        return VoxgenError(
            f"prepare: a worker process ended before it began (exit code {self.process.exitcode}). A script that calls prepare must do so "
            f"under if __name__ == '__main__', because worker processes import it; engine='here' needs no worker processes."
        )

    def end(self) -> None:
        self.connection.close()
        if self.job is not None or self.dead:
            self.process.kill()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(connection: Connection) -> None:
    """What a process does: read the stages, then job after job, until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    one_thread()
    try:
        stages = _first_message(connection)
        if stages is None:
            return
        while True:
            outcome = _worked(stages, connection.recv_bytes())
            connection.send_bytes(pickle.dumps(outcome, protocol=5))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the other end is gone
        return


def _worked(stages: Sequence[Stage], data: bytes) -> Outcome:
    try:
        job: Job = pickle.loads(data)
    except Exception as error:  # told to the process that started this one, which raises
        told = "".join(traceback.format_exception_only(error)).strip()
        return Outcome(-1, {}, failure=StageFailed(f"prepare: a worker process could not read a source: {told}"))
    return work(stages, job)


def _first_message(connection: Connection) -> Sequence[Stage] | None:
    data = connection.recv_bytes()
    try:
        stages = pickle.loads(data)
    except Exception as error:  # told to the process that started this one, which raises
        connection.send_bytes("".join(traceback.format_exception_only(error)).strip().encode())
        return None
    connection.send_bytes(READY)
    return stages


def one_thread() -> None:
    """Threads of one process would only take turns with the other processes."""
    import numba
    import torch

    torch.set_num_threads(1)
    numba.set_num_threads(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
