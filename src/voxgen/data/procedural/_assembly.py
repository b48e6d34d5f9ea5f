"""Parts with finishes, put together to a mesh."""

from __future__ import annotations

import numpy as np
import torch

from voxgen.core import TriMesh
from voxgen.representations import fit_unit_cube

from ._finishes import Finish
from ._part import Part


class Assembly:
    """A list of parts, each with its finish."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Part, Finish, str]] = []

    def add(self, name: str, finish: Finish, *parts: Part) -> None:
        self._pieces += [(part, finish, name) for part in parts]

    def add_pair(self, name: str, finish: Finish, part: Part) -> None:
        """The part and what mirrors it on the left."""
        self.add(name, finish, part, part.mirrored)

    def turned(self, axis: str, degrees: float) -> Assembly:
        """All of it, about the origin."""
        out = Assembly()
        out._pieces = [(part.turned(axis, degrees), finish, name) for part, finish, name in self._pieces]
        return out

    def include(self, other: Assembly, *, scale: float = 1.0, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> None:
        """Put another assembly in, scaled about its origin and moved."""
        self._pieces += [(part.scaled(scale, scale, scale).moved(x, y, z), finish, name) for part, finish, name in other._pieces]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(3,) lowest and highest position."""
        points = np.concatenate([part.vertices for part, _, _ in self._pieces])
        return points.min(0), points.max(0)

    def mesh(self) -> TriMesh:
        """All parts in one mesh that fills the unit cube along its longest side; parts of one name share an entry of `part_names`."""
        parts = [part for part, _, _ in self._pieces]
        shift = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
        finishes = list({id(finish): finish for _, finish, _ in self._pieces}.values())
        row = {id(finish): k for k, finish in enumerate(finishes)}
        names = list(dict.fromkeys(name for _, _, name in self._pieces))
        sizes = [len(part.faces) for part in parts]
        mesh = TriMesh(
            torch.from_numpy(np.concatenate([part.vertices for part in parts])).float(),
            torch.from_numpy(np.concatenate([part.faces + s for part, s in zip(parts, shift, strict=True)])),
            normals=torch.from_numpy(np.concatenate([part.normals for part in parts])).float(),
            uv=torch.from_numpy(np.concatenate([_laid(part, finish) for part, finish, _ in self._pieces])).float(),
            materials=tuple(finish.material for finish in finishes),
            face_material=torch.from_numpy(np.repeat([row[id(finish)] for _, finish, _ in self._pieces], sizes)),
            part_names=tuple(names),
            face_part=torch.from_numpy(np.repeat([names.index(name) for _, _, name in self._pieces], sizes)),
        )
        return fit_unit_cube(mesh)


def _laid(part: Part, finish: Finish) -> np.ndarray:
    """Texture coordinates: lengths in pictures, and whole pictures around what meets itself."""
    if finish.tile is None:
        low, high = part.uv.min(0), part.uv.max(0)
        return (part.uv - low) / (high - low).clip(min=1e-9)
    if not part.around:
        return part.uv / finish.tile
    u = part.uv[:, 0] * (max(1, round(part.around / finish.tile)) / part.around)
    return np.stack((u, part.uv[:, 1] / finish.tile), 1)
