"""The mesh in each representation at one resolution, and what comes back from it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from voxgen.core import TriMesh
from voxgen.core.errors import MeshWarning, VoxgenError
from voxgen.io import save_mesh
from voxgen.metrics import compare_surfaces, mesh_report
from voxgen.representations import GaussianSplats, OVoxel, SparseFlex, SparseSDF

KINDS: dict[str, tuple[str, Callable[[TriMesh, int], SparseSDF | SparseFlex]]] = {
    "SparseFlex": ("open and closed surfaces", lambda mesh, resolution: SparseFlex.from_mesh(mesh, resolution)),
    "SparseSDF": ("solids: holes are closed", lambda mesh, resolution: SparseSDF.from_mesh(mesh, resolution, band=2.0)),
}
"""What each is good at, and how it is made. O-Voxel has a table of its own, Gaussians are seen and not measured."""


@dataclass(frozen=True)
class Representation:
    """What one representation gave. Distances are relative to the longest side of the source's bounding box.

    Args:
        mesh: what came back; None where nothing did, or the mesh cannot be represented, for the reason in `note`.
        recall: share of the source's surface that lies within a voxel of what came back.
        precision: share of what came back that lies within a voxel of the source.
    """

    name: str
    note: str
    cells: int
    encode_seconds: float
    decode_seconds: float
    recall: float
    precision: float
    boundary_edges: int
    mesh: TriMesh | None

    HEADER = f"{'representation':>14} {'cells':>10} {'encode s':>9} {'decode s':>9} {'recall':>8} {'precision':>10} {'boundary':>9}"

    def row(self) -> str:
        if self.mesh is None:
            return f"{self.name:>14} {self.note}"
        return (
            f"{self.name:>14} {self.cells:>10,} {self.encode_seconds:>9.2f} {self.decode_seconds:>9.2f} {self.recall:>8.4f} "
            f"{self.precision:>10.4f} {self.boundary_edges:>9,}   {self.note}"
        )


def represent(name: str, mesh: TriMesh, resolution: int, out: Path, samples: int) -> Representation:
    """There and back; writes `<name>_<resolution>.glb` to `out`."""
    note, make = KINDS[name]
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MeshWarning)  # holes that get closed, which the table says
            made = make(mesh, resolution)
        encoded = time.perf_counter()
        back = made.to_mesh()
    except VoxgenError as error:
        return Representation(name, f"not made: {error}", 0, 0.0, 0.0, 0.0, 0.0, 0, None)
    decoded = time.perf_counter()
    if not back.num_faces:
        return Representation(name, "empty: everything is thinner than a voxel", len(made), 0.0, 0.0, 0.0, 0.0, 0, None)
    save_mesh(back, out / f"{name.lower()}_{resolution}.glb")
    low, high = mesh.bounds()
    score = compare_surfaces(back, mesh, samples=samples).f_score(float((high - low).max()) / resolution)
    report = mesh_report(back)
    return Representation(
        name, note, len(made), encoded - start, decoded - encoded, score.recall, score.precision, report.boundary_edges, back
    )


def gaussians(mesh: TriMesh, resolution: int, out: Path) -> GaussianSplats:
    """The mesh's O-Voxel as Gaussians, without training; writes `gaussians_<resolution>.ply` to `out`."""
    splats = GaussianSplats.from_ovoxel(OVoxel.from_mesh(mesh, resolution))
    splats.save_ply(out / f"gaussians_{resolution}.ply")
    return splats
