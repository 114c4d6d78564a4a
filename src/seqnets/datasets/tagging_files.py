"""A user's own sequences with a label a step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.checks import check_fractions
from seqnets.datasets.base import PARTS, Part, paths_of
from seqnets.datasets.readers.records import part_of
from seqnets.datasets.readers.tagged import Tagged, read_tagged
from seqnets.datasets.tagged_data import TaggedData, Tagging
from seqnets.errors import DataError, counted


class TaggingFiles(TaggedData):
    """Your own sequences with a label a step; tagging.

    What files there may be says :func:`~seqnets.datasets.readers.tagged.read_tagged`: CoNLL's, a
    word and its label a line; JSON Lines, a sequence a line; CSV, a step a row.

    Without files or a column ``split`` for them, validation and test part are shares of the
    sequences. Of a single sequence they are its end.

    Args:
        path: The file to learn from.
        validation_path: The file to choose by.
        test_path: The file to report.
        validation_fraction: Share of the sequences to choose by, where no file or row is for that.
        test_fraction: Share of the sequences to report, likewise.
        label: The column of the label in a CSV file.
        leave_out: Columns of a CSV file that are no features.
        **data: The arguments of :class:`TaggedData`.
    """

    def __init__(
        self,
        path: str,
        validation_path: str | None = None,
        test_path: str | None = None,
        *,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        label: str = "label",
        leave_out: Sequence[str] = (),
        **data: Any,
    ) -> None:
        super().__init__(**data)
        check_fractions(
            type(self).__name__,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
        )
        self.paths = paths_of(path, validation_path, test_path)
        self.fractions: dict[Part, float] = {"val": validation_fraction, "test": test_fraction}
        self.label, self.leave_out = label, tuple(leave_out)

    def read_file(self, path: Path) -> list[Tagged]:
        """Return the sequences of a file of new data, which may lack what is left out."""
        return read_tagged(path, self.label, self.leave_out, new=True)

    def read_parts(self) -> Tagging:
        """Return the sequences of all parts.

        Raises:
            DataError: A file is malformed, a row is for a part that has a file of its own, or there
                are too few sequences for three parts.
        """
        parts: Tagging = {part: [] for part in PARTS}
        for own, path in self.paths.items():
            for sequence in read_tagged(Path(path).expanduser(), self.label, self.leave_out):
                part = part_of(sequence.where, sequence.split, own, self.paths)
                parts[part].append(sequence)
        absent = {part: self.fractions[part] for part in self.fractions if not parts[part]}
        return {**parts, **_share_out(self.paths["train"], parts["train"], absent, self.seed)}


def _share_out(
    path: str, sequences: list[Tagged], fractions: dict[Part, float], seed: int
) -> Tagging:
    """Set sequences aside for parts; of a single one, steps at its end."""
    if len(sequences) == 1:
        whole = sequences[0]
        bounds = _bounds(path, len(whole.steps), fractions, "step")
        return {part: [_slice(whole, *bound)] for part, bound in bounds.items()}
    bounds = _bounds(path, len(sequences), fractions, "sequence")
    order = np.random.default_rng((seed, 0, 2)).permutation(len(sequences))
    return {
        part: [sequences[i] for i in sorted(order[start:stop])]
        for part, (start, stop) in bounds.items()
    }


def _bounds(
    path: str, count: int, fractions: dict[Part, float], what: str
) -> dict[Part, tuple[int, int]]:
    """Where the training part and, behind it, the others begin and end."""
    sizes = {part: max(1, round(share * count)) for part, share in fractions.items()}
    start = count - sum(sizes.values())
    if start < 1:
        raise DataError(
            f"{path}: got {counted(count, what)} for training, expected at least "
            f"{len(sizes) + 1}: one each for train, {', '.join(sizes)}."
        )
    bounds: dict[Part, tuple[int, int]] = {"train": (0, start)}
    for part, size in sizes.items():
        bounds[part] = (start, start := start + size)
    return bounds


def _slice(whole: Tagged, start: int, stop: int) -> Tagged:
    part = Tagged(f"{whole.where}, steps {start + 1} to {stop}", whole.features, id=whole.id)
    for step, label in zip(whole.steps[start:stop], whole.labels[start:stop], strict=True):
        part.add("" if label is None else whole.places[label], step, label)
    return part
