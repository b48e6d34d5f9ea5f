"""How good a mesh or an image is, and how far it is from another: definitions with their units in every docstring."""

from voxgen.ops.mesh_edges import sharp_edges as sharp_edges
from voxgen.ops.sample_surface import SurfaceSamples as SurfaceSamples
from voxgen.ops.sample_surface import sample_surface as sample_surface

from .floor import SamplingFloor as SamplingFloor
from .floor import sampling_floor as sampling_floor
from .generation import GenerationScores as GenerationScores
from .generation import coverage as coverage
from .generation import minimum_matching_distance as minimum_matching_distance
from .generation import nearest_neighbor_accuracy as nearest_neighbor_accuracy
from .generation import pairwise_chamfer as pairwise_chamfer
from .generation import score_generation as score_generation
from .image import lpips as lpips
from .image import normal_psnr as normal_psnr
from .image import psnr as psnr
from .image import ssim as ssim
from .records import ChamferDistance as ChamferDistance
from .records import DistanceSummary as DistanceSummary
from .records import FScore as FScore
from .records import MeshDistance as MeshDistance
from .records import NormalConsistency as NormalConsistency
from .report import MeshReport as MeshReport
from .report import mesh_report as mesh_report
from .sharpness import SharpEdgeDeviation as SharpEdgeDeviation
from .sharpness import sharp_edge_deviation as sharp_edge_deviation
from .surface import DirectedDistances as DirectedDistances
from .surface import SurfaceComparison as SurfaceComparison
from .surface import chamfer_distance as chamfer_distance
from .surface import compare_surfaces as compare_surfaces
from .surface import f_score as f_score
from .surface import mesh_distance as mesh_distance
from .surface import normal_consistency as normal_consistency

__all__ = [
    "ChamferDistance",
    "DirectedDistances",
    "DistanceSummary",
    "FScore",
    "GenerationScores",
    "MeshDistance",
    "MeshReport",
    "NormalConsistency",
    "SamplingFloor",
    "SharpEdgeDeviation",
    "SurfaceComparison",
    "SurfaceSamples",
    "chamfer_distance",
    "compare_surfaces",
    "coverage",
    "f_score",
    "lpips",
    "mesh_distance",
    "mesh_report",
    "minimum_matching_distance",
    "nearest_neighbor_accuracy",
    "normal_consistency",
    "normal_psnr",
    "pairwise_chamfer",
    "psnr",
    "sample_surface",
    "sampling_floor",
    "score_generation",
    "sharp_edge_deviation",
    "sharp_edges",
    "ssim",
]
