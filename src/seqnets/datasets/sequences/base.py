"""In-memory datasets of separate sequences of any length."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from seqnets.checks import check_count
from seqnets.datasets.augmentation.augmenter import Augmentations, Augmenter, listed
from seqnets.datasets.base import DataModule
from seqnets.datasets.examples import show_steps, show_target
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.sequences.checks import check_sequences
from seqnets.datasets.sequences.loader import SequenceLoader, generator_of
from seqnets.datasets.sequences.sequences import Sequences, Splits
from seqnets.datasets.sequences.times import Timing
from seqnets.typing import IGNORE


class SequenceData(DataModule):
    """Sequences that a subclass's ``read_splits`` returns and ``sizes`` describes.

    Args:
        batch_size: Sequences in a batch of each process.
        seed: Determines the order of the training sequences in each epoch.
        bucket_batches: Batches in a pool that is sorted by length to reduce padding; 1 for none.
        augment: Augmentations of the training batches, in order; features only.
    """

    timing: Timing | None = None
    """What the user asks of the times of steps; None if they have none."""

    loader_class = SequenceLoader
    """The class of the loaders."""

    def __init__(
        self,
        batch_size: int = 32,
        seed: int = 0,
        bucket_batches: int = 50,
        augment: Augmentations = (),
    ) -> None:
        super().__init__()
        who = type(self).__name__
        check_count(who, batch_size=batch_size, bucket_batches=bucket_batches)
        check_count(who, least=0, seed=seed)
        self.batch_size, self.seed, self.bucket_batches = batch_size, seed, bucket_batches
        self.augment = listed(who, augment)

    @abstractmethod
    def read_splits(self) -> Splits:
        """The sequences of all parts."""

    @cached_property
    def splits(self) -> Splits:
        """The sequences, read on first access: float32, or whole numbers."""
        splits = self.read_splits()
        return replace(splits, parts={name: _single(part) for name, part in splits.parts.items()})

    def part(self, name: Part) -> Sequences:
        """The sequences of one part."""
        return self.of_part(self.splits.parts, name)

    @property
    def feature_names(self) -> Sequence[str]:
        """The names of the features; empty if they have none."""
        return ()

    @cached_property
    def augmenter(self) -> Augmenter | None:
        """What training batches go through; None if they are as the data are.

        Raises:
            ConfigError: An augmentation does not suit the data.
        """
        if not self.augment:
            return None
        who, train = type(self).__name__, self.part("train")
        return Augmenter(
            who,
            self.augment,
            train.x,
            self.feature_names,
            stepwise=train.stepwise,
            transcribed=train.transcribed,
            timed=self.timing is not None,
            next_steps=train.next_steps,
            longest=int(train.lengths.max()),
        )

    @property
    def labels(self) -> list[str] | None:
        """The class names, indexed by class number."""
        return self.splits.labels

    def counts(self) -> dict[str, int]:
        """The number of sequences in each part."""
        return {name: len(self.part(name)) for name in PARTS}

    def numbers(self, part: Part) -> list[Tensor]:
        """All steps of a part, its targets, and the weights of its sequences, if any."""
        found = self.part(part)
        return [found.x, found.y, *([] if found.weights is None else [found.weights])]

    def lengths(self, part: Part) -> np.ndarray:
        """The length of each sequence of a part, (N,)."""
        return self.part(part).lengths.numpy()

    def class_counts(self, part: Part) -> np.ndarray | None:
        """How often each class occurs in a part, (C,)."""
        y, classes = self.part(part).y, self.sizes.get("num_classes")
        if classes is None or y.is_floating_point():
            return None
        return y[y != IGNORE].bincount(minlength=classes).numpy()

    def target_lengths(self, part: Part) -> np.ndarray | None:
        """The number of labels in each transcript of a part, (N,)."""
        found = self.part(part)
        return found.target_lengths.numpy() if found.transcribed else None

    def token_counts(self, part: Part) -> np.ndarray | None:
        """How often each token occurs in a part, (V,)."""
        x, tokens = self.part(part).x, self.sizes.get("vocab_size")
        if tokens is None or x.is_floating_point() or x.dim() > 1:
            return None
        return x.bincount(minlength=tokens).numpy()

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """The :meth:`example` of each of a part's first sequences."""
        found, rows = self.part(part), []
        for number in range(min(count, len(found))):
            start = int(found.starts[number])
            steps = slice(start, start + int(found.lengths[number]))
            y = found.y[steps if found.stepwise else number]
            rows.append(self.example(found.x[steps], y[y != IGNORE] if found.transcribed else y))
        return rows

    def augmented_examples(self, count: int) -> list[dict[str, str]]:
        """The :meth:`example` of each of the first training sequences, augmented once."""
        train, count = self.part("train"), min(count, len(self.part("train")))
        if self.augmenter is None or not count:
            return []
        first, random = train.batch(torch.arange(count)), np.random.SeedSequence(self.seed)
        x, y, lengths, *_ = self.augmenter(first, generator_of(random))
        rows = []
        for row, length in enumerate(train.lengths[:count] if lengths is None else lengths):
            target = y[row, :length] if train.stepwise else y[row]
            target = target[target != IGNORE] if train.transcribed else target
            rows.append(self.example(x[row, :length] + 0.0, target))  # masks leave -0.0
        return rows

    def example(self, x: Tensor, y: Tensor) -> dict[str, str]:
        """The length, beginning and target of a sequence, for display."""
        target = show_target(y, self.labels)
        return {"steps": str(len(x)), "begins": show_steps(x, self.vocabulary), "target": target}

    def setup(self, stage: str | None = None) -> None:
        """Read the data and :meth:`check_part` each part."""
        super().setup(stage)
        for part in PARTS:
            self.check_part(part)

    def check_part(self, part: Part) -> None:
        """Raise DataError unless lengths, values, tokens and labels of a part fit ``sizes``."""
        check_sequences(self.name_of(part), self.part(part), self.sizes)

    def loader(self, part: Part) -> SequenceLoader:
        """A new loader of one part, shuffled and augmented for training."""
        trains = part == "train"
        return self.loader_class(
            self.part(part),
            self.batch_size,
            trains,
            self.seed,
            self.name_of(part),
            self.bucket_batches,
            self.augmenter if trains else None,
        )


def _single(sequences: Sequences) -> Sequences:
    """The sequences with features and targets as float32, unless they are whole numbers."""
    x, y = sequences.x, sequences.y
    if not {x.dtype, y.dtype} & {torch.float64, torch.float16, torch.bfloat16}:
        return sequences
    x, y = (values.float() if values.is_floating_point() else values for values in (x, y))
    return replace(sequences, x=x, y=y)
