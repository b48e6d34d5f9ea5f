"""Which engines can run which op, and how one of them is chosen.

An op's `__init__` makes one `Op` with its backends, fastest first. A backend names its function by an import string, so
nothing is imported before it is used, and says by `unsupported` why it cannot serve a call. The choice is the `backend=`
argument, then the `use_backend(...)` context, then the first backend without a reason against it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from voxgen.core.errors import BackendUnavailable, RangeError

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """What a backend may look at before it accepts a call."""

    device: torch.device
    dtype: torch.dtype
    requires_grad: bool
    facts: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(*tensors: Tensor | None, **facts: Any) -> Call:
        """Describe a call by its tensors: device of the first, dtype of the first float one, whether any wants a gradient."""
        present = [t for t in tensors if t is not None]
        floats = [t for t in present if t.is_floating_point()]
        grad = torch.is_grad_enabled() and any(t.requires_grad for t in floats)
        return Call(present[0].device, floats[0].dtype if floats else torch.float32, grad, facts)


Reasons = tuple[str, ...]
Check = Callable[[Call], Reasons]


def cpu_only(call: Call) -> Reasons:
    """Compiled CPU code."""
    return () if call.device.type == "cpu" else (f"runs on cpu, the tensors lie on {call.device}",)


def no_gradient(call: Call) -> Reasons:
    """Engines without a backward pass."""
    return ("has no gradient, and an input requires one",) if call.requires_grad else ()


def float_types(*allowed: torch.dtype) -> Check:
    """Engines for some float dtypes only."""

    def check(call: Call) -> Reasons:
        if call.dtype in allowed:
            return ()
        names = ", ".join(str(d).removeprefix("torch.") for d in allowed)
        return (f"takes {names}, got {str(call.dtype).removeprefix('torch.')}",)

    return check


def module(name: str, extra: str = "") -> Check:
    """Engines that need a package."""

    def check(call: Call) -> Reasons:
        if importlib.util.find_spec(name) is not None:
            return ()
        return (f"package {name} is not installed" + (f" (pip install 'voxgen[{extra}]')" if extra else ""),)

    return check


def triton_device(call: Call) -> Reasons:
    """Triton kernels: a GPU, or a CPU under Triton's interpreter, which is for tests and knows no right bfloat16 or float64."""
    if importlib.util.find_spec("triton") is None:
        return ("package triton is not installed (pip install 'voxgen[gpu]')",)
    if call.device.type == "cuda":
        return ()
    if call.device.type != "cpu" or os.environ.get("TRITON_INTERPRET") != "1":
        return (f"runs on cuda, the tensors lie on {call.device}",)
    return float_types(torch.float32, torch.float16)(call)


@dataclass(frozen=True)
class Backend:
    """One engine of an op.

    Args:
        name: "reference", "torch", "numba", "triton", or the name of an external library.
        target: "package.module:function", imported at first use.
        checks: each gives the reasons why this engine cannot serve a call; none means that it can.
    """

    name: str
    target: str
    checks: tuple[Check, ...] = ()

    def unsupported(self, call: Call) -> Reasons:
        return tuple(reason for check in self.checks for reason in check(call))

    def load(self) -> Callable[..., Any]:
        path, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(path), attribute)


OPS: dict[str, Op] = {}
"""Every registered op by name; the parity test, the self-test and docs/backends.md read it."""


