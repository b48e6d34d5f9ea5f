"""VAETask: an autoencoder of volumes, which are made of meshes; and what is measured of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from tqdm import tqdm

from voxgen.core.atomic import atomic_write
from voxgen.models import load_pretrained
from voxgen.render import save_png

from .data import Kind, Source, VolumeDataset, find_sources, prepare
from .measure import SURFACES, Measures, Reconstruct
from .run import Run
from .task import Prepared, Task

Shapes = Sequence[tuple[Source, Path]]


@dataclass(frozen=True, kw_only=True)
class VAETask(Task):
    """An autoencoder to train.

    Attributes:
        kind: the volumes.
        training: makes a module from a configuration: `vae` is the network, `forward(volume, generator)` gives `LossTerms`.
        reconstruct: see `Reconstruct`.
        save: writes the network to a folder, and says what it wrote.
        budget: voxels a batch at 64³; twice that at 128³.
        smallest_resolution: of --smallest.
        configure: gives the arguments to the module that `training` made.
        pictures: more pictures of the averaged network for the folder, by name.
        measures: how reconstructions are measured and shown.
        structure: how reconstructions come by their cells, for titles.
    """

    FIXED: ClassVar[tuple[str, ...]] = ("shapes", "held_out", "resolution", "overfit", "start_from")

    kind: Kind[Any]
    training: Callable[[dict[str, Any]], nn.Module]
    reconstruct: Reconstruct
    save: Callable[[Any, Path], str]
    unit: str = "voxels"
    smallest_budget: int = 4000
    learning_rate: float = 2e-3
    smallest_resolution: int = 16
    configure: Callable[[nn.Module, argparse.Namespace], None] | None = None
    pictures: Callable[[nn.Module, list[Any], int], dict[str, Tensor]] | None = None
    measures: Measures = SURFACES
    structure: str = "from predicted structure"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--data", type=Path, help="folder of meshes (glb, gltf, obj, ply, stl, off); default: procedural shapes")
        add("--shapes", type=int, default=500, help="procedural shapes to train on")
        add("--held-out", type=int, default=24, help="shapes to measure on")
        add("--measure-on", type=Path, nargs="+", metavar="MESH", help="measure on these files instead; they are not trained on")
        add(
            "--overfit", action="store_true", help="train on the files of --measure-on and nothing else: how well the network can hold them"
        )
        add("--resolution", type=int, default=64, help="voxels a side; 128 takes twice as long a step, with half as many shapes")
        add("--start-from", type=Path, metavar="FILE", help="weights of such an autoencoder, to go on with under other terms, such as --kl")

    def settle(self, arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
        if arguments.smallest:
            arguments.resolution, arguments.shapes, arguments.held_out = self.smallest_resolution, 8, 2
        if arguments.overfit and not arguments.measure_on:
            parser.error("--overfit needs --measure-on, the files to train on")
        if arguments.resolution < self.smallest_resolution or arguments.resolution % 8:
            parser.error(f"--resolution must be a multiple of 8, at least {self.smallest_resolution}; got {arguments.resolution}")
        if arguments.budget is None:
            arguments.budget = self.budget * arguments.resolution // 64

    def prepare(self, arguments: argparse.Namespace, *, show: bool) -> Prepared[Any]:
        sources, measured = find_sources(arguments.data, arguments.shapes, arguments.held_out, self.kind.closed)
        if arguments.measure_on:
            measured = [Source(path.name, path) for path in arguments.measure_on]
            sources = measured if arguments.overfit else [source for source in sources if source.origin not in arguments.measure_on]
        folder = arguments.out / self.kind.name.lower().replace("-", "")
        data = prepare(sources, self.kind, arguments.resolution, folder, show=show)
        held_out = prepare(measured, self.kind, arguments.resolution, folder, show=show)
        return Prepared(VolumeDataset([path for _, path in data], self.kind, [source.name for source, _ in data]), held_out)

    def build(self, arguments: argparse.Namespace, prepared: Prepared[Any]) -> nn.Module:
        module = self.training(self.chosen(arguments))
        if self.configure is not None:
            self.configure(module, arguments)
        if arguments.start_from is not None:
            start_from(arguments.start_from, self.result(module))
        return module

    def result(self, module: nn.Module) -> nn.Module:
        return cast(nn.Module, module.vae)

    def measure(self, run: Run, shapes: Shapes, **options: Any) -> list[Any]:
        """Reconstructions of the averaged weights."""
        return self.measures.measure(run.averaged, self.reconstruct, shapes, self.kind, run.accelerator.device, **options)

    def glance(self, run: Run, held_out: Shapes) -> tuple[Tensor, dict[str, float]]:
        results = self.measure(run, held_out[:4], samples=5000)
        return self.measures.picture(results, run.arguments.resolution, f"step {run.step}"), self.measures.numbers(results)

    def finish(self, run: Run, held_out: Shapes) -> dict[str, float]:
        """Write the averaged weights, measure them on held-out shapes, show it."""
        out, resolution = run.arguments.out, run.arguments.resolution
        written = self.save(run.averaged, out)
        results = self.measure(run, held_out, show=True)
        lines = self.measures.table(results)
        title = f"{self.title} at {resolution}³ after {run.step:,} steps, {run.seconds / 60:.1f} minutes"
        save_png(out / "reconstructions.png", self.measures.picture(results[:6], resolution, title))
        more = {} if self.pictures is None else self.pictures(run.averaged, results[:4], resolution)
        for name, image in more.items():
            save_png(out / f"{name}.png", image)
        facts = {name: run.facts[name] for name in self.shown if name in run.facts}
        summary = {**self.measures.numbers(results), "steps": run.step, "seconds": run.seconds} | facts
        names = ["reconstructions.png", *(f"{name}.png" for name in more)]
        with atomic_write(out / "result.json", "w") as file:
            json.dump(summary, file, indent=1)
        tqdm.write(f"\n{title}, {self.structure}; {self.measures.note}\n{lines}\nwrote {', '.join(names)} and {written} to {out}")
        return summary


def start_from(path: Path, network: nn.Module) -> None:
    """Give a network the weights of a file of `save_pretrained`."""
    found = load_pretrained(path)
    if type(found) is not type(network):
        raise SystemExit(f"--start-from: {path} holds a {type(found).__name__}, not a {type(network).__name__}.")
    try:
        network.load_state_dict(found.state_dict())
    except RuntimeError as error:
        raise SystemExit(f"--start-from: {path} holds a {type(found).__name__} of other widths. {error}") from None
