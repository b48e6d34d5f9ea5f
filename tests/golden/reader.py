"""A golden file: description, arrays, weights and inputs by their recipe."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)

FOLDER = Path(__file__).parent


def published_keys(name: str) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Name, shape and dtype of every tensor of a released file."""
    lines = (FOLDER / "keys" / f"{name}.tsv").read_text().splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return {key: (tuple(int(n) for n in shape.split(",")), getattr(torch, dtype)) for key, shape, dtype in rows}


@dataclass(frozen=True)
class Golden:
    """One golden file.

    Attributes:
        about: its description.
        arrays: by their names in the file, "in/…" and "out/…".
    """

    about: dict[str, Any]
    arrays: dict[str, Tensor]

    @staticmethod
    def read(name: str) -> Golden:
        with np.load(FOLDER / f"{name}.npz") as file:
            arrays = {key: torch.from_numpy(file[key]) for key in file.files}
        return Golden(json.loads((FOLDER / f"{name}.json").read_text()), arrays)

    @property
    def configuration(self) -> dict[str, Any]:
        return self.about["configuration"]

    @property
    def tolerance(self) -> float:
        return self.about["tolerance"]

    def weights(self) -> dict[str, Tensor]:
        """The state dict in the published names."""
        seed = self.about["seed"]
        state = {n: torch.from_numpy(recipe.weight(n, tuple(shape), seed)) for n, shape in self.about["learned"]}
        for name, factor in self.about.get("scales", {}).items():
            state[name] = state[name] * factor
        return state

    def normal(self, name: str, scale: float = 1.0) -> Tensor:
        """An input that the recipe makes from its name."""
        shape = tuple(self.about["inputs"][name]["shape"])
        return scale * torch.from_numpy(recipe.normal(name, shape, self.about["seed"]))

    def expected(self, output: str, actual: Tensor) -> tuple[Tensor, Tensor]:
        """What the original gave for an output, and the same rows of `actual`, whose rows are in the original's order."""
        rows = self.arrays.get(f"rows/{output}")
        return self.arrays[f"out/{output}"], actual if rows is None else actual[rows.long()]

    def check_statistics(self, key: str, actual: Tensor, tolerance: float | None = None) -> None:
        """Raise AssertionError unless the mean, spread, first numbers and dot product stored for a tensor are those of `actual`.

        Args:
            key: of "checkpoints" or "outputs".
            tolerance: relative to the spread; None takes the golden's.
        """
        stored = (self.about["checkpoints"] | self.about["outputs"])[key]
        values = actual.detach().double()
        dots = torch.from_numpy(recipe.normal(f"dot/{key}", tuple(values.shape), self.about["seed"])).double()
        found = {
            "mean": float(values.mean()),
            "std": float(values.std(correction=0)),
            "dot": float((values * dots).sum()) / values.numel() ** 0.5,
        }
        allowed = (self.tolerance if tolerance is None else tolerance) * (stored["std"] or abs(stored["mean"]))
        wrong = {name: (value, stored[name]) for name, value in found.items() if not abs(value - stored[name]) <= allowed}
        first = torch.tensor(stored["first"], dtype=torch.float64)
        if not bool(((values.flatten()[: len(first)] - first).abs() <= 10 * allowed).all()):  # single numbers spread more than means
            wrong["first"] = (values.flatten()[: len(first)].tolist(), stored["first"])
        if list(values.shape) != stored["shape"] or wrong:
            raise AssertionError(f"{key}: {tuple(values.shape)}, expected {stored['shape']}; got and expected {wrong}")
