"""Stages: what is made of each asset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import torch

from voxgen.core import Frame, TriMesh
from voxgen.core.checks import require_choice, require_int
from voxgen.core.errors import RangeError, VoxgenError
from voxgen.representations import OrientedPoints, OVoxel, SparseSDF

from ._sources import AssetInput


class AssetRejected(VoxgenError, ValueError):
    """A stage does not want this asset. The manifest keeps `code`, one word to count by, and the message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, str(self))


class StageFailed(VoxgenError, RuntimeError):
    """A stage cannot work at all, whatever the asset: its weights are gone, say. It ends the run, and no asset is rejected."""


class Stage(Protocol):
    """A step of a preparation. Stages travel to other processes: they must be picklable.

    A class of your own needs these three; `prepare` calls `run` once for each asset, with the records of the stages before.
    """

    @property
    def fields(self) -> Mapping[str, str]:
        """The fields that it makes, and what each holds (`voxgen.data.KINDS`)."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Fields of earlier stages that it reads."""
        ...

    def config(self) -> dict[str, Any]:
        """All that its results depend on, in plain values: a prepared folder takes no results of another configuration."""
        ...

    def run(self, asset: AssetInput, done: Mapping[str, Any]) -> dict[str, Any]:
        """The records of its fields. `done` holds the needed fields, as the dataset will give them.

        Raises:
            AssetRejected, or another VoxgenError: this asset is left out, with the message as reason.
            StageFailed, MissingDependency, ImportError, DeviceError, BackendUnavailable, CheckpointError, an accelerator without memory,
            OSError (but for the asset's own file): no asset is left out; the run ends, and can go on when that is put right.
        """
        ...


@dataclass(frozen=True)
class OVoxelStage:
    """O-Voxel of each asset in the unit cube.

    Args:
        resolution: cells a side.   materials: with base_color, metallic, roughness and alpha.
        precision: "bytes" rounds dual vertices and materials to bytes, as .vxz files do: a third of the size; "exact" keeps float32.
        max_cells: assets with more are rejected.   field: the name of the result.
    """

    resolution: int = 64
    materials: bool = True
    precision: Literal["bytes", "exact"] = "bytes"
    max_cells: int | None = None
    field: str = "ovoxel"

    def __post_init__(self) -> None:
        require_int("OVoxelStage", "resolution", self.resolution, 1)
        require_choice("OVoxelStage", "precision", self.precision, ("bytes", "exact"))
        _require_limit("OVoxelStage", self.max_cells)

    @property
    def fields(self) -> Mapping[str, str]:
        return {self.field: "ovoxel" if self.precision == "exact" else "ovoxel/bytes"}

    @property
    def needs(self) -> tuple[str, ...]:
        return ()

    def config(self) -> dict[str, Any]:
        return {"stage": "ovoxel", **asdict(self)}

    def run(self, asset: AssetInput, done: Mapping[str, Any]) -> dict[str, Any]:
        frame = Frame.unit(self.resolution, asset.mesh.up)
        found = OVoxel.from_mesh(asset.mesh, self.resolution, materials=self.materials, frame=frame)
        require_cells(asset.name, len(found), self.max_cells, f"cells at {self.resolution}³")
        return {self.field: found}


