"""A step that failed, once more: where it goes wrong."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from .checkpoints import load_weights
from .faults import FirstNotFinite, first_not_finite, load_failed, set_random_states
from .state import noise_generator
from .task import Prepared, Task


def arguments_of(task: Task, path: Path, arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments of the run that failed: the command line needs --replay alone."""
    state = load_failed(path, type(task).__module__)
    values = {name: _path(value) if name in state["paths"] else value for name, value in state["arguments"].items()}
    return argparse.Namespace(**{**vars(arguments), **values, "replay": path})


def replay(task: Task, arguments: argparse.Namespace, accelerator: Accelerator, prepared: Prepared[Any]) -> dict[str, float]:
    """Repeat the step of a file with its weights, batch and chance, without an update; say what is not finite, and return its terms."""
    path = arguments.replay
    state = load_failed(path, type(task).__module__)
    if state["example"] != task.name:
        raise SystemExit(f"{path} is a step of {state['example']}; this example is {task.name}.")
    model = task.build(arguments, prepared)
    load_weights(path, model, state["model"])
    model.to(accelerator.device)
    if hasattr(model, "progress"):
        model.progress = state["progress"]
    set_random_states(state["random"])
    say = accelerator.print
    say(f"step {state['step']:,} of {task.name}: {state['reason']}")
    say(f"weights: {_told(first_not_finite(dict(model.named_parameters())))}")
    numbers: dict[str, float] = {}
    for index, part in enumerate(state["parts"]):
        names = ", ".join(str(name) for name, _ in state["items"][index][:8])
        say(f"part {index} ({names}): {_told(first_not_finite(part))}")
        numbers = _step(model, part, noise_generator(arguments.seed, state["step"], state["slot"] + index, accelerator.device), accelerator)
        then = state["numbers"][index]
        say("  loss " + ", ".join(f"{name} {value:g} (then {then.get(name, float('nan')):g})" for name, value in numbers.items()))
    return numbers


def _step(model: nn.Module, part: Any, generator: Any, accelerator: Accelerator) -> dict[str, float]:
    watch = FirstNotFinite(model)
    with accelerator.autocast():
        terms = model(part.to(accelerator.device), generator)
    watch.remove()
    accelerator.print(f"  first result that is not finite: {watch.found or 'none'}")
    accelerator.backward(terms.total)
    bad = [name for name, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    accelerator.print(f"  gradients that are not finite: {len(bad)}{' (' + ', '.join(bad[:3]) + ')' if bad else ''}")
    return terms.numbers()


def _path(value: str | list[str]) -> Path | list[Path]:
    return Path(value) if isinstance(value, str) else [Path(part) for part in value]


def _told(found: str | None) -> str:
    return "all finite" if found is None else f"{found} is not finite"
