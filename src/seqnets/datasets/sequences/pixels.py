"""Datasets of images as sequences of pixels."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from seqnets.datasets.examples import show_picture
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.sequences.classification import LabelledData
from seqnets.datasets.sequences.sequences import Sequences, Splits


class Pictures(NamedTuple):
    """Images of one size with a label each.

    Attributes:
        pixels: Brightness in any units, (N, height, width).
        y: Class number of each image, (N,).
    """

    pixels: np.ndarray
    y: np.ndarray

    def select(self, rows: np.ndarray) -> Pictures:
        """The images with these indices, in this order."""
        return Pictures(self.pixels[rows], self.y[rows])


class PixelSequences(LabelledData):
    """Images as sequences of their pixels, row by row from the upper left; classification.

    A step is one pixel, in 0..1, so neighbours within a column are one row's length apart.

    Attributes:
        brightest: The brightness that becomes 1.

    Args:
        permuted: Whether to permute the pixels, in the same way for all images and seeds.
        standardise: Whether to standardise the pixels over the training part, instead of 0..1.
        **data: The arguments of :class:`LabelledData`.

    References:
        Le, Jaitly and Hinton, 2015, "A Simple Way to Initialize Recurrent Networks of Rectified
        Linear Units", arXiv:1504.00941.
    """

    brightest = 255

    def __init__(self, *, permuted: bool = False, standardise: bool = False, **data: Any) -> None:
        super().__init__(standardise, **data)
        self.permuted = permuted

    @abstractmethod
    def read_pictures(self) -> dict[Part, Pictures]:
        """The images of all parts, of ten digits."""

    @cached_property
    def pictures(self) -> dict[Part, Pictures]:
        """The images, read on first access."""
        return self.read_pictures()

    def read_splits(self) -> Splits:
        """The images of all parts as sequences."""
        parts = {part: self._sequences(*self.pictures[part]) for part in PARTS}
        return Splits(parts, [str(digit) for digit in range(10)])

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """The first images of a part, drawn in characters."""
        pixels, y = self.of_part(self.pictures, part)
        return [
            {"picture": show_picture(p / self.brightest, 2), "label": str(label)}
            for p, label in zip(pixels[:count], y[:count], strict=True)
        ]

    def baselines(self) -> dict[str, float]:
        """The test accuracy of the most frequent label, and of the nearest mean image."""
        train, test = (self.part(part) for part in ("train", "test"))
        pictures, asked = (part.x.view(len(part), -1) for part in (train, test))
        labels = train.y.unique()
        means = torch.stack([pictures[train.y == label].mean(0) for label in labels])
        said = labels[torch.cdist(asked, means).argmin(1)]
        return {
            **super().baselines(),
            "nearest mean picture": float((said == test.y).double().mean()),
        }

    def _sequences(self, pixels: np.ndarray, y: np.ndarray) -> Sequences:
        N, *frame = pixels.shape
        T = int(np.prod(frame))
        order = np.random.default_rng(0).permutation(T) if self.permuted else np.arange(T)
        x = pixels.reshape(N, T)[:, order].astype(np.float32) / self.brightest
        return Sequences.stacked(x[..., None], y.astype(np.int64))
