"""Train a small latent flow: a picture and the cells of a structure → the latents on them, of the autoencoder of any of the four systems.

Run: python examples/train_latent_flow.py --vae shape_vae.safetensors [--recipe trellis2-shape] [--data FOLDER] [--out out/latent_flow]
     python examples/train_latent_flow.py --recipe direct3d-s2 --vae ss_vae.safetensors ...
     torchrun --nproc_per_node 2 examples/train_latent_flow.py ...              (several devices)
     tensorboard --logdir out/latent_flow                                       (curves and pictures)
FOLDER is what `voxgen prepare --images 8` made, with --ovoxel, --sdf or --points, as the autoencoder reads them; without it, procedural
assets are prepared in --out first. The flow of materials is that of train_material_flow.py.
Stop it whenever you like; the same command with --resume goes on with the very next batch.
Needs: pip install 'voxgen[train]'
"""

from __future__ import annotations

import argparse

from training import run
from training.drawings import Drawing
from training.flow import FlowRecipe, FlowTask
from training.flow_measure import HeldOut
from training.flow_recipes import ATTENTION, LATENT, TINY, convolutions_option, with_convolutions
from training.flow_source import gathered
from training.flow_vaes import autoencoder, wanted_of
from training.latents import LatentDataset


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--recipe", choices=tuple(LATENT), default="trellis2-shape", help="the system whose flow it is")
    network = parser.add_mutually_exclusive_group()
    convolutions_option(network)
    told = "which tokens a token sees; default: the recipe's (full; ssa in Direct3D-S2)"
    network.add_argument("--attention", choices=tuple(ATTENTION), help=told)
    add("--field", help="of --data: latents that are there already, of this autoencoder; default: made here from what it reads")
    add("--resolution", type=int, default=64, help="cells a side of the volumes of procedural assets")


def recipe(arguments: argparse.Namespace) -> FlowRecipe:
    if arguments.convolutions:
        return with_convolutions(LATENT[arguments.recipe])
    return LATENT[arguments.recipe] if arguments.attention is None else ATTENTION[arguments.attention](LATENT[arguments.recipe])


def source(arguments: argparse.Namespace, show: bool) -> tuple[LatentDataset, HeldOut]:
    path, vae = autoencoder(arguments.vae, arguments.recipe, arguments)
    return gathered(arguments, wanted_of(path, vae, arguments.field, arguments), drawing=Drawing(vae), show=show)


TASK = FlowTask(
    name="latent_flow",
    title="Latent flow",
    description=(__doc__ or "").splitlines()[0],
    recipe=recipe,
    source=source,
    tiny=TINY,
    options=options,
    fixed=("recipe", "convolutions", "attention", "field", "resolution"),
)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the errors on held-out objects (empty in processes other than the first)."""
    return run.main(TASK, argv)


if __name__ == "__main__":
    main()
