"""Electricity transformer temperatures, hourly: ETTh1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqnets.datasets.parts import Part
from seqnets.datasets.readers.files import find_folder
from seqnets.datasets.series.data import SeriesData
from seqnets.datasets.series.series import Series
from seqnets.datasets.series.table import Columns, read_series
from seqnets.errors import DataError, counted

_FILE = "ETTh1.csv"

_MONTH = 30 * 24

_ENDS: dict[Part, int] = {"train": 12 * _MONTH, "val": 16 * _MONTH, "test": 20 * _MONTH}


class ETTh1(SeriesData):
    """Oil temperature and six loads of an electricity transformer, hourly, two years; forecasting.

    The parts are the usual ones: 12, 4 and 4 months of 30 days; the rest is not used. Reads
    ``ETTh1.csv``, whose first column, ``date``, is the timestamp of each step.

    Args:
        root: Folder with the file, or with a folder ``etth`` that contains it.
        season: Period of the seasonal baseline, in steps: a day.
        **data: The arguments of :class:`SeriesData`.

    References:
        Zhou et al., 2021, "Informer: Beyond Efficient Transformer for Long Sequence Time-Series
        Forecasting", arXiv:2012.07436.
    """

    def __init__(self, root: str, *, season: int = 24, **data: Any) -> None:
        super().__init__(season=season, **data)
        self.root = root

    @property
    def file(self) -> Path:
        """Path of the file."""
        advice = "It is at https://github.com/zhouhaoyi/ETDataset; set dataset.root to its folder."
        return find_folder("ETTh1", self.root, ("etth", ""), [_FILE], advice) / _FILE

    def read(self, path: Path) -> Series:
        """The series of the file, or of one with the same columns.

        Raises:
            DataError: The file is malformed; the message says in which line.
        """
        columns, coming = Columns(time="date"), bool(self.columns_ahead)
        return read_series(path, columns, known_ahead=self.known_ahead, coming=coming)

    def ends(self, steps: int) -> Mapping[Part, int]:
        """The ends of 12, 4 and 4 months of 30 days.

        Raises:
            DataError: The file is shorter.
        """
        if steps < _ENDS["test"]:
            raise DataError(
                f"{self.file}: got {counted(steps, 'step')}, expected at least {_ENDS['test']:,}, "
                "20 months of hours.\n  For a series of your own: dataset=forecasting."
            )
        return _ENDS
