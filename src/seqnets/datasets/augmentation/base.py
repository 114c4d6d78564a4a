"""The two kinds of augmentations: of values, and of the steps that they are at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class ValueAugmentation(ABC):
    """Changes values at random; lengths, steps and targets stay.

    Args:
        only: Names or numbers, from 0, of the features that it changes; all if empty.
    """

    def __init__(self, only: Sequence[str | int] = ()) -> None:
        self.only = (only,) if isinstance(only, (str, int)) else tuple(only)

    def can_change(self, features: int, steps: int) -> bool:
        """Whether it ever changes sequences of so many features and at most so many steps."""
        return True

    @abstractmethod
    def __call__(self, x: Tensor, lengths: Tensor, random: torch.Generator) -> Tensor:
        """The values that a batch has instead.

        Args:
            x: The features to change, (B, T, I), NaN where one is missing, which it stays. They may
                be changed in place.
            lengths: Valid steps of each row, (B,), at least 1; later ones are set to 0 afterwards.
            random: Where all random numbers come from.
        """


class TimeAugmentation(ABC):
    """Takes other steps of each sequence at random, with the targets that they have.

    Attributes:
        keeps_all: Whether it goes from the first step to the last, so that a transcript stays true.
        keeps_pace: Whether steps stay as far apart as they were, so that a feature may be the time.
    """

    keeps_all = True
    keeps_pace = False

    @abstractmethod
    def __call__(
        self, lengths: Tensor, needed: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The steps to take, (B, T'), and how many of them each row has, (B,).

        Whole numbers are steps, from 0; fractions are interpolated. Of the rest of a row, any of
        its steps will do.

        Args:
            lengths: Valid steps of each row, (B,), at least 1.
            needed: The fewest steps that its target needs, (B,), at least 1; of longer rows at
                least so many must be taken.
            random: Where all random numbers come from.
        """

    def fewest(self, lengths: Tensor, needed: Tensor) -> Tensor:
        """The fewest steps that may be taken of rows, (N,)."""
        return torch.minimum(lengths, needed)

    def can_change(self, features: int, steps: int) -> bool:
        """Whether it ever changes sequences of so many features and at most so many steps."""
        return True


Augmentation = ValueAugmentation | TimeAugmentation
"""A random change of training batches."""
