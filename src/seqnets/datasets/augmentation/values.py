"""Augmentations of values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from seqnets.checks import check_count, check_number
from seqnets.datasets.augmentation.base import ValueAugmentation
from seqnets.errors import ConfigError


class SpecAugment(ValueAugmentation):
    """Masks over steps and over neighbouring features, such as the bands of a spectrum.

    Within a mask values are 0, which after standardising is the mean. Its width is drawn evenly
    from 0 to the greatest one, then its place within the sequence; masks may overlap. Of a share
    that comes to less than one step or feature, there is no mask.

    Differs from the paper in two places: the greatest width of a mask of features is a share of
    them, not a number, and there is no time warping, which helped least there.

    Args:
        step_masks: Masks over steps, for each sequence.
        steps: Greatest width of one, in steps.
        share_of_steps: Greatest width of one as a share of the sequence's length, if that is less.
        feature_masks: Masks over features, for each sequence.
        share_of_features: Greatest width of one, as a share of the features.
        only: Names or numbers, from 0, of the features that it masks, in their order; all if empty.

    Raises:
        ConfigError: An option is out of range, or nothing would be masked.

    References:
        Park et al., 2019, "SpecAugment: A Simple Data Augmentation Method for Automatic Speech
        Recognition", arXiv:1904.08779. The defaults are its policy SM, but for ``share_of_steps``,
        which is 0.2 there: in short sequences, such a mask hides whole labels.
    """

    def __init__(
        self,
        step_masks: int = 2,
        steps: int = 70,
        share_of_steps: float = 0.05,
        feature_masks: int = 2,
        share_of_features: float = 0.2,
        only: Sequence[str | int] = (),
    ) -> None:
        super().__init__(only)
        check_count("SpecAugment", steps=steps)
        check_count("SpecAugment", least=0, step_masks=step_masks, feature_masks=feature_masks)
        check_number(
            "SpecAugment",
            above=0,
            most=1,
            share_of_steps=share_of_steps,
            share_of_features=share_of_features,
        )
        if not (step_masks or feature_masks):
            raise ConfigError(
                "SpecAugment: step_masks and feature_masks are 0, expected one of them above it."
            )
        self.step_masks, self.steps, self.share_of_steps = step_masks, steps, share_of_steps
        self.feature_masks, self.share_of_features = feature_masks, share_of_features

    def __call__(self, x: Tensor, lengths: Tensor, random: torch.Generator) -> Tensor:
        """The features with some steps, and some features, set to 0."""
        B, T, I = x.shape
        if self.step_masks:
            widest = _share(lengths, self.share_of_steps).clamp(max=self.steps)
            masked = _masks(self.step_masks, lengths, widest, T, random)
            x *= ~masked[:, :, None]  # what is missing stays NaN
        if self.feature_masks:
            features = torch.full((B,), I)
            widest = _share(features, self.share_of_features)
            x *= ~_masks(self.feature_masks, features, widest, I, random)[:, None]
        return x

    def can_change(self, features: int, steps: int) -> bool:
        """Whether the widest mask has a step of the longest sequence, or a feature."""
        of_steps = self.step_masks and int(_share(torch.tensor(steps), self.share_of_steps))
        of_features = self.feature_masks and int(
            _share(torch.tensor(features), self.share_of_features)
        )
        return bool(of_steps or of_features)


def _share(counts: Tensor, share: float) -> Tensor:
    """A share of counts, rounded down; 0.29 of 100 is 29, whose product is below it."""
    return (counts.double() * share + 1e-9).long()


def _masks(
    count: int, lengths: Tensor, widest: Tensor, steps: int, random: torch.Generator
) -> Tensor:
    """Draw masks, (B, steps): where one or more of ``count`` cover the steps of a row."""
    draws = torch.rand(2, len(lengths), count, generator=random, dtype=torch.float64)
    widths = (draws[0] * (widest[:, None] + 1)).long()
    starts = (draws[1] * (lengths[:, None] - widths + 1)).long()
    step = torch.arange(steps)
    inside = (step >= starts[..., None]) & (step < (starts + widths)[..., None])
    return inside.any(1)


class Noise(ValueAugmentation):
    """Adds noise to each value, normally distributed.

    Args:
        deviation: Its standard deviation; of standardised features, in units of theirs.
        only: Names or numbers, from 0, of the features that it changes; all if empty.

    Raises:
        ConfigError: ``deviation`` is not above 0, or infinite.

    References:
        Um et al., 2017, "Data Augmentation of Wearable Sensor Data for Parkinson's Disease
        Monitoring using Convolutional Neural Networks", arXiv:1706.00527: its jittering.
    """

    def __init__(self, deviation: float = 0.05, only: Sequence[str | int] = ()) -> None:
        super().__init__(only)
        check_number("Noise", above=0, below=math.inf, deviation=deviation)
        self.deviation = deviation

    def __call__(self, x: Tensor, lengths: Tensor, random: torch.Generator) -> Tensor:
        """The features with noise."""
        return x.add_(torch.randn(x.shape, generator=random), alpha=self.deviation)


class Scale(ValueAugmentation):
    """Multiplies each feature of a sequence by a factor around 1, normally distributed.

    Args:
        deviation: Standard deviation of the factors.
        only: Names or numbers, from 0, of the features that it changes; all if empty.

    Raises:
        ConfigError: ``deviation`` is not above 0, or infinite.

    References:
        Um et al., 2017, arXiv:1706.00527: its scaling.
    """

    def __init__(self, deviation: float = 0.1, only: Sequence[str | int] = ()) -> None:
        super().__init__(only)
        check_number("Scale", above=0, below=math.inf, deviation=deviation)
        self.deviation = deviation

    def __call__(self, x: Tensor, lengths: Tensor, random: torch.Generator) -> Tensor:
        """The features, scaled."""
        B, _, I = x.shape
        return x.mul_(1 + self.deviation * torch.randn((B, 1, I), generator=random))
