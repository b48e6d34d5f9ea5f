"""Weights, averages and optimiser states cut over processes (FSDP2), and whole again for checkpoints and results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from voxgen.attention import DiTBlock
from voxgen.core import SparseTensor, VoxelGrid


def shard(module: nn.Module, device: torch.device, units: tuple[type[nn.Module], ...] = (DiTBlock,)) -> None:
    """Cut the weights of a module over all processes, in place: each unit is gathered when it runs, and the rest together.

    Args:
        module: on any device, equal in all processes.   device: of this process.
        units: classes of the parts that are gathered one at a time: the blocks of a transformer.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    module.to(device)
    for part in module.modules():
        if isinstance(part, units):
            fully_shard(part, mesh=mesh)
            _show_sparse_tensors(part)
    fully_shard(module, mesh=mesh)


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` has cut this module."""
    return any(_cut(p) for p in module.parameters())


def whole(value: Any) -> Any:
    """A tensor, or everything in a tree of mappings and lists, with what is cut put together on the CPU. All processes call it."""
    if isinstance(value, Tensor):
        return value.full_tensor().cpu() if _cut(value) else value  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, Mapping):
        return {key: whole(part) for key, part in value.items()}
    return [whole(part) for part in value] if isinstance(value, list) else value


def like(value: Tensor, own: Tensor) -> Tensor:
    """A whole tensor as the part of it that `own`, if it is cut, keeps in this process. All processes call it."""
    if not _cut(own):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)  # pyright: ignore[reportAttributeAccessIssue]


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of an optimiser, cut as its weights are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    own = {
        index: {name: like(value, parameters[index]) if _of_the_shape(value, parameters[index]) else value for name, value in kept.items()}
        for index, kept in state["state"].items()
    }
    optimizer.load_state_dict({"state": own, "param_groups": state["param_groups"]})


def _of_the_shape(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == parameter.shape


def _cut(tensor: Tensor) -> bool:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


class _Seen(NamedTuple):
    """A sparse tensor in a form that FSDP looks into."""

    feats: Tensor
    grid: VoxelGrid


def _show_sparse_tensors(part: nn.Module) -> None:
    """Let FSDP find the tensors among the arguments and results of a unit: they tell when its weights are wanted in the backward pass.

    It looks into tuples and not into sparse tensors, so those are tuples while its own hooks run, and nowhere else.
    """
    part.register_forward_pre_hook(lambda _, args: _packed(args), prepend=True)
    part.register_forward_pre_hook(lambda _, args: _unpacked(args))
    part.register_forward_hook(lambda _, args, result: _packed(result), prepend=True)
    part.register_forward_hook(lambda _, args, result: _unpacked(result))


def _packed(value: Any) -> Any:
    if isinstance(value, SparseTensor):
        return _Seen(value.feats, value.grid)
    return tuple(_packed(part) for part in value) if type(value) is tuple else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, _Seen):
        return SparseTensor(value.grid, value.feats)
    return tuple(_unpacked(part) for part in value) if type(value) is tuple else value
