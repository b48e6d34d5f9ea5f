"""How well meshes survive the way to an O-Voxel and back: python benchmarks/reconstruction.py [--json PATH]

Real meshes are looked for in VOXGEN_DATA (default ../shared/data); without them the procedural asset is measured.
Distances are two-sided over all surfaces; lengths are relative to the longest side of the source's bounding box.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from voxgen.core import TriMesh
from voxgen.demo import procedural_asset
from voxgen.io import load_mesh
from voxgen.metrics import compare_surfaces, mesh_report, sharp_edge_deviation
from voxgen.representations import OVoxel

CASES = {
    "spot/spot.obj": (512,),
    "bunny.obj": (512,),
    "fandisk.obj": (512,),
    "teapot.obj": (256, 512),
    "beetle.obj": (256, 512),
    "flight_helmet/FlightHelmet.gltf": (256, 512, 1024),
}
OPEN, SHARP = ("teapot.obj", "beetle.obj", "bunny.obj"), ("fandisk.obj",)


def measure(name: str, mesh: TriMesh, resolution: int, samples: int) -> dict[str, object]:
    """All figures of one mesh at one resolution."""
    low, high = mesh.bounds()
    side = float((high - low).max())
    start = time.perf_counter()
    ovoxel = OVoxel.from_mesh(mesh, resolution, materials=False)
    encoded = time.perf_counter()
    back = ovoxel.to_mesh()
    decoded = time.perf_counter()
    found = compare_surfaces(back, mesh, samples=samples)
    distance, score = found.mesh_distance(), found.f_score(side / resolution)
    source, result = mesh_report(mesh), mesh_report(back, weld=False)
    row: dict[str, object] = {
        "mesh": name,
        "resolution": resolution,
        "voxels": len(ovoxel),
        "encode_s": round(encoded - start, 3),
        "decode_s": round(decoded - encoded, 3),
        "f_score_at_a_voxel": score.f,
        "chamfer_voxels": found.chamfer_distance().l1 / side * resolution,
        "mean_distance": distance.mean / side,
        "max_distance_voxels": distance.max / side * resolution,
        "normal_consistency": found.normal_consistency().absolute,
        "boundary_edges": result.boundary_edges,
        "boundary_length_ratio": result.boundary_length / source.boundary_length if source.boundary_length else None,
    }
    if name in SHARP:
        edges = sharp_edge_deviation(mesh, back, near=side / resolution)
        row["sharp_edges_to_reconstruction_mean_voxels"] = edges.from_edges.mean / side * resolution
        row["sharp_edges_to_reconstruction_max_voxels"] = edges.from_edges.max / side * resolution
        if edges.near_vertices is not None:
            row["vertices_near_sharp_edges_max_voxels"] = edges.near_vertices.max / side * resolution
    return row


def main(argv: list[str] | None = None) -> list[dict[str, object]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--only", help="a part of the names to measure")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    folder = Path(os.environ.get("VOXGEN_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if folder.is_dir():
        work = [(n, load_mesh(folder / n), r) for n, rs in CASES.items() for r in rs if not arguments.only or arguments.only in n]
    else:
        print(f"no real meshes at {folder}; set VOXGEN_DATA. Measuring the procedural asset.")
        work = [("procedural asset", procedural_asset(), r) for r in (128, 256, 512)]
    OVoxel.from_mesh(work[0][1], 8, materials=False).to_mesh()  # compile
    rows = []
    for name, mesh, resolution in work:
        rows.append(measure(name, mesh, resolution, arguments.samples))
        print("  ".join(f"{k} {v:.6g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()
