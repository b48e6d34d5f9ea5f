"""Put trained networks together: a folder from which the pipeline of Direct3D-S2, Focusing or Sparse-Up generates.

Run: python examples/assemble_pipeline.py focusing --structure-vae structure_vae.safetensors --structure out/structure_flow
         --vae focusing.safetensors --latents out/latent_flow --out out/focusing-pipeline [--image chair.png]
     python examples/assemble_pipeline.py direct3d-s2 ...      (the same with --vae ss_vae.safetensors: its coarse stage)
     python examples/assemble_pipeline.py sparse-up --vae texture_vae.safetensors --latents out/latent_flow --out ... --image chair.png
         --mesh chair.glb                              (textures a mesh: then no structure is needed)
The files are those that train_structure_vae.py, train_structure_flow.py, train_focusing.py, train_ss_vae.py or train_texture_vae.py,
and train_latent_flow.py write. With --image it generates: a mesh (.glb), or Gaussians (.ply), beside the pipeline.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from training.flow_encoder import encoder_option, encoders_of
from training.flow_recipes import TINY
from training.flow_vaes import autoencoder

from voxgen.core import TriMesh
from voxgen.flow import ClassifierFreeGuidance, EulerSampler, RectifiedFlow
from voxgen.io import load_mesh, save_mesh
from voxgen.models import FocusingPipeline, LatentNormalization, SmallImageEncoder, SparseUpPipeline, build, load_pretrained
from voxgen.models.pipelines import Direct3DS2Pipeline
from voxgen.representations import fit_unit_cube

Pipeline = FocusingPipeline | SparseUpPipeline | Direct3DS2Pipeline
SMALLEST_ENCODER = {"image_size": 16, "channels": 16, "model_channels": 16, "halvings": 2, "num_blocks": 1, "num_heads": 2}


def trained(folder: Path) -> tuple[nn.Module, LatentNormalization, SmallImageEncoder | None]:
    """What a training of a flow wrote: the flow, the statistics of its latents, and its image encoder if that learnt."""
    encoder = folder / "image_encoder.safetensors"
    statistics = LatentNormalization(**json.loads((folder / "normalization.json").read_text()))
    return load_pretrained(folder / "flow.safetensors").eval(), statistics, load_pretrained(encoder).eval() if encoder.exists() else None  # pyright: ignore[reportReturnType]


def fresh(name: str, width: int, more: int = 0, **fields: Any) -> tuple[nn.Module, LatentNormalization, SmallImageEncoder]:
    """The same with fresh weights, in the size that tests run; the flow reads so many more channels than it makes."""
    encoder = SmallImageEncoder(**SMALLEST_ENCODER).eval()
    flow = build(name, in_channels=width + more, out_channels=width, cond_channels=encoder.channels, **TINY, **fields).eval()
    return flow, LatentNormalization((0.0,) * width, (1.0,) * width), encoder


def first_stage(arguments: argparse.Namespace) -> tuple[Any, Any, LatentNormalization, SmallImageEncoder | None]:
    """Of the structure: flow, autoencoder, statistics of its latents, and image encoder."""
    decoder: Any = autoencoder(arguments.structure_vae, "structure", arguments, "--structure-vae")[1]
    if arguments.smallest:
        made = fresh("voxgen/structure-flow-small", decoder.decoder.latent_channels, resolution=4)
    else:
        made = trained(arguments.structure)
    flow, statistics, encoder = made
    return flow, decoder, statistics, encoder


def assemble_sdf(arguments: argparse.Namespace) -> Direct3DS2Pipeline:
    """Direct3D-S2's structure and coarse stages."""
    vae: Any = autoencoder(arguments.vae, "direct3d-s2", arguments)[1]
    width = vae.decoder.config.latent_channels
    made = fresh("voxgen/ss-dit-small", width, resolution=4) if arguments.smallest else trained(arguments.latents)
    flow: Any = made[0]
    vae.normalization = made[1]  # of the latents that the flow makes
    first, decoder, statistics, encoder = first_stage(arguments)
    encoders = {"structure": encoder, "coarse": made[2]}
    guidance, path = ClassifierFreeGuidance(arguments.guidance), RectifiedFlow(sigma_min=0.0)
    return Direct3DS2Pipeline(
        first,
        decoder,
        {8 * flow.resolution: flow},
        {8 * flow.resolution: vae},
        samplers={
            "structure": EulerSampler(arguments.steps, 3.0, guidance=guidance),
            "coarse": EulerSampler(arguments.steps, 3.0, guidance=guidance, flow=path),
        },
        image_encoder=encoders_of(encoders, arguments.image_encoder),
        image_system="trellis2",  # the crop that examples/training prepares pictures with
        threshold=0.5,
        levels={"coarse": 0.0},  # distances have signs, so the surface is where they are 0
        structure_normalization=statistics,
    )