@dataclass(frozen=True)
class SDFStage:
    """Sparse SDF of each asset, which takes `scale` of the unit cube so that cells exist on both sides of its surface.

    Args:
        resolution: cells a side.   band, sign, close: see `SparseSDF.from_mesh`.
        scale: share of the cube that the longest side takes; 0.95 as Direct3D-S2.
        dtype: of the distances: float16 (exact to 0.002 cells at a band of 4) or float32.
        max_cells: assets with more are rejected.   field: the name of the result.
    """

    resolution: int = 64
    band: float = 4.0
    sign: Literal["winding", "flood", "unsigned"] = "winding"
    close: bool = True
    scale: float = 0.95
    dtype: Literal["float16", "float32"] = "float16"
    max_cells: int | None = None
    field: str = "sdf"

    def __post_init__(self) -> None:
        require_int("SDFStage", "resolution", self.resolution, 1)
        require_choice("SDFStage", "dtype", self.dtype, ("float16", "float32"))
        require_choice("SDFStage", "sign", self.sign, ("winding", "flood", "unsigned"))
        if not 0 < self.scale <= 1:
            raise RangeError(f"SDFStage: scale must be above 0, at most 1; got {self.scale}.")
        _require_limit("SDFStage", self.max_cells)

    @property
    def fields(self) -> Mapping[str, str]:
        return {self.field: "sdf"}

    @property
    def needs(self) -> tuple[str, ...]:
        return ()

    def config(self) -> dict[str, Any]:
        return {"stage": "sdf", **asdict(self)}

    def run(self, asset: AssetInput, done: Mapping[str, Any]) -> dict[str, Any]:
        mesh = asset.mesh
        placed = TriMesh(mesh.vertices * self.scale, mesh.faces, up=mesh.up)
        found = SparseSDF.from_mesh(
            placed,
            self.resolution,
            band=self.band,
            sign=self.sign,
            close=self.close,
            frame=Frame.unit(self.resolution, mesh.up),
            dtype=getattr(torch, self.dtype),
        )
        require_cells(asset.name, len(found), self.max_cells, f"cells at {self.resolution}³")
        return {self.field: found}


@dataclass(frozen=True)
class PointsStage:
    """Points on each asset with normals, drawn by its name: the same asset has the same points in every run.

    Args:
        count: points on each.   method: see `OrientedPoints.from_mesh`.   seed: other points.   field: the name of the result.
    """

    count: int = 40_000
    method: Literal["independent", "systematic"] = "systematic"
    seed: int = 0
    field: str = "points"

    def __post_init__(self) -> None:
        require_int("PointsStage", "count", self.count, 1)
        require_int("PointsStage", "seed", self.seed, 0)
        require_choice("PointsStage", "method", self.method, ("independent", "systematic"))

    @property
    def fields(self) -> Mapping[str, str]:
        return {self.field: "points"}

    @property
    def needs(self) -> tuple[str, ...]:
        return ()

    def config(self) -> dict[str, Any]:
        return {"stage": "points", **asdict(self)}

    def run(self, asset: AssetInput, done: Mapping[str, Any]) -> dict[str, Any]:
        mesh = asset.mesh
        plain = TriMesh(mesh.vertices, mesh.faces, up=mesh.up)
        box = Frame.unit(1, mesh.up)
        return {self.field: OrientedPoints.from_mesh(plain, self.count, frame=box, method=self.method, seed=asset.seed + self.seed)}


@dataclass(frozen=True)
class ImagesStage:
    """Pictures of each asset to condition on, with cameras and light drawn by its name; stored as PNG.

    Args:
        count: pictures of each.   size: pixels a side.   seed: other views.   field: the name of the result.
    """

    count: int = 8
    size: int = 256
    seed: int = 0
    field: str = "images"

    def __post_init__(self) -> None:
        require_int("ImagesStage", "count", self.count, 1)
        require_int("ImagesStage", "size", self.size, 1)
        require_int("ImagesStage", "seed", self.seed, 0)

    @property
    def fields(self) -> Mapping[str, str]:
        return {self.field: "images"}

    @property
    def needs(self) -> tuple[str, ...]:
        return ()

    def config(self) -> dict[str, Any]:
        return {"stage": "images", **asdict(self)}

    def run(self, asset: AssetInput, done: Mapping[str, Any]) -> dict[str, Any]:
        from .conditions import condition_images

        chance = torch.Generator().manual_seed(asset.seed + self.seed)
        return {self.field: condition_images(asset.mesh, self.count, size=self.size, generator=chance)}


def require_cells(name: str, count: int, most: int | None, what: str) -> None:
    """Reject an asset that has nothing, or too much.

    Raises:
        AssetRejected: "empty" or "cells".
    """
    if count == 0:
        raise AssetRejected("empty", f"{name}: has no {what}: it is smaller than a cell.")
    if most is not None and count > most:
        raise AssetRejected("cells", f"{name}: has {count:,} {what}; at most {most:,} are wanted.")


def _require_limit(where: str, most: int | None) -> None:
    if most is not None:
        require_int(where, "max_cells", most, 1)
