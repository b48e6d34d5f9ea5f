"""What the small autoencoders make of assets that they never saw: python benchmarks/box_reconstruction.py --folder WEIGHTS

    python benchmarks/box_reconstruction.py --folder WEIGHTS --json box_reconstruction.json
    python benchmarks/box_reconstruction.py --folder WEIGHTS --assets 2 --samples 2000         # to try it

WEIGHTS holds, in itself or below, structure_vae.safetensors, shape_vae.safetensors and material_vae.safetensors, or some of them. The
assets are the first of the procedural set's test split, of which no training data are made. Each is fitted to the unit cube and made an
O-Voxel; latents are the means of the posteriors. Distances and pictures are taken against the source mesh with its textures, and beside
each stands what the O-Voxel itself reaches, which bounds it.

    structure    cells of the O-Voxel in pairs, from the dense latent: IoU, precision, recall
    shape        mesh from predicted structure: distances and F-score at one voxel, PSNR of normals in four views (either sees a surface)
    material     on the true cells: mean error of base colour, PSNR of pictures of base colour where both see a surface
    textured     materials guided by the shape's predicted structure, on the predicted surface: the same PSNR
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

import voxgen
from voxgen.core import Camera, Frame, TriMesh, VoxelGrid
from voxgen.data import AssetInput, occupancy, procedural_sources
from voxgen.metrics import compare_surfaces, normal_psnr, psnr
from voxgen.models import SCVAE, StructureVAE, load_pretrained
from voxgen.render import orbit_cameras, render_geometry, render_materials
from voxgen.representations import OVoxel
from voxgen.representations.ovoxel import DEFAULT_MATERIALS

FILES = ("structure_vae", "shape_vae", "material_vae")
VIEWS = 4


def structure_scores(vae: StructureVAE, ovoxel: OVoxel) -> dict[str, float]:
    truth = occupancy(ovoxel, ovoxel.resolution[0] // 2)
    z = (vae.encode(truth).mean - vae.latents_shift) * vae.latents_scale
    found = vae.decode(z) >= 0
    shared, n, m = (int(cells.sum()) for cells in (truth & found, truth, found))
    return {"iou": shared / (n + m - shared), "precision": shared / max(m, 1), "recall": shared / n}


def surface_scores(found: TriMesh, truth: TriMesh, cells: int, cameras: Camera, samples: int) -> dict[str, float]:
    """Distances in voxels and in the unit of the cube."""
    if not found.num_faces:
        return {"chamfer_voxels": float(cells), "mesh_distance": 1.0, "f_score": 0.0, "normal_psnr": 0.0}
    both = compare_surfaces(found, truth, samples=samples)
    maps = [render_geometry(mesh, cameras, face_camera=True, antialias=False) for mesh in (found, truth)]
    normals = [m.normal.permute(0, 3, 1, 2) for m in maps]
    values = normal_psnr(normals[0], normals[1], mask=maps[0].mask > 0, target_mask=maps[1].mask > 0)
    chamfer = both.chamfer_distance().l1
    return {
        "chamfer_voxels": chamfer * cells,
        "mesh_distance": chamfer,
        "f_score": both.f_score(1 / cells).f,
        "normal_psnr": float(values.clamp(max=60).mean()),
    }


def color_psnr(found: TriMesh, truth: TriMesh, cameras: Camera) -> float:
    """Mean over the views in which both see something; equal pictures count as 60 dB."""
    if not found.num_faces:
        return 0.0
    one, other = (render_materials(mesh, cameras) for mesh in (found, truth))
    values = psnr(one.base_color.permute(0, 3, 1, 2), other.base_color.permute(0, 3, 1, 2), mask=one.mask & other.mask)
    return float(values[~values.isnan()].clamp(max=60).mean())


def measure(networks: Mapping[str, Any], mesh: TriMesh, resolution: int, cameras: Camera, samples: int) -> dict[str, dict[str, float]]:
    """All figures of one asset."""
    made = OVoxel.from_mesh(mesh, resolution, materials=DEFAULT_MATERIALS, frame=Frame.unit(resolution, mesh.up))
    bare, rows = OVoxel(made.grid, made.dual_vertices, made.intersected), {}
    if vae := networks.get("structure_vae"):
        rows["structure"] = structure_scores(vae, made)
    shape: Any = None
    if vae := networks.get("shape_vae"):
        latent = vae.encode(bare)
        shape = vae.decode(latent)
        decoded = shape.ovoxel.replace(split_weight=None)  # which the example's loss does not train
        own = surface_scores(bare.to_mesh(), mesh, resolution, cameras, samples)
        rows["shape"] = {**surface_scores(decoded.to_mesh(), mesh, resolution, cameras, samples), "iou": _iou(made.grid, decoded.grid)}
        rows["shape"] |= {"tokens": len(latent.z)}
        rows["O-Voxel"] = own
    if vae := networks.get("material_vae"):
        latent = vae.encode(made)
        found = vae.decode(latent, structure=latent.structures).materials
        colored = made.replace(materials={name: value.clamp(0, 1) for name, value in found.items()})
        away = {name: float((value - made.materials[name]).abs().mean()) for name, value in colored.materials.items()}
        rows["material"] = {f"{name}_l1": value for name, value in away.items()} | {"psnr": color_psnr(colored.to_mesh(), mesh, cameras)}
        rows.setdefault("O-Voxel", {})["psnr"] = color_psnr(made.to_mesh(), mesh, cameras)
        if shape is not None:
            found = vae.decode(latent, guide=shape.logits).materials
            decoded = shape.ovoxel.replace(split_weight=None, materials={name: value.clamp(0, 1) for name, value in found.items()})
            rows["textured"] = {"psnr": color_psnr(decoded.to_mesh(), mesh, cameras)}
    return rows


def _iou(truth: VoxelGrid, found: VoxelGrid) -> float:
    shared = int((truth.rows_of(found.coords) >= 0).sum())
    return shared / (len(truth) + len(found) - shared)


def means(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    parts = {name: list(part) for row in rows for name, part in row.items()}
    return {name: {key: sum(row[name][key] for row in rows) / len(rows) for key in keys} for name, keys in parts.items()}


def networks_in(folder: Path) -> dict[str, Path]:
    found = {name: path for name in FILES for path in sorted(folder.rglob(f"{name}.safetensors"))[:1]}
    if not found:
        raise SystemExit(f"{folder} holds none of {', '.join(FILES)} (.safetensors), neither in itself nor below.")
    return found


@torch.no_grad()
def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="of the weights")
    parser.add_argument("--assets", type=int, default=64, help="of the test split")
    parser.add_argument("--seed", type=int, default=0, help="of the procedural set")
    parser.add_argument("--resolution", type=int, default=64, help="of the O-Voxels")
    parser.add_argument("--samples", type=int, default=50_000, help="points on each surface, for distances")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    files = networks_in(arguments.folder)
    networks: dict[str, nn.Module] = {name: load_pretrained(path).eval().float() for name, path in files.items()}
    _require_kinds(networks)
    cameras = orbit_cameras(VIEWS, elevation=20, width=256, height=256)
    rows, start = [], time.perf_counter()
    sources = procedural_sources(arguments.assets, seed=arguments.seed, split="test")
    for source in tqdm(sources, desc="assets", unit="asset"):
        rows.append(measure(networks, AssetInput(source).mesh, arguments.resolution, cameras, arguments.samples))
    record = {
        "command": " ".join(["python", "benchmarks/box_reconstruction.py", *(argv if argv is not None else sys.argv[1:])]),
        "date": str(date.today()),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"voxgen": voxgen.__version__, "torch": torch.__version__},
        "files": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
        "seconds": round(time.perf_counter() - start, 1),
        "mean": means(rows),
        "assets": {source.name: row for source, row in zip(sources, rows, strict=True)},
    }
    for name, part in record["mean"].items():
        print(f"{name:<10}" + "  ".join(f"{key} {value:.4g}" for key, value in part.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return record


def _require_kinds(networks: Mapping[str, nn.Module]) -> None:
    for name, network in networks.items():
        wanted = StructureVAE if name == "structure_vae" else SCVAE
        if not isinstance(network, wanted):
            raise SystemExit(f"{name}.safetensors must hold a {wanted.__name__}; it holds a {type(network).__name__}.")


if __name__ == "__main__":
    main()
