"""When to write checkpoints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint

from seqnets.checks import check_count
from seqnets.training.callbacks.base import SequenceCallback
from seqnets.training.loggers import mark_place
from seqnets.training.trainers import ends_here, is_training, validation_follows


class Checkpoints(SequenceCallback, Checkpoint):
    """Keep the best checkpoint and the last one, in the run's folder ``checkpoints``.

    ``best.ckpt`` is written when the objective's metric improves on the validation part; ties,
    which few sequences make likely, are broken by the loss. ``last.ckpt`` is written after each
    validation, at the end, and every ``every_n_steps`` steps. A run that ends by its steps, epochs
    or time is validated at its end, whatever the interval, so that its last weights can be the
    best. Both files are written only when Lightning's loops can resume exactly: after a validation,
    or after a batch that no validation follows. Lightning calls this callback after all others,
    whose states it saves.

    Args:
        every_n_steps: Steps between two writes of ``last.ckpt``; with 0 it is written only after
            validations and at the end.

    Attributes:
        best_model_path: Where ``best.ckpt`` is, for Lightning's ``ckpt_path="best"``; empty before
            there is one.
    """

    def __init__(self, every_n_steps: int = 0) -> None:
        check_count("Checkpoints", 0, every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self.best_score: float | None = None
        self.best_loss = math.inf
        self.best_model_path = ""
        self._metric: str | None = None
        self._saved_at = 0
        self._validated_at = -1
        self._limits: tuple[int | None, int | None] | None = None

    @staticmethod
    def folder(trainer: Trainer) -> Path:
        """The folder of a trainer's checkpoints."""
        return Path(trainer.default_root_dir) / "checkpoints"

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, its loss, its metric, and the step of the last validation."""
        best = {"best_score": self.best_score, "best_loss": self.best_loss}
        return {**best, "metric": self._metric, "validated_at": self._validated_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score of a resumed run."""
        self.best_score = state_dict["best_score"]
        self.best_loss = state_dict["best_loss"]
        self._metric = state_dict.get("metric")
        self._validated_at = state_dict.get("validated_at", -1)

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Forget the best score if it is in another metric, or its checkpoint is not here."""
        metric = pl_module.objective.metric
        best = self.folder(trainer) / "best.ckpt"
        kept = trainer.strategy.broadcast(best.exists())
        if self._metric not in (None, metric) or not kept:
            self.best_score, self.best_loss = None, math.inf
        self.best_model_path = "" if self.best_score is None else str(best)
        self._metric = metric

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Remember the trainer's limits."""
        self._limits = trainer.check_val_every_n_epoch, trainer.fit_loop.min_epochs

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Write ``last.ckpt`` if it is due and no validation follows, which would write it."""
        step = trainer.global_step
        ends = ends_here(trainer)
        if ends:  # the last weights are validated, whatever the intervals and minima are
            trainer.should_stop = True
            trainer.check_val_every_n_epoch = 1
            trainer.fit_loop.min_epochs = 0  # reached, which Lightning counts after the validation
        due = self.every_n_steps and step % self.every_n_steps == 0 and step != self._saved_at
        if (due or ends) and not validation_follows(trainer):
            self.save_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Restore the trainer's limits, and have what is shown at the end kept."""
        self._restore_limits(trainer)
        if self._saved_at == trainer.global_step:
            mark_place(trainer)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Restore the trainer's limits."""
        self._restore_limits(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write ``last.ckpt``, and ``best.ckpt`` if the score is the best so far."""
        if not is_training(trainer):
            return
        objective, self._validated_at = pl_module.objective, trainer.global_step
        score, loss = (
            float(trainer.callback_metrics.get(f"val/{name}", math.nan))
            for name in (objective.metric, "loss")
        )
        sign = 1 if objective.mode == "max" else -1
        if math.isfinite(score) and (
            self.best_score is None
            or (sign * score, -loss) > (sign * self.best_score, -self.best_loss)
        ):
            self.best_score, self.best_loss = score, loss
            self._save(trainer, "best.ckpt")
            self.best_model_path = str(self.folder(trainer) / "best.ckpt")
        self.save_last(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Have a run that goes on from its end keep the figures of this test."""
        mark_place(trainer)

    def _restore_limits(self, trainer: Trainer) -> None:
        if self._limits is not None:
            trainer.check_val_every_n_epoch, trainer.fit_loop.min_epochs = self._limits
            self._limits = None

    def save_last(self, trainer: Trainer) -> None:
        """Write ``last.ckpt`` now."""
        self._saved_at = trainer.global_step
        self._save(trainer, "last.ckpt")

    def _save(self, trainer: Trainer, name: str) -> None:
        module: Any = trainer.lightning_module
        with module.as_validated():
            trainer.save_checkpoint(self.folder(trainer) / name, weights_only=False)
        mark_place(trainer)
