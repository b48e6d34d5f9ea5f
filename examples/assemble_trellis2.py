"""Put trained networks together to the recipe of TRELLIS.2: a folder from which it generates textured assets from pictures.

Run: python examples/assemble_trellis2.py --structure-vae structure_vae.safetensors --structure out/structure_flow
         --shape-vae shape_vae.safetensors --shape out/latent_flow
         --material-vae material_vae.safetensors --material out/material_flow --out out/trellis2-pipeline [--image chair.png]
The files are those that train_structure_vae.py, train_structure_flow.py, train_sc_vae.py, train_latent_flow.py, train_material_vae.py and
train_material_flow.py write; `python examples/train_NAME.py --help` says how. Weights are stored in half precision. With --image it
generates a textured asset.glb beside the pipeline; `voxgen generate picture.png asset.glb --from out/trellis2-pipeline` does so later.
The system in the box (`voxgen.models.pipelines.shipped_pipeline`) was put together by this script.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from assemble_pipeline import fresh, trained
from training.flow_encoder import encoder_option, encoders_of
from training.flow_vaes import autoencoder

from voxgen.flow import ClassifierFreeGuidance, EulerSampler
from voxgen.io import save_mesh
from voxgen.models import LatentNormalization
from voxgen.models.pipelines import Trellis2Pipeline

SAME = 1e-3
"""How much two normalisations may differ, in the units of the latents."""


def assemble(arguments: argparse.Namespace) -> Trellis2Pipeline:
    """The pipeline of the trained networks; with --smallest of fresh ones."""
    small = arguments.smallest
    structure: Any = autoencoder(arguments.structure_vae, "structure", arguments, "--structure-vae")[1]
    shape: Any = autoencoder(arguments.shape_vae, "trellis2-shape", arguments, "--shape-vae")[1]
    material: Any = autoencoder(arguments.material_vae, "trellis2-material", arguments, "--material-vae")[1]
    widths = {
        "structure": structure.decoder.latent_channels,
        "shape": shape.decoder.config.latent_channels,
        "material": material.decoder.config.latent_channels,
    }
    if small:
        # a structure on as many cells as the shape's latent has along a side
        flows = {
            "structure": fresh("voxgen/structure-flow-small", widths["structure"], resolution=8 // structure.decoder.factor),
            "shape": fresh("voxgen/latent-flow-small", widths["shape"], resolution=8),
            "material": fresh("voxgen/latent-flow-small", widths["material"], resolution=8, more=widths["shape"]),
        }
    else:
        flows = {stage: trained(getattr(arguments, stage)) for stage in widths}
    factor = 2**shape.decoder.num_steps
    latent_flow: Any = flows["shape"][0]
    resolution = latent_flow.resolution * factor
    steps = arguments.steps
    samplers = {
        "structure": EulerSampler(steps, 3.0, guidance=ClassifierFreeGuidance(arguments.guidance)),
        "shape": EulerSampler(steps, 3.0, guidance=ClassifierFreeGuidance(arguments.guidance)),
        "material": EulerSampler(steps, 3.0, guidance=ClassifierFreeGuidance(1.0)),
    }
    if not small:
        require_same_shapes(flows["shape"][1], arguments.material)
    encoders = {stage: made[2] for stage, made in flows.items()}
    return Trellis2Pipeline(
        flows["structure"][0],  # pyright: ignore[reportArgumentType]
        structure,
        {resolution: latent_flow},
        shape.decoder,
        {resolution: flows["material"][0]},  # pyright: ignore[reportArgumentType]
        material.decoder,
        shape_normalization=flows["shape"][1],
        material_normalization=flows["material"][1],
        structure_normalization=flows["structure"][1],
        samplers=samplers,
        shape_encoder=shape.encoder,
        split_weights=False,  # which train_sc_vae.py does not train
        image_encoder=encoders_of(encoders, arguments.image_encoder),
    )


def require_same_shapes(made: LatentNormalization, folder: Path) -> None:
    """The flow of materials must have learnt on shapes that are normalised as the flow of shapes makes them.

    Args:
        made: by which the flow of shapes was trained; the pipeline takes it.
        folder: of the training of the flow of materials. Those of before this file existed have none, and pass.
    """
    path = folder / "shape_normalization.json"
    if not path.exists():
        return
    read = LatentNormalization(**json.loads(path.read_text()))
    pairs = list(zip((*made.mean, *made.std), (*read.mean, *read.std), strict=False))
    apart = max(abs(a - b) for a, b in pairs)
    if made.channels != read.channels or not apart <= SAME:  # also of NaN
        raise SystemExit(
            f"{path}: the flow of materials learnt on shapes that were normalised otherwise than the flow of shapes makes them: "
            f"{read.channels} channels for {made.channels}, means and deviations up to {apart:.4g} apart; at most {SAME} is allowed. "
            f"Train both flows on the same prepared folder with the same shape autoencoder."
        )


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the size of the folder, and how much was generated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--structure-vae", type=Path)
    add("--shape-vae", type=Path)
    add("--material-vae", type=Path)
    for stage in ("structure", "shape", "material"):
        add(f"--{stage}", type=Path, metavar="FOLDER", help=f"of the training of the {stage} flow")
    encoder_option(parser)
    add("--steps", type=int, default=16, help="of each sampler")
    add("--guidance", type=float, default=3.0, help="of structure and shape; materials go without")
    add("--image", type=Path, help="a picture with alpha, to generate from")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("out") / "trellis2-pipeline")
    add("--smallest", action="store_true", help="fresh networks in the size that tests run")
    arguments = parser.parse_args(argv)
    missing = [
        name for name in ("structure", "shape", "material", "structure_vae", "shape_vae", "material_vae") if not getattr(arguments, name)
    ]
    if missing and not arguments.smallest:
        parser.error(f"--{missing[0].replace('_', '-')} is needed")
    arguments.out.mkdir(parents=True, exist_ok=True)
    pipeline = assemble(arguments)
    pipeline.save_folder(arguments.out, dtype=torch.float16)
    pipeline = Trellis2Pipeline.from_folder(arguments.out)  # what is written is what generates
    size = sum(path.stat().st_size for path in arguments.out.glob("*.safetensors"))
    print(f"wrote {arguments.out}, {size / 1e6:.1f} MB")
    numbers = {"megabytes": size / 1e6}
    if arguments.image is None and not arguments.smallest:
        return numbers
    picture = np.full((32, 32, 4), 255, dtype=np.uint8)
    if arguments.image is not None:
        from PIL import Image

        with Image.open(arguments.image) as image:
            picture = np.asarray(image.convert("RGBA"))
    made = pipeline.generate(
        picture, generator=torch.Generator().manual_seed(arguments.seed), assume_foreground=arguments.image is None, progress=True
    )
    mesh = made.meshes()[0]
    if mesh.num_faces:
        save_mesh(mesh, arguments.out / "asset.glb")
    return numbers | {"voxels": len(made.ovoxel), "faces": mesh.num_faces}


if __name__ == "__main__":
    main()
