"""A tiny autoencoder, trained for a minute on the one asset: that the blocks learn, seen with one's own eyes."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import cast

import torch
from tqdm import tqdm

from voxgen.core import Frame, TriMesh
from voxgen.losses import ShapeVAELoss
from voxgen.metrics import compare_surfaces
from voxgen.models import SCVAE, DecodedShape, build
from voxgen.representations import OVoxel, fit_unit_cube

NETWORK = {"model_channels": (16, 32, 64), "num_blocks": (0, 1, 1), "latent_channels": 8}
LOSS = ShapeVAELoss(crossing=1.0, dual_vertex=10.0, subdivision=1.0, kl=1e-6)
"""Not the published weights: these lean on render terms, which the demo does without."""
RATE = 3e-3
WARM_UP = 10


@dataclass(frozen=True)
class Trained:
    """What a minute gave.

    Args:
        steps, seconds: of the training.   parameters, tokens: of the network and of its latent.
        first_loss, last_loss: of the first step, and the mean of the last ten.
        mesh: the asset after the round trip through the latent, with predicted structure; None where it predicts no cell.
        chamfer, best: mean distance of it, and of the voxels that it learned from, to the asset, in voxels.
    """

    resolution: int
    steps: int
    seconds: float
    parameters: int
    tokens: int
    first_loss: float
    last_loss: float
    mesh: TriMesh | None
    chamfer: float
    best: float

    def __str__(self) -> str:
        error = "no surface yet" if self.mesh is None else f"Chamfer {self.chamfer:.3f} voxels (the voxels themselves: {self.best:.3f})"
        return (
            f"{self.parameters / 1e6:.2f} M parameters, {self.tokens:,} latent tokens, {self.steps:,} steps in {self.seconds:.0f} s: "
            f"loss {self.first_loss:.3f} to {self.last_loss:.3f}; {error}"
        )


def train_tiny_vae(mesh: TriMesh, resolution: int, seconds: float, samples: int) -> Trained:
    """Overfit a small SC-VAE of O-Voxels to one mesh for about `seconds`, then decode it from its latent with predicted structure."""
    fitted = fit_unit_cube(mesh)
    truth = OVoxel.from_mesh(fitted, resolution, materials=False, frame=Frame.unit(resolution)).replace(crossing_sign=None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = cast("SCVAE[DecodedShape]", build("voxgen/shape-vae-small", **NETWORK))
    losses, spent = _fit(vae, truth, seconds)
    vae.eval()
    with torch.no_grad():
        latent = vae.encode(truth)
        decoded = vae.decode(latent).ovoxel
    found = _mesh_of(decoded) if len(decoded) else None
    found = found if found is not None and found.num_faces else None
    distances = [
        compare_surfaces(m, fitted, samples=samples).chamfer_distance().l1 * resolution if m is not None else float("inf")
        for m in (found, _mesh_of(truth))
    ]
    size = sum(p.numel() for p in vae.parameters())
    last = sum(losses[-10:]) / len(losses[-10:])
    return Trained(resolution, len(losses), spent, size, len(latent.z), losses[0], last, found, *distances)


def _fit(vae: SCVAE[DecodedShape], truth: OVoxel, seconds: float) -> tuple[list[float], float]:
    """Losses of the steps, and how long they took."""
    optimizer = torch.optim.AdamW(vae.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    losses: list[float] = []
    share = 0.0
    start = time.perf_counter()
    bar = tqdm(total=100, desc="training a tiny VAE", leave=False, disable=not sys.stderr.isatty(), bar_format="{l_bar}{bar}{postfix}")
    with bar:
        while share < 1:
            for group in optimizer.param_groups:  # up over the first steps, then down to nothing over the time that is left
                group["lr"] = RATE * min(1.0, (len(losses) + 1) / WARM_UP) * (1 - share)
            decoded, latent = vae(truth, sample=True, generator=generator)
            terms = LOSS(
                crossing_logits=decoded.prediction.crossing_logits,
                dual_vertices=decoded.prediction.dual_vertices,
                subdivision_logits=[level.feats for level in decoded.logits],
                mean=latent.posterior.mean.feats,
                logvar=latent.posterior.logvar,
                crossings=truth.intersected,
                target_vertices=truth.dual_vertices,
                subdivisions=[structure.mask() for structure in latent.structures],
            )
            optimizer.zero_grad()
            terms.total.backward()
            torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
            optimizer.step()
            losses.append(float(terms.total.detach()))
            bar.set_postfix_str(f"loss {losses[-1]:.3f}, step {len(losses):,}", refresh=False)
            share = (time.perf_counter() - start) / seconds
            bar.update(min(100.0, 100 * share) - bar.n)
    return losses, time.perf_counter() - start


def _mesh_of(ovoxel: OVoxel) -> TriMesh:
    """Split weights are left out: without render terms nothing trains them, so quads are cut by angle."""
    return ovoxel.replace(split_weight=None).to_mesh()
