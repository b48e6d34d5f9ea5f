"""Cube maps: six square faces around a point, read by direction, without seams."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_AXES = ((2, 1, 0), (2, 1, 0), (0, 2, 1), (0, 2, 1), (0, 1, 2), (0, 1, 2))
"""For each face, the axes of the direction that run along its columns and rows, and the one that points at it."""
_SIGNS = ((-1, -1, 1), (1, -1, -1), (1, 1, 1), (1, -1, -1), (1, -1, 1), (-1, -1, -1))
"""Their signs, as in OpenGL's table of cube map faces."""


def locate_on_cube(direction: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 3) directions → face (...) int64, -1 for a direction of length 0, and place (..., 2) in it, 0 to 1 along columns and rows."""
    size = direction.detach().abs()
    # ties go to z, then y: any choice reads the same, because faces join without a seam
    z_wins, y_wins = (size[..., 2] >= size[..., 0]) & (size[..., 2] >= size[..., 1]), size[..., 1] >= size[..., 0]
    major = torch.where(z_wins, 2, torch.where(y_wins, 1, 0))
    ahead = direction.gather(-1, major[..., None])[..., 0]
    face = 2 * major + (ahead.detach() < 0)
    across = _turned(direction, face)
    valid = ahead.detach() != 0
    place = across[..., :2] / torch.where(valid, across[..., 2], 1.0)[..., None]
    return torch.where(valid, face, -1), (place + 1) / 2


def cube_footprint(direction: Tensor, change: Tensor) -> Tensor:
    """How the place in the face changes (..., 2, 2) as the direction (..., 3) does (..., 3, 2); 0 where there is no direction."""
    face, _ = locate_on_cube(direction)
    valid = (face >= 0)[..., None]
    a = _turned(direction, face.clamp(min=0))
    da = torch.stack([_turned(step, face.clamp(min=0)) for step in change.unbind(-1)], -1)
    ahead = torch.where(valid, a[..., 2:], 1.0)
    slope = (da[..., :2, :] - (a[..., :2] / ahead)[..., None] * da[..., 2:, :]) / (2 * ahead[..., None])
    return torch.where(valid[..., None], slope, 0.0)


def _turned(direction: Tensor, face: Tensor) -> Tensor:
    """The components of directions along the columns, rows and outward axis of their face."""
    axes, signs = torch.tensor(_AXES, device=face.device), direction.new_tensor(_SIGNS)
    return direction.gather(-1, axes[face]) * signs[face]


def sample_cube(levels: Sequence[Tensor], face: Tensor, place: Tensor, level: Tensor, nearest: bool) -> Tensor:
    """Read cube maps.

    Args:
        levels: (n or 1, 6, s, s, c) each.
        face, place: (n, h, w) and (n, h, w, 2) of `locate_on_cube`.
        level: (n, h, w) which level; between two, they are mixed.
        nearest: take one texel instead of mixing four.
    Returns:
        (n, h, w, c) in the dtype of place.
    """
    shape = face.shape
    cube = torch.arange(shape[0], device=face.device)[:, None, None].expand(shape).flatten() if len(levels[0]) > 1 else face.new_zeros(1)
    side = face.clamp(min=0).flatten() + 6 * cube
    where, position = place.reshape(-1, 2), level.flatten().nan_to_num(0.0).clamp(0, len(levels) - 1)
    result = torch.zeros((len(where), levels[0].shape[-1]), dtype=place.dtype, device=place.device)
    for k, image in enumerate(levels):
        share = 1 - (position - k).abs()
        rows = ((share > 0) & (face.flatten() >= 0)).nonzero()[:, 0]
        if len(rows) or k == 0:  # so that the result depends on the texture, even where nothing is read
            values = _at_level(image, side[rows], where.index_select(0, rows), nearest)
            result = result.index_add(0, rows, share[rows, None] * values)
    return result.view(*shape, levels[0].shape[-1])


def _at_level(image: Tensor, side: Tensor, place: Tensor, nearest: bool) -> Tensor:
    """(m, c) values at places (m, 2) in sides, which count through all cubes."""
    s = image.shape[2]
    if nearest:
        column, row = (place.detach() * s).floor().long().clamp(0, s - 1).unbind(1)
        return image.flatten(0, 3).index_select(0, (side * s + row) * s + column).to(place.dtype)
    texels = _with_border(image).flatten(0, 3)
    along = place * s - 0.5
    first = along.detach().floor().clamp(-1, s - 1)
    right, down = (along - first).unbind(1)
    column, row = (first.long() + 1).unbind(1)
    at = (side * (s + 2) + row) * (s + 2) + column
    corners = ((0, (1 - right) * (1 - down)), (1, right * (1 - down)), (s + 2, (1 - right) * down), (s + 3, right * down))
    return torch.stack([texels.index_select(0, at + step).to(place.dtype) * share[:, None] for step, share in corners]).sum(0)


def _with_border(image: Tensor) -> Tensor:
    """(n, 6, s, s, c) → (n, 6, s + 2, s + 2, c), with the neighbouring faces' texels around each face.

    At a corner three texels meet; the mean of all three stands where a fourth would be, so that all three faces agree there.
    """
    s, device = image.shape[2], image.device
    index = torch.arange(-1, s + 1, device=device)
    row, column = torch.meshgrid(index, index, indexing="ij")
    face = torch.arange(6, device=device)[:, None, None].expand(6, s + 2, s + 2)
    outside_row, outside_column = (row < 0) | (row >= s), (column < 0) | (column >= s)
    # a texel beyond an edge is the one of the other face that its direction points at; for corners, first along the row
    along_row = _texel_at(face, row.clamp(0, s - 1), column, s)
    along_column = _texel_at(face, row, column.clamp(0, s - 1), s)
    own = (face * s + row.clamp(0, s - 1)) * s + column.clamp(0, s - 1)
    edge = torch.where(outside_row, along_column, torch.where(outside_column, along_row, own))
    flat = image.flatten(1, 3)
    whole = flat.index_select(1, edge.flatten())
    corner = (outside_row & outside_column).expand(6, -1, -1).flatten().nonzero()[:, 0]
    three = torch.stack([flat.index_select(1, t.flatten()[corner]) for t in (along_row, along_column, own)]).mean(0)
    return whole.index_copy(1, corner, three).view(len(image), 6, s + 2, s + 2, -1)


def _texel_at(face: Tensor, row: Tensor, column: Tensor, s: int) -> Tensor:
    """Index, through all six faces, of the texel that lies where a row and column beyond the edge of a face point to."""
    axes, signs = torch.tensor(_AXES, device=face.device)[face], torch.tensor(_SIGNS, device=face.device)[face]
    place = torch.stack(((2 * column + 1 - s).expand(face.shape), (2 * row + 1 - s).expand(face.shape), torch.full_like(face, s)), -1)
    direction = torch.zeros_like(place).scatter(-1, axes, place * signs).double()
    there, at = locate_on_cube(direction)
    column_there, row_there = (at * s).floor().long().clamp(0, s - 1).unbind(-1)
    return (there * s + row_there) * s + column_there
