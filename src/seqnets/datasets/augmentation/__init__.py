"""Random changes of training batches, so that a small dataset is not learned by heart.

To add one, subclass :class:`ValueAugmentation` or :class:`TimeAugmentation` and define
``__call__``.
"""

from seqnets.datasets.augmentation.base import TimeAugmentation, ValueAugmentation
from seqnets.datasets.augmentation.times import Crop, Stretch
from seqnets.datasets.augmentation.values import Noise, Scale, SpecAugment

__all__ = [
    "Crop",
    "Noise",
    "Scale",
    "SpecAugment",
    "Stretch",
    "TimeAugmentation",
    "ValueAugmentation",
]
