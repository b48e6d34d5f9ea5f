"""Train a small structure VAE: which cells of a cube are occupied → a dense latent on a grid 4 times as coarse → the cells again.

Run: python examples/train_structure_vae.py [--data FOLDER] [--resolution 32] [--minutes 10] [--out out/structure_vae]
     torchrun --nproc_per_node 2 examples/train_structure_vae.py ...            (several devices)
     tensorboard --logdir out/structure_vae                                     (curves and pictures)
FOLDER holds meshes, or is what `voxgen prepare --ovoxel 64` made (at --resolution 32; occupancy is that of O-Voxel cells in pairs).
Stop it whenever you like; the same command with --resume goes on with the very next batch.
Needs: pip install 'voxgen[train]'
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from training import run
from training.latent_vae import LatentVAETask
from training.occupancy import KIND, MEASURES, Occupied, occupied_by

from voxgen.core import VoxelGrid
from voxgen.losses import LossTerms, StructureVAELoss
from voxgen.models import StructureVAE, build, save_pretrained
from voxgen.models.structure import occupied_cells

NETWORK = {"model_channels": (8, 16, 32), "num_res_blocks": 1, "num_res_blocks_middle": 1, "embed_dim": 8}
TINY = {"model_channels": (8, 8, 8), "num_res_blocks": 1, "num_res_blocks_middle": 0, "embed_dim": 4}
LOSSES = {"bce": {"bce": 1.0, "dice": 0.0}, "dice": {"dice": 1.0}, "l1": {"l1": 1.0, "dice": 0.0}, "both": {"bce": 1.0, "dice": 1.0}}
BATCH = 16
KL = 1e-3
"""As TRELLIS trains."""


class Training(nn.Module):
    """The network and its loss in one forward, as data-parallel wrappers want it."""

    def __init__(self, network: dict[str, Any]) -> None:
        super().__init__()
        self.vae = cast(StructureVAE, build("voxgen/structure-vae-small", **network))
        self.loss = StructureVAELoss()

    def forward(self, truth: Occupied, generator: torch.Generator) -> LossTerms:
        """Decode a sample of the posterior."""
        occupancy = truth.dense()
        logits, posterior = self.vae(occupancy, generator=generator)
        return self.loss(logits=logits, occupancy=occupancy, mean=posterior.mean, logvar=posterior.logvar)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--loss", choices=tuple(LOSSES), default="both", help="dice: as TRELLIS' published weights; both: BCE + Dice")
    parser.add_argument("--kl", type=float, default=KL, help="weight of the KL divergence")


def configure(module: nn.Module, arguments: argparse.Namespace) -> None:
    cast(Training, module).loss = StructureVAELoss(**LOSSES[arguments.loss], kl=arguments.kl)


def reconstruct(vae: StructureVAE, truth: Occupied) -> VoxelGrid:
    """Encode → mean of the posterior → the cells that are more likely occupied than not."""
    z = (vae.encode(truth.dense()).mean - vae.latents_shift) * vae.latents_scale
    cells = occupied_cells(vae.decode(z))
    return VoxelGrid.from_sorted(cells.coords, resolution=cells.resolution, batch_size=1, frame=truth.grid.frame)


def normalize(vae: StructureVAE, volumes: Iterator[Occupied]) -> None:
    """One scale and shift of all channels, so that the latents which a flow makes have mean 0 and standard deviation 1."""
    z = torch.cat([vae.encode(volume.dense()).mean.flatten() for volume in volumes]).double()
    vae.latents_shift, vae.latents_scale = float(z.mean()), 1 / float(z.std())


def save(vae: StructureVAE, folder: Path) -> str:
    """Configuration and weights: `voxgen.models.load_pretrained` builds the network from the file."""
    save_pretrained(vae, folder / "structure_vae.safetensors")
    return "structure_vae.safetensors"


TASK = LatentVAETask(
    name="structure_vae",
    title="Structure VAE",
    description=(__doc__ or "").splitlines()[0],
    kind=KIND,
    read=occupied_by,
    sizes=lambda cells: [1] * len(cells),
    normalize=normalize,
    training=Training,
    network=NETWORK,
    tiny=TINY,
    reconstruct=reconstruct,
    save=save,
    measures=MEASURES,
    unit="shapes",
    structure="cells of probability 0.5 or more",
    budget=BATCH,
    smallest_budget=BATCH,
    options=options,
    configure=configure,
    fixed=("loss", "kl"),
    defaults={"resolution": 32, "budget": BATCH},
)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the mean scores of the held-out shapes (empty in processes other than the first)."""
    return run.main(TASK, argv)


if __name__ == "__main__":
    main()
