"""Pictures: cameras, rasterisation, shading with glTF materials, maps of numbers, and figures put together from them."""

from voxgen.ops.antialias import antialias as antialias
from voxgen.ops.antialias import opposite_vertices as opposite_vertices
from voxgen.ops.carve import Carving as Carving
from voxgen.ops.carve import carve_by_depth as carve_by_depth
from voxgen.ops.rasterize import RasterOutput as RasterOutput
from voxgen.ops.rasterize import interpolate as interpolate
from voxgen.ops.rasterize import interpolate_derivatives as interpolate_derivatives
from voxgen.ops.rasterize import rasterize as rasterize
from voxgen.ops.rasterize import screen_derivatives as screen_derivatives
from voxgen.ops.texture import texture as texture

from .cameras import camera_for_bounds as camera_for_bounds
from .cameras import orbit_cameras as orbit_cameras
from .colormaps import apply_colormap as apply_colormap
from .cull_voxels import cull_voxels as cull_voxels
from .environment import EnvironmentLight as EnvironmentLight
from .gaussians import GaussianImages as GaussianImages
from .gaussians import render_gaussians as render_gaussians
from .geometry import render_geometry as render_geometry
from .output import GeometryMaps as GeometryMaps
from .output import RenderOutput as RenderOutput
from .picture import Panel as Panel
from .picture import ScaleBar as ScaleBar
from .picture import compose_figure as compose_figure
from .picture import save_png as save_png
from .random_cameras import inside_cameras as inside_cameras
from .random_cameras import quasi_uniform_sphere as quasi_uniform_sphere
from .random_cameras import random_cameras as random_cameras
from .render_materials import MaterialImages as MaterialImages
from .render_materials import render_materials as render_materials
from .render_mesh import render_mesh as render_mesh
from .render_scalar import render_scalar as render_scalar
from .render_scalar import value_range as value_range
from .section import Section as Section
from .section import in_frustum as in_frustum
from .section import section_by_visibility as section_by_visibility
from .shading import Lighting as Lighting
from .view_tiling import Tile as Tile
from .view_tiling import ViewTiling as ViewTiling
from .zoom import Zoom as Zoom
from .zoom import adaptive_zoom as adaptive_zoom

__all__ = [
    "Carving",
    "EnvironmentLight",
    "GaussianImages",
    "GeometryMaps",
    "Lighting",
    "MaterialImages",
    "Panel",
    "RasterOutput",
    "RenderOutput",
    "ScaleBar",
    "Section",
    "Tile",
    "ViewTiling",
    "Zoom",
    "adaptive_zoom",
    "antialias",
    "apply_colormap",
    "camera_for_bounds",
    "carve_by_depth",
    "compose_figure",
    "cull_voxels",
    "in_frustum",
    "inside_cameras",
    "interpolate",
    "interpolate_derivatives",
    "opposite_vertices",
    "orbit_cameras",
    "quasi_uniform_sphere",
    "random_cameras",
    "rasterize",
    "render_gaussians",
    "render_geometry",
    "render_materials",
    "render_mesh",
    "render_scalar",
    "save_png",
    "screen_derivatives",
    "section_by_visibility",
    "texture",
    "value_range",
]
