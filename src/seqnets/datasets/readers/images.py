"""Images as sequences, with one row or column of pixels per step."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seqnets.errors import DataError
from seqnets.optional import optional

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")

_MODES = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "CMYK": "RGB"}


def read_image(path: Path) -> tuple[np.ndarray, str]:
    """An image's rows, (height, width x channels) float32 in 0..1, and its channels.

    Palettes, CMYK and other modes become RGB; of several images in a file, the first is used.

    Raises:
        DataError: The file is damaged, or its channels do not have 8 bits.
        ConfigError: Pillow, which reads it, is not installed.
    """
    with optional(f"{path}: images are read by Pillow", "images"):
        from PIL import Image
    try:
        with Image.open(path) as image:
            if image.mode not in _MODES:
                raise DataError(
                    f"{path}: its mode is {image.mode}, expected one of {', '.join(_MODES)}.\n"
                    "  Convert it to 8 bits a channel, grey or RGB."
                )
            mode = _MODES[image.mode]
            pixels = np.asarray(image.convert(mode), np.float32)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image: {error}.") from None
    return pixels.reshape(len(pixels), -1) / 255, mode


def columns_of(rows: np.ndarray, channels: int) -> np.ndarray:
    """An image's columns, (width, height x channels), from its rows."""
    pixels = rows.reshape(len(rows), -1, channels)
    return np.ascontiguousarray(pixels.swapaxes(0, 1)).reshape(pixels.shape[1], -1)
