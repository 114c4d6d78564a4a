"""Forecasting datasets of long series."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.checks import check_choice, check_count, check_flags
from seqnets.datasets.base import DataModule
from seqnets.datasets.baselines.forecasts import forecast_baselines
from seqnets.datasets.examples import show_features
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.scaling import Scaling
from seqnets.datasets.sequences.loader import SequenceLoader
from seqnets.datasets.series.calendar import UNITS, add_calendar, calendar_columns
from seqnets.datasets.series.new import NewSeries
from seqnets.datasets.series.series import Series
from seqnets.datasets.series.windows import Spans, Windows, window_starts
from seqnets.errors import ConfigError, DataError, counted
from seqnets.typing import Known, Sizes


class SeriesData(DataModule):
    """Forecasting windows of the series that ``read`` returns, split into parts by ``ends``.

    A window's input is ``lookback`` steps of all columns; its targets are the next ``horizon``
    steps of the target columns, which come first. Of columns that are known ahead, which come last,
    those steps are input, too. The parts are consecutive in time. A window's input may reach into
    the part before, its targets never do. Columns are standardised with the statistics of the
    training part, and errors are in those units. Every window is used.

    Args:
        lookback: Input steps of a window.
        horizon: Steps to forecast.
        targets: Columns to forecast; if empty, all columns that are not inputs only.
        known_ahead: Columns that are inputs only and whose values at the steps to forecast are
            known, such as holidays, promotions and weather forecasts.
        calendar: Units of the calendar, of ``minute``, ``hour``, ``weekday``, ``day``,
            ``day_of_year`` and ``month``. Each adds two columns that are known ahead: sine and
            cosine of where each step is in the hour, day, week, month or year, by its timestamp.
        counts: Whether targets are counts: whole numbers of at least 0, which stay as they are.
        season: Period in steps of the seasonal baseline, and of the naive forecast that ``mase`` is
            relative to; 0 for no such baseline, and a naive forecast from the step before.
        batch_size: Windows in a batch of each process.
        seed: Determines the order of the training windows in each epoch.

    Raises:
        ConfigError: An option is out of range, a list has a name twice or is none, or a column is
            both a target and known ahead.
    """

    unit = "windows"

    def __init__(
        self,
        lookback: int = 336,
        horizon: int = 96,
        targets: Sequence[str] = (),
        season: int = 0,
        batch_size: int = 64,
        seed: int = 0,
        *,
        known_ahead: Sequence[str] = (),
        calendar: Sequence[str] = (),
        counts: bool = False,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        check_count(who, lookback=lookback, horizon=horizon, batch_size=batch_size)
        check_count(who, least=0, season=season, seed=seed)
        if season > lookback:
            raise ConfigError(
                f"{who}: season is {season}, expected at most lookback, {lookback}.\n"
                "  The seasonal baseline repeats the last season of a window's input."
            )
        _check_names(who, "targets", targets, "OT", "all")
        _check_names(who, "known_ahead", known_ahead, "holiday", "none")
        check_flags(who, counts=counts)
        _check_names(who, "calendar", calendar, "hour,weekday", "none", "units")
        for unit in calendar:
            check_choice(who, UNITS, calendar=unit)
        if both := [name for name in known_ahead if name in targets]:
            raise ConfigError(
                f"{who}: known_ahead has {', '.join(both)}, expected no column of targets.\n"
                "  What is to be forecast is not known."
            )
        self.lookback, self.horizon = lookback, horizon
        self.targets, self.known_ahead = list(targets), list(known_ahead)
        self.calendar, self.predicts_counts = list(calendar), counts
        self.season, self.batch_size, self.seed = season, batch_size, seed

    @property
    @abstractmethod
    def file(self) -> Path:
        """The file that holds all parts."""

    @abstractmethod
    def read(self, path: Path) -> Series:
        """The series of a file."""

    @abstractmethod
    def ends(self, steps: int) -> Mapping[Part, int]:
        """The exclusive end of each part of a series of this many steps."""

    @property
    def columns_ahead(self) -> list[str]:
        """All columns that are known ahead, of which those of the calendar are the last."""
        return [*self.known_ahead, *calendar_columns(self.calendar)]

    @cached_property
    def series(self) -> Series:
        """The series, read on first access: target columns first, those known ahead last.

        Raises:
            DataError: The file is malformed or lacks a column, or no column is to be forecast.
        """
        series, last = self.read(self.file).past(), self.known_ahead
        given = {*series.given, *last}
        targets = self.targets or [name for name in series.columns if name not in given]
        if not targets:
            raise DataError(
                f"{self.file}: known_ahead has {', '.join(last)}, expected at least one of the "
                f"columns {', '.join(series.columns)} to be forecast."
            )
        rest = [name for name in series.columns if name not in {*targets, *last}]
        series = series.select(f"{self.file}, targets", [*targets, *rest, *last])
        return add_calendar(self.file, series, self.calendar)

    @cached_property
    def scaling(self) -> Scaling:
        """The standardisation of each column; counts and the calendar's stay as they are.

        Raises:
            DataError: In the training part a column has no value or the calendar says the same of
                all steps, or a target that is to be a count is none.
        """
        self._check_observed()
        self._check_calendar()
        if self.predicts_counts:
            self._check_counts()
        found = self._statistics
        places = torch.arange(len(found.mean))
        kept = places >= len(places) - 2 * len(self.calendar)
        if self.predicts_counts:
            kept |= places < self.sizes["output_size"]
        return Scaling(found.mean.masked_fill(kept, 0), found.deviation.masked_fill(kept, 1))

    @cached_property
    def naive_errors(self) -> Tensor:
        """Errors of a naive forecast, by which scaled errors are divided, (series, K).

        Each is the mean absolute error, in scaled units and in the training part of a series, of
        the value a season before, or a step if there is no season; NaN if no two such values are
        there.
        """
        outputs, lag = self.sizes["output_size"], self.season or 1
        seen = np.where(self.series.observed, self.series.values, np.nan)[:, :outputs]
        y = torch.from_numpy(seen) / self.scaling.deviation[:outputs]
        parts = [
            y[start : start + self.ends(self.series.lengths[name])["train"]]
            for name, start in self.series.starts.items()
        ]
        return torch.stack([(part[lag:] - part[:-lag]).abs().nanmean(0) for part in parts])

    @cached_property
    def _statistics(self) -> Scaling:
        """Mean and standard deviation of each column in the training part."""
        seen = np.where(self.series.observed, self.series.values, np.nan)[self._training]
        return Scaling.of(torch.from_numpy(seen))

    @cached_property
    def _training(self) -> np.ndarray:
        """Mask of the steps in the training part, (steps,)."""
        training = np.zeros(len(self.series.values), bool)
        for name, start in self.series.starts.items():
            training[start : start + self.ends(self.series.lengths[name])["train"]] = True
        return training

    def _check_observed(self) -> None:
        """Raise DataError if a column has no value in the training part."""
        empty = ~self.series.observed[self._training].any(0)
        if empty.any():
            raise DataError(
                f"{self.file}: column {self.series.columns[int(empty.argmax())]} has no value in "
                "the training part, expected some.\n  dataset.leave_out=[…] leaves columns out."
            )

    def _check_calendar(self) -> None:
        """Raise DataError if the calendar says the same of all steps of the training part."""
        first = len(self.series.columns) - 2 * len(self.calendar)
        varies = np.ptp(self.series.values[self._training, first:], 0).reshape(-1, 2).any(1)
        if not varies.all():
            unit = self.calendar[int(varies.argmin())]
            raise DataError(
                f"{self.file}: calendar has {unit}, expected units that vary: it is the same at "
                "all steps of the training part.\n"
                "  Nothing is learned from it; leave it out of dataset.calendar."
            )

    def _check_counts(self) -> None:
        """Raise DataError if a target is no whole number of at least 0."""
        outputs = self.sizes["output_size"]
        values, observed = self.series.values[:, :outputs], self.series.observed[:, :outputs]
        wrong = observed & ((values < 0) | (values != np.rint(values)))
        if wrong.any():
            step, column = np.argwhere(wrong)[0].tolist()
            raise DataError(
                f"{self.file}: column {self.series.columns[column]} is {values[step, column]:g} at "
                f"{self.series.times[step]}, expected a whole number of at least 0.\n"
                "  dataset.counts says that targets are such; dataset.targets names them."
            )

    @cached_property
    def windows(self) -> dict[Part, Windows]:
        """The windows of each part.

        Raises:
            DataError: A part is too short for a window, or has no target value.
        """
        outputs = self.sizes["output_size"]
        x = self.scaling(torch.from_numpy(self.series.values))
        y = x[:, :outputs]
        missing = torch.from_numpy(~self.series.observed[:, :outputs])
        if missing.any():
            y = y.masked_fill(missing, torch.nan)
        windows = {part: self._windows_at(starts, x, y) for part, starts in self._starts().items()}
        for part, found in windows.items():
            if not found.scored:
                raise DataError(
                    f"{self.file}: the {part} part has no target value, expected some.\n"
                    "  Missing values are not scored. Remove those rows, or change the part's "
                    "fraction of the steps."
                )
        return windows

    def _windows_at(self, starts: list[Tensor], x: Tensor, y: Tensor) -> Windows:
        """The windows that start at the given steps of each series."""
        series, places = self.series, torch.cat(starts)
        counts = [len(found) for found in starts]
        whole = zip(series.lengths, counts, strict=True)
        names = [name for name, count in whole for _ in range(count)]
        after = [series.times[last] for last in (places + self.lookback - 1).tolist()]
        ids = None if "" in series.lengths else names
        texts: dict[str, Sequence[Any]] = {"after": after}
        if series.timed:
            texts["time"] = Spans(series.times, places + self.lookback, self.horizon)
        scales = self.naive_errors.float().repeat_interleave(torch.tensor(counts), 0)
        ahead = len(self.columns_ahead)
        return Windows(x, y, places, self.lookback, self.horizon, ids, texts, ahead, scales)

    def _starts(self) -> dict[Part, list[Tensor]]:
        """The starts of each part's windows, for each series."""
        starts: dict[Part, list[Tensor]] = {part: [] for part in PARTS}
        for name, begin in self.series.starts.items():
            first, steps = 0, self.series.lengths[name]
            for part, end in self.ends(steps).items():
                found = window_starts(first, end, self.lookback, self.horizon)
                if not len(found):
                    raise DataError(
                        f"{self.file}: the {part} part of {name or 'the series'} has steps "
                        f"{first} to {end} of {steps}, too few for a window of {self.lookback} and "
                        f"{counted(self.horizon, 'step')}.\n"
                        "  Use more steps, or a smaller dataset.lookback or dataset.horizon."
                    )
                starts[part].append(begin + found)
                first = end
        return starts

    @property
    def sizes(self) -> Sizes:
        """``input_size``, all columns; ``output_size``, the target columns; and ``horizon``.

        Also ``ahead_size``, the columns that are known ahead, if there are any.
        """
        columns, ahead = len(self.series.columns), len(self.columns_ahead)
        outputs = len(self.targets) or columns - len({*self.series.given, *self.known_ahead})
        sizes = {"input_size": columns, "output_size": outputs, "horizon": self.horizon}
        return {**sizes, "ahead_size": ahead} if ahead else sizes

    def counts(self) -> dict[str, int]:
        """The number of windows in each part."""
        return {part: len(windows) for part, windows in self.windows.items()}

    def loader(self, part: Part) -> SequenceLoader:
        """A new loader of one part, shuffled for training."""
        windows, shuffle = self.of_part(self.windows, part), part == "train"
        return SequenceLoader(windows, self.batch_size, shuffle, self.seed, self.name_of(part))

    def describe(self) -> dict[str, Any]:
        """The metadata that a checkpoint stores, including scaling and lookback."""
        months, errors = self.series.months, self.naive_errors.tolist()
        return {
            **super().describe(),
            "columns": self.series.columns,
            "scaling": self.scaling.plain(),
            "lookback": self.lookback,
            "naive_errors": dict(zip(self.series.lengths, errors, strict=True)),
            **({} if months is None else {"months": asdict(months)}),
        }

    def features(self) -> list[dict[str, str]]:
        """Each column's role, and its statistics in the training part."""
        sizes, last = self.sizes, len(self.columns_ahead)
        roles = ["target"] * sizes["output_size"]
        roles += ["input only"] * (sizes["input_size"] - len(roles) - last) + ["known ahead"] * last
        missing = 1 - self.series.observed[self._training].mean(0)
        values = torch.from_numpy(self.series.values[self._training])
        rows = show_features(self.series.columns, values, self._statistics)
        return [
            {
                "": row.pop(""),
                "is": roles[place],
                **row,
                "missing": f"{missing[place]:.1%}",
            }
            for place, row in enumerate(rows)
        ]

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """The time ranges of a part's first windows, and the first target's last inputs."""
        times, columns = self.series.times, self.series.columns
        rows = []
        for start in self.of_part(self.windows, part).starts[:count].tolist():
            now = start + self.lookback
            last = self.series.values[max(start, now - 3) : now, 0]
            rows.append(
                {
                    "input": f"{times[start]} to {times[now - 1]}",
                    "to forecast": f"{times[now]} to {times[now + self.horizon - 1]}",
                    f"last of {columns[0]}": "  ".join(f"{value:.4g}" for value in last),
                }
            )
        return rows

    def new(self, path: Path, known: Known) -> SequenceLoader:
        """The last window of each series in a file; the targets are NaN.

        If columns are known ahead, the file goes on over the horizon, where only these need values.
        Columns of the calendar need none where the spacing of the times says how they continue.

        Raises:
            DataError: The file is malformed, too short, or lacks a column, or values or times that
                are known ahead; the message says which.
        """
        series = self._read_new(path, known)
        new = NewSeries(path, series, known, self.known_ahead, self.calendar)
        return SequenceLoader(new.windows(), self.batch_size, name=str(path))

    def _read_new(self, path: Path, known: Known) -> Series:
        """Read a file for prediction, by a model of which this is known."""
        return self.read(path)

    def numbers(self, part: Part) -> list[Tensor]:
        """All inputs and all targets of a part."""
        windows = self.of_part(self.windows, part)
        return [windows.x, windows.y]

    def baselines(self) -> dict[str, float]:
        """The squared errors of untrained baseline forecasts on the test part."""
        outputs, windows = self.sizes["output_size"], self.windows
        units = (self._statistics.deviation / self.scaling.deviation)[:outputs].numpy()
        return forecast_baselines(windows["train"], windows["test"], outputs, self.season, units)


def _check_names(
    who: str, option: str, names: Sequence[str], one: str, none: str, what: str = "columns"
) -> None:
    """Raise ConfigError unless an option is a list of columns or the like, each once."""
    if isinstance(names, str) or len(set(names)) < len(names):
        raise ConfigError(
            f"{who}: {option} is {names!r}, expected a list of {what}, each once.\n"
            f"  For example dataset.{option}=[{one}]; [] means {none}."
        )
