"""One mesh at one resolution: to an O-Voxel, to a file, back, and measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from voxgen.core import TriMesh
from voxgen.io import save_mesh
from voxgen.metrics import compare_surfaces, mesh_report
from voxgen.representations import OVoxel


@dataclass(frozen=True)
class RoundTrip:
    """What one resolution gave. Distances are relative to the longest side of the source's bounding box.

    Args:
        encode_seconds: mesh → O-Voxel with materials.   decode_seconds: O-Voxel → mesh.
        chamfer: mean of the two directed mean distances.   f_score: at one voxel.
    """

    resolution: int
    voxels: int
    encode_seconds: float
    decode_seconds: float
    chamfer: float
    f_score: float
    boundary_edges: int
    file_bytes: int
    mesh: TriMesh

    HEADER = (
        f"{'resolution':>10} {'voxels':>10} {'encode s':>9} {'decode s':>9} {'Chamfer':>10} {'F-score':>9} {'boundary':>9} "
        f"{'file bytes':>11}"
    )

    def row(self) -> str:
        return (
            f"{self.resolution:>10} {self.voxels:>10,} {self.encode_seconds:>9.2f} {self.decode_seconds:>9.2f} {self.chamfer:>10.2e} "
            f"{self.f_score:>9.5f} {self.boundary_edges:>9,} {self.file_bytes:>11,}"
        )


def round_trip(mesh: TriMesh, resolution: int, out: Path, samples: int, texture_size: int) -> RoundTrip:
    """Run one resolution and write `ovoxel_<resolution>.vxz` and `.glb` to `out`. Distances are of the surface read back from the file."""
    start = time.perf_counter()
    ovoxel = OVoxel.from_mesh(mesh, resolution)
    encoded = time.perf_counter()
    ovoxel.to_mesh()
    decoded = time.perf_counter()
    file = out / f"ovoxel_{resolution}.vxz"
    ovoxel.save(file, compression="zstd")
    back = OVoxel.load(file)
    surface = back.to_mesh()
    texture_fits = texture_size**2 // 25 * 2 > 1.1 * surface.num_faces
    glb = back.to_mesh(materials="texture", texture_size=texture_size) if texture_fits else surface
    save_mesh(glb, out / f"ovoxel_{resolution}.glb")
    low, high = mesh.bounds()
    side = float((high - low).max())
    found = compare_surfaces(surface, mesh, samples=samples)
    return RoundTrip(
        resolution,
        len(ovoxel),
        encoded - start,
        decoded - encoded,
        found.chamfer_distance().l1 / side,
        found.f_score(side / resolution).f,
        mesh_report(surface).boundary_edges,
        file.stat().st_size,
        surface,
    )
