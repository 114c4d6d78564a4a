"""The dataset of a classifier: feature sequences with one label each."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from seqnets.checks import check_fractions
from seqnets.datasets.augmentation.augmenter import Augmentations
from seqnets.datasets.baselines.counting import majority_baseline
from seqnets.datasets.scaling import Scaling
from seqnets.datasets.sequences.base import SequenceData
from seqnets.datasets.sequences.sequences import Splits
from seqnets.typing import Sizes


class LabelledData(SequenceData):
    """Feature sequences with one label each, which a subclass's ``read_splits`` returns.

    Args:
        standardise: Whether to standardise each feature over the steps of the training part; one
            that is constant there is only centred. If not, the features and their scaling are as
            ``read_splits`` returns them.
        validation_fraction: Fraction of each class's training sequences to use for validation.
        batch_size: Sequences in a batch of each process.
        seed: Determines which sequences are held out, and the order of the others in each epoch.
        bucket_batches: Batches in a pool that is sorted by length to reduce padding; 1 for none.
        augment: Augmentations of the training batches, in order.
    """

    def __init__(
        self,
        standardise: bool = True,
        validation_fraction: float = 0.2,
        batch_size: int = 32,
        seed: int = 0,
        bucket_batches: int = 50,
        augment: Augmentations = (),
    ) -> None:
        super().__init__(batch_size, seed, bucket_batches, augment)
        check_fractions(type(self).__name__, validation_fraction=validation_fraction)
        self.standardise, self.validation_fraction = standardise, validation_fraction

    @cached_property
    def splits(self) -> Splits:
        """The sequences, read on first access: float32, standardised if asked for."""
        splits = self.read_splits()
        if not self.standardise:
            parts = {name: replace(part, x=part.x.float()) for name, part in splits.parts.items()}
            return replace(splits, parts=parts)
        x = splits.parts["train"].x
        scaling = Scaling.of(x if x.is_floating_point() else x.double())
        parts = {name: replace(part, x=scaling(part.x)) for name, part in splits.parts.items()}
        return replace(splits, parts=parts, scaling=scaling)

    @property
    def sizes(self) -> Sizes:
        """The number of features, as ``input_size``, and of labels, as ``num_classes``."""
        features = self.part("train").x.shape[1]
        return {"input_size": features, "num_classes": len(self.splits.labels or ())}

    def describe(self) -> dict[str, Any]:
        """The metadata that a checkpoint stores, including the scaling of the features."""
        scaling = self.splits.scaling
        plain = None if scaling is None else scaling.plain()
        return {**super().describe(), "scaling": {"x": plain}}

    def baselines(self) -> dict[str, float]:
        """The test accuracy of the most frequent label."""
        return majority_baseline(self.part("train").y, self.part("test").y)
