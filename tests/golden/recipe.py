"""Weights and inputs of the goldens, made from names, so that no weights need to be stored.

A golden `NAME.npz` holds what the original code gave; `NAME.json` beside it holds the configuration, the seed, and the list of
tensors (name in the published files' layout, shape). `state_dict(tensors, seed)` makes the weights that the original was run with.
Load them as if they were a published file, run the input, compare.
"""

import zlib

import numpy as np


def normal(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal float32 array that depends on nothing but its name, shape and seed."""
    philox = np.random.Philox(key=[seed, zlib.crc32(name.encode())])
    return np.random.Generator(philox).standard_normal(shape, dtype=np.float32)


def weight(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A weight of unit gain: matrices and kernels scaled by fan-in (all axes after the first), gains near one, biases small."""
    a = normal(name, shape, seed)
    if len(shape) >= 2:
        return (a / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    if name.rsplit(".", 1)[-1] in ("weight", "gamma", "scale"):
        return (1.0 + 0.1 * a).astype(np.float32)
    return (0.1 * a).astype(np.float32)


def state_dict(tensors: list[tuple[str, tuple[int, ...]]], seed: int = 0) -> dict[str, np.ndarray]:
    """All learned tensors of a golden, by name."""
    return {name: weight(name, tuple(shape), seed) for name, shape in tensors}
