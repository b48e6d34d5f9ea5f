"""How far a run is, and what it writes down on the way."""

from __future__ import annotations

import argparse
import json
import math
import time
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
    """Losses of all steps: one line of JSON each, and curves for TensorBoard. On resuming, later lines of a killed run go."""

    def __init__(self, folder: Path, step: int, main: bool) -> None:
        self.path = folder / "losses.jsonl"
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step) if main else None
        if main:
            kept = self.path.read_text().splitlines(keepends=True)[:step] if step and self.path.exists() else []
            with atomic_write(self.path, "w") as file:
                file.writelines(kept)
            self.file = self.path.open("a")

    def losses(self, step: int, numbers: dict[str, float], more: dict[str, float]) -> None:
        if self.writer is None:
            return
        self.file.write(json.dumps({"step": step, **numbers}) + "\n")
        self.file.flush()
        if step % 10 == 0:
            for name, value in {**{f"loss/{k}": v for k, v in numbers.items()}, **{f"run/{k}": v for k, v in more.items()}}.items():
                self.writer.add_scalar(name, value, step)

    def held_out(self, step: int, image: Tensor, numbers: dict[str, float]) -> None:
        if self.writer is None:
            return
        self.writer.add_image("held-out", image.numpy(), step, dataformats="HWC")
        for name, value in numbers.items():
            self.writer.add_scalar(f"held-out/{name}", value, step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.file.close()
