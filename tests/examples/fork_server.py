"""Processes that may be killed, without importing torch anew for each: one process imports, and forks a child for each run.

A child is what `python example.py ARGUMENTS` is after its imports: nothing has computed before it is forked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVER = """
import importlib, json, os, sys, torch
import numba.core.registry, scipy.spatial, torch._dynamo, torch.distributed.fsdp  # what children would import later, each for itself
torch.set_num_threads(1)
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    request = json.loads(line)
    if "wait" in request:
        print(os.waitpid(request["wait"], 0)[1], flush=True)
        continue
    if child := os.fork():
        print(child, flush=True)
        continue
    with open(request["log"], "a", buffering=1) as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        os.environ.update(request["environment"])
        try:
            exec(request["before"], {})
            importlib.import_module(request["example"]).main(request["arguments"])
            status = 0
        except SystemExit as error:
            print(error, file=sys.stderr, flush=True)
            status = 1
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 2
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
"""


class ForkServer:
    """A context in which runs can be started, killed and waited for."""

    def __init__(self, *examples: str) -> None:
        paths = os.pathsep.join([str(EXAMPLES), str(Path(__file__).parent), *filter(None, sys.path)])
        quiet = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *examples],
            env={**os.environ, **quiet},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.communicate()

    def start(self, example: str, arguments: list[str], log: Path, before: str = "", **environment: str) -> int:
        """Start a run: its process id. `before` is a program that it executes first; `log` is where it writes what it says."""
        request = {"example": example, "arguments": arguments, "log": str(log), "before": before, "environment": environment}
        return int(self._ask(request))

    def wait(self, child: int) -> int:
        """Wait for the end of a run: its exit status, negative for a signal."""
        return os.waitstatus_to_exitcode(int(self._ask({"wait": child})))

    def _ask(self, request: dict[str, Any]) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()
