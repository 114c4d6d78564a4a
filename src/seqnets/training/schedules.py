"""Learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from seqnets.checks import check_number
from seqnets.errors import ConfigError
from seqnets.signatures import signature_of
from seqnets.training.trainers import require_validations, total_steps


class Cosine(LambdaLR):
    """Raise the rate linearly to its peak, then lower it along half a cosine to a share of it.

    Args:
        optimizer: Its learning rates are the peak.
        total_steps: Optimizer steps of the whole run.
        warmup: Share of the steps in which the rate rises, in [0, 1).
        floor: Share of the peak at the end, in [0, 1].

    Raises:
        ConfigError: A share is out of its range.

    References:
        Loshchilov & Hutter, 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts",
        arXiv:1608.03983 (one cycle of it).
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup: float = 0.02, floor: float = 0.02
    ) -> None:
        check_number("Cosine", least=0, below=1, warmup=warmup)
        check_number("Cosine", least=0, most=1, floor=floor)
        rising = max(1, round(warmup * total_steps))

        def share(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            done = min(1.0, (step - rising) / max(1, total_steps - rising))
            return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))

        super().__init__(optimizer, share)


class DelayedExponential(LambdaLR):
    """Keep the rate for some epochs, then multiply it by a factor before each epoch.

    Args:
        optimizer: Its learning rates are those of the first epochs.
        delay: Epochs before the rate falls.
        gamma: The factor, in (0, 1].

    Raises:
        ConfigError: ``delay`` is below 0, or ``gamma`` out of its range.

    References:
        Zaremba et al., 2014, "Recurrent Neural Network Regularization", arXiv:1409.2329.
    """

    def __init__(self, optimizer: Optimizer, delay: int, gamma: float) -> None:
        check_number("DelayedExponential", least=0, delay=delay)
        check_number("DelayedExponential", above=0, most=1, gamma=gamma)
        super().__init__(optimizer, lambda epoch: gamma ** max(0, epoch + 1 - delay))


def make_schedule(
    make: Callable[..., Any], optimizer: Optimizer, trainer: Trainer
) -> tuple[Any, str]:
    """A run's schedule, and the interval at which it advances: "step" or "epoch".

    Raises:
        ConfigError: The run does not have what the schedule follows.
    """
    if takes_total_steps(make):
        total = total_steps(trainer)
        if total is None:
            raise ConfigError(
                "scheduler: needs total_steps, expected a run of known length.\n"
                "  Give trainer.max_epochs or trainer.max_steps beside max_time, or take "
                "scheduler=constant."
            )
        return make(optimizer, total_steps=total), "step"
    schedule = make(optimizer)
    if isinstance(schedule, ReduceLROnPlateau):
        if schedule.mode != "min":
            raise ConfigError(
                f"scheduler: mode is {schedule.mode!r}, expected 'min': it follows the "
                f"validation loss."
            )
        require_validations(trainer, "scheduler: ReduceLROnPlateau")
    return schedule, "epoch"


def takes_total_steps(make: Callable[..., Any]) -> bool:
    """Whether a schedule is told the run's steps, and advances with each of them."""
    return "total_steps" in signature_of(make).parameters
