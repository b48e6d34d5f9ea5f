"""The image encoder of a flow: a small one that learns with it, or a pretrained one."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from voxgen.models import build, load_pretrained
from voxgen.models.image_condition import DINOv2Encoder, DINOv3Encoder, ImageConditioner, SmallImageEncoder

TINY = {"model_channels": 16, "channels": 16, "num_blocks": 1, "num_heads": 2}


def image_encoder(arguments: argparse.Namespace) -> ImageConditioner:
    """With fresh weights that learn, or as --image-encoder has it, which is kept as it is."""
    if arguments.image_encoder is not None:
        return pretrained_encoder(arguments.image_encoder)
    small: dict[str, Any] = TINY if arguments.smallest else {}
    return cast(ImageConditioner, build("voxgen/image-encoder-small", image_size=arguments.image_size, **small))


@functools.cache
def pretrained_encoder(path: Path) -> ImageConditioner:
    if path.is_file():
        found = load_pretrained(path)
        if not isinstance(found, SmallImageEncoder):
            raise SystemExit(f"--image-encoder: {path} holds a {type(found).__name__}, not an image encoder.")
        return found.eval().requires_grad_(False)
    if not (path / "config.json").exists():
        raise SystemExit(f"--image-encoder: {path} is neither a file of save_pretrained nor a folder of a transformers checkpoint.")
    kind = json.loads((path / "config.json").read_text()).get("model_type", "")
    return DINOv3Encoder(path) if "dinov3" in kind else DINOv2Encoder(path)


def encoder_option(parser: argparse.ArgumentParser) -> None:
    """Of scripts that put flows together."""
    about = "the one that was given to the training of the flows, if one was: a file, or a folder of a DINOv2 or DINOv3 checkpoint"
    parser.add_argument("--image-encoder", type=Path, help=about)


def encoders_of(found: Mapping[str, ImageConditioner | None], given: Path | None) -> ImageConditioner | dict[str, ImageConditioner]:
    """The image encoders of a pipeline.

    Args:
        found: stage → the encoder that learnt with its flow; None where that was trained with --image-encoder.
        given: that encoder.
    """
    without = [stage for stage, encoder in found.items() if encoder is None]
    if not without:
        return cast(dict[str, ImageConditioner], dict(found))
    if given is None:
        raise SystemExit(
            f"the flow of {without[0]} was trained with an image encoder that was there before; "
            "give it here too, as it was given to the training: --image-encoder FILE"
        )
    encoder = pretrained_encoder(given)
    return encoder if len(without) == len(found) else {stage: own or encoder for stage, own in found.items()}
