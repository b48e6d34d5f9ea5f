"""Checkpoints: whole at every moment, checked before they are trusted, and clear about what does not fit."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxgen.core.atomic import atomic_write

from .sharding import like

NAME = "checkpoint.pt"
BEFORE = "checkpoint-before.pt"
"""The checkpoint before the last: for the day on which the last one cannot be read."""
PREVIOUS = "checkpoint-previous.pt"
"""What a run that starts anew in the same folder finds there."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint at once, and keep the one that was there as `BEFORE`.

    Whoever kills the run finds the old one or the new one, both whole. Where the disk is full the run ends, and says which checkpoint
    is there to go on from.
    """
    try:
        with atomic_write(path) as file:
            try:
                torch.save(dict(state), file)
            except RuntimeError as error:  # torch's words for any failure of `write`
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
            keep_before(path)
    except OSError as error:
        there = f"{path}, as it was after an earlier step, is whole" if path.exists() else "There is no earlier checkpoint"
        raise SystemExit(f"The run stops after step {state['step']:,}: {error}\n{there}; --resume goes on from there.") from error


def keep_before(path: Path) -> None:
    """Give the checkpoint a second name, under which it stays when the next one takes the first."""
    if not path.exists():
        return
    spare = path.with_name(f".{BEFORE}.tmp")
    spare.unlink(missing_ok=True)
    try:
        os.link(path, spare)
    except OSError:  # a file system without links: for a moment only the second name exists, which `load_checkpoint` speaks of
        os.replace(path, spare)
    os.replace(spare, path.with_name(BEFORE))


def clear(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for leftover in (*folder.glob(".voxgen-*.tmp"), folder / f".{BEFORE}.tmp"):
        leftover.unlink(missing_ok=True)


def set_aside(path: Path) -> Path | None:
    """Rename the checkpoint that a run does not go on from, so that it is not in the way, and say where it is; None if there is none."""
    if not path.exists():
        return None
    os.replace(path, previous := path.with_name(PREVIOUS))
    return previous


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    A checkpoint that is missing or damaged ends the run with the name of one that is whole, if there is: nothing is taken in its stead
    unasked.
    """
    wrong = damage(path)
    if wrong is None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not {"model", "average", "optimizer", "step", "arguments"} <= set(state):
            held = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
            raise SystemExit(f"{path} is not a checkpoint of a training run; it holds: {held}. Pass the checkpoint.pt that a run wrote.")
        return state
    other = path.with_name(BEFORE)
    if path.name == BEFORE or not other.exists():
        advice = "There is no other checkpoint; start anew without --resume."
    elif (also := damage(other)) is not None:
        advice = f"{other}, the one before, {also}. Start anew without --resume."
    else:
        step = torch.load(other, map_location="cpu", weights_only=True)["step"]
        advice = f"{other}, the one before, is whole: --resume-from {other} goes on after its step {step:,}."
    raise SystemExit(f"{path} {wrong}. {advice}")


def damage(path: Path) -> str | None:
    """What is wrong with a file of `torch.save`, or None. Checksums are compared: `torch.load` takes changed numbers as they are."""
    if not path.exists():
        return "is missing"
    try:
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
        if record is not None:
            return f"is damaged: the checksum of its record {record} does not fit"
        torch.load(path, map_location="meta", weights_only=True)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        return f"is damaged: {str(error).splitlines()[0]}"
    return None


def require_same_run(path: Path, stored: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """End the run unless it was started as the one that wrote the checkpoint.

    The number of processes may differ if that of parts makes up for it: then the batches of each step are the same ones. An argument
    that the example got since the checkpoint was written is not compared.
    """
    differing = [name for name in own if name not in ("processes", "parts") and stored.get(name, own[name]) != own[name]]
    if differing:
        listed = ", ".join(f"{name} ({stored.get(name)} there, {own[name]} here)" for name in differing)
        raise SystemExit(f"{path} was made with other values of {listed}. Give the same ones, or choose another --out.")
    there, here = (int(found["processes"]) * int(found.get("parts", 1)) for found in (stored, own))
    if there != here:
        raise SystemExit(
            f"{path} was made with {stored['processes']} processes × {stored.get('parts', 1)} parts = {there} a step; here are "
            f"{own['processes']} × {own['parts']} = {here}: data would come in another order. Choose --parts so that the products agree."
        )


def load_weights(path: Path, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights into a module, or end the run and say what does not fit. Weights of a sharded module are cut as it is."""
    own = module.state_dict()
    missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if not (missing or foreign or shapes):
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(like(weights[name], tensor))
        return
    reasons = []
    if missing:
        reasons.append(f"{len(missing)} weights of this one are not in it ({_some(missing)})")
    if foreign:
        reasons.append(f"{len(foreign)} of its weights are not in this one ({_some(foreign)})")
    if shapes:
        described = [f"{name}: {tuple(weights[name].shape)} there, {tuple(own[name].shape)} here" for name in shapes]
        reasons.append(f"{len(shapes)} have another shape ({_some(described)})")
    raise SystemExit(f"{path} holds another network than this example makes: {'; '.join(reasons)}. Choose another --out.")


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
