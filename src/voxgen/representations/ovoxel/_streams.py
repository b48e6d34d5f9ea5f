"""How the attributes of a .vxz file are dealt out to streams, and the pool that packs and unpacks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

INTERLEAVES = ("as_is", "none", "all")

T = TypeVar("T")
R = TypeVar("R")


def stream_widths(attributes: Mapping[str, int], interleave: str) -> dict[str, int]:
    """Streams of a chunk besides its octree, in order, and the bytes that a voxel has in each; attributes are widths by name."""
    if interleave == "as_is":
        return dict(attributes)
    if interleave == "all":
        return {"attr": sum(attributes.values())}
    return {f"{name}_{i}": 1 for name, channels in attributes.items() for i in range(channels)}


def to_streams(values: Mapping[str, np.ndarray], interleave: str) -> dict[str, np.ndarray]:
    """(n, c) uint8 attributes → (n, width) contiguous streams."""
    if interleave == "as_is":
        return dict(values)
    if interleave == "all":
        return {"attr": np.concatenate(list(values.values()), 1)}
    return {f"{name}_{i}": np.ascontiguousarray(value[:, i : i + 1]) for name, value in values.items() for i in range(value.shape[1])}


def from_streams(streams: Mapping[str, np.ndarray], attributes: Mapping[str, int], interleave: str) -> dict[str, np.ndarray]:
    """Inverse of `to_streams`."""
    if interleave == "as_is":
        return dict(streams)
    joined = np.concatenate(list(streams.values()), 1)
    parts = np.split(joined, np.cumsum(list(attributes.values()))[:-1], 1)
    return {name: np.ascontiguousarray(part) for name, part in zip(attributes, parts, strict=True)}


def in_threads(function: Callable[[T], R], items: Sequence[T], threads: int, progress: bool, title: str) -> list[R]:
    """Results in the order of the items. The compressors let go of the interpreter's lock, so threads do run at once."""
    from tqdm import tqdm

    results: list[R] = []
    with tqdm(total=len(items), desc=title, unit="stream", disable=not progress) as bar, ThreadPoolExecutor(threads) as pool:
        try:
            for result in pool.map(function, items) if threads > 1 else map(function, items):
                results.append(result)
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # otherwise all that is queued would run before the error comes out
            raise
    return results
