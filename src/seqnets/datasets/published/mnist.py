"""MNIST."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from seqnets.datasets.parts import Part
from seqnets.datasets.readers.idx import read_idx
from seqnets.datasets.sequences.dealing import deal
from seqnets.datasets.sequences.pixels import Pictures, PixelSequences
from seqnets.errors import DataError, counted

_FOLDERS = ("mnist", "MNIST/raw", "")


class MNIST(PixelSequences):
    """Handwritten digits of 28 by 28 pixels as sequences of 784 steps; classification.

    Reads the four published files, ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
    ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each with or without ``.gz``; data
    sets in the same format work too. They are not downloaded. Validation images are taken from the
    training files.

    Args:
        root: Folder with the files, or with a folder ``mnist`` or ``MNIST/raw`` that contains them.
        **data: The arguments of :class:`PixelSequences`.

    References:
        LeCun et al., 1998, "Gradient-Based Learning Applied to Document Recognition".
    """

    def __init__(self, root: str, **data: Any) -> None:
        super().__init__(**data)
        self.root = root

    def read_pictures(self) -> dict[Part, Pictures]:
        """The images of all parts.

        Raises:
            DataError: A file is missing, is not an IDX file, or does not fit the others.
        """
        train, test = self._read("train"), self._read("t10k")
        if train.pixels.shape[1:] != test.pixels.shape[1:]:
            raise DataError(
                f"MNIST: got pictures of {_size(test)} pixels in the t10k files, expected "
                f"{_size(train)} as in those for training."
            )
        dealt = deal("MNIST", train.y, {"val": self.validation_fraction}, self.seed)
        return {**{part: train.select(rows) for part, rows in dealt.items()}, "test": test}

    def _read(self, part: str) -> Pictures:
        images, labels = (
            self._file(f"{part}-images-idx3-ubyte"),
            self._file(f"{part}-labels-idx1-ubyte"),
        )
        pixels, y = read_idx(images, 3), read_idx(labels, 1)
        if not pixels.size or len(pixels) != len(y):
            raise DataError(
                f"{labels}: got {counted(len(y), 'label')}, expected one for each of the "
                f"{len(pixels):,} pictures of {images.name}, and at least one of each."
            )
        if (y > 9).any():
            place = int(np.argmax(y > 9))
            raise DataError(f"{labels}: label {place + 1:,} is {y[place]}, expected 0 to 9.")
        return Pictures(pixels, y)

    def _file(self, name: str) -> Path:
        root = Path(self.root).expanduser()
        folders = [root / folder for folder in _FOLDERS]
        for folder in folders:
            for file in (folder / name, folder / f"{name}.gz"):
                if file.is_file():
                    return file
        raise DataError(
            f"MNIST: no {name} or {name}.gz in {', '.join(map(str, folders))}.\n"
            "  The files are not fetched: set dataset.root to a folder that has them."
        )


def _size(pictures: Pictures) -> str:
    return " by ".join(map(str, pictures.pixels.shape[1:]))
