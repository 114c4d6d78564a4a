"""Early stopping."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer, callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from seqnets.errors import ConfigError, counted


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's early stopping, with checks before training and a reason for stopping.

    It runs after validations, not after epochs: at the end of its first epoch a resumed run may not
    have validated yet. A resumed run uses the configured patience, not the checkpoint's,
    and stops at once if that is exhausted.

    Args:
        monitor: The figure that should improve: ``val/loss``, or a metric such as ``val/accuracy``.
        check_on_train_epoch_end: Whether to check at the end of an epoch instead.
        **options: Lightning's own, such as ``patience`` (validations, or epochs if it checks at
            their end) and ``mode`` ("min", "max").

    Raises:
        ConfigError: At the start of the run: ``monitor`` is not a logged figure, or ``mode`` is the
            wrong direction for it.
    """

    def __init__(self, monitor: str, *, check_on_train_epoch_end: bool = False, **options: Any):
        super().__init__(monitor, check_on_train_epoch_end=check_on_train_epoch_end, **options)

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Check the figure's name, unless it may be absent (``strict=False``), and the mode."""
        known = {f"val/{name}": mode for name, mode in pl_module.figures.items()}
        known |= {"train/loss": "min", "step": None}
        if self.strict and self.monitor not in known:
            raise ConfigError(
                f"EarlyStopping: monitor is {self.monitor!r}, expected one of {', '.join(known)}.\n"
                "  Set callbacks.early_stopping.monitor to a figure that is logged."
            )
        if self.monitor.startswith("val/") and not trainer.limit_val_batches:
            raise ConfigError(
                f"EarlyStopping: monitor is {self.monitor!r} and trainer.limit_val_batches 0, "
                f"expected validations: without any the run would never stop early."
            )
        mode = known.get(self.monitor)
        if mode not in (None, self.mode):
            raise ConfigError(
                f"EarlyStopping: mode is {self.mode!r} for {self.monitor}, expected {mode!r}, the "
                f"way in which it gets better.\n  Set callbacks.early_stopping.mode={mode}."
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counters, but neither patience nor the reason for an earlier stop."""
        patience = self.patience
        super().load_state_dict(state_dict)
        self.patience = patience
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Stop a resumed run if its last validation was one too many."""
        if self.wait_count >= max(1, self.patience):
            trainer.should_stop = True
            self.stopping_reason = EarlyStoppingReason.PATIENCE_EXHAUSTED

    @property
    def reason(self) -> str | None:
        """Why it stopped this run, as a clause; None if it did not."""
        better = "fallen" if self.mode == "min" else "risen"
        unit = "epoch" if self._check_on_train_epoch_end else "validation"
        return {
            EarlyStoppingReason.NOT_STOPPED: None,
            EarlyStoppingReason.NON_FINITE_METRIC: f"{self.monitor} is infinite or NaN",
            EarlyStoppingReason.STOPPING_THRESHOLD: f"{self.monitor} has reached "
            f"stopping_threshold {self.stopping_threshold}",
            EarlyStoppingReason.DIVERGENCE_THRESHOLD: f"{self.monitor} has passed "
            f"divergence_threshold {self.divergence_threshold}",
            EarlyStoppingReason.PATIENCE_EXHAUSTED: f"{self.monitor} has not {better} for "
            f"{counted(self.wait_count, unit)}",
        }[self.stopping_reason]
