"""Questions to Lightning's trainer that it does not answer itself."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from seqnets.errors import ConfigError
from seqnets.training.averaging import NonMonotonicASGD

_C = TypeVar("_C", bound=Callback)


def callbacks_of(trainer: Trainer, kind: type[_C]) -> list[_C]:
    """A trainer's callbacks of some kind."""
    return [found for found in trainer.callbacks if isinstance(found, kind)]  # type: ignore[attr-defined]


def data_of(trainer: Trainer) -> Any:
    """A trainer's data module; None if it was given loaders."""
    return trainer.datamodule  # type: ignore[attr-defined]


def is_training(trainer: Trainer) -> bool:
    """Whether a trainer is in ``fit``, its sanity check aside."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def is_time_to_log(trainer: Trainer) -> bool:
    """Whether the next optimizer step is a logging step."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and trainer.global_step % every == 0


def was_last_batch(trainer: Trainer) -> bool:
    """Whether a run has reached its maximum of steps or epochs with the batch that has ended."""
    return 0 <= trainer.max_steps <= trainer.global_step or (
        trainer.max_epochs is not None and 0 <= trainer.max_epochs <= _epochs(trainer)
    )


def ends_here(trainer: Trainer) -> bool:
    """Whether a run ends with the batch that has ended: by a limit, or as it was told to."""
    return was_last_batch(trainer) or (trainer.should_stop and _minimum_reached(trainer))


def _minimum_reached(trainer: Trainer) -> bool:
    """Whether a run has reached its minimum of steps and epochs with the batch that has ended."""
    loop = trainer.fit_loop
    steps, epochs = loop.min_steps or 0, loop.min_epochs or 0
    return trainer.global_step >= steps and _epochs(trainer) >= epochs


def _epochs(trainer: Trainer) -> int:
    """How many epochs are complete after the batch that has ended."""
    return trainer.current_epoch + bool(trainer.is_last_batch)


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation follows the batch that has ended."""
    loop = trainer.fit_loop
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]


def require_validations(trainer: Trainer, who: str) -> None:
    """Raise ConfigError if a run has no validations."""
    if not trainer.limit_val_batches:
        raise ConfigError(
            f"{who}: got trainer.limit_val_batches=0, expected validations: without their loss "
            f"it would have no effect."
        )


def require_one_average(trainer: Trainer) -> None:
    """Raise ConfigError if several callbacks average the weights, or one does and the optimizer."""
    from seqnets.training.callbacks import MovingAverage  # late: callbacks ask this file

    averaging: list[Any] = [
        callback
        for kind in (WeightAveraging, StochasticWeightAveraging)
        for callback in callbacks_of(trainer, kind)
    ]
    if not all(isinstance(callback, MovingAverage) for callback in averaging):
        # its averages are of the optimizer's; of the others the optimizer's would take the place
        averaging += [made for made in trainer.optimizers if isinstance(made, NonMonotonicASGD)]
    if len(averaging) > 1:
        names = " and ".join(type(found).__name__ for found in averaging)
        raise ConfigError(
            f"callbacks: got {names}, expected one that averages the weights: "
            "each would put its own averages in place of another's.\n"
            "  callbacks.NAME=null leaves one out."
        )


def is_epoch_complete(trainer: Trainer) -> bool:
    """Whether an epoch has had all its batches; Lightning may not see that when a run goes on."""
    ready = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return ready >= trainer.num_training_batches


def total_steps(trainer: Trainer) -> int | None:
    """Optimizer steps of the whole run; None if only time limits it.

    Lightning's ``estimated_stepping_batches`` would set up the data so early that, on resume, the
    loader would not learn its position in the epoch.
    """
    longest = None if trainer.max_steps == -1 else trainer.max_steps
    if trainer.max_epochs in (None, -1):
        return longest
    batches, limit = len(data_of(trainer).train_dataloader()), trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * max(trainer.max_epochs, 1)
    return steps if longest is None else min(steps, longest)
