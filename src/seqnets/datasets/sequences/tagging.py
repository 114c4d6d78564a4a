"""Datasets of sequences with a label per step."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqnets.checks import check_count
from seqnets.datasets.augmentation.augmenter import Augmentations
from seqnets.datasets.examples import show_features
from seqnets.datasets.loader import Loader
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.readers.cells import check_spellings, naming
from seqnets.datasets.readers.records import ids_of
from seqnets.datasets.readers.tagged import Tagged, check_alike, read_tagged
from seqnets.datasets.scaling import Scaling
from seqnets.datasets.scores.tags import (
    ENTITY_F1,
    LABEL_F1,
    OUTSIDE,
    check_labels,
    check_metric,
    is_bio,
    score_tags,
)
from seqnets.datasets.sequences.base import SequenceData
from seqnets.datasets.sequences.loader import SequenceLoader
from seqnets.datasets.sequences.sequences import Sequences, Splits
from seqnets.datasets.sequences.step_inputs import Inputs, Numbers, Words, read_inputs
from seqnets.datasets.text.vocabulary import Vocabulary
from seqnets.errors import DataError
from seqnets.typing import IGNORE, Known, Sizes

TaggedParts = dict[Part, list[Tagged]]
"""The sequences of each part."""


class TaggedData(SequenceData):
    """Words or features with a label per step, which a subclass's ``read_parts`` returns.

    Features are standardised over the training part. The labels are those of the training part;
    any other label is an error. Steps without a label are not scored. In BIO labels, an ``I-KIND``
    that does not continue an entity of its kind begins one.

    Args:
        metric: The metric for model selection: ``accuracy``, ``f1`` (the mean over labels),
            ``f1_LABEL`` (of one label, for example a rare one) or ``entity_f1``.
        window: Length to cut sequences into, in steps; not cut if omitted.
        characters: Maximum number of bytes of each word that the model sees besides its id.
        lowercase: Whether a word and its capitalised forms share one id.
        min_count: How often a word must occur in the training part to have an id of its own.
        batch_size: Sequences in a batch of each process.
        seed: Determines the order of the training sequences in each epoch.
        bucket_batches: Batches in a pool that is sorted by length to reduce padding; 1 for none.
        augment: Augmentations of the training batches, in order; features only.
    """

    def __init__(
        self,
        metric: str = "accuracy",
        window: int | None = None,
        characters: int = 0,
        lowercase: bool = True,
        min_count: int = 2,
        batch_size: int = 32,
        seed: int = 0,
        bucket_batches: int = 50,
        augment: Augmentations = (),
    ) -> None:
        super().__init__(batch_size, seed, bucket_batches, augment)
        who = type(self).__name__
        check_metric(who, metric)
        check_count(who, min_count=min_count, window=1 if window is None else window)
        check_count(who, least=0, characters=characters)
        self.metric, self.window = metric, window
        self.characters, self.lowercase, self.min_count = characters, lowercase, min_count

    @abstractmethod
    def read_parts(self) -> TaggedParts:
        """The sequences of all parts: words everywhere, or features everywhere."""

    @cached_property
    def parts(self) -> TaggedParts:
        """The sequences, cut into windows, read on first access."""
        return {part: self._cut(found) for part, found in self.read_parts().items()}

    @cached_property
    def inputs(self) -> Inputs:
        """The conversion of steps to model inputs, fitted to the training part."""
        train = self.parts["train"]
        steps = [sequence.steps for sequence in train]
        if self.timing is not None:
            return Numbers.timed(self.timing, train)
        if train[0].features:
            return Numbers.learn(train[0].features, steps)
        return Words.learn(steps, self.characters, self.lowercase, self.min_count)

    @property
    def sizes(self) -> Sizes:
        """Size of the vocabulary or number of features, and ``num_classes``."""
        return {**self.inputs.sizes, "num_classes": len(self.splits.labels or ())}

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words with ids of their own; None for features."""
        return self.inputs.vocabulary

    @property
    def feature_names(self) -> Sequence[str]:
        """The names of the features; empty for words."""
        return self.inputs.features if isinstance(self.inputs, Numbers) else ()

    def describe(self) -> dict[str, Any]:
        """The metadata that a checkpoint stores, including metric and inputs."""
        own = {"metric": self.metric, "window": self.window}
        return {**super().describe(), **self.inputs.describe(), **own}

    def read_splits(self) -> Splits:
        """The sequences of all parts.

        Raises:
            DataError: A file is missing or malformed, a label does not occur in the training
                part, or the metric does not suit the labels; the message says in which line.
        """
        train = self.parts["train"]
        places = {label: place for s in reversed(train) for label, place in s.places.items()}
        labels = sorted(places)
        check_spellings(places)
        if len(labels) < 2:
            found = f"{labels[0]} alone" if labels else "no label"
            advice = "" if labels else "\n  dataset.label=COLUMN names theirs in a table of steps."
            raise DataError(
                f"{train[0].where}: the training part has {found}, expected at least two labels."
                f"{advice}"
            )
        for part in PARTS:
            if all(label is None for s in self.parts[part] for label in s.labels):
                raise DataError(
                    f"{self.parts[part][0].where}: the {part} part has no label, expected some.\n"
                    "  Nothing in it could be scored."
                )
            for sequence in self.parts[part]:
                _check_sequence(part, sequence, train[0], labels)
        odd = next((label for label in labels if not is_bio(label)), labels[0])
        check_labels(places[odd], self.metric, labels)
        self.check_scored(self.metric)
        parts = {part: _encode(self.inputs, self.parts[part], labels) for part in PARTS}
        return Splits(parts, labels)

    def check_scored(self, metric: str) -> None:
        """Raise DataError if the validation part has nothing of what a metric is about."""
        validation, label = self.parts["val"], metric.removeprefix(LABEL_F1)
        there, lacking = {label for s in validation for label in s.labels}, ""
        if metric == ENTITY_F1 and there <= {OUTSIDE, None}:
            lacking = "entity"
        elif metric.startswith(LABEL_F1) and label not in there:
            lacking = f"label {label!r}"
        if lacking:
            raise DataError(
                f"{validation[0].where}: the val part has no {lacking}, expected some, since "
                f"the metric is {metric}.\n"
                "  It would be 0 whatever is learned, and chooses the best checkpoint.\n"
                "  Another dataset.seed, or a larger dataset.validation_fraction, holds out other "
                "sequences; a column split or dataset.validation_path names them."
            )

    def new(self, path: Path, known: Known) -> Loader:
        """Batches of a file, with those of its labels that the model knows.

        Raises:
            DataError: The file is malformed, or its features are not those of the training data.
        """
        inputs = read_inputs(known)
        expected = tuple(inputs.features) if isinstance(inputs, Numbers) else ()
        found = self._cut([sequence.in_order(expected) for sequence in self.read_file(path)])
        if inputs is None or found[0].features != expected:
            raise DataError(
                f"{naming(found[0].where)}: got {', '.join(found[0].features) or 'words'}, "
                f"expected {', '.join(expected) or 'words'}, as the model was trained on."
            )
        times = inputs.times if isinstance(inputs, Numbers) else None
        if times is not None and found[0].times != times.kind:
            raise DataError(
                f"{found[0].where}: its times are {found[0].times}, expected {times.kind}, as the "
                "model was trained on."
            )
        sequences = _encode(inputs, found, known["labels"])
        return SequenceLoader(sequences, self.batch_size, name=str(path))

    def read_file(self, path: Path) -> list[Tagged]:
        """The sequences of a file of new data."""
        return read_tagged(path)

    def features(self) -> list[dict[str, str]]:
        """Each feature's statistics in the training part; none for words."""
        if isinstance(self.inputs, Words):
            return []
        x, scaling = self.part("train").x, self.inputs.scaling
        if self.inputs.times is not None:  # whose mean is not in the scaling
            scaling = Scaling.of(scaling.undo(x))
        return show_features(self.inputs.features, x, scaling)

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """The first sequences of a part: any words, and runs of labels."""
        rows = []
        for sequence in self.of_part(self.parts, part)[:count]:
            runs = [(label or "?", len([*run])) for label, run in groupby(sequence.labels)]
            labels = "  ".join(label if n == 1 else f"{label} ×{n}" for label, n in runs)
            shown = {"steps": str(len(sequence.steps))}
            words = {} if sequence.features else {"words": " ".join(sequence.steps)}
            rows.append({**shown, **words, "labels": labels})
        return rows

    def baselines(self) -> dict[str, float]:
        """Test scores of baselines that ignore the other steps.

        - ``commonest label``: always the same label; for ``f1_LABEL``, ``always LABEL``.
        - ``commonest label of the word``: its most frequent label in the training part; the most
          frequent label of all for other words.
        - ``nearest mean``: the label whose mean feature vector is closest.
        """
        labels = self.splits.labels or []
        train, test = self.part("train"), self.part("test")
        counts = torch.bincount(train.y[train.y != IGNORE], minlength=len(labels))
        commonest = int(counts.argmax())
        baselines: dict[str, np.ndarray] = {}
        if self.metric.startswith(LABEL_F1):
            chosen = self.metric.removeprefix(LABEL_F1)
            baselines[f"always {chosen}"] = np.full(len(test.y), labels.index(chosen))
        elif self.metric != ENTITY_F1:
            baselines["commonest label"] = np.full(len(test.y), commonest)
        if isinstance(self.inputs, Words):
            predicted = self._labels_by_word(labels[commonest])
            baselines["commonest label of the word"] = np.array(
                [labels.index(s) for s in predicted]
            )
        else:
            means = [train.x[train.y == number].mean(0) for number in range(len(labels))]
            baselines["nearest mean"] = torch.cdist(test.x, torch.stack(means)).argmin(1).numpy()
        targets, lengths = test.y.numpy(), test.lengths.numpy()
        return {
            name: score_tags(self.metric, predicted, targets, lengths, labels)
            for name, predicted in baselines.items()
        }

    def _labels_by_word(self, default: str) -> list[str]:
        """Each test word's most frequent label in the training part."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for sequence in self.parts["train"]:
            for word, label in zip(sequence.steps, sequence.labels, strict=True):
                if label is not None:
                    counts[word][label] += 1
        best = {word: of_word.most_common(1)[0][0] for word, of_word in counts.items()}
        return [best.get(word, default) for s in self.parts["test"] for word in s.steps]

    def _cut(self, sequences: list[Tagged]) -> list[Tagged]:
        """Cut sequences into windows, if asked for."""
        if self.window is None:
            return sequences
        return [piece for sequence in sequences for piece in sequence.windows(self.window)]


def _encode(inputs: Inputs, sequences: list[Tagged], labels: list[str]) -> Sequences:
    """Convert sequences to inputs and class numbers, ``IGNORE`` for labels that are not listed."""
    numbers: dict[str | None, int] = {label: number for number, label in enumerate(labels)}
    return Sequences(
        torch.from_numpy(np.concatenate([inputs.encode(s.steps) for s in sequences])),
        torch.tensor([len(s.steps) for s in sequences]),
        torch.tensor([numbers.get(label, IGNORE) for s in sequences for label in s.labels]),
        stepwise=True,
        ids=ids_of(sequences),
        texts={"tokens": [s.steps for s in sequences]} if isinstance(inputs, Words) else {},
    )


def _check_sequence(part: Part, sequence: Tagged, first: Tagged, labels: list[str]) -> None:
    """Raise DataError if a sequence differs from the first in kind, or has an unknown label."""
    check_alike(sequence, first)
    for label, where in sequence.places.items():
        if label not in labels:
            raise DataError(
                f"{where}: got label {label!r} in the {part} part, expected one of the training "
                f"part: {', '.join(labels)}."
            )
