"""Stopping before a run spends hours on numbers that are none."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from seqnets.errors import ConfigError, DivergenceError
from seqnets.training.callbacks.checkpoints import Checkpoints


class DivergenceGuard(Callback):
    """Stop when the loss or a gradient is NaN or infinite, before the weights take it in.

    Args:
        every_n_steps: Steps between two looks, where a look makes the device wait; on a CPU each
            step is looked at.

    Raises:
        DivergenceError: From the training loop; says step, epoch, batch, and the last checkpoint.
    """

    def __init__(self, every_n_steps: int = 20) -> None:
        if every_n_steps < 1:
            raise ConfigError(
                f"DivergenceGuard: every_n_steps is {every_n_steps}, expected at least 1."
            )
        self.every_n_steps = every_n_steps
        self._batch = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the batch's number, for the message."""
        self._batch = batch_idx

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        """Look at the loss and the gradients that are about to be used."""
        on_cpu = pl_module.device.type == "cpu"
        if not on_cpu and trainer.global_step % self.every_n_steps:
            return
        loss = float(pl_module.last_loss)
        if not math.isfinite(loss):
            raise self._error(trainer, f"the loss is {loss}")
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm) and trainer.precision != "16-mixed":  # its scaler skips those
            raise self._error(trainer, f"the loss is {loss:.4g} and the gradient's norm {norm}")

    def _error(self, trainer: Trainer, found: str) -> DivergenceError:
        last = Checkpoints.folder(trainer) / "last.ckpt"
        kept = (
            f"The last checkpoint is {last}" if last.exists() else "No checkpoint was written yet"
        )
        return DivergenceError(
            f"Training: {found} at step {trainer.global_step}, epoch {trainer.current_epoch}, "
            f"batch {self._batch}; expected finite numbers.\n"
            f"  The weights have not been changed by it. {kept}.\n"
            f"  Try a lower learning rate (optimizer.lr) or gradient clipping "
            f"(trainer.gradient_clip_val)."
        )
