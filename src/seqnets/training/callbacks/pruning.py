"""Ending the bad runs of a sweep early."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Timer

from seqnets.atomic import atomic
from seqnets.checks import check_count
from seqnets.errors import counted
from seqnets.training.trainers import callbacks_of, is_training, was_last_batch

_FILE = "validations.json"


class Pruning(Callback):
    """End a run of a sweep that is worse than the median of the sweep's other runs.

    After each validation the run's best score so far, in the objective's metric, is compared with
    what the other runs had reached after as many. Runs tell each other their scores in a file in
    their folders, so that any sweeper and launcher will do, on one machine or on several that share
    a disk. Runs outside a sweep, resumed ones, and those at their last validation are never pruned.

    Args:
        study: Which runs are compared; `seqnets train -m` gives each sweep a name of its own.
        warmup: Validations after which no run is pruned yet.
        least_runs: Other runs that must have come as far.

    Raises:
        ConfigError: A number is negative, or ``least_runs`` not positive.

    References:
        Golovin et al., 2017, "Google Vizier: A Service for Black-Box Optimization", section 3.2.2,
        whose rule compares with averages of the other runs' scores.
    """

    def __init__(self, study: str | None = None, warmup: int = 1, least_runs: int = 4) -> None:
        check_count(type(self).__name__, 0, warmup=warmup)
        check_count(type(self).__name__, least_runs=least_runs)
        self.study, self.warmup, self.least_runs = study, warmup, least_runs
        self.reason: str | None = None
        self._scores: list[float] = []
        self._resumed = False

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Note whether the run is a resumed one."""
        self._resumed = trainer.ckpt_path is not None

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Tell the score to the other runs, and stop if it is worse than theirs."""
        if not is_training(trainer) or self.study is None or self._resumed:
            return
        objective = pl_module.objective
        better, worst = (max, -math.inf) if objective.mode == "max" else (min, math.inf)
        score = float(trainer.callback_metrics.get(f"val/{objective.metric}", worst))
        score = worst if math.isnan(score) else score
        best = score if not self._scores else better(score, self._scores[-1])
        self._scores.append(best)
        reason = None
        if trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            self._tell(folder / _FILE, objective.metric)
            others = list(self._of_others(folder, objective.metric))
            if not _ends(trainer):
                reason = self._verdict(best, others, objective.metric, objective.mode)
        self.reason = trainer.strategy.broadcast(reason)
        trainer.should_stop = trainer.should_stop or self.reason is not None

    def _tell(self, path: Path, metric: str) -> None:
        known = {"study": self.study, "metric": metric, "best": self._scores}
        with atomic(path) as partial:
            partial.write_text(json.dumps(known), encoding="utf-8")

    def _of_others(self, folder: Path, metric: str) -> Iterator[float]:
        """The best scores of the study's other runs after as many validations."""
        for path in folder.parent.glob(f"*/{_FILE}"):
            if path.parent == folder:
                continue
            told = {}
            with suppress(FileNotFoundError):  # its folder may be deleted meanwhile
                told = json.loads(path.read_text(encoding="utf-8"))
            if (told.get("study"), told.get("metric")) == (self.study, metric):
                yield from told["best"][len(self._scores) - 1 :][:1]

    def _verdict(self, best: float, others: list[float], metric: str, mode: str) -> str | None:
        """Why the run is pruned, as a clause; None if it goes on."""
        done = len(self._scores)
        if done <= self.warmup or len(others) < self.least_runs:
            return None
        median = statistics.median(others)
        if not (best < median if mode == "max" else best > median):
            return None
        name = metric.replace("_", " ")
        return (
            f"after {counted(done, 'validation')} its best {name} is {best:.4g}, and the median of "
            f"{counted(len(others), 'other run')} {median:.4g}"
        )


def _ends(trainer: Trainer) -> bool:
    """Whether training ends with this validation, so that nothing would be saved."""
    return trainer.should_stop or was_last_batch(trainer) or _is_late(trainer)


def _is_late(trainer: Trainer) -> bool:
    """Whether a time limit was reached during the validation, which the next step would find."""
    left = [timer.time_remaining() for timer in callbacks_of(trainer, Timer)]
    return any(seconds is not None and seconds <= 0 for seconds in left)
