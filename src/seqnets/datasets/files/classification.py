"""Classification of a user's own sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.datasets.baselines.counting import majority_baseline
from seqnets.datasets.files.sequences import SequenceFiles
from seqnets.datasets.parts import Part
from seqnets.datasets.readers.cells import Row, check_spellings, few, need, shown
from seqnets.datasets.readers.records import LABEL, Record
from seqnets.errors import DataError
from seqnets.typing import IGNORE, Known, Sizes


class ClassificationFiles(SequenceFiles):
    """Your own sequences of features or text with one label each; classification.

    A label is text, an integer or a boolean, of the same type in all rows of a table; in a folder,
    it is the name of the subfolder that a file lies in. Classes are numbered in sorted order.

    Args:
        path: File or folder of the training sequences.
        label: Name of a table's label column.
        weight: Name of a table's column, or of an array, of how much a sequence counts in the loss:
            numbers of at least 0, of which only the proportions matter. None if all count alike.
            It is not a feature, and new files may lack it.
        **files: The arguments of :class:`SequenceFiles`.
    """

    def __init__(
        self, path: str, label: str = LABEL, weight: str | None = None, **files: Any
    ) -> None:
        super().__init__(path, **files)
        self.label, self.weight = label, weight

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of the label."""
        return (self.label,)

    def read_target(self, where: str, row: Row) -> str | int:
        """A row's label."""
        need(where, row, self.label, advice="dataset.label=COLUMN names another.")
        label = row[self.label]
        if not isinstance(label, (str, int)) or label == "":
            raise DataError(
                f"{where}: column {self.label} is {shown(label)}, expected text, a whole number, "
                "or true or false."
            )
        return label

    def strata(self, records: Sequence[Record]) -> np.ndarray:
        """Each record's label."""
        return np.array([str(record.target) for record in records])

    def encode(self, parts: dict[Part, list[Record]]) -> tuple[dict[Part, Tensor], dict[str, Any]]:
        """Each part's class numbers, (N,) int64, and the names of the classes."""
        first = parts["train"][0]
        for record in (record for records in parts.values() for record in records):
            if type(record.target) is not type(first.target):
                raise DataError(
                    f"{record.where}: got label {shown(record.target)}, expected one of the same "
                    f"kind as {shown(first.target)} at {first.where}."
                )
        places = {record.target: record.where for record in reversed(parts["train"])}
        labels = sorted(places)
        check_spellings(places)
        if len(labels) < 2:
            raise DataError(
                f"{self.paths['train']}: all training sequences have the label {shown(labels[0])}, "
                "expected two labels or more."
            )
        numbers = {label: number for number, label in enumerate(labels)}
        for part, records in parts.items():
            for record in records:
                if record.target not in numbers:
                    raise DataError(
                        f"{record.where}: got label {shown(record.target)} in the {part} part, "
                        f"expected one of the training part: {few(labels)}."
                    )
        encoded = {
            part: torch.tensor([numbers[record.target] for record in records])
            for part, records in parts.items()
        }
        return encoded, {"labels": [str(label) for label in labels]}

    def encode_new(self, records: Sequence[Record], known: Known) -> Tensor:
        """Class numbers, (N,) int64; ``IGNORE`` for labels that the model does not know."""
        numbers: dict[str | None, int] = {name: n for n, name in enumerate(known["labels"])}
        names = (None if r.target is None else str(r.target) for r in records)
        return torch.tensor([numbers.get(name, IGNORE) for name in names])

    def show_target(self, target: Tensor) -> dict[str, str]:
        """A label's name."""
        return {self.label: (self.labels or [])[int(target)]}

    @property
    def sizes(self) -> Sizes:
        """The number of tokens or features, and of labels, as ``num_classes``."""
        return {**self.input_sizes, "num_classes": len(self.labels or ())}

    def baselines(self) -> dict[str, float]:
        """The test accuracy of the most frequent label."""
        return majority_baseline(self.part("train").y, self.part("test").y)
