"""The run that the training examples share: steps, checkpoints, and going on after a kill."""

from __future__ import annotations

import argparse
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from tqdm import tqdm

from .arguments import FIXED, parse
from .batches import batches
from .progress import Clock, Log, learning_rate
from .state import AdaptiveClip, load_checkpoint, moving_average, noise_generator, save_checkpoint
from .task import Batch, Prepared, Task


class Run:
    """Everything that a step changes, and its checkpoint."""

    def __init__(self, task: Task, arguments: argparse.Namespace, accelerator: Accelerator, prepared: Prepared[Any]) -> None:
        self.task, self.arguments, self.accelerator, self.prepared = task, arguments, accelerator, prepared
        set_seed(arguments.seed)
        model = task.build(arguments, prepared)
        self.average = moving_average(model, arguments.ema).to(accelerator.device)
        groups = getattr(model, "groups", model.parameters)()
        betas = (arguments.betas[0], arguments.betas[1])
        optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=betas, weight_decay=arguments.weight_decay)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.clip = AdaptiveClip()
        self.step, self.seconds = 0, 0.0
        self.facts: dict[str, float] = {}
        self.path = arguments.out / "checkpoint.pt"

    @property
    def averaged(self) -> nn.Module:
        """The network with averaged weights: the result."""
        return self.task.result(self.average.module)

    def fixed(self) -> dict[str, Any]:
        """Arguments that a resumed run must have in common with this one, in values that a checkpoint keeps."""
        values = {name: _kept(getattr(self.arguments, name)) for name in (*FIXED, *self.task.FIXED, *self.task.fixed)}
        return values | {"example": self.task.name, "processes": self.accelerator.num_processes}

    def save(self, seconds: float) -> None:
        """The step is also the position in the data and the state of chance: both follow from it and the seed."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "norms": list(self.clip.norms),
            "step": self.step,
            "seconds": seconds,
            "arguments": self.fixed(),
        }
        save_checkpoint(self.path, state)

    def restore(self) -> None:
        state = load_checkpoint(self.path)
        if state["arguments"] != self.fixed():
            wrong = [k for k, v in self.fixed().items() if state["arguments"].get(k) != v]
            raise SystemExit(f"{self.path} was made with other values of {', '.join(wrong)}: {state['arguments']}. Choose another --out.")
        self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.clip.norms.extend(state["norms"])
        self.step, self.seconds = state["step"], state["seconds"]

    def update(self, truth: Batch, rate: float, progress: float) -> tuple[dict[str, float], dict[str, float]]:
        """One step on one batch; one whose gradient is not finite changes the average only."""
        device, inner = self.accelerator.device, self.accelerator.unwrap_model(self.model)
        if hasattr(inner, "progress"):
            inner.progress = progress
        generator = noise_generator(self.arguments.seed, self.step, self.accelerator.process_index, device)
        terms = self.model(truth.to(device), generator)
        self.accelerator.backward(terms.total)
        norm, finite = self.clip(list(self.model.parameters()))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(inner)
        self.step += 1
        facts = {"gradient_norm": norm, "clip": self.clip.bound, "learning_rate": rate, self.task.unit: float(len(truth))}
        self.facts = facts | getattr(inner, "facts", {})
        return terms.numbers(), self.facts


def train(run: Run, prepared: Prepared[Any]) -> None:
    """Steps until time or their number is up."""
    task, arguments, accelerator = run.task, run.arguments, run.accelerator
    main = accelerator.is_main_process
    loader = batches(
        prepared.training,
        budget=arguments.budget,
        seed=arguments.seed,
        start=run.step,
        workers=arguments.workers,
        accelerator=accelerator,
    )
    clock = Clock(arguments, accelerator, run.step, run.seconds)
    bar = tqdm(total=100, desc="training", disable=not main, bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}")
    with closing(Log(arguments.out, run.step, main)) as log, bar:
        while (progress := clock.progress()) < 1:
            rate = learning_rate(arguments.learning_rate, run.step, progress, arguments.schedule)
            numbers, more = run.update(next(loader), rate, progress)
            clock.step = run.step
            log.losses(run.step - 1, numbers, more)
            bar.update(100 * progress - bar.n)
            facts = {name: f"{more[name]:,.0f}" for name in (task.unit, *task.shown)}
            bar.set_postfix({"step": run.step, "loss": f"{numbers['total']:.3f}", **facts}, refresh=False)
            if run.step % arguments.checkpoint_every == 0:
                run.save(clock.seconds)
            if main and run.step % arguments.picture_every == 0:
                log.held_out(run.step, *task.glance(run, prepared.held_out))
        bar.update(100 - bar.n)
    run.seconds = clock.seconds
    run.save(run.seconds)


def main(task: Task, argv: list[str] | None = None) -> dict[str, float]:
    """Returns the mean scores of the held-out samples (empty in processes other than the first)."""
    arguments = parse(task, argv)
    accelerator = Accelerator(mixed_precision="bf16" if arguments.bf16 else "no")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with accelerator.main_process_first():
        prepared = task.prepare(arguments, show=accelerator.is_main_process)
    run = Run(task, arguments, accelerator, prepared)
    if arguments.resume and run.path.exists():
        run.restore()
        accelerator.print(f"going on after step {run.step:,}")
    elif accelerator.is_main_process and run.path.exists():
        os.replace(run.path, previous := run.path.with_name("checkpoint-previous.pt"))
        accelerator.print(f"starting anew (without --resume); the checkpoint that was there is {previous} now")
    if accelerator.is_main_process:
        size, count = sum(p.numel() for p in run.averaged.parameters()), accelerator.num_processes
        samples = f"{len(prepared.training)} shapes, {len(prepared.held_out)} held out"
        accelerator.print(f"{samples}, {size / 1e6:.2f} M parameters, {count} x {accelerator.device}")
    train(run, prepared)
    summary = task.finish(run, prepared.held_out) if accelerator.is_main_process else {}
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return summary


def _kept(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
