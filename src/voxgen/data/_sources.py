"""Where assets come from: files, or a recipe that makes them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from voxgen.core import TriMesh
from voxgen.core.checks import describe, require_choice, require_int
from voxgen.core.errors import DtypeError, RangeError
from voxgen.core.frame import UpAxis
from voxgen.representations import fit_unit_cube

from .procedural import ProceduralDataset, Split

MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off")


@runtime_checkable
class AssetSource(Protocol):
    """What `prepare` takes an asset from. It travels to other processes, so it must be picklable, and small."""

    @property
    def name(self) -> str:
        """Under which the asset is known in the prepared folder; no two may have one name."""
        ...

    def load(self) -> TriMesh:
        """The mesh as it is; `prepare` turns and fits it."""
        ...


@dataclass(frozen=True)
class FileSource:
    """A mesh file. `up` says which axis points up where the format does not."""

    path: str
    name: str
    up: UpAxis | None = None

    def load(self) -> TriMesh:
        from voxgen.io import load_mesh

        return load_mesh(self.path, up=self.up)


@dataclass(frozen=True)
class ProceduralSource:
    """Asset `index` of `voxgen.data.procedural_asset`."""

    index: int
    seed: int = 0

    @property
    def name(self) -> str:
        return f"procedural-{self.seed}-{self.index:07d}"

    def load(self) -> TriMesh:
        from voxgen.data import procedural_asset

        return procedural_asset(self.index, seed=self.seed).mesh


Sources: TypeAlias = str | os.PathLike[str] | Sequence["str | os.PathLike[str] | AssetSource"]
"""A folder, a mesh file, or a list of folders, mesh files and sources."""


def procedural_sources(count: int, *, seed: int = 0, start: int = 0, split: Split = "train") -> list[ProceduralSource]:
    """`count` assets of a split of the procedural set, to give to `prepare`; the first is the split's asset `start`.

    Raises:
        RangeError, DtypeError: numbers that are no counts, or no such split.
    """
    where = "procedural_sources"
    require_int(where, "count", count, 0)
    require_int(where, "start", start, 0)
    drawn = ProceduralDataset(start + count, seed=seed, split=split)
    return [ProceduralSource(drawn.index_at(i), seed) for i in range(start, start + count)]


def find_sources(sources: Sources, *, up: UpAxis | None = None) -> list[AssetSource]:
    """The assets that are meant, each under a name of its own.

    Args:
        sources: a folder (all mesh files in it and below it, sorted; an asset's name is its path in the folder), a mesh file (its
            name), a .txt file that lists folders and mesh files, one a line (relative ones from where the list lies; lines with # are
            comments), or a sequence of these and of other sources.
        up: which axis points up in files that do not say; None is y.
    Raises:
        RangeError: nothing there, two assets of one name, or a line of a list that is no path of a folder or mesh.
        FileNotFoundError: no such file or folder.   PermissionError, OSError: a folder, or one below it, cannot be read.
        DtypeError: something that is no source.
    """
    where = "prepare"
    if up is not None:
        require_choice(where, "up", up, ("y", "z"))
    single = isinstance(sources, str | os.PathLike)
    if not single and not isinstance(sources, Iterable):
        raise DtypeError(f"{where}: sources must be a folder, a mesh file, or a sequence of them and of sources; got {describe(sources)}.")
    found: list[AssetSource] = []
    for item in [sources] if single else sources:  # pyright: ignore[reportGeneralTypeIssues]
        if isinstance(item, str | os.PathLike):
            found += _from_path(where, Path(item), up)
        elif isinstance(item, AssetSource):
            found.append(item)
        else:
            raise DtypeError(f"{where}: a source must be a path, or have a name and load(); got {describe(item)}.")
    if not found:
        raise RangeError(f"{where}: there is nothing to prepare: no files with the suffixes {', '.join(MESH_SUFFIXES)} in {sources}.")
    _require_different_names(where, found)
    return found


def _from_path(where: str, path: Path, up: UpAxis | None) -> list[AssetSource]:
    if path.is_dir():
        names = sorted(p.relative_to(path).as_posix() for p in _meshes_below(where, path))
        return [FileSource(str(path / name), name, up) for name in names]
    if not path.exists():
        raise FileNotFoundError(f"{where}: {path} does not exist.")
    if path.suffix.lower() == ".txt":
        return _from_list(where, path, up)
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise RangeError(f"{where}: {path}: a source must be a folder, a .txt list, or a mesh ({', '.join(MESH_SUFFIXES)}).")
    return [FileSource(str(path), path.name, up)]


def _meshes_below(where: str, folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        reason = f"{where}: the folder {error.filename} cannot be read ({error.strerror}); meshes in it would be left out without a word."
        raise OSError(error.errno, f"{reason} Give it rights to be read, or leave it out of the sources.") from error

    for parent, _, files in os.walk(folder, onerror=refuse):
        for path in map(Path(parent).joinpath, files):
            if path.suffix.lower() in MESH_SUFFIXES and path.is_file():
                yield path


def _from_list(where: str, path: Path, up: UpAxis | None) -> list[AssetSource]:
    data = path.read_bytes()
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RangeError(f"{where}: {path}, line {line}: a list of folders and meshes must be UTF-8 text; {error}.") from None
    found: list[AssetSource] = []
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        target = path.parent / entry
        if target.suffix.lower() in MESH_SUFFIXES:  # a missing file of a list is an asset that is rejected, not the end of the run
            found.append(FileSource(str(target), Path(entry).as_posix(), up))
        else:
            _require_folder_of_list(f"{where}: {path}, line {number}", entry, target)
            found += _from_path(where, target, up)
    return found


def _require_folder_of_list(where: str, entry: str, target: Path) -> None:
    hint = f"A list has the path of a folder or mesh ({', '.join(MESH_SUFFIXES)}) on each line."
    try:
        folder, there = target.is_dir(), target.exists()
    except OSError as error:  # longer than a path may be, or below a folder without rights
        raise OSError(error.errno, f"{where}: {entry!r:.80}: {error.strerror}. {hint}") from error
    if not there:
        raise FileNotFoundError(f"{where}: {entry!r:.80} does not exist. {hint}")
    if not folder:
        raise RangeError(f"{where}: {entry!r:.80} is neither. {hint}")


def _require_different_names(where: str, sources: Sequence[AssetSource]) -> None:
    seen: dict[str, AssetSource] = {}
    for source in sources:
        if not isinstance(source.name, str) or not source.name or "\n" in source.name:
            raise RangeError(f"{where}: an asset's name must be one line of text; got {source.name!r:.80}.")
        if source.name in seen:
            raise RangeError(
                f"{where}: two assets have the name {source.name!r}: {seen[source.name]} and {source}. Give the folder that holds both "
                f"instead of the two folders, so that their paths in it tell them apart."
            )
        seen[source.name] = source


class AssetInput:
    """An asset on its way through the stages; the mesh is loaded when a stage first asks for it.

    Attributes:
        name: of the asset.   source: where it comes from.   unreadable: whether the system could not read its mesh.
    """

    def __init__(self, source: AssetSource) -> None:
        self.source = source
        self.name = source.name
        self.unreadable = False

    @cached_property
    def mesh(self) -> TriMesh:
        """+Y up, in the unit cube [-0.5, 0.5]³ (`fit_unit_cube`), on the CPU.

        Raises:
            MeshError: no faces, no extent, an index out of range, vertices not finite.   FileFormatError, OSError: cannot be read.
        """
        try:
            mesh = self.source.load()
        except OSError:
            self.unreadable = True
            raise
        if not isinstance(mesh, TriMesh):
            raise DtypeError(f"prepare: {self.name}: a source must load a TriMesh; got {describe(mesh)}.")
        return fit_unit_cube(mesh.validate(f"prepare: {self.name}").to("cpu").with_up("y"))

    @property
    def seed(self) -> int:
        """A whole number below 2³¹ that follows from the name alone, for stages that need chance."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big") >> 1
