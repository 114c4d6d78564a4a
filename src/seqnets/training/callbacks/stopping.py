"""Ending a run that no longer gets better."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer, callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from seqnets.errors import ConfigError, counted


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, but it looks for its figure before training, and says why it has stopped.

    It looks after validations, and not after epochs, at whose ends a run that is resumed has had
    none yet. A run that goes on takes the patience that it is given now, and not the checkpoint's.

    Raises:
        ConfigError: At the start of the run: there is no figure of this name, or ``mode`` says that
            it gets better where it gets worse.
    """

    def __init__(self, monitor: str, *, check_on_train_epoch_end: bool = False, **options: Any):
        super().__init__(monitor, check_on_train_epoch_end=check_on_train_epoch_end, **options)

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Look for the figure, unless it may be absent (``strict=False``), and which way is up."""
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
                f"expected validations: without any the run would never be stopped."
            )
        mode = known.get(self.monitor)
        if mode not in (None, self.mode):
            raise ConfigError(
                f"EarlyStopping: mode is {self.mode!r} for {self.monitor}, expected {mode!r}, the "
                f"way in which it gets better.\n  Set callbacks.early_stopping.mode={mode}."
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on, and forget why the run stopped before."""
        patience = self.patience
        super().load_state_dict(state_dict)
        self.patience = patience
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message = None

    @property
    def reason(self) -> str | None:
        """Why it stopped this run, as the end of a sentence; None if it did not."""
        better = "fallen" if self.mode == "min" else "risen"
        return {
            EarlyStoppingReason.NOT_STOPPED: None,
            EarlyStoppingReason.NON_FINITE_METRIC: f"{self.monitor} is infinite or NaN",
            EarlyStoppingReason.STOPPING_THRESHOLD: f"{self.monitor} has reached "
            f"stopping_threshold {self.stopping_threshold}",
            EarlyStoppingReason.DIVERGENCE_THRESHOLD: f"{self.monitor} has passed "
            f"divergence_threshold {self.divergence_threshold}",
            EarlyStoppingReason.PATIENCE_EXHAUSTED: f"{self.monitor} has not {better} for "
            f"{counted(self.wait_count, 'validation')}",
        }[self.stopping_reason]