def assemble(arguments: argparse.Namespace) -> Pipeline:
    recipe, small, given = arguments.recipe, arguments.smallest, arguments.mesh is not None
    if recipe == "direct3d-s2":
        return assemble_sdf(arguments)
    vae: Any = autoencoder(arguments.vae, recipe, arguments)[1]
    config = vae.decoder.config if recipe == "focusing" else vae.config
    side = 8 if recipe == "focusing" else config.resolution
    name = f"voxgen/{'focusing' if recipe == 'focusing' else 'texture'}-flow-small"
    flow, statistics, latent_encoder = fresh(name, config.latent_channels, resolution=side) if small else trained(arguments.latents)
    encoders: dict[str, Any] = {"latent": latent_encoder}
    parts: tuple[Any, Any] = (None, None)
    structure_statistics = None
    if not given:
        first, decoder, structure_statistics, encoders["structure"] = first_stage(arguments)
        parts = (first, decoder)
    sampler = EulerSampler(arguments.steps, 3.0, guidance=ClassifierFreeGuidance(arguments.guidance))
    options: dict[str, Any] = {
        "normalization": statistics,
        "structure_normalization": structure_statistics,
        "samplers": {"structure": sampler, "latent": sampler},
        "image_encoder": encoders_of(encoders, arguments.image_encoder),
        "system": "trellis2",  # the crop that examples/training prepares pictures with
    }
    if recipe == "focusing":
        return FocusingPipeline(*parts, flow, vae.decoder, **options)  # pyright: ignore[reportArgumentType]
    return SparseUpPipeline(*parts, flow, vae, **options)  # pyright: ignore[reportArgumentType]


def generate(pipeline: Pipeline, arguments: argparse.Namespace) -> dict[str, float]:
    """Write what the pipeline makes of the picture, and say how much there is of it."""
    from PIL import Image

    with Image.open(arguments.image) as image:
        picture = np.asarray(image.convert("RGBA"))
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(arguments.seed), "progress": True}
    if not isinstance(pipeline, SparseUpPipeline):
        mesh = pipeline.generate(picture, **options).mesh
        if mesh.num_faces:
            save_mesh(mesh, arguments.out / "generated.glb")
        else:
            print("the mesh is empty, so no file is written; try another --seed")
        return {"faces": mesh.num_faces}
    if arguments.mesh is None:
        made = pipeline.generate(picture, **options)
    else:
        given: TriMesh = fit_unit_cube(load_mesh(arguments.mesh).with_up(pipeline.up))
        made = pipeline.texture_mesh(given, picture, **options)
    made.splats.save_ply(arguments.out / "generated.ply")
    return {"gaussians": len(made.splats)}


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Returns the size of the folder, and what was generated: its number of faces or Gaussians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add: Callable[..., Any] = parser.add_argument
    add("recipe", nargs="?", choices=("direct3d-s2", "focusing", "sparse-up"), default="focusing")
    add("--structure-vae", type=Path, help="file of train_structure_vae.py")
    add("--structure", type=Path, help="folder of train_structure_flow.py")
    add("--vae", type=Path, help="file of train_focusing.py, train_ss_vae.py or train_texture_vae.py")
    add("--latents", type=Path, help="folder of train_latent_flow.py")
    encoder_option(parser)
    add("--out", type=Path, required=True, help="folder of the pipeline")
    add("--image", type=Path, help="picture of an object on a transparent ground, to generate with")
    add("--mesh", type=Path, help="sparse-up: the mesh to texture; the pipeline then has no structure stage")
    add("--steps", type=int, default=25, help="of the samplers")
    add("--guidance", type=float, default=3.0, help="of the samplers")
    add("--seed", type=int, default=0, help="of the generation")
    add("--smallest", action="store_true", help="fresh networks in the size that tests run")
    arguments = parser.parse_args(argv)
    if arguments.mesh is not None and arguments.recipe != "sparse-up":
        parser.error("--mesh is for sparse-up")
    if not arguments.smallest and arguments.latents is None:
        parser.error("--latents is needed")
    if not arguments.smallest and arguments.mesh is None and arguments.structure is None:
        parser.error("--structure is needed, or --mesh to texture one")
    arguments.out.mkdir(parents=True, exist_ok=True)
    pipeline = assemble(arguments)
    pipeline.save_folder(arguments.out / "pipeline")
    print(f"wrote {arguments.out / 'pipeline'}; {type(pipeline).__name__}.from_folder reads it")
    size = sum(path.stat().st_size for path in (arguments.out / "pipeline").glob("*.safetensors")) / 1e6
    return {"megabytes": size} | ({} if arguments.image is None else generate(pipeline, arguments))


if __name__ == "__main__":
    main()
