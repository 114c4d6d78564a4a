"""Questions to Lightning's trainer that it does not answer itself."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Trainer


def is_training(trainer: Trainer) -> bool:
    """Whether a trainer is in ``fit``, its sanity check aside."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def is_time_to_log(trainer: Trainer) -> bool:
    """Whether the next optimizer step is a logging step."""
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return bool(every) and trainer.global_step % every == 0


def total_steps(trainer: Trainer) -> int | None:
    """Optimizer steps of the whole run; None if only time limits it.

    Lightning's ``estimated_stepping_batches`` would set up the data so early that, on resume, the
    loader would not learn its position in the epoch.
    """
    longest = None if trainer.max_steps == -1 else trainer.max_steps
    if trainer.max_epochs in (None, -1):
        return longest
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    batches, limit = len(data.train_dataloader()), trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * max(trainer.max_epochs, 1)
    return steps if longest is None else min(steps, longest)
