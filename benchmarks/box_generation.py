"""How good the shipped system is at generation: against assets of the test split that it was not trained on.

    OMP_WAIT_POLICY=passive python benchmarks/box_generation.py --json box-generation.json       # some minutes on two cores
    python benchmarks/box_generation.py --folder out/box/trellis2-small --count 16               # another folder, fewer assets

For each asset one picture (from a random side, as in training) is the condition, and seed i makes object i; none is left out. Measured on
2,048 points of each surface, unit cube:

- coverage, minimum matching distance, nearest-neighbour accuracy against the true assets (`voxgen.metrics.score_generation`), and the
  same for a second set of true assets in place of the generated ones, which is what a perfect generator would get;
- condition agreement: Chamfer distance to the asset in the picture, and to the others, how often the asset in the picture is the
  nearest one of all (`retrieval`), and the overlap of silhouettes seen by the picture's camera. Empty results, whose number is given, count
  as failures of both, and above as shapes far from every asset; the two Chamfer distances here are means over the others.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import warnings
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numba
import torch
from torch import Tensor
from tqdm import tqdm

import voxgen
from voxgen.core import TriMesh
from voxgen.core.errors import EmptyResultWarning
from voxgen.data import ConditionImages, condition_images, procedural_dataset
from voxgen.metrics import pairwise_chamfer, sample_surface, score_generation
from voxgen.models.pipelines import Trellis2Pipeline, shipped_pipeline
from voxgen.render import render_geometry

VIEW = 256
FAR = 10.0


def points(mesh: TriMesh, count: int) -> Tensor:
    """On the surface; an empty result is one point far outside the unit cube, which is near to no asset."""
    return sample_surface(mesh, count).points.float() if mesh.num_faces else torch.full((1, 3), FAR)


def generate(pipeline: Trellis2Pipeline, pictures: list[ConditionImages], batch: int) -> tuple[list[TriMesh], float]:
    meshes: list[TriMesh] = []
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyResultWarning)
        for first in tqdm(range(0, len(pictures), batch), desc="generating", unit="batch"):
            some = pictures[first : first + batch]
            seeds = [torch.Generator().manual_seed(first + i) for i in range(len(some))]
            meshes += pipeline.generate([picture.images[0] for picture in some], generator=seeds).meshes("attributes")
    return meshes, time.perf_counter() - start


def silhouette_overlap(mesh: TriMesh, picture: ConditionImages) -> float:
    """Intersection over union of what the picture and the result cover."""
    truth = picture.silhouettes[0] > 0.5
    if mesh.num_faces == 0:
        return 0.0
    found = render_geometry(mesh, picture.camera).mask[0] > 0.5
    return float((found & truth).sum() / (found | truth).sum().clamp(min=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="of a pipeline; default: the shipped one")
    parser.add_argument("--count", type=int, default=64, help="assets")
    parser.add_argument("--points", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    pipeline = shipped_pipeline() if given.folder is None else Trellis2Pipeline.from_folder(given.folder)

    assets = procedural_dataset(2 * given.count, split="test")
    truth = [assets[i].mesh for i in range(given.count)]
    pictures = [
        condition_images(mesh, 1, size=VIEW, supersample=2, generator=torch.Generator().manual_seed(i)) for i, mesh in enumerate(truth)
    ]
    meshes, seconds = generate(pipeline, pictures, given.batch)
    made, real = [points(m, given.points) for m in meshes], [points(m, given.points) for m in truth]
    second = [points(assets[given.count + i].mesh, given.points) for i in range(given.count)]

    between = pairwise_chamfer(made, real, progress=True)
    there = torch.tensor([mesh.num_faces > 0 for mesh in meshes])
    if not bool(there.any()):
        raise SystemExit(f"all {len(meshes)} results are empty: there is nothing to measure.")
    own = between.diagonal()
    others = (between.sum(1) - own) / max(len(own) - 1, 1)
    overlaps = torch.tensor([silhouette_overlap(m, p) for m, p in zip(meshes, pictures, strict=True)])
    record = {
        "command": " ".join(["python", "benchmarks/box_generation.py", *sys.argv[1:]]),
        "date": str(date.today()),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__, "numba": numba.__version__},
        "count": given.count,
        "points": given.points,
        "empty": sum(mesh.num_faces == 0 for mesh in meshes),
        "seconds": seconds,
        "generated": asdict(score_generation(made, real)),
        "real": asdict(score_generation(second, real)),
        "condition": {
            "chamfer_to_own": float(own[there].mean()),
            "chamfer_to_others": float(others[there].mean()),
            "retrieval": float(((between.argmin(1) == torch.arange(len(own))) & there).double().mean()),
            "silhouette_iou": float(overlaps.mean()),
        },
    }
    print(json.dumps(record, indent=1))
    if given.json is not None:
        given.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
