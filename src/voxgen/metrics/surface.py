"""How far two surfaces are from each other: one comparison, from which all distances between surfaces are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from voxgen.core import TriMesh
from voxgen.core.checks import require_choice, require_int
from voxgen.core.errors import MeshError
from voxgen.ops.sample_surface import SurfaceSamples, sample_surface

from ._inputs import Surface, require_length, require_same_up, require_surface
from ._nearest import PointTree, SurfaceTree, nearest
from .records import ChamferDistance, DistanceSummary, FScore, MeshDistance, NormalConsistency

Target = Literal["surface", "points"]


@dataclass(frozen=True, eq=False)
class DirectedDistances:
    """From samples of one surface to the nearest point of the other. CPU, float64.

    Attributes:
        points: (n, 3) the samples, world units.
        distances: (n,) Euclidean distances, world units.
        cosines: (n,) cosine of the angle between the normal at the sample and the normal at the nearest point; NaN where
            one of them has none (degenerate faces); None where one side is a set of points.
    """

    points: Tensor
    distances: Tensor
    cosines: Tensor | None

    def summary(self, percentiles: Sequence[float] = (50, 90, 95, 99)) -> DistanceSummary:
        """Mean, rms, max and percentiles of the distances."""
        return DistanceSummary.of(self.distances, percentiles)

    def share_within(self, threshold: float) -> float:
        """Share of the samples that lie no farther than `threshold`."""
        return float((self.distances <= threshold).double().mean())


@dataclass(frozen=True, eq=False)
class SurfaceComparison:
    """Both directions, made by `compare_surfaces`. The methods give what the functions of the same name give."""

    a_to_b: DirectedDistances
    b_to_a: DirectedDistances

    def mesh_distance(self, percentiles: Sequence[float] = (50, 90, 95, 99)) -> MeshDistance:
        """See `voxgen.metrics.mesh_distance`."""
        return MeshDistance(self.a_to_b.summary(percentiles), self.b_to_a.summary(percentiles))

    def chamfer_distance(self) -> ChamferDistance:
        """See `voxgen.metrics.chamfer_distance`."""
        one, other = self.a_to_b.summary(()), self.b_to_a.summary(())
        return ChamferDistance(
            l1=(one.mean + other.mean) / 2,
            l2=(one.rms**2 + other.rms**2) / 2,
            l1_directed=(one.mean, other.mean),
            l2_directed=(one.rms**2, other.rms**2),
        )

    def f_score(self, threshold: float) -> FScore:
        """See `voxgen.metrics.f_score`; a is the prediction."""
        require_length("f_score", "threshold", threshold)
        precision, recall = self.a_to_b.share_within(threshold), self.b_to_a.share_within(threshold)
        total = precision + recall
        return FScore(2 * precision * recall / total if total else 0.0, precision, recall, float(threshold))

    def normal_consistency(self) -> NormalConsistency:
        """See `voxgen.metrics.normal_consistency`."""
        one, other = self.a_to_b.cosines, self.b_to_a.cosines
        if one is None or other is None:
            raise MeshError("normal_consistency: both sides must be meshes; a set of points has no normals.")
        absolute = (float(one.abs().nanmean()), float(other.abs().nanmean()))
        signed = (float(one.nanmean()), float(other.nanmean()))
        return NormalConsistency(sum(absolute) / 2, sum(signed) / 2, absolute, signed)


def compare_surfaces(
    a: Surface, b: Surface, *, samples: int = 100_000, to: Target = "surface", seed: int = 0, progress: bool = False
) -> SurfaceComparison:
    """Measure from samples of each surface to the other; the distances, scores and consistencies follow from the result.

    Use it where more than one number is wanted: it builds each tree and finds each nearest point once.

    All surface counts, also inner, hidden and doubled parts. Samples are uniform by area (`sample_surface`), so a mesh
    with a wrong inner layer is charged for it by that layer's share of the area.

    Args:
        a, b: TriMesh, or (n, 3) float32 or float64 points, world units, any device. Points are taken as they are: as
            samples of their side, and as the target of the other side.
        samples: number of samples of each mesh.
        to: "surface" measures to the exact nearest point of the other surface, so that equal surfaces have distance 0.
            "points" measures to the nearest sample of the other surface, as most publications do; this has a floor of
            about 0.5 √(area / samples). In this mode b is sampled with seed + 1, so that equal surfaces do not get equal
            samples.
        seed: of the samples.
        progress: show a bar.
    Returns:
        SurfaceComparison, CPU float64. Not differentiable.
    Raises:
        MeshError: a mesh without faces or area, or with a bad index or vertex; no points.   RangeError: a point that is
        not finite; samples below 1.   FrameError: the meshes' up axes differ.   DtypeError, ShapeError: neither a mesh
        nor (n, 3) points.
    Numerics: float64. Exact up to rounding; ties between faces go to either. Uses all threads; about 400 bytes a face.
    Symmetry: exchanging a and b exchanges the directions, exactly for "surface", up to sampling for "points".
    """
    where = "compare_surfaces"
    require_choice(where, "to", to, ("surface", "points"))
    require_int(where, "samples", samples, 1)
    require_int(where, "seed", seed, 0)
    a, b = require_surface(where, "a", a), require_surface(where, "b", b)
    require_same_up(where, a, b)
    from_a = sample_surface(a, samples, seed=seed) if isinstance(a, TriMesh) else a
    from_b = sample_surface(b, samples, seed=seed + (to == "points")) if isinstance(b, TriMesh) else b
    with tqdm(total=len(from_a) + len(from_b), unit="point", unit_scale=True, disable=not progress) as bar:
        bar.set_description("a to b")
        a_to_b = _directed(from_a, from_b if to == "points" else b, bar)
        bar.set_description("b to a")
        b_to_a = _directed(from_b, from_a if to == "points" else a, bar)
    return SurfaceComparison(a_to_b, b_to_a)


def _directed(source: SurfaceSamples | Tensor, target: SurfaceSamples | Surface, bar: tqdm[Any]) -> DirectedDistances:
    points = source if isinstance(source, Tensor) else source.points
    if isinstance(target, TriMesh):
        tree, normals = SurfaceTree(target.vertices.numpy(), target.faces.numpy()), target.face_normals()
    elif isinstance(target, SurfaceSamples):
        tree, normals = PointTree(target.points.numpy()), target.normals
    else:
        tree, normals = PointTree(target.numpy()), None
    found = nearest(tree, points.numpy(), bar)
    cosines = None
    if normals is not None and isinstance(source, SurfaceSamples):
        there = normals[torch.from_numpy(found.elements)]
        has_both = (there != 0).any(1) & (source.normals != 0).any(1)
        cosines = torch.where(has_both, (source.normals * there).sum(1).clamp(-1, 1), math.nan)
    return DirectedDistances(points, torch.from_numpy(found.distances), cosines)


def mesh_distance(
    a: Surface,
    b: Surface,
    *,
    samples: int = 100_000,
    percentiles: Sequence[float] = (50, 90, 95, 99),
    to: Target = "surface",
    seed: int = 0,
    progress: bool = False,
) -> MeshDistance:
    """Two-sided distance between all of two surfaces: mean, rms, max and percentiles in each direction.

    Uniform samples of one side against the exact surface of the other; arguments and errors as in `compare_surfaces`. The
    largest sampled distance bounds the Hausdorff distance from below.

    Args:
        percentiles: which ones to report, each in [0, 100]; between two samples they are interpolated linearly.
    Returns:
        MeshDistance, world units.
    Example:
        >>> from voxgen.testing.shapes import sphere
        >>> mesh_distance(sphere(0.4), sphere(0.4), samples=1000).max < 1e-12
        True
    """
    return compare_surfaces(a, b, samples=samples, to=to, seed=seed, progress=progress).mesh_distance(percentiles)


def chamfer_distance(
    a: Surface, b: Surface, *, samples: int = 100_000, to: Target = "surface", seed: int = 0, progress: bool = False
) -> ChamferDistance:
    """Chamfer distances between two surfaces, both norms.

    With d_ab the distances from the samples of a to b:
    l1 = (mean d_ab + mean d_ba) / 2 and l2 = (mean d_ab² + mean d_ba²) / 2. Both are means of the two directions;
    publications that add the directions state twice these numbers. Arguments and errors as in `compare_surfaces`.

    Returns:
        ChamferDistance: `l1` in world units, `l2` in world units squared, and the directed means.
    Differences from the literature: the distance goes to the surface; `to="points"` is the literature's between samples.
    Example:
        >>> from voxgen.testing.shapes import sphere
        >>> round(chamfer_distance(sphere(0.4, 5), sphere(0.3, 5), samples=1000).l1, 3)
        0.1
    """
    return compare_surfaces(a, b, samples=samples, to=to, seed=seed, progress=progress).chamfer_distance()


def f_score(
    prediction: Surface,
    reference: Surface,
    threshold: float,
    *,
    samples: int = 100_000,
    to: Target = "surface",
    seed: int = 0,
    progress: bool = False,
) -> FScore:
    """Harmonic mean of precision and recall at a distance.

    precision = share of the prediction's samples within `threshold` of the reference; recall = share of the reference's
    samples within `threshold` of the prediction; f = 2 · precision · recall / (precision + recall), 0 where both are 0.
    Further arguments and errors as in `compare_surfaces`.

    Args:
        threshold: world units, positive; a distance equal to it counts as within.
    Returns:
        FScore, each share in [0, 1].
    Differences from the literature: the distance goes to the surface; `to="points"` is the literature's between samples.
    """
    require_length("f_score", "threshold", threshold)
    return compare_surfaces(prediction, reference, samples=samples, to=to, seed=seed, progress=progress).f_score(threshold)


def normal_consistency(
    a: TriMesh, b: TriMesh, *, samples: int = 100_000, to: Target = "surface", seed: int = 0, progress: bool = False
) -> NormalConsistency:
    """Mean cosine between a face's normal at a sample and the face's normal at the nearest point of the other surface.

    `absolute` takes |cos| (blind to winding), `signed` takes cos (−1 for a surface turned inside out); each is the mean of
    both directions. Samples whose nearest face is degenerate have no normal and are left out; NaN if that are all.
    Where the nearest point lies on an edge, either face's normal may be taken. Arguments and errors as in
    `compare_surfaces`; both sides must be meshes.
    """
    return compare_surfaces(a, b, samples=samples, to=to, seed=seed, progress=progress).normal_consistency()
