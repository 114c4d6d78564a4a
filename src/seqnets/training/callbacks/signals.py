"""Graceful stop on signals."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from seqnets.signals import HANGUP, heeded, outlive_terminal
from seqnets.training.trainers import ends_here, validation_follows


class StopOnSignal(Callback):
    """On SIGTERM, Ctrl-C or SIGHUP finish the batch, write ``last.ckpt`` and stop; a second kills.

    A validation that is due still runs, including the one at the run's end: a resumed run would
    have nothing left to train, and so would never validate.

    Attributes:
        received: The signal that ended the last fit, received by this process or another one of
            the run, or None. The caller should exit with 128 + its number, as is usual for signals.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._handlers: dict[int, Any] = {}
        self._outlives_terminal = False
        self._limits: tuple[Any, ...] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Forget the signal that ended an earlier fit."""
        self.received = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Install handlers in place of Lightning's, which save nothing and exit with 0."""
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._receive) for number in heeded()}

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Restore the trainer's limits; it has restored the signal handlers, its own among them.

        That of a closed terminal too, which is outlived beyond the fit.
        """
        if self._outlives_terminal:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._handlers.clear()
        self._restore_limits(trainer)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Restore the signal handlers and the trainer's limits."""
        self._restore()
        self._restore_limits(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Stop if any process has received a signal; :class:`Checkpoints` then writes.

        This overrides the run's minimum of epochs and steps.
        """
        if not self._signalled(trainer):
            return
        loop = trainer.fit_loop
        if self._limits is None:
            least = loop.epoch_loop.min_steps
            self._limits = trainer.limit_val_batches, loop.min_epochs, least
        if not (validation_follows(trainer) or ends_here(trainer)):
            trainer.limit_val_batches = 0  # else stopping would trigger a validation
        loop.min_epochs, loop.epoch_loop.min_steps = 0, None
        trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Share a signal received since with all processes."""
        self._signalled(trainer)

    def _signalled(self, trainer: Trainer) -> bool:
        """Whether any process has received a signal; ``received`` is then set in all of them."""
        strategy = trainer.strategy
        if not strategy.reduce_boolean_decision(self.received is not None, all=False):
            return False
        number = torch.tensor(self.received or 0, device=strategy.root_device)
        self.received = int(strategy.reduce(number, reduce_op="max"))
        return True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if number == HANGUP:  # the end of a session sends it beside SIGTERM: it is no second one
            outlive_terminal()
            self._outlives_terminal = True
            self._handlers.pop(number, None)
        else:
            self._restore(HANGUP)

    def _restore_limits(self, trainer: Trainer) -> None:
        if self._limits is not None:
            trainer.limit_val_batches, trainer.fit_loop.min_epochs, least = self._limits
            trainer.fit_loop.epoch_loop.min_steps, self._limits = least, None

    def _restore(self, kept: int | None = None) -> None:
        for number in self._handlers.keys() - {kept}:
            signal.signal(number, self._handlers.pop(number))