class Op:
    """An op and its engines, fastest first; the last must be the reference.

    Args:
        name: the name of the op's folder.
        backends: engines in the order in which the automatic choice asks them.
    """

    def __init__(self, name: str, backends: Sequence[Backend]) -> None:
        if not backends or backends[-1].name != "reference":
            raise RangeError(f"Op {name}: the last backend must be 'reference'; got {[b.name for b in backends]}.")
        self.name = name
        self.backends = {b.name: b for b in backends}
        OPS[name] = self

    def __repr__(self) -> str:
        return f"Op({self.name!r}, {list(self.backends)})"

    def choose(self, backend: str, call: Call) -> Backend:
        """The engine for this call.

        Raises:
            BackendUnavailable: `backend` is unknown or cannot serve the call; the message gives the reasons of every engine.
        """
        wanted = backend if backend != "auto" else self._from_context()
        if wanted is not None:
            if wanted in self.backends and not self.backends[wanted].unsupported(call):
                return self.backends[wanted]
            raise BackendUnavailable(f"{self.name}: backend {wanted!r} cannot serve this call.\n{self.explain(call)}")
        for candidate in self.backends.values():
            if not candidate.unsupported(call):
                return candidate
        raise BackendUnavailable(f"{self.name}: no backend can serve this call.\n{self.explain(call)}")

    def run(self, backend: str, call: Call, *args: Any, **kwargs: Any) -> Any:
        """Choose an engine and call it."""
        return self.choose(backend, call).load()(*args, **kwargs)

    def engine(self, backend: str, *tensors: Tensor | None, **facts: Any) -> Callable[..., Any]:
        """The function of the engine for these tensors, in a form that `torch.compile` can follow: it asks once and keeps the answer.

        Facts must be plain values: numbers, strings, tuples of them.
        """
        present = [t for t in tensors if t is not None]
        wants_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in present)
        name = _choose_and_load(self.name, backend, present[0].device.type, present[0].dtype, wants_gradient, tuple(facts.items()))
        return _LOADED[self.name, name]

    def explain(self, call: Call) -> str:
        """One line an engine: ready, or why not."""
        lines = [f"  {name}: {'; '.join(b.unsupported(call)) or 'ready'}" for name, b in self.backends.items()]
        return "\n".join(lines)

    def _from_context(self) -> str | None:
        chosen = _context.get()
        if self.name in chosen:
            return chosen[self.name]
        everywhere = chosen.get("*")
        return everywhere if everywhere in self.backends else None


_LOADED: dict[tuple[str, str], Callable[..., Any]] = {}
"""Functions of engines by op and engine, filled at first use."""


def _choose_and_load(
    op: str, backend: str, device: str, dtype: torch.dtype, requires_grad: bool, facts: tuple[tuple[str, Any], ...]
) -> str:
    """Name of the engine, which is in `_LOADED` then. All arguments are plain values, which a compiler knows."""
    chosen = OPS[op].choose(backend, Call(torch.device(device), dtype, requires_grad, dict(facts)))
    _LOADED.setdefault((op, chosen.name), chosen.load())
    return chosen.name


# what `torch.compiler.assume_constant_result` does, without the second that importing the compiler takes
_choose_and_load._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def untraced(function: Callable[..., T]) -> Callable[..., T]:
    """The function, for the compiler to call and not to look into: for tables that are built from values and kept."""
    if torch.compiler.is_compiling():
        return torch.compiler.disable(function)  # pyright: ignore[reportReturnType] (its stub forgets what the function returns)
    return function


_context: ContextVar[dict[str, str]] = ContextVar("voxgen_backends", default={})  # noqa: B039 (never mutated)


@contextmanager
def use_backend(default: str | None = None, /, **per_op: str) -> Iterator[None]:
    """Choose engines for all calls inside the block.

    Args:
        default: engine for every op that has one of this name; other ops choose for themselves. An op that has it but
            cannot serve a call with it raises.
        per_op: engine by op name; these must exist.
    Raises:
        RangeError: an op or engine that does not exist.
    Example:
        >>> with voxgen.use_backend("torch", rasterize="reference"):
        ...     ovoxel = OVoxel.from_mesh(mesh, 64)
    """
    load_all_ops()
    for name, backend in per_op.items():
        if name not in OPS:
            raise RangeError(f"use_backend: no op is called {name!r}; there are {', '.join(sorted(OPS))}.")
        if backend not in OPS[name].backends:
            raise RangeError(f"use_backend: op {name!r} has no backend {backend!r}; it has {', '.join(OPS[name].backends)}.")
    if default is not None and not any(default in op.backends for op in OPS.values()):
        raise RangeError(f"use_backend: no op has a backend {default!r}.")
    chosen = {**_context.get(), **per_op}
    if default is not None:
        chosen["*"] = default
    token = _context.set(chosen)
    try:
        yield
    finally:
        _context.reset(token)


def load_all_ops() -> dict[str, Op]:
    """Import every op folder, so that OPS is complete, and return it. Imports no engine."""
    import pkgutil

    import voxgen.ops as package

    for info in pkgutil.iter_modules(package.__path__):
        if not info.name.startswith("_"):
            importlib.import_module(f"voxgen.ops.{info.name}")
    return OPS
