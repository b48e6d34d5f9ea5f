"""Train a small shape SC-VAE: O-Voxel → latent on a grid 8 times as coarse → O-Voxel, with predicted structure.

Run: python examples/train_sc_vae.py [--data FOLDER_OF_MESHES] [--resolution 128] [--minutes 10] [--out out/sc_vae]
     torchrun --nproc_per_node 2 examples/train_sc_vae.py ...                   (several devices)
     tensorboard --logdir out/sc_vae                                            (curves and pictures)
Stop it whenever you like; the same command with --resume goes on with the very next batch.
Needs: pip install 'voxgen[train]'
Expect: after ten minutes on two CPU cores (about 1,200 steps), held-out shapes at 64³ come back from predicted structure with a
Chamfer distance of about 0.2 voxels, and 99 % of both surfaces lie within a voxel of each other.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from sc_vae.data import BudgetSampler, OVoxelDataset, collate, count_cells, find_sources, prepare
from sc_vae.measure import Reconstruction, measure, picture, table
from sc_vae.state import AdaptiveClip, load_checkpoint, moving_average, noise_generator, save_checkpoint
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from voxgen.core.atomic import atomic_write
from voxgen.losses import LossTerms, ShapeVAELoss
from voxgen.models import SCVAE, DecodedShape, build
from voxgen.models.checkpoints import save_trellis2
from voxgen.render import save_png
from voxgen.representations import OVoxel

NETWORK = {"model_channels": (16, 32, 64, 128), "num_blocks": (0, 1, 2, 2), "latent_channels": 16}
TINY = {"model_channels": (8, 16, 32), "num_blocks": (0, 1, 1), "latent_channels": 8}
LOSS = ShapeVAELoss(crossing=1.0, dual_vertex=10.0, subdivision=1.0, kl=1e-5)
"""Not the published weights: these lean on render terms, which this example does without; its vertices learn from their error alone."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--data", type=Path, help="folder of meshes (glb, gltf, obj, ply, stl, off); default: procedural shapes")
    add("--shapes", type=int, default=500, help="procedural shapes to train on")
    add("--held-out", type=int, default=24, help="shapes to measure on")
    add("--resolution", type=int, default=64, help="voxels a side; 128 takes twice as long a step, with half as many shapes")
    add("--minutes", type=float, default=10.0, help="time to train; conversion before and measuring after come on top")
    add("--steps", type=int, help="train for so many steps instead: then two runs are equal, also if one was interrupted")
    add("--budget", type=int, help="voxels a batch and process; default: 30,000 at 64³, 60,000 at 128³")
    add("--learning-rate", type=float, default=2e-3)
    add("--ema", type=float, default=0.99, help="decay of the averaged weights, which are the result; longer runs want 0.999 or more")
    add("--bf16", action="store_true", help="bfloat16 autocast")
    add("--workers", type=int, default=0, help="processes that load data")
    add("--checkpoint-every", type=int, default=100, metavar="STEPS")
    add("--picture-every", type=int, default=300, metavar="STEPS", help="of held-out shapes, for TensorBoard")
    add("--resume", action="store_true", help="go on from the checkpoint in --out, if there is one")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("out/sc_vae"))
    add("--smallest", action="store_true", help="the size that tests run")
    arguments = parser.parse_args(argv)
    if arguments.smallest:
        arguments.resolution, arguments.shapes, arguments.held_out = 16, 8, 2
        arguments.steps, arguments.checkpoint_every, arguments.picture_every = arguments.steps or 8, 3, 1000
        arguments.budget = arguments.budget or 4000
    if arguments.budget is None:
        arguments.budget = 30_000 * arguments.resolution // 64
    return arguments


class Training(nn.Module):
    """The network and its loss in one forward, as data-parallel wrappers want it."""

    def __init__(self, network: dict[str, Any]) -> None:
        super().__init__()
        self.vae = cast("SCVAE[DecodedShape]", build("voxgen/shape-vae-small", **network))

    def forward(self, truth: OVoxel, generator: torch.Generator) -> LossTerms:
        """Decode a sample of the posterior on the true structure; each level says which of the true cells' children exist."""
        decoded, latent = self.vae(truth, sample=True, generator=generator)
        return LOSS(
            crossing_logits=decoded.prediction.crossing_logits,
            dual_vertices=decoded.prediction.dual_vertices,
            subdivision_logits=[level.feats for level in decoded.logits],
            mean=latent.posterior.mean.feats,
            logvar=latent.posterior.logvar,
            crossings=truth.intersected,
            target_vertices=truth.dual_vertices,
            subdivisions=[structure.mask() for structure in latent.structures],
        )


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


