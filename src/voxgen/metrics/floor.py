"""What a perfect reconstruction scores when both surfaces are only known by samples."""

from __future__ import annotations

import math
from typing import NamedTuple

from voxgen.core import TriMesh
from voxgen.core.checks import describe, require_int
from voxgen.core.errors import MeshError, RangeError


class SamplingFloor(NamedTuple):
    """What two independent samplings of one surface score against each other, in expectation.

    squared: sum of both mean squared distances to the nearest sample, world units squared: 2 A / (π N).
    l1: sum of both mean distances, world units: √(A / N).
    f: share of samples with a sample of the other within the threshold: 1 − exp(−N π τ² / A).
    """

    squared: float
    l1: float
    f: float


def sampling_floor(mesh: TriMesh, samples: int, threshold: float) -> SamplingFloor:
    """The best that `chamfer_distance` and `f_score` between samples (`to="points"`) can show, for independent points.

    Publications that sample both meshes report numbers near this floor: with 100,000 samples and a surface of area 2 in the unit
    cube a perfect reconstruction has a squared Chamfer distance of 1.3e-5 and an F-score of 0.97 at 0.005. Below it nothing can be
    seen; distances to the surface itself (the default of `chamfer_distance`) have no floor.

    Args:
        mesh: the surface; its area A counts, inner and doubled parts too.
        samples: N, on each side.
        threshold: τ of the F-score, world units.
    Returns:
        SamplingFloor. (`chamfer_distance` gives means of both directions: half the sums.)
    Raises:
        MeshError: no usable mesh, or no area.   RangeError, DtypeError: samples or threshold that make no sense.
    Numerics: exact for N → ∞ on a flat surface: the distance to the nearest of points of density N / A is Rayleigh distributed. Borders
        and curvature of the size of the spacing √(A / N) raise distances a little; systematic samples lower them.
    Example:
        >>> from voxgen.testing.shapes import sphere
        >>> round(sampling_floor(sphere(0.4, 5), 100_000, 0.005).squared * 1e5, 3)
        1.28
    """
    where = "sampling_floor"
    require_int(where, "samples", samples, 1)
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold < math.inf:
        raise RangeError(f"{where}: threshold must be a positive length; got {describe(threshold)}.")
    area = float(mesh.validate(where).face_areas().double().sum())
    if area == 0:
        raise MeshError(f"{where}: mesh must have an area; all of its {mesh.num_faces} faces are degenerate.")
    density = samples / area
    return SamplingFloor(2 / (math.pi * density), 1 / math.sqrt(density), 1 - math.exp(-density * math.pi * threshold**2))
