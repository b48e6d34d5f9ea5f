"""Numbers in text files: parsing many at once, and printing float32 so that it comes back bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._source import Source


def decode_text(data: bytes) -> str:
    """UTF-8 if it is that, else Latin-1 (which takes any bytes); names may look odd, numbers do not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse_table(source: Source, lines: list[str], what: str, low: int, high: int) -> np.ndarray:
    """(n, w) float64 from lines of numbers; where lines differ in length, w is that of the longest, filled up with NaN.

    Raises:
        FileFormatError: a word is no number, or a line has fewer than `low` or more than `high`.
    """
    table = even_table(lines)
    if table is not None and low <= table.shape[1] <= high:
        return table
    rows = [line.split() for line in lines]
    width = max(map(len, rows), default=low)
    for number, row in enumerate(rows, 1):
        if not low <= len(row) <= high:
            raise source.error(f"{what} number {number} must have {low} to {high} values; it is {' '.join(row)[:80]!r}")
    found = np.full((len(rows), width), np.nan)
    for number, row in enumerate(rows):
        try:
            found[number, : len(row)] = row
        except ValueError:
            raise source.error(f"{what} number {number + 1} has {_first_bad(row)!r}, which is no number") from None
    return found


def even_table(lines: list[str], columns: int | None = None) -> np.ndarray | None:
    """(n, w) float64 if all lines have equally many words and all are numbers (of the first `columns`, if given), else None."""
    if not lines or not lines[0].strip():
        return None
    try:
        table = np.loadtxt(lines, np.float64, comments=None, ndmin=2, usecols=None if columns is None else range(columns))
    except ValueError:
        return None
    return table if len(table) == len(lines) else None  # empty lines are passed over


def whole_numbers(source: Source, values: np.ndarray, what: str) -> np.ndarray:
    """float64 → int64."""
    bad = ~((values == np.floor(values)) & (np.abs(values) < 2**53))
    if bad.any():
        raise source.error(f"{what} must be whole numbers that fit; one is {values[bad][0]:.17g}")
    return values.astype(np.int64)


def ragged_rows(source: Source, lines: list[str], counts: np.ndarray, what: str) -> np.ndarray:
    """(sum of counts,) int64: the first counts[i] words of line i, one line after another. Lines of one length are read at once."""
    starts = np.cumsum(counts) - counts
    found = np.empty(int(counts.sum()), np.int64)
    for count in np.unique(counts).tolist():
        rows = np.nonzero(counts == count)[0]
        if count == 0:
            continue
        mine = lines if len(rows) == len(lines) else [lines[i] for i in rows.tolist()]
        table = even_table(mine, count)
        if table is None:
            table = parse_table(source, [" ".join(line.split()[:count]) for line in mine], what, count, count)
        found[starts[rows, None] + np.arange(count)] = whole_numbers(source, table, what)
    return found


def _first_bad(row: Sequence[str]) -> str:
    for word in row:
        try:
            np.float64(word)
        except ValueError:
            return word[:40]
    return " ".join(row)[:40]


def format_rows(pattern: str, *columns: np.ndarray) -> str:
    """One line a row; pattern has one % for each column. Nine digits name a float32, so the text is exact."""
    rows = zip(*(column.tolist() for block in columns for column in np.atleast_2d(block.T)), strict=True)
    return "".join(map(pattern.__mod__, rows))
