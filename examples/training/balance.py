"""Ragged samples in parts of nearly equal size: over processes, and over the parts of a batch."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor


def balanced(sizes: Sequence[int], parts: int) -> list[list[int]]:
    """Indices of samples in so many parts, by the greedy rule: the longest that is left goes to the part that is shortest.

    Args:
        sizes: voxels or tokens of each sample, at least as many samples as parts.   parts: how many; none of them stays empty.
    Returns:
        Indices of each part, longest first; parts in the order in which they got their first sample.
    Source: TRELLIS.2's batch split. The longest part is at most 4/3 of what the best division has (R. L. Graham, 1969).
    """
    if len(sizes) < parts:
        raise ValueError(f"{len(sizes)} samples do not fill {parts} parts")
    found: list[list[int]] = [[] for _ in range(parts)]
    shortest = [(0, 0, part) for part in range(parts)]  # size, samples, number: equal sizes go to the part with fewer samples
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        size, samples, part = heapq.heappop(shortest)
        found[part].append(index)
        heapq.heappush(shortest, (size + sizes[index], samples + 1, part))
    return found


def cut(sizes: Sequence[int], order: Sequence[int], budget: int, parts: int) -> list[list[list[int]]]:
    """Samples in this order as batches of so many parts, balanced, each part within the budget.

    A batch takes samples as long as its parts hold them; one larger than the budget has a part of its own. The last batch is filled
    up with the first samples, so that no part is empty: those come twice.

    Returns:
        Samples by batch and part.
    """
    batches: list[list[list[int]]] = []
    start = 0
    while start < len(order):
        stop, held = start, 0
        while stop < len(order) and (held + sizes[order[stop]] <= parts * budget or stop - start < parts):
            held += sizes[order[stop]]
            stop += 1
        while not _fits(sizes, order[start:stop], budget, parts):
            stop -= 1
        chosen = list(order[start:stop])
        chosen += [order[i % len(order)] for i in range(parts - len(chosen))]
        batches.append([[chosen[i] for i in part] for part in balanced([sizes[i] for i in chosen], parts)])
        start = stop
    return batches


def weights_of_parts(tokens: Tensor, weighting: str) -> Tensor:
    """What the loss of each part of a batch is multiplied with before its backward pass; they add up to 1.

    Args:
        tokens: (parts,) of the whole batch, of all processes.
        weighting: "equal", as published: parts are about equally large. "tokens": each token counts the same, as in a batch that is not
            divided, where a loss is the mean over tokens.
    """
    if weighting == "equal":
        return torch.full((len(tokens),), 1 / len(tokens), dtype=torch.float64)
    return tokens.double() / tokens.sum()


def mean_of_parts(numbers: Sequence[dict[str, float]]) -> dict[str, float]:
    """Terms of a step, each the mean over the parts that have it."""
    if len(numbers) == 1:
        return numbers[0]
    names = dict.fromkeys(name for part in numbers for name in part)
    having = {name: [part[name] for part in numbers if name in part] for name in names}
    return {name: sum(values) / len(values) for name, values in having.items()}


def _fits(sizes: Sequence[int], chosen: Sequence[int], budget: int, parts: int) -> bool:
    if len(chosen) <= parts:
        return True  # one each
    return all(len(part) == 1 or sum(sizes[chosen[i]] for i in part) <= budget for part in balanced([sizes[i] for i in chosen], parts))
