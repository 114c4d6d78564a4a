"""Figures in files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment

from seqnets.atomic import atomic


class CSVLogger(loggers.CSVLogger):
    """Lightning's, but a run that goes on adds to the rows that its ``metrics.csv`` has."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What writes the rows."""
        if self._experiment is None:
            self._experiment = _Adding(self.log_dir)
        return self._experiment


class _Adding(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:  # Lightning's takes the file away
        path = Path(self.metrics_file_path)
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def purge_after(self, step: int) -> None:
        """Take away the rows of later steps, and of the training at this one: they come again."""
        path = Path(self.metrics_file_path)
        if not path.exists():
            return
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.metrics_keys)
            writer.writeheader()
            writer.writerows(row for row in rows if _is_told(row, step))


def _is_told(row: dict[str, Any], step: int) -> bool:
    """Whether a row was written before a step's checkpoint, and is whole: the last may not be."""
    at = row["step"]
    return bool(at) and (int(at), bool(row.get("train/loss"))) <= (step, False)
