"""MTL material libraries ↔ core.Material.

Kd and Ke are taken as linear factors, d and Tr as alpha, and of the PBR extension Pr, Pm, their maps, map_Ke and norm.
Without Pm a material is not metallic, without Pr it is half rough: the Phong terms (Ka, Ks, Ns) have no agreed meaning
in the metallic-roughness model and are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import PurePosixPath

from torch import Tensor

from voxgen.core import Material, Texture
from voxgen.core.material import Wrap

from ._images import decode_images
from ._source import Begin, Source
from ._text import decode_text

_OPTIONS = {"-blendu": 1, "-blendv": 1, "-cc": 1, "-clamp": 1, "-mm": 2, "-texres": 1, "-bm": 1, "-imfchan": 1, "-type": 1}
_VECTORS = ("-o", "-s", "-t")
_NUMBERS = {"kd": 3, "ke": 3, "d": 1, "tr": 1, "pr": 1, "pm": 1}
_MAPS = ("map_kd", "map_d", "map_pr", "map_pm", "map_ke", "norm", "map_kn")
_PLACES = {"r": 0, "g": 1, "b": 2, "m": 3, "l": 0, "z": 0}


@dataclasses.dataclass
class _Map:
    """A map statement: file and the options that are read."""

    file: str
    clamp: bool = False
    channel: int | None = None


def read_mtl(source: Source, data: bytes, name: str, begin: Begin) -> dict[str, Material]:
    """The materials of a library by name. Missing texture files are noted, damaged ones raise FileFormatError."""
    entries: dict[str, dict[str, object]] = {}
    current: dict[str, object] | None = None
    for number, line in enumerate(decode_text(data).splitlines(), 1):
        key, _, rest = line.strip().partition(" ")
        if "\t" in key:
            key, _, tail = key.partition("\t")
            rest = f"{tail} {rest}"
        key, rest = key.lower(), rest.strip()
        if key == "newmtl":
            current = entries.setdefault(rest, {})
        elif current is None:
            continue
        elif key in _NUMBERS:
            current[key] = _numbers(source, rest, _NUMBERS[key], f"{name}, line {number}")
        elif key in _MAPS:
            current["norm" if key == "map_kn" else key] = _map(source, rest, f"{name}, line {number}")
        elif key in ("bump", "map_bump", "disp"):
            source.warn("bump and displacement maps are not read; normal maps (norm) are")
    pixels = _decode(source, entries, begin)
    return {label: _material(source, label, entry, pixels) for label, entry in entries.items()}


def _numbers(source: Source, text: str, count: int, where: str) -> tuple[float, ...]:
    words = text.split("#")[0].split()
    if words and words[0] in ("-halo", "spectral", "xyz"):
        source.warn(f"{where}: {words[0]!r} is not read")
        words = words[1:] if words[0] == "-halo" else []
    try:
        values = [float(word) for word in words[:count]]
    except ValueError:
        raise source.error(f"{where}: {text[:60]!r} must be {count} numbers") from None
    if len(values) == 1 and count == 3:
        values *= 3  # one number stands for grey
    if len(values) != count or not all(abs(v) < 1e30 for v in values):
        raise source.error(f"{where}: {text[:60]!r} must be {count} finite numbers")
    return tuple(values)


def _map(source: Source, text: str, where: str) -> _Map:
    words = text.split()
    found = _Map("")
    position = 0
    while position < len(words) and words[position].lower() in (*_OPTIONS, *_VECTORS):
        option = words[position].lower()
        arguments = words[position + 1 : position + 1 + _OPTIONS.get(option, 0)]
        if option in _VECTORS:
            arguments = []
            while len(arguments) < 3 and position + 1 + len(arguments) < len(words) and _is_number(words[position + 1 + len(arguments)]):
                arguments.append(words[position + 1 + len(arguments)])
            neutral = 1.0 if option == "-s" else 0.0
            if any(float(a) != neutral for a in arguments):
                source.warn(f"{where}: option {option} is not read")
        elif option == "-clamp":
            found.clamp = arguments == ["on"]
        elif option == "-imfchan" and arguments:
            found.channel = _PLACES.get(arguments[0].lower())
        position += 1 + len(arguments)
    found.file = " ".join(words[position:]).replace("\\", "/")  # names may have spaces
    return found


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _decode(source: Source, entries: dict[str, dict[str, object]], begin: Begin) -> dict[str, Tensor]:
    files = dict.fromkeys(m.file for entry in entries.values() for m in entry.values() if isinstance(m, _Map))
    contents: list[tuple[str, bytes]] = []
    for file in files:
        content = source.read_beside(file)
        if content is None:
            source.warn(f"texture file {file[:200]!r} is missing; its materials have their factors only")
        else:
            contents.append((file, content))
    return dict(zip((file for file, _ in contents), decode_images(source, contents, begin(len(contents))), strict=True))


def _material(source: Source, name: str, entry: dict[str, object], pixels: dict[str, Tensor]) -> Material:
    plain = Material.plain()

    def numbers(key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        value = entry.get(key, default)
        return value if isinstance(value, tuple) else default

    def color(key: str, srgb: bool) -> Texture | None:
        return texture(key, lambda count, _: (0, 1, 2) if count > 2 else (0, 0, 0), srgb)

    def value(key: str) -> Texture | None:
        return texture(key, lambda count, m: ((m.channel or 0) if (m.channel or 0) < count else 0,))

    def texture(key: str, channels: Callable[[int, _Map], tuple[int, ...]], srgb: bool = False) -> Texture | None:
        found = entry.get(key)
        if not isinstance(found, _Map) or found.file not in pixels:
            return None
        image = pixels[found.file]
        wrap: Wrap = "clamp" if found.clamp else "repeat"
        label = PurePosixPath(found.file.replace("\\", "/")).name
        return Texture(image, channels(image.shape[2], found), (wrap, wrap), srgb=srgb, name=label)

    base = color("map_kd", True)
    factor = numbers("kd", (1.0, 1.0, 1.0) if base is not None else plain.base_color_factor)
    if base is not None and not any(factor):
        source.warn(f"material {name!r} multiplies its texture by black (Kd 0 0 0); 1 is taken instead")
        factor = (1.0, 1.0, 1.0)
    opacity = numbers("d", (1.0 - numbers("tr", (0.0,))[0],))[0]
    # of an image with an alpha channel that is meant, else its brightness
    alpha = texture(
        "map_d", lambda count, m: (m.channel if m.channel is not None and m.channel < count else count - 1 if count in (2, 4) else 0,)
    )
    emissive = color("map_ke", True)
    glow = numbers("ke", (1.0, 1.0, 1.0) if emissive is not None else (0.0, 0.0, 0.0))
    metallic, roughness = value("map_pm"), value("map_pr")
    return Material(
        name=name,
        base_color_factor=(factor[0], factor[1], factor[2]),
        base_color=base,
        alpha_factor=opacity,
        alpha=alpha,
        metallic_factor=numbers("pm", (1.0 if metallic is not None else plain.metallic_factor,))[0],
        metallic=metallic,
        roughness_factor=numbers("pr", (1.0 if roughness is not None else plain.roughness_factor,))[0],
        roughness=roughness,
        emissive_factor=(glow[0], glow[1], glow[2]),
        emissive=emissive,
        normal=color("norm", False),
        alpha_mode="BLEND" if alpha is not None or opacity < 1 else "OPAQUE",
        double_sided=True,
    )
