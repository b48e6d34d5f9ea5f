"""The run that the training examples share: arguments, steps, checkpoints, and what is measured at the end."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from voxgen.core.atomic import atomic_write
from voxgen.render import save_png

from .data import BudgetSampler, Kind, Source, Volume, VolumeDataset, find_sources, prepare
from .measure import SURFACES, Measures, Reconstruct
from .progress import Clock, Log, learning_rate
from .state import AdaptiveClip, load_checkpoint, moving_average, noise_generator, save_checkpoint

Shapes = list[tuple[Source, Path]]


@dataclass(frozen=True)
class Task:
    """What an example trains.

    Attributes:
        name: of the default folder.   title: of pictures and tables.   description: for --help.
        kind: the volumes.
        training: makes a module from a configuration: `vae` is the network, `forward(volume, generator)` gives `LossTerms`.
        network, tiny: the configuration, and that of --smallest.
        reconstruct: see `Reconstruct`.
        save: writes the network to a folder, and says what it wrote.
        budget: voxels a batch at 64³.   smallest_resolution, smallest_budget: of --smallest.
        options: adds arguments of the example's own.   fixed: the names of those that a resumed run must share.
        defaults: of arguments, where they differ from those of `parse`.
        configure: gives the arguments to the module that `training` made.
        pictures: more pictures of the averaged network for the folder, by name.
        measures: how reconstructions are measured and shown.   shown: names of facts that stand in the progress bar and the summary.
        structure: how reconstructions come by their cells, for titles.
    A module may have an attribute `progress`, which is set to how far the run is, 0 to 1, before each step; `facts`, numbers to show and
    write beside the losses; and a method `groups`, groups of parameters for the optimiser, whose `scale` is a factor on the learning rate.
    """

    name: str
    title: str
    description: str
    kind: Kind[Any]
    training: Callable[[dict[str, Any]], nn.Module]
    network: dict[str, Any]
    tiny: dict[str, Any]
    reconstruct: Reconstruct
    save: Callable[[Any, Path], str]
    budget: int
    learning_rate: float = 2e-3
    smallest_resolution: int = 16
    smallest_budget: int = 4000
    options: Callable[[argparse.ArgumentParser], None] | None = None
    fixed: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    configure: Callable[[nn.Module, argparse.Namespace], None] | None = None
    pictures: Callable[[nn.Module, list[Any], int], dict[str, Tensor]] | None = None
    measures: Measures = SURFACES
    shown: tuple[str, ...] = ()
    structure: str = "from predicted structure"


def parse(task: Task, argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=task.description)
    add = parser.add_argument
    add("--data", type=Path, help="folder of meshes (glb, gltf, obj, ply, stl, off); default: procedural shapes")
    add("--shapes", type=int, default=500, help="procedural shapes to train on")
    add("--held-out", type=int, default=24, help="shapes to measure on")
    add("--measure-on", type=Path, nargs="+", metavar="MESH", help="measure on these files instead; they are not trained on")
    add("--overfit", action="store_true", help="train on the files of --measure-on and nothing else: how well the network can hold them")
    add("--resolution", type=int, default=64, help="voxels a side; 128 takes twice as long a step, with half as many shapes")
    add("--minutes", type=float, default=10.0, help="time to train; conversion before and measuring after come on top")
    add("--steps", type=int, help="train for so many steps instead: then two runs are equal, also if one was interrupted")
    add("--budget", type=int, help=f"voxels a batch and process; default: {task.budget:,} at 64³, {2 * task.budget:,} at 128³")
    add("--learning-rate", type=float, default=task.learning_rate)
    add("--ema", type=float, default=0.99, help="decay of the averaged weights, which are the result; longer runs want 0.999 or more")
    add("--bf16", action="store_true", help="bfloat16 autocast")
    add("--workers", type=int, default=0, help="processes that load data")
    add("--checkpoint-every", type=int, default=100, metavar="STEPS")
    add("--picture-every", type=int, default=300, metavar="STEPS", help="of held-out shapes, for TensorBoard")
    add("--resume", action="store_true", help="go on from the checkpoint in --out, if there is one")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("out") / task.name)
    add("--smallest", action="store_true", help="the size that tests run")
    if task.options is not None:
        task.options(parser)
    parser.set_defaults(**task.defaults)
    arguments = parser.parse_args(argv)
    if arguments.smallest:
        arguments.resolution, arguments.shapes, arguments.held_out = task.smallest_resolution, 8, 2
        arguments.steps, arguments.checkpoint_every, arguments.picture_every = arguments.steps or 8, 3, 1000
        arguments.budget = arguments.budget or task.smallest_budget
    if arguments.overfit and not arguments.measure_on:
        parser.error("--overfit needs --measure-on, the files to train on")
    if arguments.resolution < task.smallest_resolution or arguments.resolution % 8:
        parser.error(f"--resolution must be a multiple of 8, at least {task.smallest_resolution}; got {arguments.resolution}")
    if arguments.budget is None:
        arguments.budget = task.budget * arguments.resolution // 64
    return arguments


class Run:
    """Everything that a step changes, and its checkpoint."""

    FIXED = ("data", "shapes", "held_out", "resolution", "budget", "learning_rate", "ema", "bf16", "seed", "smallest", "overfit")
    """Arguments that a resumed run must have in common with the one that it continues."""

    def __init__(self, task: Task, arguments: argparse.Namespace, accelerator: Accelerator) -> None:
        self.task, self.arguments, self.accelerator = task, arguments, accelerator
        set_seed(arguments.seed)
        model = task.training(task.tiny if arguments.smallest else task.network)
        if task.configure is not None:
            task.configure(model, arguments)
        self.average = moving_average(model, arguments.ema).to(accelerator.device)
        groups = getattr(model, "groups", model.parameters)()
        optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.clip = AdaptiveClip()
        self.step, self.seconds = 0, 0.0
        self.facts: dict[str, float] = {}
        self.path = arguments.out / "checkpoint.pt"

    @property
    def averaged(self) -> nn.Module:
        """The network with averaged weights: the result."""
        return cast(nn.Module, self.average.module.vae)

    def fixed(self) -> dict[str, Any]:
        values = {name: getattr(self.arguments, name) for name in (*self.FIXED, *self.task.fixed)}
        more = {"example": self.task.name, "processes": self.accelerator.num_processes}
        return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()} | more

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

    def update(self, truth: Volume, rate: float, progress: float) -> tuple[dict[str, float], dict[str, float]]:
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
        facts = {"gradient_norm": norm, "clip": self.clip.bound, "learning_rate": rate, "voxels": float(len(truth))}
        self.facts = facts | getattr(inner, "facts", {})
        return terms.numbers(), self.facts

    def measure(self, shapes: Shapes, **options: Any) -> list[Any]:
        """Reconstructions of the averaged weights."""
        measures = self.task.measures
        return measures.measure(self.averaged, self.task.reconstruct, shapes, self.task.kind, self.accelerator.device, **options)


def batches(run: Run, paths: list[Path]) -> Iterator[Volume]:
    """Endless batches of this process, from the one after the last that was trained on."""
    arguments, accelerator, kind = run.arguments, run.accelerator, run.task.kind
    cells = [len(kind.load(path)) for path in paths]
    sampler = BudgetSampler(cells, arguments.budget, arguments.seed, accelerator.process_index, accelerator.num_processes, run.step)
    context = {"multiprocessing_context": "spawn", "persistent_workers": True} if arguments.workers else {}  # threads do not survive a fork
    data = VolumeDataset(paths, kind)
    return iter(DataLoader(data, batch_sampler=sampler, collate_fn=kind.batched, num_workers=arguments.workers, **context))


def train(run: Run, data: Shapes, held_out: Shapes) -> None:
    arguments, accelerator = run.arguments, run.accelerator
    main = accelerator.is_main_process
    loader = batches(run, [path for _, path in data])
    clock = Clock(arguments, accelerator, run.step, run.seconds)
    bar = tqdm(total=100, desc="training", disable=not main, bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}")
    with closing(Log(arguments.out, run.step, main)) as log, bar:
        while (progress := clock.progress()) < 1:
            numbers, more = run.update(next(loader), learning_rate(arguments.learning_rate, run.step, progress), progress)
            clock.step = run.step
            log.losses(run.step - 1, numbers, more)
            bar.update(100 * progress - bar.n)
            facts = {name: f"{more[name]:,.0f}" for name in ("voxels", *run.task.shown)}
            bar.set_postfix({"step": run.step, "loss": f"{numbers['total']:.3f}", **facts}, refresh=False)
            if run.step % arguments.checkpoint_every == 0:
                run.save(clock.seconds)
            if main and run.step % arguments.picture_every == 0:
                results, measures = run.measure(held_out[:4], samples=5000), run.task.measures
                shown = measures.picture(results, arguments.resolution, f"step {run.step}")
                log.reconstructions(run.step, shown, measures.numbers(results))
        bar.update(100 - bar.n)
    run.seconds = clock.seconds
    run.save(run.seconds)


def finish(run: Run, held_out: Shapes) -> dict[str, float]:
    """Write the averaged weights, measure them on held-out shapes, show it."""
    out, resolution = run.arguments.out, run.arguments.resolution
    written = run.task.save(run.averaged, out)
    results = run.measure(held_out, show=True)
    measures = run.task.measures
    lines = measures.table(results)
    title = f"{run.task.title} at {resolution}³ after {run.step:,} steps, {run.seconds / 60:.1f} minutes"
    save_png(out / "reconstructions.png", measures.picture(results[:6], resolution, title))
    more = {} if run.task.pictures is None else run.task.pictures(run.averaged, results[:4], resolution)
    for name, image in more.items():
        save_png(out / f"{name}.png", image)
    facts = {name: run.facts[name] for name in run.task.shown if name in run.facts}
    summary = {**measures.numbers(results), "steps": run.step, "seconds": run.seconds} | facts
    names = ["reconstructions.png", *(f"{name}.png" for name in more)]
    with atomic_write(out / "result.json", "w") as file:
        json.dump(summary, file, indent=1)
    tqdm.write(f"\n{title}, {run.task.structure}; {measures.note}\n{lines}\nwrote {', '.join(names)} and {written} to {out}")
    return summary


def main(task: Task, argv: list[str] | None = None) -> dict[str, float]:
    """Returns the mean scores of the held-out shapes (empty in processes other than the first)."""
    arguments = parse(task, argv)
    accelerator = Accelerator(mixed_precision="bf16" if arguments.bf16 else "no")
    arguments.out.mkdir(parents=True, exist_ok=True)
    sources, measured = find_sources(arguments.data, arguments.shapes, arguments.held_out, task.kind.closed)
    if arguments.measure_on:
        measured = [Source(path.name, path) for path in arguments.measure_on]
        sources = measured if arguments.overfit else [source for source in sources if source.origin not in arguments.measure_on]
    with accelerator.main_process_first():
        show = accelerator.is_main_process
        folder = arguments.out / task.kind.name.lower().replace("-", "")
        data = prepare(sources, task.kind, arguments.resolution, folder, show=show)
        held_out = prepare(measured, task.kind, arguments.resolution, folder, show=show)
    run = Run(task, arguments, accelerator)
    if arguments.resume and run.path.exists():
        run.restore()
        accelerator.print(f"going on after step {run.step:,}")
    elif accelerator.is_main_process and run.path.exists():
        os.replace(run.path, previous := run.path.with_name("checkpoint-previous.pt"))
        accelerator.print(f"starting anew (without --resume); the checkpoint that was there is {previous} now")
    if accelerator.is_main_process:
        size, count = sum(p.numel() for p in run.averaged.parameters()), accelerator.num_processes
        accelerator.print(f"{len(data)} shapes, {len(held_out)} held out, {size / 1e6:.2f} M parameters, {count} x {accelerator.device}")
    train(run, data, held_out)
    summary = finish(run, held_out) if accelerator.is_main_process else {}
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return summary
