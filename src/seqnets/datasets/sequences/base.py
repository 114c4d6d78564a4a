"""In-memory datasets of separate sequences of any length."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from seqnets.checks import check_count
from seqnets.datasets.augmentation.augmenter import Augmentations, Augmenter, listed
from seqnets.datasets.base import DataModule
from seqnets.datasets.examples import show_steps, show_target
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.scaling import Scaling
from seqnets.datasets.sequences.loader import SequenceLoader, generator_of
from seqnets.datasets.sequences.times import Timing
from seqnets.errors import DataError, counted
from seqnets.typing import BLANK, IGNORE, Batch, Sizes


@dataclass(frozen=True)
class Sequences:
    """N sequences, concatenated.

    Attributes:
        x: All their steps: features (steps, I) float32, frames (steps, C, height, width) float32,
            or tokens (steps,) int64, with their spelling (steps, 1 + bytes).
        lengths: Length of each sequence, (N,) int64, at least 1.
        y: Targets: a label per sequence (N,) int64; values (N, K) float32; a transcript's labels
            (N, U) int64, from 1, padded with ``IGNORE``; or, if ``stepwise``, a label per step
            (steps,) int64, or values or a frame per step, as in ``x``; ``IGNORE`` where there is
            none.
        stepwise: Whether each step has its own target.
        ids: Identifiers from the file, plain values; None if it has none.
        texts: Verbatim texts from the file, by column, such as "source".
        gaps: Whether features may be missing, NaN.
        weights: How much each sequence counts in the loss, (N,), at least 0; only their proportions
            matter. None if all count alike.
        next_steps: Whether the target of a step is the step after it.
    """

    next_steps: ClassVar[bool] = False
    x: Tensor
    lengths: Tensor
    y: Tensor
    stepwise: bool = False
    ids: list[Any] | None = None
    texts: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    gaps: bool = False
    weights: Tensor | None = None

    @classmethod
    def of(cls, sequences: Sequence[np.ndarray], labels: Sequence[int]) -> Sequences:
        """Concatenate sequences, each (T,) or (T, I), with a class number each."""
        lengths = torch.tensor([len(sequence) for sequence in sequences])
        return cls(torch.from_numpy(np.concatenate(sequences)), lengths, torch.tensor(labels))

    @classmethod
    def stacked(
        cls, x: np.ndarray | Tensor, y: np.ndarray | Tensor, *, stepwise: bool = False
    ) -> Sequences:
        """Return sequences of one length: x (N, T, ...), y (N, ...) or, stepwise, (N, T, ...)."""
        x, y = torch.as_tensor(x), torch.as_tensor(y)
        lengths = torch.full(x.shape[:1], x.shape[1])
        return cls(x.flatten(0, 1), lengths, y.flatten(0, 1) if stepwise else y, stepwise)

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def starts(self) -> Tensor:
        """Offset of each sequence in ``x``, (N,) int64."""
        return self.lengths.cumsum(0) - self.lengths

    @cached_property
    def ragged(self) -> bool:
        """Whether the lengths differ."""
        return bool((self.lengths != self.lengths[0]).any())

    @property
    def transcribed(self) -> bool:
        """Whether each target is a transcript: labels in order, but without their places."""
        return self.y.dim() > 1 and not self.stepwise and not self.y.is_floating_point()

    @cached_property
    def target_lengths(self) -> Tensor:
        """Number of labels in each transcript, (N,) int64."""
        return (self.y != IGNORE).sum(1)

    @cached_property
    def relative_weights(self) -> Tensor | None:
        """The weights over their mean, (N,) float32, by which the scale of a loss stays."""
        if self.weights is None:
            return None
        weights = self.weights.double()
        return (weights / weights.mean()).float()

    def batch(self, rows: Tensor) -> Batch:
        """Return a batch of sequences, padded to the longest of them, with 0 and ``IGNORE``.

        Args:
            rows: Indices of the sequences, (B,) int64.
        """
        lengths = self.lengths[rows]
        steps = torch.arange(max(lengths.tolist(), default=0))
        outside = steps >= lengths[:, None]
        positions = (self.starts[rows, None] + steps).clamp_(max=len(self.x) - 1)
        x = self.x[positions]
        x[outside] = 0
        y = self.y[positions] if self.stepwise else self.y[rows]
        if self.stepwise:
            y[outside] = IGNORE
        elif self.transcribed:
            y = y[:, : max([1, *self.target_lengths[rows].tolist()])]
        weights = None if self.relative_weights is None else self.relative_weights[rows]
        return Batch(x, y, lengths if self.ragged else None, weights=weights)

    def select(self, rows: Tensor) -> Sequences:
        """Return the sequences with these indices, in this order; not for stepwise targets."""
        pieces = [self.x[self.starts[row] :][: self.lengths[row]] for row in rows]
        ids = None if self.ids is None else [self.ids[row] for row in rows]
        return replace(
            self,
            x=torch.cat([self.x[:0], *pieces]),
            lengths=self.lengths[rows],
            y=self.y[rows],
            ids=ids,
            texts={
                column: [of_file[row] for row in rows] for column, of_file in self.texts.items()
            },
            weights=None if self.weights is None else self.weights[rows],
        )


@dataclass(frozen=True)
class Splits:
    """The three parts of a dataset of sequences.

    Attributes:
        parts: The sequences of each part.
        labels: The class names, indexed by class number, if any.
        scaling: The standardisation of the features, if any.
    """

    parts: dict[Part, Sequences]
    labels: list[str] | None = None
    scaling: Scaling | None = None


class NextSteps(Sequences):
    """Sequences as their own targets: each step is predicted from those before it.

    ``y`` has the memory of ``x``. A batch has one step less than its sequences. The arguments are
    those of :class:`Sequences`.
    """

    next_steps = True

    def batch(self, rows: Tensor) -> Batch:
        """Return all steps but the last as inputs, and all but the first as targets."""
        x, y, lengths, *_ = super().batch(rows)
        return Batch(x[:, :-1], y[:, 1:], None if lengths is None else lengths - 1)


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
        """Return the sequences of all parts."""

    @cached_property
    def splits(self) -> Splits:
        """The sequences, read on first access: float32, or whole numbers."""
        splits = self.read_splits()
        return replace(splits, parts={name: _single(part) for name, part in splits.parts.items()})

    def part(self, name: Part) -> Sequences:
        """Return the sequences of one part."""
        return self.splits.parts[name]

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
        """Return the number of sequences in each part."""
        return {name: len(self.part(name)) for name in PARTS}

    def numbers(self, part: Part) -> list[Tensor]:
        """Return all steps of a part, its targets, and the weights of its sequences, if any."""
        found = self.part(part)
        return [found.x, found.y, *([] if found.weights is None else [found.weights])]

    def lengths(self, part: Part) -> np.ndarray:
        """Return the length of each sequence of a part, (N,)."""
        return self.part(part).lengths.numpy()

    def class_counts(self, part: Part) -> np.ndarray | None:
        """Return how often each class occurs in a part, (C,)."""
        y, classes = self.part(part).y, self.sizes.get("num_classes")
        if classes is None or y.is_floating_point():
            return None
        return y[y != IGNORE].bincount(minlength=classes).numpy()

    def target_lengths(self, part: Part) -> np.ndarray | None:
        """Return the number of labels in each transcript of a part, (N,)."""
        found = self.part(part)
        return found.target_lengths.numpy() if found.transcribed else None

    def token_counts(self, part: Part) -> np.ndarray | None:
        """Return how often each token occurs in a part, (V,)."""
        x, tokens = self.part(part).x, self.sizes.get("vocab_size")
        if tokens is None or x.is_floating_point() or x.dim() > 1:
            return None
        return x.bincount(minlength=tokens).numpy()

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """Return the :meth:`example` of each of a part's first sequences."""
        found, rows = self.part(part), []
        for number in range(min(count, len(found))):
            start = int(found.starts[number])
            steps = slice(start, start + int(found.lengths[number]))
            y = found.y[steps if found.stepwise else number]
            rows.append(self.example(found.x[steps], y[y != IGNORE] if found.transcribed else y))
        return rows

    def augmented_examples(self, count: int) -> list[dict[str, str]]:
        """Return the :meth:`example` of each of the first training sequences, augmented once."""
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
        """Return the length, beginning and target of a sequence, for display."""
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
        """Return a new loader of one part, shuffled and augmented for training."""
        trains = part == "train"
        return SequenceLoader(
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


def check_sequences(who: str, sequences: Sequences, sizes: Sizes) -> None:
    """Check for data that would crash or mislead a model.

    Raises:
        DataError: A length, feature, token or label is out of range; says in which sequence.
    """
    x, y, lengths = sequences.x, sequences.y, sequences.lengths
    if int(lengths.min()) < 1 or int(lengths.sum()) != len(x):
        raise DataError(
            f"{who}: got lengths of at least {int(lengths.min())} that sum to "
            f"{int(lengths.sum()):,} for {len(x):,} steps of x, expected lengths of at least 1 "
            f"with that sum."
        )
    unit, targets = ("step", len(x)) if sequences.stepwise else ("sequence", len(sequences))
    if len(y) != targets:
        raise DataError(
            f"{who}: got {counted(len(y), 'target')}, expected one per {unit}: {targets:,}."
        )
    numbers = x if x.is_floating_point() or x.dim() == 1 else x[:, :1]  # and not the spelling
    bad, expected = _out_of_range(numbers, sizes.get("vocab_size"))
    if sequences.gaps:
        bad &= ~numbers.isnan()
    _refuse(f"{who}: a value of x", x, bad, expected, lengths)
    scored, least = y, 0
    if sequences.stepwise:
        scored = y.masked_fill(y == IGNORE, least)
    elif sequences.transcribed:
        least = BLANK + 1
        outside = torch.arange(y.shape[1]) >= sequences.target_lengths[:, None]
        scored = y.masked_fill(outside & (y == IGNORE), least)
    bad, expected = _out_of_range(scored, sizes.get("num_classes"), least)
    _refuse(f"{who}: a target", y, bad, expected, lengths if sequences.stepwise else None)
    if sequences.weights is not None:
        _check_weights(who, sequences, sequences.weights)


def _check_weights(who: str, sequences: Sequences, weights: Tensor) -> None:
    """Raise DataError unless there is a weight for each sequence, and some count."""
    if sequences.stepwise or sequences.transcribed:
        raise DataError(
            f"{who}: got weights of sequences with targets of steps or transcripts, expected none: "
            "only a label, or values, of a whole sequence can count more than another's."
        )
    if weights.shape != sequences.lengths.shape:
        raise DataError(
            f"{who}: weights have shape {tuple(weights.shape)}, expected one per sequence: "
            f"({len(sequences)},)."
        )
    bad = ~((weights >= 0) & weights.isfinite())
    _refuse(f"{who}: a weight", weights, bad, "a finite number of at least 0", None)
    if not weights.any():
        raise DataError(
            f"{who}: the weights of all sequences are 0, expected one or more above it: the loss "
            "is their weighted mean."
        )


def _refuse(what: str, values: Tensor, bad: Tensor, expected: str, lengths: Tensor | None) -> None:
    """Raise DataError for the first bad value, if any; values of steps come with ``lengths``."""
    if not bad.any():
        return
    place = tuple(bad.nonzero()[0].tolist())
    number = place[0]
    if lengths is not None:
        number = int(torch.searchsorted(lengths.cumsum(0), number, right=True))
    raise DataError(f"{what} in sequence {number} is {values[place].item()}, expected {expected}.")


def _out_of_range(values: Tensor, classes: int | None, least: int = 0) -> tuple[Tensor, str]:
    if values.is_floating_point():
        return ~values.isfinite(), "finite numbers"
    most = (classes or 0) - 1
    return (values < least) | (values > most), f"{least} to {most}"
