"""Loggers, and what runs ask of them that Lightning does not do by itself."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Trainer, loggers
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from seqnets.atomic import atomic
from seqnets.errors import ConfigError
from seqnets.training.event_files import files_in, forget_after, mark_checkpoint

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class CSVLogger(loggers.CSVLogger):
    """Lightning's CSV logger, but a resumed run appends to its ``metrics.csv``."""

    _resumed: tuple[int, bool] | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of the rows."""
        if self._experiment is None:
            self._experiment = writer = _AppendingWriter(self.log_dir)
            if self._resumed is not None:
                writer.purge_after(*self._resumed)
        return self._experiment


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's TensorBoard logger, without its file of hyperparameters: a run has its own."""

    _resumed: int | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of the events.

        Raises:
            ConfigError: The path of their folder has bytes that are not UTF-8.
        """
        folder = Path(self.log_dir)
        if self._experiment is None and self._resumed is not None:
            forget_after(folder, self._resumed)
        elif self._experiment is None and not files_in(folder):
            # TensorBoard heeds the second start that it sees, and takes that of a resumed run for
            # the first otherwise
            self._kwargs.setdefault("purge_step", 0)
        try:
            return super().experiment
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"logger: TensorBoard cannot write to {self.log_dir!r}, expected a path in UTF-8.\n"
                "  Give the folder another name, or take another logger for a new run: logger=csv."
            ) from error

    @rank_zero_only
    def save(self) -> None:
        """Write what has been logged so far."""
        self.experiment.flush()


def purge_after(trainer: Trainer, step: int, scored: bool) -> None:
    """Make loggers drop what a killed run wrote after its checkpoint, since those steps run again.

    They do when they begin to write. Call this before anything is logged.

    Args:
        trainer: The trainer of the resumed run.
        step: The checkpoint's number of steps.
        scored: Whether it follows a validation, or the test too, which are kept.
    """
    for logger in trainer.loggers:
        if isinstance(logger, loggers.TensorBoardLogger):
            # for a TensorBoard that is open and keeps what it has read
            logger._kwargs["purge_step"] = step + scored
        if isinstance(logger, TensorBoardLogger):
            logger._resumed = step
        elif isinstance(logger, CSVLogger):
            logger._resumed = step, scored


def mark_place(trainer: Trainer) -> None:
    """Note in TensorBoard's events that what has been logged belongs to the step's checkpoint."""
    writer = writer_of(trainer)
    if writer is not None:
        mark_checkpoint(writer, trainer.global_step)


def finish(trainer: Trainer, failed: bool) -> None:
    """End a run of W&B, if one began: it would otherwise go on in the process's next run."""
    for logger in trainer.loggers:
        run = logger._experiment if isinstance(logger, loggers.WandbLogger) else None
        if run is not None:
            run.finish(exit_code=int(failed))


def writer_of(trainer: Trainer) -> SummaryWriter | None:
    """This process's TensorBoard writer; None if it has none."""
    for logger in trainer.loggers:
        if isinstance(logger, loggers.TensorBoardLogger) and trainer.is_global_zero:
            return logger.experiment
    return None


class _AppendingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:  # Lightning's would delete the file
        path = Path(self.metrics_file_path)
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def purge_after(self, step: int, scored: bool) -> None:
        """Drop rows that will be written again: of this step all but its scores, if any."""
        path = Path(self.metrics_file_path)
        if not path.exists():
            return
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        with atomic(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.metrics_keys)
            writer.writeheader()
            writer.writerows(row for row in rows if _is_kept(row, step, scored))


def _is_kept(row: dict[str, Any], step: int, scored: bool) -> bool:
    """Whether a row precedes a step's checkpoint and is complete; the last may be cut off."""
    at = row["step"]
    if not at or int(at) != step:
        return bool(at) and int(at) < step
    return scored and not row.get("train/loss")
