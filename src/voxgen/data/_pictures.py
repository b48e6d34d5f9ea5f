"""Pictures as PNG bytes in one tensor."""

from __future__ import annotations

import io

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from voxgen.core.checks import require_tensor
from voxgen.core.errors import FileFormatError


def encode_pictures(images: UInt8[Tensor, "v h w 4"]) -> tuple[UInt8[Tensor, " n"], Int64[Tensor, " v"]]:
    """RGBA pictures → their PNG files behind each other, and the length of each. Lossless."""
    from PIL import Image

    require_tensor("encode_pictures", "images", images, ("v", "h", "w", 4), (torch.uint8,))
    files = []
    for picture in images.cpu().numpy():
        with io.BytesIO() as file:
            Image.fromarray(picture).save(file, "PNG", compress_level=6)
            files.append(file.getvalue())
    stream = torch.from_numpy(np.frombuffer(b"".join(files), np.uint8).copy())
    return stream, torch.tensor([len(f) for f in files], dtype=torch.int64)


def decode_pictures(
    where: str, stream: UInt8[Tensor, " n"], lengths: Int64[Tensor, " v"], size: tuple[int, int]
) -> UInt8[Tensor, "v h w 4"]:
    """Inverse of `encode_pictures`; `size` is height and width.

    Raises:
        FileFormatError: lengths that do not fit, damaged files, pictures of another size.
    """
    from PIL import Image, UnidentifiedImageError

    if int(lengths.sum()) != len(stream) or (len(lengths) and int(lengths.min()) < 0):
        raise FileFormatError(f"{where}: the pictures' lengths add up to {int(lengths.sum())} bytes; there are {len(stream)}.")
    pictures = []
    for i, part in enumerate(torch.split(stream, lengths.tolist())):
        try:
            with Image.open(io.BytesIO(part.numpy().tobytes()), formats=["PNG"]) as file:
                pictures.append(torch.from_numpy(np.array(file.convert("RGBA"))))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise FileFormatError(f"{where}: picture {i} is no whole PNG file ({error}).") from None
    wanted = (*size, 4)
    for i, picture in enumerate(pictures):
        if picture.shape != wanted:
            raise FileFormatError(f"{where}: pictures must be {wanted}; picture {i} is {tuple(picture.shape)}.")
    return torch.stack(pictures) if pictures else torch.zeros(0, *wanted, dtype=torch.uint8)
