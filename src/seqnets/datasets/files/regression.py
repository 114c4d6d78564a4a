"""Regression on a user's own sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.datasets.files.sequences import SequenceFiles
from seqnets.datasets.parts import Part
from seqnets.datasets.readers.cells import Row, is_word, need, number_of
from seqnets.datasets.readers.records import Record
from seqnets.datasets.scaling import Scaling
from seqnets.errors import ConfigError, DataError
from seqnets.quoting import override, shell
from seqnets.typing import Known, Sizes


class RegressionFiles(SequenceFiles):
    """Your own sequences of features or text with one or more target values each; regression.

    Args:
        path: File of the training sequences.
        targets: Names of the columns with the target values.
        weight: Name of a table's column, or of an array, of how much a sequence counts in the loss:
            numbers of at least 0, of which only the proportions matter. None if all count alike.
            It is not a feature, and new files may lack it.
        **files: The arguments of :class:`SequenceFiles`.

    Raises:
        ConfigError: There is no target, or one is listed twice.
    """

    several_targets = True

    def __init__(
        self,
        path: str,
        targets: Sequence[str] = ("target",),
        weight: str | None = None,
        **files: Any,
    ) -> None:
        super().__init__(path, **files)
        names = [targets] if isinstance(targets, str) else [str(target) for target in targets]
        if not names or len(set(names)) < len(names):
            raise ConfigError(
                f"RegressionFiles: targets is {names}, expected one or more columns, each once."
            )
        self.targets, self.weight = tuple(names), weight

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the target values."""
        return self.targets

    def read_target(self, where: str, row: Row) -> tuple[float, ...]:
        """A row's target values."""
        need(where, row, *self.columns, advice="dataset.targets=[COLUMN] names others.")
        return tuple(_value(where, column, row[column]) for column in self.columns)

    def strata(self, records: Sequence[Record]) -> np.ndarray:
        """The same class for all records."""
        return np.zeros(len(records), np.int64)

    def encode(self, parts: dict[Part, list[Record]]) -> tuple[dict[Part, Tensor], dict[str, Any]]:
        """Each part's values, (N, K) float32, standardised if asked for, and the scaling."""
        values = {
            part: torch.tensor([record.target for record in records], dtype=torch.float64)
            for part, records in parts.items()
        }
        if not self.standardise:
            return {part: of_part.float() for part, of_part in values.items()}, {}
        scaling = Scaling.of(values["train"])
        return {part: scaling(of_part) for part, of_part in values.items()}, {"scaling": scaling}

    def encode_new(self, records: Sequence[Record], known: Known) -> Tensor:
        """Values, (N, K) float32, on the scale of the training data; NaN if missing."""
        missing = (math.nan,) * len(known["targets"])
        values = torch.tensor([r.target or missing for r in records], dtype=torch.float64)
        scale = known["scaling"]["y"]
        return values.float() if scale is None else Scaling.read(scale)(values)

    def show_target(self, target: Tensor) -> dict[str, str]:
        """The target values in the units of the file."""
        scaling = self.contents.about.get("scaling")
        values = target.tolist() if scaling is None else scaling.shown(target)
        return {name: f"{value:.4g}" for name, value in zip(self.columns, values, strict=True)}

    @property
    def sizes(self) -> Sizes:
        """The number of tokens or features, and of target values, as ``output_size``."""
        return {**self.input_sizes, "output_size": len(self.columns)}

    def baselines(self) -> dict[str, float]:
        """The mean squared test error of predicting the mean of the training part."""
        train, test = self.part("train").y, self.part("test").y
        return {"mean": float((test - train.mean(0)).square().mean())}


def _value(where: str, column: str, cell: Any) -> float:
    """A target value; the error for a word says what words are for."""
    try:
        return number_of(where, column, cell)
    except DataError as error:
        if not is_word(cell):
            raise
        option = shell(override("dataset.label", column))
        raise DataError(
            f"{error}\n  If it is the name of a class: dataset=classification {option}."
        ) from None
