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

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from training import run
from training.data import Kind, exchanged
from training.measure import RoundTrip
from training.vae import VAETask

from voxgen.core import Frame, TriMesh
from voxgen.losses import LossTerms, ShapeVAELoss
from voxgen.models import SCVAE, DecodedShape, build
from voxgen.models.checkpoints import save_trellis2
from voxgen.representations import OVoxel

NETWORK = {"model_channels": (16, 32, 64, 128), "num_blocks": (0, 1, 2, 2), "latent_channels": 16}
TINY = {"model_channels": (8, 16, 32), "num_blocks": (0, 1, 1), "latent_channels": 8}
LOSS = ShapeVAELoss(crossing=1.0, dual_vertex=10.0, subdivision=1.0, kl=1e-5)
"""Not the published weights: these lean on render terms, which this example does without; its vertices learn from their error alone."""


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


def convert(mesh: TriMesh, resolution: int) -> OVoxel:
    ovoxel = OVoxel.from_mesh(mesh, resolution, materials=False, frame=Frame.unit(resolution))
    return ovoxel.replace(crossing_sign=None)


def exchange_axes(ovoxel: OVoxel, axes: tuple[int, int, int]) -> OVoxel:
    """A cell owns the edges at its highest corner, before and after."""
    grid, rows = exchanged(ovoxel.grid, axes)
    return OVoxel(grid, ovoxel.dual_vertices[rows][:, list(axes)], ovoxel.intersected[rows][:, list(axes)])


def mesh_of(ovoxel: OVoxel) -> TriMesh:
    """Split weights are left out: without render terms nothing trains them, so quads are cut by angle."""
    return ovoxel.replace(split_weight=None).to_mesh()


def reconstruct(vae: SCVAE[DecodedShape], truth: OVoxel) -> RoundTrip:
    """Encode → mean of the posterior → decode with predicted structure."""
    latent = vae.encode(truth)
    decoded = vae.decode(latent).ovoxel.to("cpu")
    return RoundTrip(mesh_of(truth.to("cpu")), mesh_of(decoded), decoded.grid, len(latent.z))


def save(vae: SCVAE[DecodedShape], folder: Path) -> str:
    """In the published layout: `read_trellis2` loads it."""
    for name in ("encoder", "decoder"):
        save_trellis2(getattr(vae, name), folder / name, dtype=torch.float32)
    return "encoder and decoder"


TASK = VAETask(
    name="sc_vae",
    title="Shape SC-VAE",
    description=(__doc__ or "").splitlines()[0],
    kind=Kind("O-Voxels", convert, OVoxel.save, OVoxel.load, exchange_axes, OVoxel.batched),
    training=Training,
    network=NETWORK,
    tiny=TINY,
    reconstruct=reconstruct,
    save=save,
    budget=30_000,
)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the mean scores of the held-out shapes (empty in processes other than the first)."""
    return run.main(TASK, argv)


if __name__ == "__main__":
    main()
