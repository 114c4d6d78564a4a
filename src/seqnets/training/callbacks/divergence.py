"""Stop a run whose numbers are no longer finite."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer

from seqnets.checks import check_count
from seqnets.datasets.files.sequences import SequenceFiles
from seqnets.errors import DivergenceError
from seqnets.training.callbacks.base import SequenceCallback
from seqnets.training.callbacks.checkpoints import Checkpoints
from seqnets.training.callbacks.deferred import Deferred
from seqnets.training.trainers import data_of, is_training


class DivergenceGuard(SequenceCallback):
    """Stop when the loss, a gradient or the validation loss is NaN or infinite.

    On a CPU every step is checked, before the weights are updated. On other devices that would
    force a synchronisation: the numbers are copied every ``every_n_steps`` steps and checked one
    step later, or before a checkpoint is written. Divergence in between shows in the weights, and
    no checkpoint is written unless they are finite. A validation loss is checked before its
    checkpoints are written.

    Args:
        every_n_steps: Steps between two checks on devices other than CPUs.

    Raises:
        ConfigError: ``every_n_steps`` is not a positive integer.
        DivergenceError: From the training loop; names step, epoch, batch and the last checkpoint.
    """

    def __init__(self, every_n_steps: int = 20) -> None:
        check_count("DivergenceGuard", every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self._batch = 0
        self._reading: _Reading | None = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch's number, for the message."""
        self._batch = batch_idx

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        """Check the loss, and the gradients that are about to be applied."""
        self._check(trainer)
        on_cpu = pl_module.device.type == "cpu"
        if not on_cpu and trainer.global_step % self.every_n_steps:
            return
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        loss = pl_module.last_loss.float()
        norm = torch.nn.utils.get_total_norm(gradients)
        place = f"{_place(trainer)}, batch {self._batch}"
        self._reading = _Reading(Deferred(torch.stack([loss, norm.to(loss)])), place, on_cpu)
        if on_cpu:
            self._check(trainer)
        if trainer.world_size == 1:  # else it may be the norm of one shard
            pl_module.gradient_norm = norm

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Check the loss of the validation part."""
        loss = float(trainer.callback_metrics.get("val/loss", 0.0))
        if is_training(trainer) and not math.isfinite(loss):
            raise _error(trainer, f"the validation loss is {loss}", _place(trainer), "not kept")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: Any) -> None:
        """Refuse to overwrite a good checkpoint once the numbers or weights are not finite."""
        self._check(trainer)
        named = pl_module.named_parameters()
        bad = next((name for name, weight in named if not weight.isfinite().all()), None)
        if bad is not None:
            found = f"{bad} has numbers that are infinite or NaN"
            raise _error(trainer, found, _place(trainer), "not kept")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Check the last numbers."""
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._reading is None:
            return
        reading, self._reading = self._reading, None
        loss, norm = reading.numbers.read()
        weights = "not changed by it" if reading.in_time else "perhaps changed by it"
        if not math.isfinite(loss):
            raise _error(trainer, f"the loss is {loss}", reading.place, weights)
        if not math.isfinite(norm) and trainer.precision != "16-mixed":  # its scaler skips those
            found = f"the loss is {loss:.4g} and the gradient's norm {norm}"
            raise _error(trainer, found, reading.place, weights)


class _Reading(NamedTuple):
    """A loss and a gradient norm, their step, and whether they are read before the update."""

    numbers: Deferred
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
        f"  {_advice(trainer)}"
    )


def _advice(trainer: Trainer) -> str:
    data = data_of(trainer)
    if isinstance(data, SequenceFiles) and data.missing == "keep":
        return (
            "dataset.missing=keep leaves NaN where a value is missing, which few cells can handle: "
            "take model/cell=grud, or dataset.missing=forward or zero.\n"
            f"  If your cell can: {_of_numbers(trainer.precision)}"
        )
    if trainer.global_step == 0 and trainer.precision != "16-true":
        return (
            "No weight has changed yet, so the learning rate is not the cause. If outputs grow "
            "from layer to layer, as with cells that keep matrices, try model.norm=rms."
        )
    return _of_numbers(trainer.precision)


def _of_numbers(precision: str) -> str:
    if precision == "16-true":  # Adam's eps of 1e-8 is 0 in float16
        return (
            "In float16 numbers above 65504 are infinite and those below 6e-8 are 0: try "
            "trainer.precision=16-mixed or bf16-mixed, or +optimizer.eps=1e-4 with Adam."
        )
    return (
        "Try a lower learning rate (optimizer.lr) or gradient clipping (trainer.gradient_clip_val)."
    )
