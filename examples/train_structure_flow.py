"""Train a small structure flow: a picture → the dense latent of which cells are occupied, the first stage of a generator.

Run: python examples/train_structure_flow.py --vae structure_vae.safetensors [--data FOLDER] [--minutes 10] [--out out/structure_flow]
     torchrun --nproc_per_node 2 examples/train_structure_flow.py ...           (several devices)
     tensorboard --logdir out/structure_flow                                    (curves and pictures)
The file is that of train_structure_vae.py. FOLDER is what `voxgen prepare --ovoxel 64 --images 8` made; without it, procedural assets are
prepared in --out first. Stop it whenever you like; the same command with --resume goes on with the very next batch.
Needs: pip install 'voxgen[train]'
"""

from __future__ import annotations

import argparse

from training import run
from training.drawings import Drawing
from training.flow import FlowRecipe, FlowTask
from training.flow_measure import HeldOut
from training.flow_source import gathered
from training.flow_vaes import autoencoder, wanted_of
from training.latents import LatentDataset

RECIPES = {
    "trellis2": FlowRecipe("voxgen/structure-flow-small", times="logit-normal"),
    "trellis": FlowRecipe(
        "voxgen/structure-flow-small",
        {"pe_mode": "ape", "share_mod": False, "qk_rms_norm_cross": False, "initialization": "vanilla"},
        times="logit-normal",
    ),
}
TINY = {"model_channels": 32, "num_blocks": 2, "num_heads": 2}


def options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--recipe",
        choices=tuple(RECIPES),
        default="trellis2",
        help="trellis: position code and modulation as there, and in Focusing and Sparse-Up",
    )
    add("--field", help="of --data: latents that are there already, of this autoencoder; default: made here from its O-Voxels")
    add("--resolution", type=int, default=64, help="cells a side of the O-Voxels of procedural assets; occupancy is half as fine")


def source(arguments: argparse.Namespace, show: bool) -> tuple[LatentDataset, HeldOut]:
    path, vae = autoencoder(arguments.vae, "structure", arguments)
    return gathered(arguments, wanted_of(path, vae, arguments.field, arguments), drawing=Drawing(vae), show=show)


TASK = FlowTask(
    name="structure_flow",
    title="Structure flow",
    description=(__doc__ or "").splitlines()[0],
    recipe=lambda arguments: RECIPES[arguments.recipe],
    source=source,
    tiny=TINY,
    budget=4096,
    options=options,
    fixed=("recipe", "field", "resolution"),
)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the errors on held-out objects (empty in processes other than the first)."""
    return run.main(TASK, argv)


if __name__ == "__main__":
    main()
