"""Train a small material flow: a picture and the latent of a shape → the latent of its materials on the same cells, the last stage.

Run: python examples/train_material_flow.py --vae material_vae.safetensors --shape-vae shape_vae.safetensors [--data FOLDER]
     torchrun --nproc_per_node 2 examples/train_material_flow.py ...            (several devices)
     tensorboard --logdir out/material_flow                                     (curves and pictures)
FOLDER is what `voxgen prepare --ovoxel 64 --images 8` made; without it, procedural assets are prepared in --out first. The flow reads the
shape's latent, normalised as the shape's flow makes it, behind the noisy channels. Pictures show the materials on the true shape, unlit.
Stop it whenever you like; the same command with --resume goes on with the very next batch.
Needs: pip install 'voxgen[train]'
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

from training import run
from training.drawings import Drawing
from training.flow import FlowRecipe, FlowTask
from training.flow_measure import HeldOut
from training.flow_recipes import LATENT, TINY, convolutions_option, with_convolutions
from training.flow_source import gathered
from training.flow_vaes import autoencoder, wanted_of
from training.latents import LatentDataset

from voxgen.models import SCVAE, DecodedShape


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    convolutions_option(parser)
    add("--shape-vae", type=Path, help="file of the autoencoder of the shapes, on whose latents the flow builds")
    add("--field", help="of --data: latents of the materials that are there already; default: made here from its O-Voxels")
    add("--shape-field", help="of --data: latents of the shapes that are there already")
    add("--resolution", type=int, default=64, help="cells a side of the O-Voxels of procedural assets")


def source(arguments: argparse.Namespace, show: bool) -> tuple[LatentDataset, HeldOut]:
    path, vae = autoencoder(arguments.vae, "trellis2-material", arguments)
    shape_path, shape = autoencoder(arguments.shape_vae, "trellis2-shape", arguments, "--shape-vae")
    wanted = wanted_of(path, vae, arguments.field, arguments)
    more = wanted_of(shape_path, shape, arguments.shape_field, arguments, "shape_latents")
    return gathered(arguments, wanted, more, drawing=Drawing(vae, cast("SCVAE[DecodedShape]", shape)), show=show)


def recipe(arguments: argparse.Namespace) -> FlowRecipe:
    own = LATENT["trellis2-material"]
    return with_convolutions(own) if arguments.convolutions else own


TASK = FlowTask(
    name="material_flow",
    title="Material flow",
    description=(__doc__ or "").splitlines()[0],
    recipe=recipe,
    source=source,
    tiny=TINY,
    options=options,
    fixed=("convolutions", "shape_vae", "field", "shape_field", "resolution"),
)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the errors on held-out objects (empty in processes other than the first)."""
    return run.main(TASK, argv)


if __name__ == "__main__":
    main()
