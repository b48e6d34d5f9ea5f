"""Block attention with plain torch operations, on any device: padded problems in batches that fit in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from ._lists import Lists
from ._op import run
from ._problems import Problem, problems


def attend(q: Tensor, k: Tensor, v: Tensor, lists: Lists, scale: float) -> tuple[Tensor, Tensor]:
    """See `Attended`."""
    return run("torch", q, k, v, lists, scale)


def forward(q: Tensor, k: Tensor, v: Tensor, lists: Lists, scale: float) -> tuple[Tensor, Tensor]:
    """(n, H, d) outputs and (n, H) log-sum-exp."""
    dtype = q.dtype
    q, k, v = (_with_spare_row(t) for t in (q, k, v))
    out = torch.zeros_like(q)
    lse = q.new_full(q.shape[:2], -torch.inf)
    for problem in problems(lists, q.shape[1], k.shape[1], len(k) - 1):
        logits = _logits(q, k, problem, scale)
        top = logits.amax(-1, keepdim=True)
        top = torch.where(top == -torch.inf, 0, top)
        weights = logits.sub_(top).exp_()
        total = weights.sum(-1, keepdim=True)
        result = weights @ _keys(v, problem) / torch.where(total == 0, 1, total)
        out[problem.queries, problem.head_slice] = _to_queries(result, problem)
        lse[problem.queries, problem.head_slice] = _to_queries(top + total.log(), problem)[..., 0]
    return out[:-1].to(dtype), lse[:-1].contiguous()


def gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, delta: Tensor, weight: Tensor | None, lists: Lists, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    dtype = q.dtype
    if weight is not None:
        grad = grad.to(lse.dtype) * weight.to(lse.dtype)[:, None, None]
    q, k, v, grad, delta = (_with_spare_row(t) for t in (q, k, v, grad, delta[..., None]))
    # a query that sees nothing, and the spare row, give nothing to anyone
    lse = torch.cat((lse.masked_fill(lse == -torch.inf, torch.inf), lse.new_full((1, lse.shape[1]), torch.inf)))[..., None]
    for_q, for_k, for_v = (torch.zeros_like(t) for t in (q, k, v))
    for problem in problems(lists, q.shape[1], k.shape[1], len(k) - 1):
        groups = q.shape[1] // k.shape[1]
        own_q, own_grad, own_lse, own_delta = (_queries(t, problem, groups) for t in (q, grad, lse, delta))
        own_k, own_v = _keys(k, problem), _keys(v, problem)
        weights = _logits(q, k, problem, scale).sub_(own_lse).exp_()
        slopes = (own_grad @ own_v.transpose(-1, -2)).sub_(own_delta).mul_(weights).mul_(scale)
        slopes.masked_fill_(_filled(problem, len(k) - 1), 0)
        for_q[problem.queries, problem.head_slice] += _to_queries(slopes @ own_k, problem)
        _add(for_k, problem, slopes.transpose(-1, -2) @ own_q)
        _add(for_v, problem, weights.transpose(-1, -2) @ own_grad)
    return for_q[:-1].to(dtype), for_k[:-1].to(dtype), for_v[:-1].to(dtype)


def _with_spare_row(rows: Tensor) -> Tensor:
    """In float32 or float64, with a row of zeros behind the last for what is filled up."""
    wide = rows if rows.dtype == torch.float64 else rows.float()
    return torch.cat((wide, wide.new_zeros(1, *rows.shape[1:])))


def _queries(rows: Tensor, problem: Problem, groups: int) -> Tensor:
    """(p, key heads, groups · r, c) of (n + 1, H, c): the query heads of a key head below each other."""
    taken = rows[problem.queries, problem.head_slice]
    p, r, heads, c = taken.shape
    return taken.view(p, r, heads // groups, groups, c).permute(0, 2, 3, 1, 4).reshape(p, heads // groups, groups * r, c)


def _to_queries(rows: Tensor, problem: Problem) -> Tensor:
    """Inverse of `_queries`: (p, r, H, c)."""
    p, key_heads, _, c = rows.shape
    r = problem.queries.shape[1]
    return rows.view(p, key_heads, -1, r, c).permute(0, 3, 1, 2, 4).reshape(p, r, -1, c)


def _keys(rows: Tensor, problem: Problem) -> Tensor:
    """(p, key heads, c, d)."""
    return rows[problem.keys, problem.key_heads].transpose(1, 2)


def _filled(problem: Problem, spare: int) -> Tensor:
    return (problem.keys == spare)[:, None, None]


def _logits(q: Tensor, k: Tensor, problem: Problem, scale: float) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    logits = (_queries(q, problem, groups) @ _keys(k, problem).transpose(-1, -2)).mul_(scale)
    return logits.masked_fill_(_filled(problem, len(k) - 1), -torch.inf)


def _add(total: Tensor, problem: Problem, part: Tensor) -> None:
    """Add (p, key heads, c, d) to the rows of the keys."""
    part = part.transpose(1, 2)
    place = total[:, problem.key_heads]
    if total.device.type == "cpu":
        place.index_add_(0, problem.keys.flatten(), part.flatten(0, 1))
    else:  # index_add is unordered there, and index_put sorts first
        place.index_put_((problem.keys.flatten(),), part.flatten(0, 1), accumulate=True)
