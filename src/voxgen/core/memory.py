"""How much memory is free, so that a request that cannot be served fails at once and not half way."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from .errors import CapacityError


def free_memory(device: torch.device | str = "cpu") -> int | None:
    """Bytes that can still be taken on a device; None where the system does not tell."""
    if torch.device(device).type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if torch.device(device).type != "cpu":
        return None
    found = [n for n in (_meminfo(), _cgroup()) if n is not None]
    return min(found, default=_physical_pages())


def require_memory(where: str, needed: int, device: torch.device | str, remedy: str) -> None:
    """Raise CapacityError if `needed` bytes exceed what is free on the device.

    Args:
        where: name of the public function, first word of the message.
        needed: estimate of the peak extra memory in bytes.
        remedy: what the user can do, last words of the message.
    """
    free = free_memory(device)
    if free is not None and needed > free:
        raise CapacityError(
            f"{where}: needs about {needed / 2**30:.3g} GiB on {torch.device(device)}, and {free / 2**30:.3g} GiB are free. {remedy}"
        )


def _meminfo() -> int | None:
    path = Path("/proc/meminfo")
    if not path.is_file():
        return None
    for line in path.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup() -> int | None:
    """What a container (control group, version 2) may still take."""
    folder = Path("/sys/fs/cgroup")
    limit, used = folder / "memory.max", folder / "memory.current"
    if not (limit.is_file() and used.is_file()):
        return None
    text = limit.read_text().strip()
    if text == "max":
        return None
    cached = 0  # file pages that the system gives back when asked for memory
    for line in (folder / "memory.stat").read_text().splitlines():
        if line.startswith("inactive_file "):
            cached = int(line.split()[1])
    return max(0, int(text) - int(used.read_text()) + cached)


def _physical_pages() -> int | None:
    if "SC_AVPHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
