"""Train a small material SC-VAE: base colour, metallic, roughness and alpha on O-Voxel cells → latent 4 times as coarse → materials.

Which cells there are is never predicted here: in training and measuring the true ones are given, in a generator the shape's.

Run: python examples/train_material_vae.py [--data FOLDER] [--resolution 64] [--minutes 10] [--out out/material_vae]
     python examples/train_material_vae.py --views 2 --resume ...               (second stage: pictures are compared, too)
     torchrun --nproc_per_node 2 examples/train_material_vae.py ...             (several devices)
     tensorboard --logdir out/material_vae                                      (curves and pictures)
FOLDER holds meshes with materials, or is what `voxgen prepare --ovoxel 64` made. Without it: procedural shapes with textures.
Stop it whenever you like; the same command with --resume goes on with the very next batch.
Needs: pip install 'voxgen[train]'
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from training import run
from training.colors import MEASURES, Returned
from training.data import Kind
from training.latent_vae import LatentVAETask
from training.ovoxels import colored, exchange_axes, select, shape_and_materials_of
from training.textures import textured

from voxgen.losses import LossTerms, MaterialVAELoss, RenderTarget
from voxgen.models import SCVAE, DecodedMaterials, LatentNormalization, MaterialRenderTerms, SCDecoder, SCEncoder, save_pretrained
from voxgen.models.sc_vae import DecoderConfig, EncoderConfig, MaterialContent
from voxgen.render import random_cameras
from voxgen.representations import OVoxel

NETWORK = {"model_channels": (12, 24, 48), "num_blocks": (0, 1, 1), "latent_channels": 8}
TINY = {"model_channels": (8, 8, 16), "num_blocks": (0, 1, 1), "latent_channels": 4}
KL = 1e-4
LOGVAR = -4.0
"""Of the posterior at the start. As published all start at 0: latents are then noise, and the decoder learns to do without them."""


def pooled_vae(model_channels: Sequence[int], num_blocks: Sequence[int], latent_channels: int) -> SCVAE[DecodedMaterials]:
    """A material SC-VAE that pools between levels, and whose shortcuts are linear maps.

    Residual autoencoding, as published, averages channels in its shortcuts. Of networks as narrow as these so little comes through that
    colours turn grey: at 12, 24 and 48 channels about one number a child, where the published widths have 16.
    """
    content = MaterialContent()
    down = EncoderConfig(model_channels, num_blocks, latent_channels, down_block_type="SparseResBlockDownsample3d")
    up = DecoderConfig(
        model_channels[::-1],
        num_blocks[::-1],
        latent_channels,
        out_channels=content.out_channels,
        up_block_type="SparseResBlockUpsample3d",
        pred_subdiv=False,
    )
    return SCVAE(SCEncoder(down), SCDecoder(up), content)


class Training(nn.Module):
    """The network and its loss in one forward, as data-parallel wrappers want it."""

    def __init__(self, network: dict[str, Any]) -> None:
        super().__init__()
        self.vae = pooled_vae(**network)
        nn.init.constant_(self.vae.encoder.to_latent.linear.bias.chunk(2)[1], LOGVAR)
        self.loss = MaterialVAELoss(kl=KL)
        self.views, self.size = 0, 0

    def forward(self, truth: OVoxel, generator: torch.Generator) -> LossTerms:
        """Decode a sample of the posterior on the true cells."""
        decoded, latent = self.vae(truth, sample=True, generator=generator)
        posterior = latent.posterior
        return self.loss(
            prediction=decoded.head,
            target=truth.material_tensor().feats,
            mean=posterior.mean.feats,
            logvar=posterior.logvar,
            views=self.seen(truth, generator) if self.views else None,
        )

    def seen(self, truth: OVoxel, generator: torch.Generator) -> RenderTarget:
        """Random views of each shape: of its O-Voxel's surface, since a prepared folder has no textures."""
        samples = truth.batch_size
        cameras = random_cameras(self.views * samples, width=self.size, height=self.size, generator=generator)
        meshes = tuple(truth.sample(i).to_mesh() for i in range(samples))
        return RenderTarget(cameras, torch.arange(samples).repeat_interleave(self.views), meshes=meshes)


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--kl", type=float, default=KL, help="weight of the KL divergence")
    add("--views", type=int, default=0, help="second stage: so many pictures of each shape are compared by SSIM in each step")
    add("--view-size", type=int, default=128, help="pixels a side of these")


def configure(module: nn.Module, arguments: argparse.Namespace) -> None:
    training = cast(Training, module)
    training.views, training.size = arguments.views, arguments.view_size
    training.loss = MaterialVAELoss(kl=arguments.kl, render=MaterialRenderTerms() if arguments.views else None)


def reconstruct(vae: SCVAE[DecodedMaterials], truth: OVoxel) -> Returned:
    """Encode → mean of the posterior → decode on the true cells."""
    latent = vae.encode(truth)
    return Returned(vae.decode(latent, structure=latent.structures), len(latent.z))


def normalize(vae: SCVAE[DecodedMaterials], volumes: Iterator[OVoxel]) -> None:
    vae.normalization = LatentNormalization.of(vae.encode(volume).z for volume in volumes)


def save(vae: SCVAE[DecodedMaterials], folder: Path) -> str:
    """Configuration, weights and normalisation: `voxgen.models.load_pretrained` builds the network from the file."""
    save_pretrained(vae, folder / "material_vae.safetensors")
    return "material_vae.safetensors"


TASK = LatentVAETask(
    name="material_vae",
    title="Material SC-VAE",
    description=(__doc__ or "").splitlines()[0],
    kind=Kind("textured O-Voxels", shape_and_materials_of, OVoxel.save, OVoxel.load, exchange_axes, OVoxel.batched, dress=textured),
    read=colored,
    normalize=normalize,
    select=select,
    training=Training,
    network=NETWORK,
    tiny=TINY,
    reconstruct=reconstruct,
    save=save,
    measures=MEASURES,
    structure="on the true cells",
    budget=20_000,
    learning_rate=2e-3,
    options=options,
    configure=configure,
    fixed=("kl",),
)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the mean scores of the held-out shapes (empty in processes other than the first)."""
    return run.main(TASK, argv)


if __name__ == "__main__":
    main()
