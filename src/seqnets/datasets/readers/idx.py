"""The IDX format of MNIST and similar data sets: one array of bytes per file."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from seqnets.errors import DataError, counted

_BYTES = 8
"""Type code of unsigned bytes, the type of images and labels."""


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an array of unsigned bytes; a file whose name ends with ``.gz`` is decompressed.

    The format is two zero bytes, the type's code, the number of dimensions, the size of each
    dimension as a big-endian 32-bit integer, and the values in row-major order.

    Raises:
        DataError: The file cannot be read, has another header, or does not have the length that
            its sizes require.
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}.") from None
    magic, start = bytes((0, 0, _BYTES, dimensions)), 4 + 4 * dimensions
    if data[:4] != magic or len(data) < start:
        raise DataError(
            f"{path}: got {len(data):,} bytes that begin with {data[:4].hex(' ') or 'nothing'}, "
            f"expected {start} or more that begin with {magic.hex(' ')}.\n"
            f"  An IDX file of bytes in {counted(dimensions, 'dimension')} begins like that."
        )
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) != start + math.prod(shape):
        raise DataError(
            f"{path}: got {len(data):,} bytes, expected {start + math.prod(shape):,}: "
            f"{' × '.join(map(str, shape))} values and {start} bytes before them.\n"
            "  The file was cut off or changed: get it again."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
