"""Strings of handwritten digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.checks import check_count
from seqnets.datasets.augmentation.augmenter import Augmentations
from seqnets.datasets.baselines.transcripts import nearest_pictures, repeated_label
from seqnets.datasets.examples import show_columns, show_target
from seqnets.datasets.published.digits import SIDE, pool_digits
from seqnets.datasets.sequences.base import SequenceData
from seqnets.datasets.sequences.pixels import Pictures
from seqnets.datasets.sequences.sequences import Sequences, Splits
from seqnets.datasets.synthetic.base import random_parts
from seqnets.errors import ConfigError
from seqnets.typing import BLANK, IGNORE, Sizes


class DigitStrings(SequenceData):
    """Strings of handwritten digits, read column by column; transcription.

    Scikit-learn's digits of 8 by 8 pixels (``pip install 'seqnets[digits]'``) side by side, with
    random gaps and heights; where two overlap, the brighter pixel is visible. A step is a column of
    pixels in 0..1, from left to right, and the target is the digits in their order, without their
    places. Of the images, 80 % are for training, 10 % for validation and 10 % for the test, so no
    part shares an image with another.

    Args:
        longest: Maximum number of digits in a string.
        shortest: Minimum number of digits; lengths are uniform between the two.
        height: Pixels of a column, at least 8.
        overlap: Columns by which two digits overlap at most, below 8.
        gap: Columns between two digits, before the first and after the last, at most.
        train_size: Number of training strings; each epoch shuffles the same ones.
        test_size: Number of validation strings, and of test strings.
        batch_size: Strings in a batch of each process.
        seed: Determines the strings and their order.
        bucket_batches: Batches in a pool that is sorted by length to reduce padding; 1 for none.
        augment: Augmentations of the training batches, in order.

    Raises:
        ConfigError: An option is out of range.

    References:
        Alpaydin and Kaynak, 1998, "Optical Recognition of Handwritten Digits", UCI Machine
        Learning Repository, doi:10.24432/C50P49.
    """

    unit = "strings"

    joiner = ""
    """The text between two labels of a transcript."""

    def __init__(
        self,
        longest: int = 8,
        *,
        shortest: int = 1,
        height: int = 12,
        overlap: int = 1,
        gap: int = 4,
        train_size: int = 4_000,
        test_size: int = 500,
        batch_size: int = 32,
        seed: int = 0,
        bucket_batches: int = 50,
        augment: Augmentations = (),
    ) -> None:
        super().__init__(batch_size, seed, bucket_batches, augment)
        check_count("DigitStrings", longest=longest, shortest=shortest)
        check_count("DigitStrings", train_size=train_size, test_size=test_size)
        check_count("DigitStrings", least=0, overlap=overlap, gap=gap)
        check_count("DigitStrings", least=SIDE, height=height)
        if shortest > longest:
            raise ConfigError(
                f"DigitStrings: shortest is {shortest}, expected at most longest, which is "
                f"{longest}."
            )
        if overlap >= SIDE:
            raise ConfigError(
                f"DigitStrings: overlap is {overlap}, expected less than the {SIDE} columns of a "
                "digit."
            )
        self.longest, self.shortest, self.height = longest, shortest, height
        self.overlap, self.gap = overlap, gap
        self.train_size, self.test_size = train_size, test_size

    @property
    def sizes(self) -> Sizes:
        """The pixels of a column, as ``input_size``, and the digits and the blank."""
        return {"input_size": self.height, "num_classes": len(self.labels)}

    @property
    def labels(self) -> list[str]:
        """The digits, after the blank's name."""
        return ["", *map(str, range(10))]

    def describe(self) -> dict[str, Any]:
        """The metadata that a checkpoint stores."""
        return {**super().describe(), "joiner": self.joiner}

    def read_splits(self) -> Splits:
        """The strings of all parts.

        Raises:
            ConfigError: scikit-learn is not installed.
        """
        pools = pool_digits(self.seed)
        draws = random_parts(self.train_size, self.test_size, self.seed)
        return Splits(
            {part: self.write(random, count, pools[part]) for part, random, count in draws}
        )

    def write(self, random: np.random.Generator, count: int, digits: Pictures) -> Sequences:
        """``count`` random strings of some of these digits."""
        lengths = random.integers(self.shortest, self.longest + 1, size=count)
        y = np.full((count, self.longest), IGNORE)
        strings = []
        for labels, length in zip(y, lengths, strict=True):
            rows = random.integers(len(digits.y), size=length)
            tops = random.integers(self.height - SIDE + 1, size=length)
            before, after = random.integers(self.gap + 1, size=2)
            gaps = random.integers(-self.overlap, self.gap + 1, size=length - 1)
            lefts = before + np.cumsum([0, *(SIDE + gaps)])
            string = np.zeros((self.height, lefts[-1] + SIDE + after), np.float32)
            for picture, top, left in zip(digits.pixels[rows], tops, lefts, strict=True):
                place = string[top : top + SIDE, left : left + SIDE]
                np.maximum(place, picture, out=place)
            strings.append(string.T)
            labels[:length] = digits.y[rows] + BLANK + 1
        steps = torch.tensor([len(string) for string in strings])
        return Sequences(torch.from_numpy(np.concatenate(strings)), steps, torch.from_numpy(y))

    def example(self, x: Tensor, y: Tensor) -> dict[str, str]:
        """A string's digits, and its beginning drawn in characters."""
        digits = show_target(y, self.labels, self.joiner)
        return {"digits": digits, "begins": show_columns(x.numpy())}

    def baselines(self) -> dict[str, float]:
        """The test errors per digit of a constant, and of the nearest mean picture."""
        train, test = self.part("train"), self.part("test")
        return {**repeated_label(train.y, test.y), **nearest_pictures(train, test)}
