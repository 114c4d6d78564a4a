"""Stopping before a run spends hours on numbers that are none."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, Trainer

from seqnets.checks import check_count
from seqnets.errors import DivergenceError
from seqnets.training.callbacks.checkpoints import Checkpoints
from seqnets.training.callbacks.later import Later
from seqnets.training.module import is_training


class DivergenceGuard(Callback):
    """Stop when the loss, a gradient or the validation's loss is NaN or infinite.

    On a CPU each step is looked at, before the weights take it in. Elsewhere that would make the
    device wait: every so many steps the numbers are sent for, and looked at one step later or
    before a checkpoint is written. What happened in between shows in the weights, which no
    checkpoint takes in unless they are finite. A validation's loss is looked at before its
    checkpoints are written.

    Args:
        every_n_steps: Steps between two looks at a device that is no CPU.

    Raises:
        ConfigError: ``every_n_steps`` is no integer from 1.
        DivergenceError: From the training loop; says step, epoch, batch, and the last checkpoint.
    """

    def __init__(self, every_n_steps: int = 20) -> None:
        check_count("DivergenceGuard", every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self._batch = 0
        self._look: _Look | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the batch's number, for the message."""
        self._batch = batch_idx

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        """Look at the loss and the gradients that are about to be used."""
        self._judge(trainer)
        on_cpu = pl_module.device.type == "cpu"
        if not on_cpu and trainer.global_step % self.every_n_steps:
            return
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        loss = pl_module.last_loss.float()
        norm = torch.nn.utils.get_total_norm(gradients)
        place = f"{_place(trainer)}, batch {self._batch}"
        self._look = _Look(Later(torch.stack([loss, norm.to(loss)])), place, on_cpu)
        if on_cpu:
            self._judge(trainer)
        if trainer.world_size == 1:  # else it may be that of a share of them
            pl_module.gradient_norm = norm

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Look at the loss of the whole validation part."""
        loss = float(trainer.callback_metrics.get("val/loss", 0.0))
        if is_training(trainer) and not math.isfinite(loss):
            raise _error(trainer, f"the validation loss is {loss}", _place(trainer), "not kept")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: Any) -> None:
        """Let no checkpoint be written over a good one once the numbers or the weights are bad."""
        self._judge(trainer)
        named = pl_module.named_parameters()
        bad = next((name for name, weight in named if not weight.isfinite().all()), None)
        if bad is not None:
            found = f"{bad} has numbers that are infinite or NaN"
            raise _error(trainer, found, _place(trainer), "not kept")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """The last look."""
        self._judge(trainer)

    def _judge(self, trainer: Trainer) -> None:
        if self._look is None:
            return
        (loss, norm), look = self._look.numbers.read(), self._look
        self._look = None
        weights = "not changed by it" if look.in_time else "perhaps changed by it"
        if not math.isfinite(loss):
            raise _error(trainer, f"the loss is {loss}", look.place, weights)
        if not math.isfinite(norm) and trainer.precision != "16-mixed":  # its scaler skips those
            found = f"the loss is {loss:.4g} and the gradient's norm {norm}"
            raise _error(trainer, found, look.place, weights)


class _Look(NamedTuple):
    """A loss and a gradient's norm, where they come from, and if read before the weights change."""

    numbers: Later
    place: str
    in_time: bool


def _place(trainer: Trainer) -> str:
    return f"step {trainer.global_step}, epoch {trainer.current_epoch}"


def _error(trainer: Trainer, found: str, place: str, weights: str) -> DivergenceError:
    last = Checkpoints.folder(trainer) / "last.ckpt"
    kept = f"The last checkpoint is {last}" if last.exists() else "No checkpoint was written yet"
    return DivergenceError(
        f"Training: {found} at {place}; expected finite numbers.\n"
        f"  The weights are {weights}. {kept}.\n"
        f"  Try a lower learning rate (optimizer.lr) or gradient clipping "
        f"(trainer.gradient_clip_val)."
    )
