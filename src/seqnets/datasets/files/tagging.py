"""Tagging of a user's own sequences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seqnets.checks import check_fractions
from seqnets.datasets.parts import PARTS, Part, paths_of
from seqnets.datasets.readers.records import part_of
from seqnets.datasets.readers.tagged import Tagged, read_tagged
from seqnets.datasets.sequences.dealing import deal_grouped
from seqnets.datasets.sequences.tagging import TaggedData, TaggedParts
from seqnets.datasets.sequences.times import Timing
from seqnets.errors import DataError, counted


class TaggingFiles(TaggedData):
    """Your own sequences with a label per step; tagging.

    Files are CoNLL (a word and its label per line), JSON Lines (a sequence per line) or CSV (a
    step per row); see :func:`~seqnets.datasets.readers.tagged.read_tagged`.

    Without a file or a column ``split`` for them, the validation and test parts are fractions of
    the sequences; of a single sequence, they are its end.

    Args:
        path: File of the training sequences.
        validation_path: File of separate validation sequences.
        test_path: File of separate test sequences.
        validation_fraction: Fraction for validation if no file or row is.
        test_fraction: Fraction for the test if no file or row is.
        label: Name of a CSV file's label column.
        groups: Column of the group that a sequence belongs to; no group is in two parts. None if
            each sequence is by itself. It is not a feature, and new files may lack it.
        leave_out: Columns of a CSV file that are not features.
        time: Column of the times of steps, numbers or time stamps, which become the last feature:
            the time elapsed since the step before, for cells with ``timed=True``. None if steps
            have none.
        time_unit: Unit of that time, in seconds, or that of the numbers; None for the mean time
            between steps of the training part, so that a mean step is 1.
        time_stamps: Whether the last feature is the time since a sequence's first step instead, as
            :class:`seqnets.cells.PhasedLSTMCell` reads it.
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
        groups: str | None = None,
        leave_out: Sequence[str] = (),
        time: str | None = None,
        time_unit: float | None = None,
        time_stamps: bool = False,
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
        self.label, self.groups, self.leave_out = label, groups, tuple(leave_out)
        self.timing = Timing.given(type(self).__name__, time, time_unit, time_stamps)

    def read_file(self, path: Path, new: bool = True) -> list[Tagged]:
        """The sequences of new data, which may lack groups and the columns to leave out."""
        time = None if self.timing is None else self.timing.column
        return read_tagged(path, self.label, self.leave_out, self.groups, time, new=new)

    def group_counts(self) -> dict[Part, int] | None:
        """The number of groups in each part; None if each sequence is by itself."""
        if self.groups is None:
            return None
        return {part: len({s.group for s in found}) for part, found in self.parts.items()}

    def read_parts(self) -> TaggedParts:
        """The sequences of all parts.

        Raises:
            DataError: A file is malformed, a row belongs to a part with a file of its own, a group
                is in two parts, or there are too few sequences, or groups, for three parts.
        """
        parts: TaggedParts = {part: [] for part in PARTS}
        features: tuple[str, ...] = ()
        for own, path in self.paths.items():
            file = Path(path).expanduser()
            for sequence in self.read_file(file, new=False):
                features = features or sequence.features
                part = part_of(sequence.where, sequence.split, own, self.paths)
                parts[part].append(sequence.in_order(features))
        absent = {part: self.fractions[part] for part in self.fractions if not parts[part]}
        who, train = self.paths["train"], parts["train"]
        if self.groups is None:
            return {**parts, **_split(who, train, absent, self.seed)}
        alike = np.zeros(len(train))
        dealt = deal_grouped(who, self.groups, parts, alike, absent, self.seed)
        return {**parts, **{part: [train[row] for row in rows] for part, rows in dealt.items()}}


def _split(
    path: str, sequences: list[Tagged], fractions: dict[Part, float], seed: int
) -> TaggedParts:
    """Hold out random sequences for the parts; of a single sequence, steps at its end."""
    if len(sequences) == 1:
        sequence = sequences[0]
        bounds = _bounds(path, len(sequence.steps), fractions, "step")
        return {part: [_slice(sequence, *bound)] for part, bound in bounds.items()}
    bounds = _bounds(path, len(sequences), fractions, "sequence")
    order = np.random.default_rng((seed, 0, 2)).permutation(len(sequences))
    return {
        part: [sequences[i] for i in sorted(order[start:stop])]
        for part, (start, stop) in bounds.items()
    }


def _bounds(
    path: str, count: int, fractions: dict[Part, float], what: str
) -> dict[Part, tuple[int, int]]:
    """Start and end of each part: training first, then the others."""
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


def _slice(sequence: Tagged, start: int, stop: int) -> Tagged:
    where = f"{sequence.where}, steps {start + 1} to {stop}"
    part = Tagged(where, sequence.features, id=sequence.id, times=sequence.times)
    for step, label in zip(sequence.steps[start:stop], sequence.labels[start:stop], strict=True):
        part.add("" if label is None else sequence.places[label], step, label)
    return part
