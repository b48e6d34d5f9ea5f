"""Vertex attributes in files: what each is stored as, and the colours that other programs show.

A file keeps every attribute exactly (in float32), under keys that its format allows, with a record of name, dtype and
width. Beside them it carries one display colour, made from "base_color", "color" and "alpha", for programs that know
nothing of the others; on load it counts only where those are missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from voxgen.core import TriMesh
from voxgen.core.material import linear_to_srgb, srgb_to_linear

from ._source import Source

DTYPES = {
    str(t).removeprefix("torch."): t
    for t in (
        torch.float32, torch.float64, torch.float16,
        torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """Where a file keeps one attribute.

    Args:
        keys: names in the file; each holds the same number of columns, but the last, which holds the rest.
    """

    name: str
    dtype: str
    width: int
    keys: tuple[str, ...]


def plan(attributes: Mapping[str, Tensor], columns: int, taken: Collection[str], spell: Callable[[str], str]) -> list[Record]:
    """Choose keys for attributes, `columns` to a key, none of them in `taken`; `spell` makes a name one that the format allows."""
    used = set(taken)
    records = []
    for name, values in attributes.items():
        width = values.shape[1]
        count = -(-width // columns)
        stem, extra = spell(name), 1
        keys = (stem,) if count == 1 else tuple(f"{stem}_{i}" for i in range(count))
        while used & set(keys) or stem in used:
            extra += 1
            keys = tuple(f"{spell(name)}_{extra}_{i}" for i in range(count))
            stem = f"{spell(name)}_{extra}"
        used |= {*keys, stem}
        dtype = str(values.dtype).removeprefix("torch.")
        records.append(Record(name, dtype if dtype in DTYPES else "float32", width, keys))
    return records


def to_json(records: list[Record]) -> list[dict[str, object]]:
    return [{"name": r.name, "dtype": r.dtype, "width": r.width, "keys": list(r.keys)} for r in records]


def from_json(value: object) -> list[Record]:
    """Records of a file that voxgen wrote; what does not look like one is passed over (other programs may have edited it)."""
    records = []
    for entry in value if isinstance(value, list) else []:
        match entry:
            case {"name": str(name), "dtype": str(dtype), "width": int(width), "keys": [*keys]}:
                texts = [k for k in keys if isinstance(k, str)]
                if dtype in DTYPES and len(set(texts)) == len(keys) > 0 and width > 0:
                    records.append(Record(name, dtype, width, tuple(texts)))
            case _:
                continue
    return records


def gather(source: Source, records: list[Record], stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take the attributes of the records out of `stored` (key → (v, c)), and join their columns. The rest stays in `stored`."""
    found: dict[str, np.ndarray] = {}
    for record in records:
        if not set(record.keys) <= stored.keys():
            continue
        values = np.concatenate([stored.pop(key) for key in record.keys], axis=1)
        if values.shape[1] != record.width:
            source.warn(f"attribute {record.name!r} has {values.shape[1]} columns, and not {record.width} as its record says")
        found[record.name] = torch.from_numpy(np.ascontiguousarray(values)).to(DTYPES[record.dtype]).numpy()
    return found


def spell_property(name: str) -> str:
    """A name in plain characters and without spaces."""
    return re.sub(r"[^!-~]", "_", name) or "attribute"


def unit_rows(values: Tensor) -> Tensor:
    """Rows as float32 on the CPU; bytes 0..255 become 0..1."""
    rows = values.detach().cpu()
    return rows.float() / 255 if rows.dtype == torch.uint8 else rows.float()


def display_color(mesh: TriMesh) -> Tensor | None:
    """(v, 3 or 4) float32 linear: base_color × color, alpha last; None if the mesh has none of them."""
    base, color, alpha = (mesh.attributes.get(name) for name in ("base_color", "color", "alpha"))
    base = unit_rows(base) if base is not None and base.shape[1] == 3 else None
    color = unit_rows(color) if color is not None and color.shape[1] in (3, 4) else None
    alpha = unit_rows(alpha) if alpha is not None and alpha.shape[1] == 1 else None
    if base is None and color is None and alpha is None:
        return None
    rgb = torch.ones(mesh.num_vertices, 3)
    if base is not None:
        rgb = rgb * srgb_to_linear(base)
    if color is not None:
        rgb = rgb * color[:, :3]
    opacity = [a for a in (alpha, color[:, 3:] if color is not None and color.shape[1] == 4 else None) if a is not None]
    return torch.cat([rgb, torch.stack(opacity).prod(0)], 1) if opacity else rgb


def color_bytes(linear: Tensor) -> np.ndarray:
    """(v, 3 or 4) linear colour → uint8, the first three sRGB-encoded, alpha as it is."""
    encoded = torch.cat([linear_to_srgb(linear[:, :3].clamp(0, 1)), linear[:, 3:].clamp(0, 1)], 1)
    return (encoded.nan_to_num() * 255).round().to(torch.uint8).numpy()


def linear_color(encoded: np.ndarray) -> np.ndarray:
    """(v, 3 or 4) sRGB-encoded in 0..1 → linear float32; alpha as it is."""
    values = torch.from_numpy(encoded.astype(np.float32))
    return torch.cat([srgb_to_linear(values[:, :3]), values[:, 3:]], 1).numpy()


def is_display_copy(attributes: Collection[str]) -> bool:
    """True if a file's colour was made by `display_color` from these attributes, so that it must not count a second time."""
    return bool({"base_color", "alpha", "color"} & set(attributes))
