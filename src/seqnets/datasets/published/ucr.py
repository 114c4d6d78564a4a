"""Problems of the UCR and UEA time series archives, in the ``.ts`` format."""

from __future__ import annotations

from typing import Any

import torch

from seqnets.datasets.readers.files import find_folder
from seqnets.datasets.readers.ts import TimeSeries, read_ts
from seqnets.datasets.sequences.classification import LabelledData
from seqnets.datasets.sequences.dealing import deal
from seqnets.datasets.sequences.sequences import Sequences, Splits
from seqnets.errors import DataError


class TimeSeriesFiles(LabelledData):
    """Labelled time series of the UCR and UEA archives (``.ts`` files); classification.

    Reads ``NAME_TRAIN.ts`` and ``NAME_TEST.ts``, with sequences of one or more dimensions and of
    equal or different lengths. Validation sequences are taken from the training file.

    Args:
        root: Folder with the two files, or with them in a folder ``ucr`` or ``NAME`` below.
        name: Name of the problem, for example JapaneseVowels.
        **data: The arguments of :class:`LabelledData`.
    """

    def __init__(self, root: str, name: str = "JapaneseVowels", **data: Any) -> None:
        super().__init__(**data)
        self.root, self.problem = root, name

    def read_splits(self) -> Splits:
        """The sequences of all parts.

        Raises:
            DataError: A file is missing or malformed; the message says in which line.
        """
        files = [f"{self.problem}_{part}.ts" for part in ("TRAIN", "TEST")]
        folders = ("", "ucr", self.problem)
        advice = "They are at https://www.timeseriesclassification.com; set dataset.root."
        folder = find_folder("TimeSeriesFiles", self.root, folders, files, advice)
        train, test = (read_ts(folder / file) for file in files)
        for what, first, second in (
            ("class labels", train.labels, test.labels),
            ("dimensions", train.dimensions, test.dimensions),
        ):
            if first != second:
                raise DataError(
                    f"TimeSeriesFiles: {self.problem}_TEST.ts has the {what} {second}, "
                    f"expected {first} as in {self.problem}_TRAIN.ts."
                )
        known, asked = (_sequences(series) for series in (train, test))
        dealt = deal(self.problem, known.y.numpy(), {"val": self.validation_fraction}, self.seed)
        parts = {part: known.select(torch.from_numpy(rows)) for part, rows in dealt.items()}
        return Splits({**parts, "test": asked}, train.labels)


def _sequences(series: TimeSeries) -> Sequences:
    arrays = [steps for _, steps, _ in series.cases]
    labels = [series.labels.index(label) for _, _, label in series.cases]
    return Sequences.of(arrays, labels)
