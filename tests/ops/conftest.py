"""What several test files of the ops start from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dual_face_cases import grid_of


@pytest.fixture
def one_quad() -> dict[str, Any]:
    """A quad with known numbers, around a z edge, in lexicographic order: rows 0, 1, 3, 2 are its corners."""
    grid, order = grid_of([[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]])
    dual = torch.tensor([[0.2, 0.3, 0.4], [0.5, 0.5, 0.5], [0.9, 0.1, 0.6], [0.4, 0.7, 0.2]])[order]
    flags = torch.zeros(4, 3, dtype=torch.bool)
    flags[0, 2] = True
    return {"grid": grid, "dual": dual, "intersected": flags, "split_weight": torch.tensor([1.0, 2, 3, 4])[order]}
