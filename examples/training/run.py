"""The run that the training examples share: steps, checkpoints, and going on after a kill."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import nn
from tqdm import tqdm

from voxgen.models import ElasticMemory

from .arguments import FIXED, parse
from .average import moving_average
from .balance import mean_of_parts, weights_of_parts
from .batches import batches, sampler
from .checkpoints import BEFORE, NAME, clear, load_checkpoint, load_weights, require_same_run, save_checkpoint, set_aside
from .faults import FaultWatch, failed_path, random_states, save_failed
from .memory import elastic_network
from .progress import Clock, Log, learning_rate
from .replay import arguments_of, replay
from .sharding import is_sharded, load_optimizer, shard, whole
from .state import AdaptiveClip, noise_generator
from .task import Batch, Prepared, Task

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule


class Run:
    """Everything that a step changes, and its checkpoint."""

    def __init__(self, task: Task, arguments: argparse.Namespace, accelerator: Accelerator, prepared: Prepared[Any]) -> None:
        self.task, self.arguments, self.accelerator, self.prepared = task, arguments, accelerator, prepared
        set_seed(arguments.seed)
        model = task.build(arguments, prepared)
        self.average = moving_average(model, arguments.ema, arguments.ema_schedule).to(accelerator.device)
        if arguments.fsdp:
            if accelerator.num_processes == 1:
                raise SystemExit(
                    "--fsdp cuts weights over processes, and here is one. Start several: accelerate launch --num_processes N ..."
                )
            shard(model, accelerator.device)
            shard(self.average.module, accelerator.device)
        groups = getattr(model, "groups", model.parameters)()
        betas = (arguments.betas[0], arguments.betas[1])
        optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=betas, weight_decay=arguments.weight_decay)
        self.model, self.optimizer = (model, optimizer) if arguments.fsdp else accelerator.prepare(model, optimizer)
        self.clip = AdaptiveClip()
        self.watch = FaultWatch(arguments.bad_losses, arguments.bad_gradients)
        limit = None if arguments.memory_limit is None else 1e9 * arguments.memory_limit
        share = arguments.elastic_memory
        self.memory = None if share is None else ElasticMemory(limit, target=share, seed=arguments.seed + accelerator.process_index)
        self.step, self.seconds = 0, 0.0
        self.facts: dict[str, float] = {}
        self.path: Path = arguments.out / NAME
        self.together: nn.Module | None = None

    @property
    def inner(self) -> nn.Module:
        """The module that trains, without what wraps it."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def averaged(self) -> nn.Module:
        """The network with averaged weights: the result. Of a sharded run: as it was when `gather` was called."""
        return self.task.result(self.average.module if self.together is None else self.together)

    def gather(self) -> None:
        """Put the averaged weights of a sharded run together in the first process. All call it before that one uses `averaged`."""
        if not self.arguments.fsdp:
            return
        weights = whole(self.average.module.state_dict())
        if self.accelerator.is_main_process:
            self.together = self.task.build(self.arguments, self.prepared).to(self.accelerator.device)
            self.together.load_state_dict(weights)

    def fixed(self) -> dict[str, Any]:
        """Arguments that a resumed run must have in common with this one, in values that a checkpoint keeps."""
        values = {name: _kept(getattr(self.arguments, name)) for name in (*FIXED, *self.task.FIXED, *self.task.fixed)}
        return values | {"example": self.task.name, "processes": self.accelerator.num_processes, "parts": self.arguments.parts}

    def save(self, seconds: float) -> None:
        """The step is also the position in the data and the state of chance: both follow from it and the seed."""
        main = self.accelerator.is_main_process
        if not (main or is_sharded(self.inner)):
            return
        state = {
            "model": whole(self.inner.state_dict()),
            "average": whole(self.average.state_dict()),
            "optimizer": whole(self.optimizer.state_dict()),
            "norms": list(self.clip.norms),
            "bad": [self.watch.bad_losses, self.watch.bad_gradients],
            "memory": None if self.memory is None else self.memory.state_dict(),
            "step": self.step,
            "seconds": seconds,
            "arguments": self.fixed(),
        }
        if main:
            save_checkpoint(self.path, state)

    def restore(self, path: Path) -> None:
        state = load_checkpoint(path)
        require_same_run(path, state["arguments"], self.fixed())
        load_weights(path, self.inner, state["model"])
        load_weights(path, self.average, state["average"])
        load_optimizer(self.optimizer, state["optimizer"])
        self.clip.norms.extend(state["norms"])
        self.watch.bad_losses, self.watch.bad_gradients = state.get("bad", (0, 0))
        if self.memory is not None and state.get("memory") is not None:
            self.memory.load_state_dict(state["memory"])
        self.step, self.seconds = state["step"], state["seconds"]

    def update(self, parts: Sequence[Batch], rate: float, progress: float) -> tuple[dict[str, float], dict[str, float]]:
        """One step on a batch in its parts. One whose gradient or loss is not finite changes the average only; too many end the run."""
        inner, before = self.inner, random_states()
        if hasattr(inner, "progress"):
            inner.progress = progress  # pyright: ignore[reportArgumentType] (asked for by `Task`)
        weights = self.weights(parts)
        found = [self.backward(part, index, weights[index], last=index + 1 == len(parts)) for index, part in enumerate(parts)]
        norm, finite = self.clip(list(self.model.parameters()))
        numbers = found if self.accelerator.num_processes == 1 else gather_object(found)
        loss = all(math.isfinite(part["total"]) for part in numbers)
        reason = self.watch.see(loss=loss, gradient=finite)
        if reason is not None:
            self.stop(reason, parts, found, before, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        if finite and loss:
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(inner)
        self.step += 1
        sizes = float(sum(len(part) for part in parts))
        facts = {"gradient_norm": norm, "clip": self.clip.bound, "learning_rate": rate, self.task.unit: sizes}
        self.facts = facts | getattr(inner, "facts", {})
        return mean_of_parts(numbers), self.facts

    def backward(self, part: Batch, index: int, weight: float, *, last: bool) -> dict[str, float]:
        """Add the gradient of one part; its terms."""
        device = self.accelerator.device
        generator = noise_generator(self.arguments.seed, self.step, self.slot(index), device)
        with self.synchronised(last), self.fitted(len(part)):
            with self.accelerator.autocast():
                terms = self.model(part.to(device), generator)
            self.accelerator.backward(terms.total if weight == 1 else terms.total * weight)
        return terms.numbers()

    def slot(self, index: int) -> int:
        """Number of a part of this process among those of all."""
        return self.accelerator.process_index * self.arguments.parts + index

    def weights(self, parts: Sequence[Batch]) -> list[float]:
        """What the losses of this process' parts are multiplied with. Those of all processes add up to the number of processes, over
        which gradients are averaged."""
        processes, own = self.accelerator.num_processes, [len(part) for part in parts]
        if self.arguments.part_weights == "equal":
            return [1 / len(parts)] * len(parts)
        sizes = own if processes == 1 else gather_object(own)
        found = processes * weights_of_parts(torch.tensor(sizes), self.arguments.part_weights)
        return found[self.slot(0) :][: len(parts)].tolist()

    def synchronised(self, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients once a step."""
        if is_sharded(self.model):
            cast("FSDPModule", self.model).set_requires_gradient_sync(last)
            return nullcontext()
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def fitted(self, size: int) -> AbstractContextManager[Any]:
        """As many blocks recompute as the memory asks for."""
        return nullcontext() if self.memory is None else self.memory.step(elastic_network(self.inner), size)

    def stop(self, reason: str, parts: Sequence[Batch], found: list[dict[str, float]], before: dict[str, Any], progress: float) -> None:
        """End the run, and keep what the step was made of, in every process."""
        process, data = self.accelerator.process_index, self.prepared.training
        names = getattr(data, "names", None)
        items = islice(sampler(data, self.arguments, self.accelerator, self.step), len(parts))
        drawn = [[(index if names is None else names[index], chance) for index, chance in part] for part in items]
        state = {
            "example": self.task.name,
            "reason": reason,
            "step": self.step,
            "progress": progress,
            "slot": self.slot(0),
            "numbers": found,
            "items": drawn,
            "parts": list(parts),
            "random": before,
            "model": whole(self.inner.state_dict()),
            "arguments": {name: _kept(value) for name, value in vars(self.arguments).items()},
            "paths": [name for name, value in vars(self.arguments).items() if _is_path(value)],
        }
        path = failed_path(self.arguments.out, self.step, process)
        try:
            save_failed(path, state)
            kept = f"The batch and the weights are in {path}; --replay {path} repeats the step and says where it goes wrong."
        except OSError as error:
            kept = f"The batch could not be kept: {error}"
        self.accelerator.wait_for_everyone()
        told = "; ".join(", ".join(f"{name} {value:g}" for name, value in part.items()) for part in found)
        shapes = ", ".join(str(name) for part in drawn for name, _ in part[:8])
        raise SystemExit(
            f"step {self.step:,}: {reason}. The weights are as they were before it; so is {self.path}, if it was written yet.\n"
            f"  loss in process {process}: {told}\n  samples: {shapes}\n{kept}"
        )


def train(run: Run, prepared: Prepared[Any]) -> None:
    """Steps until time or their number is up."""
    task, arguments, accelerator = run.task, run.arguments, run.accelerator
    main = accelerator.is_main_process
    loader = batches(prepared.training, arguments, accelerator, run.step)
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
            if run.step % arguments.picture_every == 0:
                run.gather()
                if main:
                    log.held_out(run.step, *task.glance(run, prepared.held_out))
        bar.update(100 - bar.n)
    run.seconds = clock.seconds
    run.save(run.seconds)
    run.gather()


def main(task: Task, argv: list[str] | None = None) -> dict[str, float]:
    """Returns the mean scores of the held-out samples (empty in processes other than the first)."""
    arguments = parse(task, argv)
    if arguments.replay is not None:
        arguments = arguments_of(task, arguments.replay, arguments)
    cpu = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()  # else each process were a run of its own
    accelerator = Accelerator(cpu=cpu, mixed_precision="bf16" if arguments.bf16 else "no")
    arguments.out.mkdir(parents=True, exist_ok=True)
    with accelerator.main_process_first():
        prepared = task.prepare(arguments, show=accelerator.is_main_process)
    if arguments.replay is not None:
        return replay(task, arguments, accelerator, prepared)
    run = Run(task, arguments, accelerator, prepared)
    begin(run)
    if accelerator.is_main_process:
        size, count = sum(p.numel() for p in run.averaged.parameters()), accelerator.num_processes
        samples = f"{len(prepared.training)} shapes, {len(prepared.held_out)} held out"
        accelerator.print(f"{samples}, {size / 1e6:.2f} M parameters, {count} x {accelerator.device}")
    train(run, prepared)
    summary = task.finish(run, prepared.held_out) if accelerator.is_main_process else {}
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return summary


def begin(run: Run) -> None:
    """Go on from a checkpoint, if that is asked for and there is one; else set aside what an earlier run left."""
    arguments, accelerator, path = run.arguments, run.accelerator, run.path
    if accelerator.is_main_process:
        clear(path.parent)
    if arguments.resume_from is not None:
        run.restore(arguments.resume_from)
        accelerator.print(f"going on after step {run.step:,}, from {arguments.resume_from}")
        accelerator.wait_for_everyone()  # nobody moves what another one reads
        if accelerator.is_main_process and (previous := set_aside(path)) is not None:
            accelerator.print(f"the checkpoint that was there is {previous} now")
        run.save(run.seconds)
    elif arguments.resume and (path.exists() or path.with_name(BEFORE).exists()):
        run.restore(path)
        accelerator.print(f"going on after step {run.step:,}")
    elif arguments.resume:
        accelerator.print(f"{path} is not there yet: starting at the first step")
    elif accelerator.is_main_process:
        path.with_name(BEFORE).unlink(missing_ok=True)
        if (previous := set_aside(path)) is not None:
            accelerator.print(f"starting anew (without --resume); the checkpoint that was there is {previous} now")
    accelerator.wait_for_everyone()  # nobody writes while another one reads


def _kept(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_kept(part) for part in value] if isinstance(value, (tuple, list)) else value


def _is_path(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, list) and any(isinstance(part, Path) for part in value))
