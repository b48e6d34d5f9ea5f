"""The record of Gaussians. What can be done with it lives in the files beside this one."""

from __future__ import annotations

from dataclasses import dataclass

from voxgen.core import Gaussians
from voxgen.core.checks import require_choice
from voxgen.core.frame import UpAxis

from ._from_ovoxel import from_ovoxel as _from_ovoxel
from ._head import from_features as _from_features
from ._ply import load_ply as _load_ply
from ._ply import save_ply as _save_ply
from ._storage import load as _load
from ._storage import save as _save
from ._transform import crop as _crop
from ._transform import merge as _merge
from ._transform import transform as _transform
from ._transform import with_up as _with_up


@dataclass(frozen=True, eq=False, repr=False)
class GaussianSplats(Gaussians):
    """n Gaussians of b objects, all values activated, ready to be drawn by `voxgen.render.render_gaussians`.

    Args:
        means, rotations, scales, opacities, sh, offsets: see `core.Gaussians`, which this is.
        up: which world axis points up, "y" (glTF) or "z" (TRELLIS). A label that travels from import to export; it turns nothing.
    Raises:
        ShapeError, DtypeError, DeviceError, RangeError: as `core.Gaussians`; an unknown axis.
    `from_features`, `from_ovoxel`, `crop`, `merge`, `transform`, `with_up`, `save_ply`, `load_ply`, `save` and `load` are each defined
    in the file of their concept; `to`, `select`, `sample` and `batched` in `core.Gaussians`.

    Source: 3D Gaussian splatting (Kerbl et al. 2023); TRELLIS (arXiv 2412.01506). Differences: opacities are (n,); any device; a batch of
        objects is one record.
    Example:
        >>> from voxgen.representations import OVoxel
        >>> from voxgen.testing.shapes import torus
        >>> ovoxel = OVoxel.from_mesh(torus(), resolution=32, materials=False)
        >>> GaussianSplats.from_ovoxel(ovoxel).batch_size
        1
    """

    up: UpAxis = "y"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("GaussianSplats", "up", self.up, ("y", "z"))

    from_features = staticmethod(_from_features)
    from_ovoxel = staticmethod(_from_ovoxel)
    load_ply = staticmethod(_load_ply)
    load = staticmethod(_load)
    save_ply = _save_ply
    save = _save
    crop = _crop
    merge = _merge
    transform = _transform
    with_up = _with_up
