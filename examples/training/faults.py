"""Steps that are not numbers: when the run stops, what it keeps of the step, and the step once more to look at."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxgen.core import SparseTensor
from voxgen.core.atomic import atomic_write


@dataclass
class FaultWatch:
    """Counts steps in a row that are not finite, and says when it is enough. All processes see the same, so they stop together.

    A step whose gradient is not finite is skipped, as published. The published half-precision training lowers its loss scale of 2²⁰ by
    half at each of them and ends below 1: the default of `gradients`.

    Attributes:
        losses: steps in a row with a loss that is not finite which end the run.   gradients: the same of gradients.
        bad_losses, bad_gradients: in a row, up to now.
    """

    losses: int = 1
    gradients: int = 20
    bad_losses: int = 0
    bad_gradients: int = 0

    def see(self, *, loss: bool, gradient: bool) -> str | None:
        """Count a step whose loss and gradient are finite or not; the reason to stop, or None."""
        self.bad_losses = 0 if loss else self.bad_losses + 1
        self.bad_gradients = 0 if gradient else self.bad_gradients + 1
        if self.bad_losses >= self.losses:
            return "the loss is not finite" + _in_a_row(self.bad_losses)
        if self.bad_gradients >= self.gradients:
            return "the gradient is not finite" + _in_a_row(self.bad_gradients)
        return None


def random_states() -> dict[str, Any]:
    """States of torch's own generators; the examples draw from `noise_generator`, yet a network may not."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_states(states: Mapping[str, Any]) -> None:
    """The inverse of `random_states`, as far as the devices are here."""
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def failed_path(folder: Path, step: int, process: int) -> Path:
    """Where a process keeps a step that failed."""
    return folder / (f"failed-step-{step}.pt" if process == 0 else f"failed-step-{step}-process-{process}.pt")


def save_failed(path: Path, state: Mapping[str, Any]) -> None:
    """Keep a failed step: plain values, tensors, and the records of its batch."""
    with atomic_write(path) as file:
        torch.save(dict(state), file)


def load_failed(path: Path, *own: str) -> dict[str, Any]:
    """Read what `save_failed` wrote.

    It may hold records of voxgen, of the examples, and of these modules; a file with anything else is not opened and ends the run.
    """
    if not path.exists():
        raise SystemExit(f"{path} does not exist. A run that stops at a step that is not finite writes failed-step-N.pt into its folder.")
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    records = {name: _record(name, {"voxgen", "training", "__main__", *(module.split(".")[0] for module in own)}) for name in names}
    foreign = [name for name, record in records.items() if record is None]
    if foreign:
        raise SystemExit(
            f"{path} holds {', '.join(foreign)}, which is no record of voxgen or of this example, so it is not opened. "
            "Replay a step with the script that wrote it."
        )
    with torch.serialization.safe_globals([record for record in records.values() if record is not None]):
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or "parts" not in state:
        raise SystemExit(f"{path} is not a failed step of a run. Pass the failed-step-N.pt that it wrote when it stopped.")
    return state


def first_not_finite(value: Any, name: str = "") -> str | None:
    """The name of the first number in a tree of tensors and records that is not finite, or None."""
    if isinstance(value, Tensor):
        fine = not value.is_floating_point() or bool(value.isfinite().all())
        return None if fine else name or "itself"
    if isinstance(value, SparseTensor):
        return first_not_finite(value.feats, _joined(name, "feats"))
    if is_dataclass(value) and not isinstance(value, type):
        children = [(field.name, getattr(value, field.name)) for field in fields(value)]
    elif isinstance(value, Mapping):
        children = list(value.items())
    elif isinstance(value, (list, tuple)):
        children = list(enumerate(value))
    else:
        return name or "itself" if isinstance(value, float) and not math.isfinite(value) else None
    return next((found for key, child in children if (found := first_not_finite(child, _joined(name, str(key)))) is not None), None)


class FirstNotFinite:
    """Names the first module, in the order in which they end, whose result is not finite.

    Attributes:
        found: "name (class)", or None.
    """

    def __init__(self, module: nn.Module) -> None:
        self.found: str | None = None
        self._handles = [part.register_forward_hook(self._hook(name or "the module itself")) for name, part in module.named_modules()]

    def _hook(self, name: str) -> Any:
        def look(part: nn.Module, _: Any, result: Any) -> None:
            if self.found is None and first_not_finite(result) is not None:
                self.found = f"{name} ({type(part).__name__})"

        return look

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _record(name: str, packages: set[str]) -> type | None:
    """The class of this full name, if it is of one of these packages or of an example, train_NAME.py. Others are not even imported."""
    module, _, attribute = name.rpartition(".")
    package = module.split(".")[0]
    if package not in packages and not package.startswith("train_"):
        return None
    found = getattr(importlib.import_module(module), attribute, None)
    return found if isinstance(found, type) else None


def _in_a_row(count: int) -> str:
    return f", {count} steps in a row" if count > 1 else ""


def _joined(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
