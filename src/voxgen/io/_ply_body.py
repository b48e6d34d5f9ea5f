"""The data behind a PLY header."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ._source import Source
from ._text import decode_text, even_table, parse_table

Values: TypeAlias = "np.ndarray | tuple[np.ndarray, np.ndarray]"
"""Rows of a scalar property; lengths and joined items of a list."""


@dataclass(frozen=True)
class Column:
    """A property: NumPy's code for its type, and for the type of its length if it is a list."""

    name: str
    kind: str
    length: str = ""


def read_body(
    source: Source, data: bytes, order: str, columns: Mapping[str, Sequence[Column]], counts: Mapping[str, int]
) -> dict[str, dict[str, Values]]:
    """All elements by name, each a dict of its properties.

    Raises:
        FileFormatError: truncated, or a word that is no number.
    """
    elements: dict[str, dict[str, Values]] = {}
    if order == "ascii":
        lines = [line for line in decode_text(data).splitlines() if line.strip()]
        for name, described in columns.items():
            count = counts[name]
            if count > len(lines):
                raise source.error(f"the file is truncated: it declares {count:,} lines of element {name!r}, and {len(lines):,} are left")
            elements[name] = _ascii_rows(source, name, lines[:count], described)
            del lines[:count]
        if lines:
            source.warn(f"{len(lines)} lines behind the declared ones are ignored")
        return elements
    mark = "<" if order == "binary_little_endian" else ">"
    position = 0
    for name, described in columns.items():
        elements[name], position = _binary_rows(source, name, data, position, counts[name], described, mark)
    if position < len(data):
        source.warn(f"{len(data) - position} bytes behind the declared ones are ignored")
    return elements


def _ascii_rows(source: Source, name: str, lines: list[str], columns: Sequence[Column]) -> dict[str, Values]:
    if not columns:
        return {}
    if not any(c.length for c in columns):
        table = parse_table(source, lines, f"element {name!r}", len(columns), len(columns))
        return {c.name: _typed(source, table[:, i], c) for i, c in enumerate(columns)}
    sizes = _list_sizes(source, name, lines, columns)
    totals = np.sum(list(sizes.values()), axis=0) + len(columns)
    table = even_table(lines)
    if table is None or (totals != table.shape[1]).any():
        words = [line.split() for line in lines]
        for row, (line, total) in enumerate(zip(words, totals.tolist(), strict=True), 1):
            if len(line) != total:
                raise source.error(f"element {name!r} number {row} must have {total} values; it has {len(line)}")
        flat = parse_table(source, [word for line in words for word in line], f"number of element {name!r}", 1, 1)[:, 0]
    else:
        flat = table.reshape(-1)
    position = np.cumsum(totals) - totals
    found: dict[str, Values] = {}
    for column in columns:
        if not column.length:
            found[column.name] = _typed(source, flat[position], column)
            position = position + 1
            continue
        size = sizes[column.name]
        step = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
        found[column.name] = size, _typed(source, flat[np.repeat(position + 1, size) + step], column)
        position = position + 1 + size
    return found


def _list_sizes(source: Source, name: str, lines: list[str], columns: Sequence[Column]) -> dict[str, np.ndarray]:
    """The length that each list has in each line."""
    sizes: dict[str, list[int]] = {c.name: [] for c in columns if c.length}
    only = len(columns) == 1
    for row, line in enumerate(lines, 1):
        words = line.split(None, 1) if only else line.split()
        position = 0
        for column in columns:
            if column.length:
                word = words[position] if position < len(words) else ""
                if not word.isdecimal() or len(word) > 9:
                    raise source.error(f"element {name!r} number {row} has {word[:40]!r} as the length of {column.name!r}")
                sizes[column.name].append(int(word))
                position += int(word)
            position += 1
    return {key: np.array(values, np.int64) for key, values in sizes.items()}


def _typed(source: Source, values: np.ndarray, column: Column) -> np.ndarray:
    """float64 to the declared type; integers must be whole and fit."""
    if column.kind[0] == "f":
        return values.astype(column.kind)
    info = np.iinfo(column.kind)
    if not ((values >= info.min) & (values <= info.max) & (values == np.floor(values))).all():
        raise source.error(f"property {column.name!r} has values that are no whole numbers from {info.min} to {info.max}")
    return values.astype(column.kind)


