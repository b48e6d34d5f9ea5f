"""Pictures of what views see of shapes: depth and normals, target, prediction and error."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from voxgen.render import GeometryMaps, Panel, ScaleBar, apply_colormap, compose_figure, random_cameras, render_geometry

from .measure import Reconstruction


def views_of(vae: nn.Module, results: list[Reconstruction], resolution: int) -> dict[str, Tensor]:
    """Depth and normals of held-out shapes: target, prediction, error."""
    del vae
    rows: list[list[Panel | ScaleBar]] = []
    camera = random_cameras(1, width=256, height=256, generator=torch.Generator().manual_seed(1))
    for result in results:
        maps = [render_geometry(mesh, camera, face_camera=True, antialias=False) for mesh in (result.truth, result.mesh)]
        rows.append([*_depth_panels(result.source.name, maps, resolution), *_normal_panels(maps)])
    caption = "Averaged weights. Errors: depth in voxels, 0 to 2; angle of the normals, 0 to 45 degrees."
    return {"views": compose_figure(rows, title=f"Depth and normals at {resolution}³: target, prediction, error", caption=caption)}


def _depth_panels(name: str, maps: list[GeometryMaps], resolution: int) -> list[Panel]:
    both = (maps[0].mask[0] > 0) & (maps[1].mask[0] > 0)
    seen = [torch.where(m.mask[0] > 0, m.depth[0], torch.nan) for m in maps]
    gap = torch.where(both, (seen[0] - seen[1]).abs() * resolution, torch.nan)
    low, high = float(seen[0].nan_to_num(9).min()), float(seen[0].nan_to_num(0).max())
    shown = [apply_colormap(-depth, -high, -low, "sea") for depth in seen]
    note = f"mean {float(gap.nanmean()):.2f} voxels"
    return [Panel(shown[0], f"{name}: depth"), Panel(shown[1], "prediction"), Panel(apply_colormap(gap, 0.0, 2.0), "error", (note,))]


def _normal_panels(maps: list[GeometryMaps]) -> list[Panel]:
    both = (maps[0].mask[0] > 0) & (maps[1].mask[0] > 0)
    unit = [torch.nn.functional.normalize(m.normal[0], dim=-1) for m in maps]
    angle = torch.where(both, (unit[0] * unit[1]).sum(-1).clamp(-1, 1).acos().rad2deg(), torch.nan)
    shown = [torch.where(m.mask[0, ..., None] > 0, (n + 1) / 2, 0.8) for m, n in zip(maps, unit, strict=True)]
    note = f"mean {float(angle.nanmean()):.1f} degrees"
    return [Panel(shown[0], "normals"), Panel(shown[1], "prediction"), Panel(apply_colormap(angle, 0.0, 45.0), "error", (note,))]
