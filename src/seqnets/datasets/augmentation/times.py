"""Augmentations of time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seqnets.checks import check_number
from seqnets.datasets.augmentation.base import TimeAugmentation
from seqnets.errors import ConfigError


class Stretch(TimeAugmentation):
    """Makes each sequence faster or slower: of another length, by linear interpolation.

    Where steps have targets, they are those of the nearest step. A sequence stays long enough for
    its transcript.

    Args:
        shortest: Least length of a sequence, as a multiple of its own.
        longest: Greatest length of one; lengths between the two are drawn evenly.

    Raises:
        ConfigError: ``shortest`` is not above 0, or above ``longest``, or that is infinite.

    References:
        Ko et al., 2015, "Audio Augmentation for Speech Recognition": its change of speed, here of
        features.
    """

    def __init__(self, shortest: float = 0.9, longest: float = 1.1) -> None:
        check_number("Stretch", above=0, below=math.inf, shortest=shortest, longest=longest)
        if shortest > longest:
            raise ConfigError(
                f"Stretch: shortest is {shortest}, expected at most longest, which is {longest}."
            )
        self.shortest, self.longest = shortest, longest

    def __call__(
        self, lengths: Tensor, needed: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Evenly spaced places from the first step to the last, and how many."""
        draws = torch.rand(len(lengths), generator=random, dtype=torch.float64)
        after = _times(lengths, self.shortest + (self.longest - self.shortest) * draws, needed)
        last = lengths[:, None] - 1
        apart = last / (after[:, None] - 1).clamp(min=1)
        return torch.minimum(torch.arange(int(after.max())) * apart, last), after

    def fewest(self, lengths: Tensor, needed: Tensor) -> Tensor:
        """The fewest steps that may be left of rows, (N,)."""
        return _times(lengths, self.shortest, needed)

    def can_change(self, features: int, steps: int) -> bool:
        """Whether the longest sequence can be of another length."""
        return _differs(steps, self.shortest) or _differs(steps, self.longest)


class Crop(TimeAugmentation):
    """Takes a random stretch of consecutive steps of each sequence.

    Args:
        share: Its least length, as a share of the sequence's; longer ones are drawn evenly.

    Raises:
        ConfigError: ``share`` is not above 0 and below 1.

    References:
        Le Guennec et al., 2016, "Data Augmentation for Time Series Classification using
        Convolutional Neural Networks": its window slicing.
    """

    keeps_all = False
    keeps_pace = True

    def __init__(self, share: float = 0.9) -> None:
        check_number("Crop", above=0, below=1, share=share)
        self.share = share

    def __call__(
        self, lengths: Tensor, needed: Tensor, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Consecutive steps, and how many."""
        draws = torch.rand(2, len(lengths), generator=random, dtype=torch.float64)
        after = _times(lengths, self.share + (1 - self.share) * draws[0], needed)
        starts = (draws[1] * (lengths - after + 1)).long()
        steps = starts[:, None] + torch.arange(int(after.max()))
        return torch.minimum(steps, lengths[:, None] - 1), after

    def can_change(self, features: int, steps: int) -> bool:
        """Whether the longest sequence can lose a step."""
        return _differs(steps, self.share)


def _times(lengths: Tensor, factors: Tensor | float, needed: Tensor) -> Tensor:
    """Lengths times factors, rounded, (N,), but not below what is needed if that was there."""
    return (lengths.double() * factors).round().long().maximum(torch.minimum(lengths, needed))


def _differs(steps: int, factor: float) -> bool:
    """Whether so many steps times a factor are rounded to another number; half a step is not."""
    return abs(steps * (factor - 1)) > 0.5 + 1e-9