def _binary_rows(
    source: Source, name: str, data: bytes, position: int, count: int, columns: Sequence[Column], mark: str
) -> tuple[dict[str, Values], int]:
    """The properties of an element, and the position behind it. Rows of one size are read at once."""
    if not columns or not count:
        empty = np.zeros(0, np.int64)
        return {c.name: (empty, empty) if c.length else empty for c in columns}, position
    layout = _first_layout(source, name, data, position, columns, mark)
    if count * layout.itemsize <= len(data) - position:
        rows = np.frombuffer(data, layout, count, position)
        if all((rows[f"{c.name} length"] == rows[f"{c.name} length"][0]).all() for c in columns if c.length):
            found: dict[str, Values] = {}
            for c in columns:
                values = rows[c.name].astype(c.kind)
                found[c.name] = (np.full(count, values.shape[1]), values.reshape(-1)) if c.length else values
            return found, position + count * layout.itemsize
    if not any(c.length for c in columns):
        there = (len(data) - position) // layout.itemsize
        raise source.error(f"the file is truncated: it declares {count:,} rows of element {name!r}, and {there:,} are there")
    return _ragged_rows(source, name, data, position, count, columns, mark)


def _first_layout(source: Source, name: str, data: bytes, position: int, columns: Sequence[Column], mark: str) -> np.dtype:
    """The layout of the row at `position`, whose lists have the lengths that stand there."""
    fields: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
    for column in columns:
        kind = np.dtype(mark + column.kind)
        if not column.length:
            fields.append((column.name, kind.str))
            position += kind.itemsize
            continue
        head = np.dtype(mark + column.length)
        size = _list_size(source, name, data, position, struct.Struct(mark + head.char), kind.itemsize)
        fields += [(f"{column.name} length", head.str), (column.name, kind.str, (size,))]
        position += head.itemsize + size * kind.itemsize
    return np.dtype(fields)


def _list_size(source: Source, name: str, data: bytes, position: int, head: struct.Struct, item: int) -> int:
    if position + head.size > len(data):
        raise source.error(f"the file is truncated inside element {name!r}")
    size = int(head.unpack_from(data, position)[0])
    if not 0 <= size <= (len(data) - position - head.size) // item:
        raise source.error(f"a list of element {name!r} declares {size} items, and the file ends before them")
    return size


def _ragged_rows(
    source: Source, name: str, data: bytes, position: int, count: int, columns: Sequence[Column], mark: str
) -> tuple[dict[str, Values], int]:
    """Rows of different sizes, such as triangles and quads: find where each starts, then take them by size."""
    kinds = [np.dtype(mark + c.kind) for c in columns]
    heads = [struct.Struct(mark + np.dtype(c.length).char) if c.length else None for c in columns]
    starts: list[list[int]] = [[] for _ in columns]
    sizes: list[list[int]] = [[] for _ in columns]
    steps = list(zip(heads, [k.itemsize for k in kinds], starts, sizes, strict=True))
    for _ in range(count):
        for head, item, start, size in steps:
            length = 1
            if head is not None:
                length = _list_size(source, name, data, position, head, item)
                position += head.size
            start.append(position)
            size.append(length)
            position += length * item
        if position > len(data):
            raise source.error(
                f"the file is truncated: it declares {count:,} rows of element {name!r}, and {len(starts[0]) - 1:,} are there"
            )
    content = np.frombuffer(data, np.uint8)
    found: dict[str, Values] = {}
    for column, kind, start, size in zip(columns, kinds, starts, sizes, strict=True):
        lengths = np.array(size)
        values = _taken(content, np.array(start), lengths, kind).astype(column.kind)
        found[column.name] = (lengths, values) if column.length else values
    return found, position


def _taken(content: np.ndarray, starts: np.ndarray, lengths: np.ndarray, kind: np.dtype) -> np.ndarray:
    """The items of all lists, one list after another."""
    values = np.empty(int(lengths.sum()), kind)
    targets = np.cumsum(lengths) - lengths
    for length in np.unique(lengths).tolist():
        rows = np.nonzero(lengths == length)[0]
        taken = content[starts[rows, None] + np.arange(length * kind.itemsize)].view(kind)
        values[targets[rows, None] + np.arange(length)] = taken
    return values
