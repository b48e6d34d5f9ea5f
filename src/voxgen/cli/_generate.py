"""`voxgen generate`: a picture of an object to a 3D asset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from voxgen.core.errors import DeviceError, FileFormatError, RangeError
from voxgen.io import save_mesh
from voxgen.models.image_condition import PlainBackground
from voxgen.models.pipelines import Generated, SparseUpPipeline, Trellis2Pipeline, open_pipeline, shipped_pipeline, shipped_pipelines

from ._files import MESH_SUFFIXES, shows_progress

SUFFIXES = (*MESH_SUFFIXES, ".vxz")
MOST_SEED = 2**63 - 1


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "generate",
        help="a picture of an object to a 3D asset",
        description="Generate an asset from a picture: by the small system in the box (which knows its toy assets and nothing of "
        "photographs), or by one of your own in a folder of save_folder.",
        epilog="examples:\n  voxgen generate picture.png asset.glb\n  voxgen generate picture.png asset.glb --samples 4 --seed 10\n"
        "  voxgen generate picture.jpg asset.glb --plain-background --from my-system/",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("picture", type=Path, help="png, jpg, …, with the object on a transparent ground")
    parser.add_argument("out", type=Path, help=f"the file to write ({', '.join(SUFFIXES)}; ply holds Gaussians where those are made)")
    parser.add_argument("--from", dest="folder", type=Path, metavar="FOLDER", help="of a pipeline (default: the small system of voxgen)")
    parser.add_argument("--samples", type=int, default=1, help="assets, with seeds that follow each other; files are numbered (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the first one (default: 0)")
    parser.add_argument("--device", default="cpu", help="(default: cpu)")
    ground = parser.add_mutually_exclusive_group()
    ground.add_argument("--plain-background", action="store_true", help="the ground has one colour, which is taken away")
    ground.add_argument("--whole-picture", action="store_true", help="the object fills the picture")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    _require_arguments(arguments)
    picture = _read_picture(arguments.picture)
    options: dict[str, Any] = {"device": _device(arguments.device)}
    pipeline: Any = shipped_pipeline(**options) if arguments.folder is None else open_pipeline(arguments.folder, **options)
    _require_suffix(pipeline, arguments.out)
    made = pipeline.generate(
        picture,
        samples=arguments.samples,
        generator=[torch.Generator().manual_seed(arguments.seed + i) for i in range(arguments.samples)],
        remove_background=PlainBackground() if arguments.plain_background else _ask_for_alpha,
        assume_foreground=arguments.whole_picture,
        progress=shows_progress(),
    )
    empty: list[Path] = []
    for index in range(arguments.samples):
        path = arguments.out if arguments.samples == 1 else arguments.out.with_stem(f"{arguments.out.stem}_{arguments.seed + index}")
        written = _write(made, index, path)
        if written is None:
            empty.append(path)
        else:
            print(f"{path}: {written}")
    if empty:
        raise RangeError(f"not written: {', '.join(map(str, empty))}. Nothing was generated there; try another --seed.")
    return 0


def _require_arguments(arguments: argparse.Namespace) -> None:
    """What can be told before minutes of work."""
    out = arguments.out
    if out.suffix.lower() not in SUFFIXES:
        raise FileFormatError(f"{out}: the suffix must be one of {', '.join(SUFFIXES)}; got {out.suffix!r}.")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: there is no folder {out.parent}. Make it first.")
    if arguments.samples < 1:
        raise RangeError(f"--samples must be at least 1; got {arguments.samples}.")
    if not 0 <= arguments.seed <= MOST_SEED - arguments.samples:
        raise RangeError(f"--seed must be a whole number from 0 to 2^63; got {arguments.seed}.")
    if arguments.folder is None and not shipped_pipelines():
        raise FileNotFoundError("this copy of voxgen comes without weights; pass --from FOLDER, one that save_folder of a pipeline wrote.")


def _read_picture(path: Path) -> Any:
    """The picture, upright: cameras store how they were held."""
    from PIL import Image, ImageOps

    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; relative paths start at {Path.cwd()}.")
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except PermissionError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what PIL raises for damaged files
        raise FileFormatError(f"{path} is no picture that can be read: {error}") from error


def _ask_for_alpha(colour: Any) -> Any:
    """What is asked for alpha where the picture has none, and no option says where to take it from."""
    raise RangeError(
        "the picture has no transparent pixel, so its object is not told from the ground. Cut it out, or pass --plain-background (the "
        "ground has one colour) or --whole-picture (the object fills the picture)."
    )


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
    except RuntimeError:
        raise DeviceError(f"--device must be cpu, cuda, cuda:1, … as torch names devices; got {text!r}.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceError(f"--device {text}: torch finds no CUDA device on this machine.")
    return device


def _require_suffix(pipeline: Any, path: Path) -> None:
    if path.suffix.lower() == ".vxz" and not isinstance(pipeline, Trellis2Pipeline):
        raise FileFormatError(f"{path}: this system makes no O-Voxels; choose another suffix.")
    if path.suffix.lower() != ".ply" and isinstance(pipeline, SparseUpPipeline):
        raise FileFormatError(f"{path}: this system makes Gaussians; choose a .ply file.")


def _write(made: Any, index: int, path: Path) -> str | None:
    """One of the objects; returns what was written, or None where it is empty."""
    suffix = path.suffix.lower()
    splats = getattr(made, "splats", None)
    if suffix == ".ply" and splats is not None:
        one = splats.sample(index)
        if len(one) == 0:
            return None
        one.save_ply(path)
        return f"{len(one):,} Gaussians"
    if suffix == ".vxz":
        ovoxel = made.ovoxel.sample(index).replace(split_weight=None)  # which the format has no place for
        if len(ovoxel) == 0:
            return None
        ovoxel.save(path)
        return f"{ovoxel!r}, without split weights"
    if isinstance(made, Generated):
        mesh = made.mesh(index, "texture" if suffix in (".glb", ".gltf", ".obj") else "attributes")
    else:
        meshes = getattr(made, "meshes", ())
        if not meshes:
            raise FileFormatError(f"{path}: this system makes Gaussians; choose a .ply file.")
        mesh = meshes[index]
    if mesh.num_faces == 0:
        return None
    save_mesh(mesh, path)
    return repr(mesh)
