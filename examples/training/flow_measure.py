"""How good a flow is: its error on held-out objects over the path, with and without their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxgen.core import SparseTensor
from voxgen.flow import Sampler, noise_like
from voxgen.models import LatentNormalization
from voxgen.render import Panel, compose_figure

from .drawings import SIZE, Drawing
from .flow_module import FlowTraining
from .latents import Latent, LatentBatch, LatentDataset, denormalized

PLACES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Times at which errors are measured: the middles of five bins of the path."""
NOISE_SEED = 1_000_003
GROUP = 8192
"""Tokens that are measured at once."""


@dataclass(frozen=True)
class HeldOut:
    """What a flow is measured on.

    Attributes:
        data: as in training.
        normalization: of the latents.
        drawing: None where there is no autoencoder to decode with.
        shape_normalization: of the shape's latents, which a flow of materials reads.
    """

    data: LatentDataset
    normalization: LatentNormalization
    drawing: Drawing | None
    shape_normalization: LatentNormalization | None = None

    def __len__(self) -> int:
        return len(self.data)

    def draw(self, latent: Latent, item: LatentBatch) -> Tensor:
        """What a latent of the flow decodes to, on the shape of an object."""
        if self.drawing is None:
            raise ValueError("HeldOut.draw: there is no autoencoder to decode with.")
        z, n = denormalized(latent, self.normalization), self.shape_normalization
        return self.drawing(z, None if n is None or item.extra is None else n.denormalize(item.extra))


def grouped(data: LatentDataset, indices: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in groups of at most so many tokens, in order."""
    groups: list[list[int]] = [[]]
    room = budget
    for index in indices:
        if groups[-1] and data.sizes[index] > room:
            groups.append([])
            room = budget
        groups[-1].append(index)
        room -= data.sizes[index]
    return groups


@torch.no_grad()
def errors(module: FlowTraining, data: LatentDataset, device: torch.device, *, most: int = 64) -> dict[str, float]:
    """Mean squared error of the velocity at each of `PLACES`, and the mean of these: of the first picture of each of the first objects,
    with noise that is the same for every network. Each object counts the same.

    Returns:
        "loss", "loss_t0.1" …, and "loss_without", the mean where the picture is left out.
    """
    training = module.training
    module.eval()
    found: list[Tensor] = []
    for group in grouped(data, range(min(most, len(data))), GROUP):
        batch = LatentBatch.of([data[index, 0] for index in group]).to(device)
        condition = module.tokens(batch)
        rows = []
        for given in (condition, torch.zeros_like(condition)):
            for i, place in enumerate(PLACES):
                chance = torch.Generator(device).manual_seed(NOISE_SEED + 1009 * i + group[0])
                times = torch.full((len(group),), place, device=device)
                rows.append(module.loss(batch, given, times, chance).per_sample)
        found.append(torch.stack(rows, 1).cpu())
    module.train(training)
    mean = torch.cat(found).double().mean(0).reshape(2, len(PLACES))
    values = {f"loss_t{place}": float(v) for place, v in zip(PLACES, mean[0], strict=True)}
    return {"loss": float(mean[0].mean()), **values, "loss_without": float(mean[1].mean())}


@torch.no_grad()
def sheet(
    module: FlowTraining, held_out: HeldOut, sampler: Sampler, device: torch.device, *, objects: int, samples: int, title: str
) -> Tensor:
    """A row an object: its picture, what it is, and what the flow makes of the picture from `samples` seeds. (h, w, 3) uint8."""
    training = module.training
    module.eval()
    rows = []
    for index in range(min(objects, len(held_out))):
        item = held_out.data[index, 0]
        panels = [Panel(_enlarged(item.pictures()[0]), held_out.data.names[index])]
        if held_out.drawing is not None:
            drawn = [held_out.draw(latent, item) for latent in (item.latent, *sampled(module, item, sampler, device, samples))]
            panels += [Panel(image, name) for image, name in zip(drawn, ["truth", *(f"seed {i}" for i in range(samples))], strict=True)]
        rows.append(panels)
    module.train(training)
    return compose_figure(
        rows, title=title, caption="Held-out objects: the picture, the object, and what the averaged weights make of the picture."
    )


def _enlarged(picture: Tensor) -> Tensor:
    """(3, s, s) → (h, w, 3), as large as what stands beside it."""
    shown = torch.nn.functional.interpolate(picture[None], (SIZE, SIZE), mode="bilinear", antialias=True)
    return shown[0].permute(1, 2, 0).clamp(0, 1)


def sampled(module: FlowTraining, item: LatentBatch, sampler: Sampler, device: torch.device, count: int) -> list[Latent]:
    """Latents of the picture of one object, as normalised as those of training, from seeds 0, 1, …"""
    batch = LatentBatch.of([item] * count).to(device)
    condition = module.tokens(batch)
    latent: Any = batch.latent
    noise = noise_like(latent, [torch.Generator().manual_seed(seed) for seed in range(count)])
    made: Any = sampler(module.velocity(batch.extra), noise, condition, torch.zeros_like(condition))
    return [part.to("cpu") for part in (made.unbind() if isinstance(made, SparseTensor) else made.split(1))]
