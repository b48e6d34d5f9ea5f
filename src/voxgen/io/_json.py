"""JSON of unknown origin, read with checks: every access says what type it needs and where in the file it is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from voxgen.core.checks import describe

from ._source import Source


class Item:
    """A JSON object and its place in the file, such as `materials[3].pbrMetallicRoughness`.

    Every method raises FileFormatError where the value is there but does not fit.
    """

    def __init__(self, source: Source, value: dict[str, Any], where: str = "") -> None:
        self.source = source
        self.value = value
        self.where = where

    @staticmethod
    def parse(source: Source, text: bytes) -> Item:
        """The root object."""

        def not_json(word: str) -> NoReturn:
            raise ValueError(f"{word} is no JSON number")

        try:
            value = json.loads(text.decode("utf-8-sig"), parse_constant=not_json)
        except (ValueError, RecursionError) as error:
            raise source.error(f"the JSON part cannot be read ({error})") from error
        if not isinstance(value, dict):
            raise source.error(f"the JSON part must be an object; it is a {type(value).__name__}")
        return Item(source, value)

    def name_of(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where else key

    def fail(self, key: str, expected: str) -> NoReturn:
        raise self.source.error(f"{self.name_of(key)} must be {expected}; it is {describe(self.value.get(key))}")

    def has(self, key: str) -> bool:
        return key in self.value

    def integer(self, key: str, default: int | None = None, low: int = 0, high: int = 2**53) -> int:
        """A whole number in [low, high]; without a default it must be there."""
        value = self.value.get(key, default)
        if isinstance(value, float) and value.is_integer():  # some writers put 3.0
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.fail(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.value.get(key, default)
        if not _is_number(value):
            self.fail(key, "a finite number")
        return float(value)

    def numbers(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        """As many numbers as the default has."""
        value = self.value.get(key, default)
        if not isinstance(value, (list, tuple)) or len(value) != len(default) or not all(map(_is_number, value)):
            self.fail(key, f"a list of {len(default)} finite numbers")
        return tuple(map(float, value))

    def integers(self, key: str) -> list[int]:
        """A list of whole numbers >= 0; empty if it is not there."""
        value = self.value.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value):
            self.fail(key, "a list of whole numbers")
        return value

    def text(self, key: str, default: str = "") -> str:
        value = self.value.get(key, default)
        if not isinstance(value, str):
            self.fail(key, "a text")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.value.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            self.fail(key, "a list of texts")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.value.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, "true or false")
        return value

    def item(self, key: str) -> Item | None:
        """The object under `key`, None if it is not there."""
        if key not in self.value:
            return None
        if not isinstance(self.value[key], dict):
            self.fail(key, "an object")
        return Item(self.source, self.value[key], self.name_of(key))

    def inner(self, *keys: str) -> Item:
        """The object at the end of a path of keys; an empty one if any is missing."""
        here = self
        for key in keys:
            here = here.item(key) or Item(self.source, {}, here.name_of(key))
        return here

    def items(self, key: str) -> list[Item]:
        """The objects of a list; empty if it is not there."""
        value = self.value.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            self.fail(key, "a list of objects")
        return [Item(self.source, v, f"{self.name_of(key)}[{i}]") for i, v in enumerate(value)]

    def indices(self) -> Iterator[tuple[str, int]]:
        """All entries of an object whose values are indices."""
        for key in self.value:
            yield key, self.integer(key)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63
