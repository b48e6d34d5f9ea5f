"""Real spherical harmonics of degree 0 to 3, and colours that depend on the direction they are seen from."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor
from torch.nn.functional import normalize

from voxgen.core.checks import require_int, require_same_device, require_tensor
from voxgen.core.errors import RangeError, ShapeError
from voxgen.core.gaussians import HARMONICS

Y0 = 0.28209479177387814
"""The harmonic of degree 0, a constant: colour = 0.5 + Y0 sh_0."""


def spherical_harmonics(directions: Tensor, degree: int) -> Tensor:
    """The basis functions at directions.

    Args:
        directions: (n, 3) unit vectors.
        degree: 0 to 3.
    Returns:
        (n, (degree + 1)²), constants and signs as in 3D Gaussian splatting (Kerbl et al. 2023). Differentiable.
    """
    require_tensor("spherical_harmonics", "directions", directions, ("n", 3), (torch.float32, torch.float64))
    require_int("spherical_harmonics", "degree", degree, 0, 3)
    x, y, z = directions.unbind(1)
    terms = [torch.full_like(x, Y0)]
    if degree > 0:
        terms += [0.4886025119029199 * t for t in (-y, z, -x)]
    xx, yy, zz = x * x, y * y, z * z
    if degree > 1:
        side, middle = 1.0925484305920792, 0.31539156525252005
        terms += [side * x * y, -side * y * z, middle * (2 * zz - xx - yy), -side * x * z, side / 2 * (xx - yy)]
    if degree > 2:
        outer, inner, belt = 0.5900435899266435, 0.4570457994644658, 4 * zz - xx - yy
        terms += [
            -outer * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            -inner * y * belt,
            0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -inner * x * belt,
            1.445305721320277 * z * (xx - yy),
            -outer * x * (xx - 3 * yy),
        ]
    return torch.stack(terms, 1)


def harmonic_colors(sh: Tensor, means: Tensor, eye: Tensor, degree: int | None = None) -> Tensor:
    """Colours of Gaussians as seen from a point.

    Args:
        sh: (n, k, 3), k = 1, 4, 9 or 16.
        means: (n, 3) centres.
        eye: (3,) camera centre.
        degree: use the harmonics up to this degree only; None uses all.
    Returns:
        (n, 3): max(0, 0.5 + Σ Y_k sh_k), without an upper bound. Differentiable in all tensors.
    Raises:
        ShapeError, DtypeError, DeviceError: tensors that do not fit each other.   RangeError: a degree that sh does not have.
    """
    where, floats = "harmonic_colors", (torch.float32, torch.float64)
    require_tensor(where, "sh", sh, ("n", "k", 3), floats)
    require_tensor(where, "means", means, (len(sh), 3), floats)
    require_tensor(where, "eye", eye, (3,), floats)
    require_same_device(where, sh=sh, means=means, eye=eye)
    if sh.shape[1] not in HARMONICS:
        raise ShapeError(f"{where}: sh must have 1, 4, 9 or 16 coefficients a channel; got {sh.shape[1]}.")
    own = isqrt(sh.shape[1]) - 1
    if degree is None:
        degree = own
    elif not 0 <= degree <= own:
        raise RangeError(f"{where}: degree must be from 0 to {own}, which is what sh holds; got {degree}.")
    if degree == 0:
        return (0.5 + Y0 * sh[:, 0]).clamp_min(0)
    basis = spherical_harmonics(normalize(means - eye.to(means), dim=1), degree).to(sh.dtype)
    return (0.5 + torch.einsum("nk,nkc->nc", basis, sh[:, : basis.shape[1]])).clamp_min(0)
