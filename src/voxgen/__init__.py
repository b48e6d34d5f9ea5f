"""voxgen: composable building blocks for 3D generation with sparse voxels."""

from __future__ import annotations

import importlib
from types import ModuleType

from ._version import __version__ as __version__
from .ops._registry import use_backend as use_backend

__all__ = [
    "__version__",
    "attention",
    "core",
    "data",
    "flow",
    "interop",
    "io",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "render",
    "representations",
    "testing",
    "use_backend",
    "view",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"voxgen.{name}")
    raise AttributeError(f"module 'voxgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
