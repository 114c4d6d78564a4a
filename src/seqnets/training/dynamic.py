"""Language models that go on learning from what they have just been scored on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from seqnets.errors import ConfigError
from seqnets.insight.canvas import Picture
from seqnets.training.module import SequenceModule
from seqnets.training.objectives import LanguageModelling, Objective, Outcome
from seqnets.training.objectives.base import Row
from seqnets.typing import Batch, Known


@contextlib.contextmanager
def dynamically(module: SequenceModule, lr: float, decay: float = 0.0) -> Iterator[None]:
    """Have a module learn from each batch once it is scored, and afterwards as it was.

    Scores stay those of predictions: a batch changes only what is said of the batches after it. The
    text comes in one row, for rows beside each other are later text; short chunks adapt soonest.
    Gradients are needed: the trainer is one with
    ``inference_mode=False``, on one device.

    Args:
        module: Predicts what comes next.
        lr: Learning rate of the steps, from 0.
        decay: Share of the way back to the weights of before that each step takes, in [0, 1].

    Raises:
        ConfigError: The module is no language model, a number is out of its range, or a batch has
            several rows.

    References:
        Krause et al., 2018, "Dynamic Evaluation of Neural Sequence Models", arXiv:1709.07432.
    """
    objective = module.objective
    if not isinstance(objective, LanguageModelling):
        raise ConfigError(
            f"dynamic: got {type(objective).__name__}, expected LanguageModelling.\n"
            f"  Only where the next input is the target does what is right become known."
        )
    if not (lr >= 0 and 0 <= decay <= 1):
        raise ConfigError(
            f"dynamic: lr is {lr} and decay {decay}, expected a rate from 0 and a share in [0, 1]."
        )
    learning = _Learning(objective, lr, decay)
    module.objective = learning
    try:
        yield
    finally:
        module.objective = objective
        learning.forget()


class _Learning(Objective):
    """Scores as another objective does, and then changes the model's weights."""

    def __init__(self, objective: Objective, lr: float, decay: float) -> None:
        self.objective, self.lr, self.decay = objective, lr, decay
        self.metric, self.mode = objective.metric, objective.mode
        self._weights: list[nn.Parameter] = []
        self._before: list[Tensor] = []

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        if len(batch.x) > 1:
            raise ConfigError(
                f"dynamic: got batches of {len(batch.x)} rows, expected 1.\n"
                "  Rows beside each other are later text, which the model would learn from before "
                "it is scored on what comes first.\n"
                "  Give dataset.batch_size=1."
            )
        if not self._weights:  # now, when they are on the device
            self._weights = [weight for weight in model.parameters() if weight.requires_grad]
            self._before = [weight.detach().clone() for weight in self._weights]
        with torch.enable_grad():
            outcome = self.objective(model, batch, state)
            gradients = torch.autograd.grad(outcome.loss, self._weights, allow_unused=True)
        with torch.no_grad():
            for weight, before, gradient in zip(
                self._weights, self._before, gradients, strict=True
            ):
                weight.lerp_(before, self.decay)
                if gradient is not None:
                    weight.sub_(gradient, alpha=self.lr)
        return outcome._replace(loss=outcome.loss.detach())

    @torch.no_grad()
    def forget(self) -> None:
        """Put the weights back."""
        for weight, before in zip(self._weights, self._before, strict=True):
            weight.copy_(before)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Those of the objective."""
        return self.objective.metrics(known)

    def derived(self, loss: float) -> dict[str, float]:
        """What the objective derives."""
        return self.objective.derived(loss)

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """What the objective writes."""
        return self.objective.rows(outcome, batch, known)

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """What the objective reads."""
        return self.objective.read(rows, known)

    def scores(self, rows: Sequence[Row], known: Known) -> dict[str, float]:
        """The objective's scores of rows."""
        return self.objective.scores(rows, known)

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """What the objective draws."""
        return self.objective.pictures(outcome, batch, known)
