"""FlowTask: a flow of latents that is conditioned on pictures; and what is measured of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from tqdm import tqdm

from voxgen.core.atomic import atomic_write
from voxgen.flow import ClassifierFreeGuidance, EulerSampler, RectifiedFlow, Sampler
from voxgen.models import build, save_pretrained
from voxgen.render import save_png

from .flow_encoder import image_encoder
from .flow_measure import PLACES, HeldOut, errors, sheet
from .flow_module import TIMES, FlowTraining
from .flow_source import asset_options
from .latents import LatentDataset
from .run import Run
from .task import Prepared, Task


@dataclass(frozen=True)
class FlowRecipe:
    """A flow as a system has it.

    Attributes:
        network: a name of `voxgen.models.available()`.
        fields: of its configuration, where they are other than that of the name.
        path: of the flow.   times: a name of `TIMES`.
    """

    network: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    path: RectifiedFlow = field(default_factory=RectifiedFlow)
    times: str = "uniform"


@dataclass(frozen=True, kw_only=True)
class FlowTask(Task):
    """A flow to train.

    Attributes:
        recipe: of the arguments.
        source: latents and pictures to train on, and held-out ones, of the arguments.
    """

    FIXED: ClassVar[tuple[str, ...]] = (
        "vae",
        "assets",
        "held_out",
        "max_tokens",
        "image_encoder",
        "image_size",
        "views",
        "drop",
        "times",
        "set",
    )

    recipe: Callable[[argparse.Namespace], FlowRecipe]
    source: Callable[[argparse.Namespace, bool], tuple[LatentDataset, HeldOut]]
    network: Mapping[str, Any] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "tokens"
    budget: int = 6000
    smallest_budget: int = 1000
    learning_rate: float = 1e-3
    published: ClassVar[Mapping[str, Any]] = {
        "betas": (0.9, 0.95),
        "weight_decay": 0.01,
        "ema": 0.999,
        "checkpoint_every": 200,
        "picture_every": 1000,
    }

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        add, own = parser.add_argument, "default: a small one that learns with the flow"
        asset_options(parser)
        add("--vae", type=Path, help="file of the autoencoder (save_pretrained), whose latents the flow makes")
        add("--max-tokens", type=int, default=8192, help="assets with more are left out")
        add("--workers-to-prepare", type=int, default=1, help="processes that make what is not there yet")
        add("--image-encoder", type=Path, help=f"folder of a DINOv2 or DINOv3 checkpoint, or file of a small encoder, kept as it is; {own}")
        add("--image-size", type=int, default=128, help="pixels along a side of the condition, for the encoder that learns")
        add("--drop", type=float, default=0.1, help="how often a condition is left out, for guidance")
        add("--times", choices=tuple(TIMES), help="distribution of the times to train at; default: the recipe's")
        add("--checkpoint-blocks", action="store_true", help="compute blocks again in the backward pass, which saves memory")
        add(
            "--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of the network: model_channels=192 num_blocks=8 num_heads=6"
        )
        add("--sampling-steps", type=int, default=25, help="of the pictures")
        add("--guidance", type=float, default=3.0, help="of the pictures")
        parser.set_defaults(**self.published)

    def settle(self, arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
        if arguments.smallest:
            arguments.assets, arguments.held_out, arguments.views, arguments.image_size = 6, 2, 2, 32
            arguments.sampling_steps, arguments.resolution = 3, 32
        if not 0 <= arguments.drop <= 1:
            parser.error(f"--drop must lie in [0, 1]; got {arguments.drop}")
        for item in arguments.set:
            if "=" not in item:
                parser.error(f"--set takes FIELD=VALUE; got {item}")
        if arguments.times is None:
            arguments.times = self.recipe(arguments).times
        arguments.picture_size = image_encoder(arguments).image_size
        arguments.cache = arguments.cache or arguments.out

    def prepare(self, arguments: argparse.Namespace, *, show: bool) -> Prepared[Any]:
        training, held_out = self.source(arguments, show)
        return Prepared(training, held_out)

    def build(self, arguments: argparse.Namespace, prepared: Prepared[Any]) -> nn.Module:
        recipe, first = self.recipe(arguments), cast(LatentDataset, prepared.training)[0, 0]
        encoder = image_encoder(arguments)
        latent = first.latent
        width = latent.shape[1] if isinstance(latent, Tensor) else latent.channels
        side = latent.shape[2] if isinstance(latent, Tensor) else latent.grid.resolution[0]
        more = 0 if first.extra is None else first.extra.channels
        fields: dict[str, Any] = {"resolution": side, "in_channels": width + more, "out_channels": width, "cond_channels": encoder.channels}
        fields |= {**recipe.fields, **self.chosen(arguments), **dict(map(_field, arguments.set))}
        fields["use_checkpoint"] = arguments.checkpoint_blocks
        flow = build(recipe.network, **fields)
        return FlowTraining(flow, encoder, path=recipe.path, times=arguments.times, drop=arguments.drop)

    def glance(self, run: Run, held_out: HeldOut) -> tuple[Tensor, dict[str, float]]:
        picture = self.picture(run, held_out, objects=4, samples=1, title=f"step {run.step}")
        return picture, errors(cast(FlowTraining, run.averaged), held_out.data, run.accelerator.device)

    def picture(self, run: Run, held_out: HeldOut, *, objects: int, samples: int, title: str) -> Tensor:
        """Held-out objects and what the averaged weights make of their pictures."""
        module, sampler = cast(FlowTraining, run.averaged), self.sampler(run.arguments)
        return sheet(module, held_out, sampler, run.accelerator.device, objects=objects, samples=samples, title=title)

    def sampler(self, arguments: argparse.Namespace) -> Sampler:
        """Of the pictures."""
        guidance = ClassifierFreeGuidance(arguments.guidance)
        return EulerSampler(arguments.sampling_steps, rescale=3.0, flow=self.recipe(arguments).path, guidance=guidance)

    def finish(self, run: Run, held_out: HeldOut) -> dict[str, float]:
        out, module = run.arguments.out, cast(FlowTraining, run.averaged)
        module.eval()
        written = ["flow.safetensors", "normalization.json", "samples.png"]
        save_pretrained(module.flow, out / "flow.safetensors")
        if module.encoder is not None:
            save_pretrained(module.encoder, out / "image_encoder.safetensors")
            written.append("image_encoder.safetensors")
        statistics = {"normalization.json": held_out.normalization}
        if held_out.shape_normalization is not None:  # which the flow reads its shapes by
            statistics["shape_normalization.json"] = held_out.shape_normalization
            written.append("shape_normalization.json")
        for name, normalization in statistics.items():
            with atomic_write(out / name, "w") as file:
                json.dump(asdict(normalization), file, indent=1)
        found = errors(module, held_out.data, run.accelerator.device)
        title = f"{self.title} after {run.step:,} steps, {run.seconds / 60:.1f} minutes"
        save_png(out / "samples.png", self.picture(run, held_out, objects=8, samples=3, title=title))
        summary = {**found, "steps": run.step, "seconds": run.seconds, "objects": len(held_out)}
        with atomic_write(out / "result.json", "w") as file:
            json.dump(summary, file, indent=1)
        over = ", ".join(f"{found[f'loss_t{t}']:.3f} at {t}" for t in PLACES)
        lines = f"error of the velocity on held-out objects: {found['loss']:.4f} ({over}); without pictures {found['loss_without']:.4f}"
        tqdm.write(f"\n{title}\n{lines}\nwrote {', '.join(written)} to {out}")
        return summary


def _field(item: str) -> tuple[str, Any]:
    """FIELD=VALUE, the value as JSON or else as text."""
    name, _, value = item.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