def learning_rate(highest: float, step: int, progress: float) -> float:
    """A short warm-up, then half a cosine to zero over the run. The published runs, of a million steps, keep it constant."""
    return highest * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * progress))


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

    def reconstructions(self, step: int, results: list[Reconstruction], resolution: int) -> None:
        if self.writer is None:
            return
        self.writer.add_image("held-out", picture(results, resolution, f"step {step}").numpy(), step, dataformats="HWC")
        self.writer.add_scalar("held-out/chamfer_voxels", sum(r.score.chamfer for r in results) / len(results), step)
        self.writer.add_scalar("held-out/structure_iou", sum(r.score.iou for r in results) / len(results), step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.file.close()


class Run:
    """Everything that a step changes, and its checkpoint."""

    FIXED = ("data", "shapes", "held_out", "resolution", "budget", "learning_rate", "ema", "bf16", "seed", "smallest")
    """Arguments that a resumed run must have in common with the one that it continues."""

    def __init__(self, arguments: argparse.Namespace, accelerator: Accelerator) -> None:
        self.arguments, self.accelerator = arguments, accelerator
        set_seed(arguments.seed)
        model = Training(TINY if arguments.smallest else NETWORK)
        self.average = moving_average(model, arguments.ema).to(accelerator.device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.clip = AdaptiveClip()
        self.step, self.seconds = 0, 0.0
        self.path = arguments.out / "checkpoint.pt"

    @property
    def averaged(self) -> SCVAE[DecodedShape]:
        """The network with averaged weights: the result."""
        return cast(Training, self.average.module).vae

    def fixed(self) -> dict[str, Any]:
        values = {name: getattr(self.arguments, name) for name in self.FIXED}
        return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()} | {"processes": self.accelerator.num_processes}

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

    def update(self, truth: OVoxel, rate: float) -> tuple[dict[str, float], dict[str, float]]:
        """One step on one batch; one whose gradient is not finite changes the average only."""
        device = self.accelerator.device
        generator = noise_generator(self.arguments.seed, self.step, self.accelerator.process_index, device)
        terms = self.model(truth.to(device), generator)
        self.accelerator.backward(terms.total)
        norm, finite = self.clip(list(self.model.parameters()))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if finite:
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.accelerator.unwrap_model(self.model))
        self.step += 1
        return terms.numbers(), {"gradient_norm": norm, "clip": self.clip.bound, "learning_rate": rate, "voxels": float(len(truth))}


def batches(arguments: argparse.Namespace, paths: list[Path], accelerator: Accelerator, done: int) -> Iterator[OVoxel]:
    """Endless batches of this process, from the one after the last that was trained on."""
    cells = count_cells(paths)
    sampler = BudgetSampler(cells, arguments.budget, arguments.seed, accelerator.process_index, accelerator.num_processes, done)
    context = {"multiprocessing_context": "spawn", "persistent_workers": True} if arguments.workers else {}  # threads do not survive a fork
    return iter(DataLoader(OVoxelDataset(paths), batch_sampler=sampler, collate_fn=collate, num_workers=arguments.workers, **context))


def train(run: Run, data: list[tuple[Any, Path]], held_out: list[tuple[Any, Path]]) -> None:
    arguments, accelerator = run.arguments, run.accelerator
    main = accelerator.is_main_process
    log = Log(arguments.out, run.step, main)
    loader = batches(arguments, [path for _, path in data], accelerator, run.step)
    clock = Clock(arguments, accelerator, run.step, run.seconds)
    with tqdm(total=100, desc="training", disable=not main, bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}") as bar:
        while (progress := clock.progress()) < 1:
            numbers, more = run.update(next(loader), learning_rate(arguments.learning_rate, run.step, progress))
            clock.step = run.step
            log.losses(run.step - 1, numbers, more)
            bar.update(100 * progress - bar.n)
            bar.set_postfix(step=run.step, loss=f"{numbers['total']:.3f}", voxels=f"{more['voxels']:,.0f}", refresh=False)
            if run.step % arguments.checkpoint_every == 0:
                run.save(clock.seconds)
            if main and run.step % arguments.picture_every == 0:
                log.reconstructions(run.step, measure(run.averaged, held_out[:4], accelerator.device, samples=5000), arguments.resolution)
        bar.update(100 - bar.n)
    log.close()
    run.seconds = clock.seconds
    run.save(run.seconds)


def finish(run: Run, held_out: list[tuple[Any, Path]]) -> dict[str, float]:
    """Write the averaged weights in the published layout (`read_trellis2` loads them), measure them on held-out shapes, show it."""
    out, resolution = run.arguments.out, run.arguments.resolution
    for name in ("encoder", "decoder"):
        save_trellis2(getattr(run.averaged, name), out / name, dtype=torch.float32)
    results = measure(run.averaged, held_out, run.accelerator.device, show=True)
    lines = table(results)
    title = f"Shape SC-VAE at {resolution}³ after {run.step:,} steps, {run.seconds / 60:.1f} minutes"
    save_png(out / "reconstructions.png", picture(results[:6], resolution, title))
    numbers = {name: sum(getattr(r.score, name) for r in results) / len(results) for name in ("chamfer", "best", "iou", "f1", "f2")}
    summary = {**numbers, "steps": run.step, "seconds": run.seconds}
    with atomic_write(out / "result.json", "w") as file:
        json.dump(summary, file, indent=1)
    tqdm.write(
        f"\n{title}, from predicted structure; distances in voxels\n{lines}\nwrote reconstructions.png, encoder and decoder to {out}"
    )
    return summary


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the mean scores of the held-out shapes (empty in processes other than the first)."""
    arguments = parse(argv)
    accelerator = Accelerator(mixed_precision="bf16" if arguments.bf16 else "no")
    arguments.out.mkdir(parents=True, exist_ok=True)
    sources, measured = find_sources(arguments.data, arguments.shapes, arguments.held_out)
    with accelerator.main_process_first():
        show = accelerator.is_main_process
        data = prepare(sources, arguments.resolution, arguments.out / "ovoxels", show=show)
        held_out = prepare(measured, arguments.resolution, arguments.out / "ovoxels", show=show)
    run = Run(arguments, accelerator)
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


if __name__ == "__main__":
    main()
