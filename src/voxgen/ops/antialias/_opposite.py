"""What lies across each edge of a triangle mesh."""

from __future__ import annotations

import torch
from jaxtyping import Int32
from torch import Tensor

from voxgen.core.aliases import Faces
from voxgen.core.checks import require_tensor


def opposite_vertices(faces: Faces) -> Int32[Tensor, "f 3"]:
    """For each edge of each face, the third vertex of the other face that has this edge.

    Worth computing once where many images of the same faces are antialiased; `antialias` otherwise looks up the edges that it meets.

    Args:
        faces: (f, 3) int32 or int64.
    Returns:
        (f, 3) int32; entry k belongs to the edge between the face's two corners other than k. -1 where no other face or more
        than one has the edge (a border, a seam of three sheets), and in faces that name a vertex twice; those count as no face.
    Raises:
        ShapeError, DtypeError.
    Memory: about 150 bytes a face.
    Example:
        >>> opposite_vertices(torch.tensor([[0, 1, 2], [2, 1, 3]]))
        tensor([[ 3, -1, -1],
                [-1, -1,  0]], dtype=torch.int32)
    """
    require_tensor("opposite_vertices", "faces", faces, ("f", 3), (torch.int32, torch.int64))
    f = len(faces)
    corner = faces.long()
    proper = (corner != corner.roll(1, 1)).all(1, keepdim=True).expand(f, 3).flatten()
    one, other = corner.roll(-1, 1).flatten(), corner.roll(-2, 1).flatten()
    low, high = torch.minimum(one, other), torch.maximum(one, other)
    size = int(faces.max()) + 1 if f else 1
    edge = torch.where(proper, low * size + high, -1)
    ordered, place = edge.sort()
    # an edge of exactly two faces: equal to one neighbour in the sorted list, and to none beside these two
    same = torch.nn.functional.pad(ordered[1:] == ordered[:-1], (1, 1))
    before, after = same[:-1], same[1:]
    pairs = (after & ~before).nonzero()[:, 0]
    long = torch.nn.functional.pad(after, (0, 1))[pairs + 1]
    first = pairs[~long & (ordered[pairs] >= 0)]
    across = torch.full((3 * f,), -1, dtype=torch.int32, device=faces.device)
    a, b = place[first], place[first + 1]
    third = corner.flatten().int()
    across[a], across[b] = third[b], third[a]
    return across.view(f, 3)
