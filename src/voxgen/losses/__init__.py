"""Losses: one function a term, named by what it compares, and the sums that published systems train with."""

from .dual_grid import crossing_bce as crossing_bce
from .dual_grid import dual_vertex_mse as dual_vertex_mse
from .dual_grid import subdivision_bce as subdivision_bce
from .gaussians import gaussian_opacity as gaussian_opacity
from .gaussians import gaussian_volume as gaussian_volume
from .image import Perceptual as Perceptual
from .image import image_l1 as image_l1
from .image import image_l2 as image_l2
from .image import image_smooth_l1 as image_smooth_l1
from .image import perceptual_loss as perceptual_loss
from .image import psnr_loss as psnr_loss
from .image import ssim_loss as ssim_loss
from .latent import kl_divergence as kl_divergence
from .material import material_l1 as material_l1
from .material import material_l2 as material_l2
from .perceptual import lpips_network as lpips_network
from .render_terms import MATERIAL_TERMS as MATERIAL_TERMS
from .render_terms import SHAPE_TERMS as SHAPE_TERMS
from .render_terms import MaterialMaps as MaterialMaps
from .render_terms import RenderTarget as RenderTarget
from .render_terms import RenderTerms as RenderTerms
from .render_terms import ShapeMaps as ShapeMaps
from .render_terms import material_view_terms as material_view_terms
from .render_terms import shape_view_terms as shape_view_terms
from .sparse_sdf import SparseSDFLoss as SparseSDFLoss
from .sparse_sdf import sdf_mse as sdf_mse
from .vae import LossTerms as LossTerms
from .vae import MaterialVAELoss as MaterialVAELoss
from .vae import SampleBounds as SampleBounds
from .vae import ShapeVAELoss as ShapeVAELoss
from .view_normals import face_camera as face_camera

__all__ = [
    "MATERIAL_TERMS",
    "SHAPE_TERMS",
    "LossTerms",
    "MaterialMaps",
    "MaterialVAELoss",
    "Perceptual",
    "RenderTarget",
    "RenderTerms",
    "SampleBounds",
    "ShapeMaps",
    "ShapeVAELoss",
    "SparseSDFLoss",
    "crossing_bce",
    "dual_vertex_mse",
    "face_camera",
    "gaussian_opacity",
    "gaussian_volume",
    "image_l1",
    "image_l2",
    "image_smooth_l1",
    "kl_divergence",
    "lpips_network",
    "material_l1",
    "material_l2",
    "material_view_terms",
    "perceptual_loss",
    "psnr_loss",
    "sdf_mse",
    "shape_view_terms",
    "ssim_loss",
    "subdivision_bce",
]
