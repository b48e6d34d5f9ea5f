"""Numbers in text files: parsing many at once, and printing float32 so that it comes back bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ._source import Source


def decode_text(data: bytes) -> str:
    """UTF-8 if it is that, else Latin-1 (which takes any bytes); names may look odd, numbers do not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse_rows(source: Source, rows: Sequence[Sequence[str]], what: str, low: int, high: int) -> np.ndarray:
    """(n, w) float64 from rows of number words; shorter rows than the longest are filled with NaN.

    Raises:
        FileFormatError: a word is no number, or a row has fewer than `low` or more than `high`.
    """
    counts = set(map(len, rows))
    if not counts or min(counts) < low or max(counts) > high:
        for number, row in enumerate(rows):
            if not low <= len(row) <= high:
                raise source.error(f"{what} number {number + 1} must have {low} to {high} values; it is {' '.join(row)[:80]!r}")
        return np.zeros((0, low))
    width = max(counts)
    if len(counts) > 1:
        rows = [[*row, *["nan"] * (width - len(row))] for row in rows]
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError:
        raise _first_bad(source, rows, what, float) from None


def parse_integers(source: Source, words: Sequence[str], what: str) -> np.ndarray:
    """(n,) int64 from words."""
    try:
        return np.array(words, dtype=np.int64) if words else np.zeros(0, np.int64)
    except (ValueError, OverflowError):
        raise _first_bad(source, [[w] for w in words], what, np.int64) from None


def _first_bad(source: Source, rows: Sequence[Sequence[str]], what: str, convert: Callable[[str], object]) -> Exception:
    for number, row in enumerate(rows):
        for word in row:
            try:
                convert(word)
            except (ValueError, OverflowError):
                return source.error(f"{what} number {number + 1} has {word[:40]!r}, which is no number that fits")
    return source.error(f"{what} lines cannot be read as numbers")


def format_rows(pattern: str, *columns: np.ndarray) -> str:
    """One line a row; pattern has one % for each column. Nine digits name a float32, so the text is exact."""
    rows = zip(*(column.tolist() for block in columns for column in np.atleast_2d(block.T)), strict=True)
    return "".join(map(pattern.__mod__, rows))
