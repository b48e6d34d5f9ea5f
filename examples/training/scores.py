"""Numbers of held-out results: their means, and a table of all.

A result has a `source` with a name, and a `score`: a record of numbers with a `HEADER` and a `row`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any


def numbers(results: Sequence[Any]) -> dict[str, float]:
    """The mean of each number."""
    return {f.name: sum(getattr(r.score, f.name) for r in results) / len(results) for f in fields(results[0].score)}


def table(results: Sequence[Any]) -> str:
    """A line for each result, and one for the means."""
    score = type(results[0].score)
    return "\n".join([score.HEADER, *(r.score.row(r.source.name) for r in results), score(**numbers(results)).row("mean")])
