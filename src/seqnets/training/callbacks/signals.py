"""Ending well when asked to."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from seqnets.training.callbacks.checkpoints import validation_follows, was_last_batch

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopOnSignal(Callback):
    """On SIGTERM or Ctrl-C finish the batch, write ``last.ckpt`` and stop; a second one is final.

    A validation that is due is made, also that of the run's last weights: nothing would be left to
    train for a run that goes on, and so nothing to bring it about.

    Attributes:
        received: The signal that came, to this process or to one that trains with it, or None. Who
            started the training exits with 128 + its number, as signals do.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}
        self._limits: tuple[Any, ...] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Listen, in the place of Lightning, which would save nothing and exit with 0."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Let signals do what they did before, and leave the trainer as it was."""
        self._restore()
        if self._limits is not None:
            trainer.limit_val_batches, trainer.fit_loop.min_epochs, least = self._limits
            trainer.fit_loop.epoch_loop.min_steps, self._limits = least, None

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Let signals do what they did before."""
        self._restore()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Stop if a signal has come to any process; :class:`Checkpoints` then writes.

        It outranks how many epochs or steps a run is to have at least.
        """
        if not self._heard(trainer):
            return
        loop = trainer.fit_loop
        if self._limits is None:
            least = loop.epoch_loop.min_steps
            self._limits = trainer.limit_val_batches, loop.min_epochs, least
        loop.min_epochs, loop.epoch_loop.min_steps = 0, None
        if not (validation_follows(trainer) or was_last_batch(trainer)):
            trainer.limit_val_batches = 0  # stopping would bring one about
        trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Have all processes know of a signal that came since."""
        self._heard(trainer)

    def _heard(self, trainer: Trainer) -> bool:
        """Whether a signal has come to any process; all of them then have received it."""
        strategy = trainer.strategy
        if not strategy.reduce_boolean_decision(self.received is not None, all=False):
            return False
        number = torch.tensor(self.received or 0, device=strategy.root_device)
        self.received = int(strategy.reduce(number, reduce_op="max"))
        return True

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
