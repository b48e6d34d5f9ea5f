"""How far a run is, and what it writes down on the way."""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from voxgen.core.atomic import atomic_write


class Clock:
    """How far a run is, 0 to 1: by steps if their number is given, else by time, which every process takes from the first."""

    def __init__(self, arguments: argparse.Namespace, accelerator: Accelerator, step: int, seconds: float) -> None:
        self.steps, self.limit, self.step = arguments.steps, arguments.minutes * 60, step
        self.shared = accelerator.num_processes > 1
        self.start = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def progress(self) -> float:
        if self.steps is not None:
            return self.step / self.steps
        seconds = [self.seconds]
        if self.shared:
            broadcast_object_list(seconds)
        return min(1.0, seconds[0] / self.limit)


def learning_rate(highest: float, step: int, progress: float, schedule: str = "cosine") -> float:
    """A short warm-up, then half a cosine to zero over the run. The published runs, of a million steps, keep it constant."""
    warm = highest * min(1.0, (step + 1) / 50)
    return warm * 0.5 * (1 + math.cos(math.pi * progress)) if schedule == "cosine" else warm


class Log:
    """Losses of all steps: one line of JSON each, and curves for TensorBoard. On resuming, later lines of a killed run go.

    Training goes on where they cannot be written: a warning says so, lines wait until they can be, and TensorBoard gets no more of this
    run. Where the disk is full, the next checkpoint will end the run.
    """

    def __init__(self, folder: Path, step: int, main: bool) -> None:
        self.path, self.main = folder / "losses.jsonl", main
        self.writer: SummaryWriter | None = None
        self.waiting, self.failed = b"", False
        if main:
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
            kept = _lines_before(step, self.path.read_text()) if step and self.path.exists() else []
            with atomic_write(self.path, "w") as file:
                file.writelines(kept)
            self.file = self.path.open("ab", buffering=0)

    def losses(self, step: int, numbers: dict[str, float], more: dict[str, float]) -> None:
        if not self.main:
            return
        self.waiting += (json.dumps({"step": step, **numbers}) + "\n").encode()
        self._write()
        if step % 10 == 0:
            named = {**{f"loss/{k}": v for k, v in numbers.items()}, **{f"run/{k}": v for k, v in more.items()}}
            self._show(lambda writer: _add(writer, step, named))

    def held_out(self, step: int, image: Tensor, numbers: dict[str, float]) -> None:
        self._show(lambda writer: writer.add_image("held-out", image.numpy(), step, dataformats="HWC"))
        self._show(lambda writer: _add(writer, step, {f"held-out/{name}": value for name, value in numbers.items()}))

    def close(self) -> None:
        self._show(lambda writer: writer.close())
        if self.main:
            self._write()
            self.file.close()

    def _write(self) -> None:
        """Write what waits; what cannot be written waits on."""
        try:
            while self.waiting:
                self.waiting = self.waiting[self.file.write(self.waiting) :]
        except OSError as error:
            if not self.failed:
                message = f"{self.path} cannot be written: {error.strerror}. Training goes on; the lines wait until they can be written."
                warnings.warn(message, stacklevel=3)
            self.failed = True
        else:
            if self.failed:
                warnings.warn(f"{self.path} is written again, and nothing is missing in it.", stacklevel=3)
            self.failed = False

    def _show(self, action: Callable[[SummaryWriter], None]) -> None:
        if self.writer is None:
            return
        try:
            action(self.writer)
        except OSError as error:
            self.writer = None
            warnings.warn(f"TensorBoard's file cannot be written: {error.strerror}. It gets no more of this run.", stacklevel=3)


def _add(writer: SummaryWriter, step: int, numbers: dict[str, float]) -> None:
    for name, value in numbers.items():
        writer.add_scalar(name, value, step)


def _lines_before(step: int, text: str) -> list[str]:
    """The whole lines of steps before this one."""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n") and json.loads(line)["step"] < step]
