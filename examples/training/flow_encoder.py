"""The image encoder of a flow: a small one that learns with it, or a pretrained one."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path
from typing import Any, cast

from voxgen.models import build, load_pretrained
from voxgen.models.image_condition import DINOv2Encoder, DINOv3Encoder, ImageConditioner, SmallImageEncoder

TINY = {"model_channels": 16, "channels": 16, "num_blocks": 1, "num_heads": 2}


def image_encoder(arguments: argparse.Namespace) -> ImageConditioner:
    """With fresh weights that learn, or as --image-encoder has it, which is kept as it is."""
    if arguments.image_encoder is not None:
        return _pretrained(arguments.image_encoder)
    small: dict[str, Any] = TINY if arguments.smallest else {}
    return cast(ImageConditioner, build("voxgen/image-encoder-small", image_size=arguments.image_size, **small))


@functools.cache
def _pretrained(path: Path) -> ImageConditioner:
    if path.is_file():
        found = load_pretrained(path)
        if not isinstance(found, SmallImageEncoder):
            raise SystemExit(f"--image-encoder: {path} holds a {type(found).__name__}, not an image encoder.")
        return found.eval().requires_grad_(False)
    if not (path / "config.json").exists():
        raise SystemExit(f"--image-encoder: {path} is neither a file of save_pretrained nor a folder of a transformers checkpoint.")
    kind = json.loads((path / "config.json").read_text()).get("model_type", "")
    return DINOv3Encoder(path) if "dinov3" in kind else DINOv2Encoder(path)
