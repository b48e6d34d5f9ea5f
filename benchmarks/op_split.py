"""Where the time of a network's forward pass goes, by kind of operation, and the operations of its matrix products."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from voxgen.layers import LayerNorm32
from voxgen.ops.conv import sparse_conv, sparse_conv_children
from voxgen.ops.neighbors import NeighborTable, neighbor_table
from voxgen.ops.resample import Structure, channel_to_space, pool, space_to_channel, subdivide

CONV, CHILDREN, LINEAR, NORM, ACTIVATION = "convolution", "convolution to children", "linear", "norm", "activation"
RESAMPLE, TABLES, STRUCTURES, REST = "rearrangement", "neighbour tables", "structures", "sums and the rest"

FUNCTIONS = {
    sparse_conv: CONV,
    sparse_conv_children: CHILDREN,
    neighbor_table: TABLES,
    **dict.fromkeys((channel_to_space, space_to_channel, pool, subdivide), RESAMPLE),
    nn.functional.silu: ACTIVATION,
}
METHODS = {(NeighborTable, "restricted"): TABLES, (Structure, "of_mask"): STRUCTURES, (Structure, "of_children"): STRUCTURES}
MODULES = {nn.Linear: LINEAR, LayerNorm32: NORM}


class OpSplit:
    """Seconds by kind of operation of what runs in the block; time inside an operation that another calls counts once.

    Functions of voxgen are wrapped in every module that has imported them, and modules of torch by hooks, only inside the block.

    Attributes:
        wall, cpu: seconds by kind.
        flops: useful operations by kind: 2 · pairs · ci · co of convolutions (pairs of cells that exist), 2 · n · ci · co of
            linear layers. Counting them takes no part in the seconds.
    Args:
        device: waited for before the clock is read.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.flops: dict[str, float] = {}

    def __enter__(self) -> OpSplit:
        self._open = [REST]
        self._undo = ExitStack()
        for function, title in FUNCTIONS.items():
            for module, name in _holders(function):
                self._undo.enter_context(patch.object(module, name, self._timed(title, function)))
        for (owner, name), title in METHODS.items():
            own = vars(owner)[name]
            timed = self._timed(title, getattr(owner, name))
            self._undo.enter_context(patch.object(owner, name, staticmethod(timed) if isinstance(own, staticmethod) else timed))
        before = nn.modules.module.register_module_forward_pre_hook(self._enter_module)
        after = nn.modules.module.register_module_forward_hook(self._leave_module)
        self._undo.callback(before.remove)
        self._undo.callback(after.remove)
        self._now = self._clocks()
        return self

    def __exit__(self, *_: object) -> None:
        self._charge()
        self._undo.close()

    def _timed(self, title: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            outer = self._open[-1]
            own = outer if (outer, title) == (CHILDREN, CONV) else title
            if title == CONV:
                with self._stopped():
                    self._count(own, _pairs(args[3]), args[1])
            with self._titled(own):
                return function(*args, **kwargs)

        return call

    def _enter_module(self, module: nn.Module, _args: Any) -> None:
        if type(module) in MODULES:
            self._charge()
            self._open.append(MODULES[type(module)])

    def _leave_module(self, module: nn.Module, _args: Any, output: Any) -> None:
        if type(module) in MODULES:
            self._charge()
            self._open.pop()
            if isinstance(module, nn.Linear):
                self._count(LINEAR, output.numel() // output.shape[-1] if output.numel() else 0, module.weight)

    def _count(self, title: str, rows: int, weight: Tensor) -> None:
        self.flops[title] = self.flops.get(title, 0.0) + 2.0 * rows * weight.shape[-1] * weight.shape[-2]

    @contextmanager
    def _titled(self, title: str) -> Iterator[None]:
        self._charge()
        self._open.append(title)
        yield
        self._charge()
        self._open.pop()

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        self._charge()
        yield
        self._now = self._clocks()

    def _clocks(self) -> tuple[float, float]:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()

    def _charge(self) -> None:
        """Give what has passed to the kind that is open."""
        (wall, cpu), self._now = self._now, self._clocks()
        title = self._open[-1]
        self.wall[title] = self.wall.get(title, 0.0) + self._now[0] - wall
        self.cpu[title] = self.cpu.get(title, 0.0) + self._now[1] - cpu


def _holders(function: Callable[..., Any]) -> list[tuple[Any, str]]:
    """Modules that know the function, and by which name."""
    modules = [m for n, m in sys.modules.items() if n.split(".")[0] == "voxgen" or m is nn.functional]
    return [(m, name) for m in modules for name, value in list(vars(m).items()) if value is function]


def _pairs(table: NeighborTable) -> int:
    return int((table.table >= 0).sum())
