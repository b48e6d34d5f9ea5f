"""From what the caller asks to calls of an engine: peeling, and meshes in sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from ._coverage import depth_of_faces
from ._query import Query

Engine = Callable[[Query], Tensor]
"""Query → (b, rows, columns) int32, -1 for none."""


def nearest_faces(engine: Engine, query: Query, behind: Tensor | None, max_faces: int) -> Tensor:
    """(b, rows, columns) int32 index of the nearest face, -1 for none; in sections of at most `max_faces` faces of each view.

    The winners of two sections are compared at the depth that decides inside a section too, and the first keeps an equal depth,
    because its faces have the lower indices. So sections change nothing.
    """
    if behind is not None:
        depth = depth_of_faces(query.positions, query.faces, behind, query.window)
        query = dataclasses.replace(query, lowest_depth=depth, lowest_id=behind)
    longest = max((count for _, count in query.parts), default=0)
    if longest <= max_faces:
        return engine(query)
    best_id, best_depth = None, None
    for start in range(0, longest, max_faces):
        parts = tuple((first + min(start, count), max(0, min(max_faces, count - start))) for first, count in query.parts)
        face_id = engine(dataclasses.replace(query, parts=parts))
        depth = depth_of_faces(query.positions, query.faces, face_id, query.window)
        if best_id is None or best_depth is None:
            best_id, best_depth = face_id, depth
        else:
            closer = depth < best_depth
            best_id, best_depth = torch.where(closer, face_id, best_id), torch.where(closer, depth, best_depth)
    return best_id if best_id is not None else engine(query)
