"""Forecasting of a user's own series, read from a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqnets.checks import check_choice, check_fractions
from seqnets.datasets.parts import Part
from seqnets.datasets.series.data import SeriesData
from seqnets.datasets.series.series import Series
from seqnets.datasets.series.table import SERIES, TIME, Columns, read_series
from seqnets.errors import ConfigError
from seqnets.typing import Known

MISSING = ("error", "forward", "linear")
GAPS = ("error", "fill", "ignore")


class SeriesTable(SeriesData):
    """Your own series from one table (CSV, TSV, JSON Lines, Parquet), a row per step; forecasting.

    - ``time`` (optional): the timestamp of the step, in ISO 8601 or as a number; increasing within
      each series. Without it, the rows are in order.
    - ``series`` (optional): the series that the step belongs to. Each is split into parts
      separately; all share one model and one scaling.
    - All other columns are features: a number, or a missing value (empty, ``NaN``, ``NA``, ``null``
      or ``?``).

    Where columns are known ahead, the last rows of a series may have values of these alone, or with
    ``calendar`` only a time. They are still to come: training leaves them out, and a forecast of
    the file is one of them.

    Args:
        path: The file.
        time: Name of the timestamp column.
        series: Name of the series column.
        leave_out: Columns that are not features.
        validation_fraction: Fraction of each series' steps for validation.
        test_fraction: Fraction of each series' steps for the test, its last.
        missing: What to do about missing values: "error"; "forward" for the last value (before
            the first value, that one); or "linear" for linear interpolation, with which a window
            that ends in a gap sees the future. Missing values are never scored.
        mask: Whether to add a 0/1 column for each feature that says which values were present.
            These columns are inputs only.
        time_gaps: What to do about uneven steps: "error" unless all steps of a series are as long
            as its first; "fill" to insert the steps that the file lacks, with values according to
            ``missing``; or "ignore", for example for months or working days.
        **data: The arguments of :class:`SeriesData`.

    Raises:
        ConfigError: An option is out of range, or steps are to be inserted without values.
    """

    def __init__(
        self,
        path: str,
        *,
        time: str = TIME,
        series: str = SERIES,
        leave_out: Sequence[str] = (),
        validation_fraction: float = 0.1,
        test_fraction: float = 0.2,
        missing: str = "error",
        mask: bool = False,
        time_gaps: str = "error",
        **data: Any,
    ) -> None:
        super().__init__(**data)
        who = type(self).__name__
        fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
        check_fractions(who, **fractions)
        check_choice(who, MISSING, missing=missing)
        check_choice(who, GAPS, time_gaps=time_gaps)
        if time_gaps == "fill" and missing == "error":
            raise ConfigError(
                f"{who}: missing is 'error', expected forward or linear with time_gaps=fill.\n"
                "  Inserted steps have no values of their own."
            )
        self.path, self.missing, self.mask, self.time_gaps = path, missing, mask, time_gaps
        self.columns = Columns(time, series, tuple(leave_out))
        self.validation_fraction, self.test_fraction = validation_fraction, test_fraction

    @property
    def file(self) -> Path:
        """The table."""
        return Path(self.path).expanduser()

    def read(self, path: Path) -> Series:
        """The series of a table.

        Raises:
            DataError: The table is malformed, a value is missing, or timestamps are not evenly
                spaced; the message says in which line.
        """
        return self._read(path)

    def _read_new(self, path: Path, known: Known) -> Series:
        return self._read(path, known["columns"])

    def _read(self, path: Path, known: Sequence[str] | None = None) -> Series:
        coming = bool(self.columns_ahead)
        options = (self.missing, self.time_gaps, self.known_ahead)
        series = read_series(path, self.columns, *options, coming=coming, known=known)
        if not self.mask:
            return series
        masks = [f"{name} is there" for name in series.columns]
        return series.with_inputs(masks, series.observed)

    def ends(self, steps: int) -> Mapping[Part, int]:
        """The end of each part, of which the test part is the last."""
        test = steps - round(self.test_fraction * steps)
        return {"train": test - round(self.validation_fraction * steps), "val": test, "test": steps}
