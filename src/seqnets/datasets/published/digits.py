"""Scikit-learn's handwritten digits."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqnets.checks import check_fractions
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.sequences.dealing import deal
from seqnets.datasets.sequences.pixels import Pictures, PixelSequences
from seqnets.optional import optional

SIDE = 8
"""Height and width of an image."""


class Digits(PixelSequences):
    """Handwritten digits of 8 by 8 pixels, bundled with scikit-learn; classification.

    1,797 images as sequences of 64 steps (``pip install 'seqnets[digits]'``).

    Args:
        test_fraction: Fraction of each digit's images for the test.
        **data: The arguments of :class:`PixelSequences`.

    Raises:
        ConfigError: A fraction is out of range.

    References:
        Alpaydin and Kaynak, 1998, "Optical Recognition of Handwritten Digits", UCI Machine
        Learning Repository, doi:10.24432/C50P49.
    """

    brightest = 16

    def __init__(self, *, test_fraction: float = 0.2, **data: Any) -> None:
        super().__init__(**data)
        check_fractions(
            type(self).__name__,
            validation_fraction=self.validation_fraction,
            test_fraction=test_fraction,
        )
        self.test_fraction = test_fraction

    def read_pictures(self) -> dict[Part, Pictures]:
        """The images of all parts.

        Raises:
            ConfigError: scikit-learn is not installed.
        """
        pictures = read_digits()
        fractions: dict[Part, float] = {"test": self.test_fraction, "val": self.validation_fraction}
        dealt = deal("Digits", pictures.y, fractions, self.seed)
        return {part: pictures.select(rows) for part, rows in dealt.items()}


def read_digits() -> Pictures:
    """scikit-learn's digits: 1,797 images of 8 by 8 pixels in 0..16.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    with optional("The digits are scikit-learn's", "digits"):
        from sklearn.datasets import load_digits
    digits = load_digits()
    return Pictures(digits.images, digits.target)


def pool_digits(seed: int) -> dict[Part, Pictures]:
    """scikit-learn's digits in 0..1: 80 % for training, 10 % each for the other parts.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    pixels, y = read_digits()
    pictures = Pictures((pixels / 16).astype(np.float32), y)
    order = np.random.default_rng((seed, 0, 3)).permutation(len(y))
    pools = np.split(order, [share * len(y) // 10 for share in (8, 9)])
    return {part: pictures.select(rows) for part, rows in zip(PARTS, pools, strict=True)}
