"""`voxgen compare`: distances between two surfaces."""

from __future__ import annotations

import argparse
from pathlib import Path

from voxgen.core.errors import RangeError
from voxgen.metrics import compare_surfaces, mesh_report

from ._files import add_up, load_as_mesh, shows_progress


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "compare",
        help="distances between two meshes or O-Voxels",
        description="Two-sided distances over all surfaces, in world units and relative to the longest side of A's bounding box.",
        epilog="examples:\n  voxgen compare chair.glb chair.vxz\n  voxgen compare a.obj b.obj --threshold 0.001 --samples 500000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--samples", type=int, default=200_000, help="points on each surface (default: 200000)")
    parser.add_argument("--threshold", type=float, help="of the F-score, in world units (default: longest side / 512)")
    add_up(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    a, b = (load_as_mesh(path, arguments.up) for path in (arguments.a, arguments.b))
    low, high = a.bounds()
    side = float((high - low).max())
    threshold = arguments.threshold if arguments.threshold is not None else side / 512
    if not 0 < threshold < float("inf"):
        raise RangeError(f"compare: --threshold must be positive and finite; got {threshold}.")
    found = compare_surfaces(a, b, samples=arguments.samples, progress=shows_progress())
    distance, score = found.mesh_distance(), found.f_score(threshold)
    rows = [
        ("Chamfer L1", found.chamfer_distance().l1),
        ("A to B, mean", distance.a_to_b.mean),
        ("A to B, max", distance.a_to_b.max),
        ("B to A, mean", distance.b_to_a.mean),
        ("B to A, max", distance.b_to_a.max),
    ]
    print(f"{'':<22}{'world units':>14}{'of A side':>14}")
    for name, value in rows:
        print(f"{name:<22}{value:>14.6g}{value / side:>14.3e}")
    print(f"F-score at {threshold:.6g}: {score.f:.6f} (precision {score.precision:.6f}, recall {score.recall:.6f})")
    print(f"normal consistency, |cos|: {found.normal_consistency().absolute:.6f}")
    for name, mesh in (("A", a), ("B", b)):
        report = mesh_report(mesh)
        print(f"{name}: {report.faces:,} faces, {report.boundary_edges:,} boundary edges, {report.components:,} components")
    return 0
