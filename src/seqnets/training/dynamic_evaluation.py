"""Dynamic evaluation: language models that learn from a text while they are scored on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from seqnets.checks import check_number
from seqnets.errors import ConfigError
from seqnets.training.module import SequenceModule
from seqnets.training.objectives import LanguageModelling, Objective, Outcome
from seqnets.typing import Batch


@contextlib.contextmanager
def dynamically(module: SequenceModule, lr: float, decay: float = 0.0) -> Iterator[None]:
    """Have a language model learn from each batch after it is scored; restore it on exit.

    A batch is scored before its weights are updated, so that scores remain those of predictions.
    Batches have one row, because further rows are later parts of the text; with shorter chunks the
    model adapts sooner. The trainer needs ``inference_mode=False``, for gradients, and one device.

    Args:
        module: The language model.
        lr: Learning rate of the updates, at least 0.
        decay: Share of the way back to the original weights that each update goes, in [0, 1].

    Raises:
        ConfigError: The module is not a language model, a number is out of range, or a batch has
            several rows.

    References:
        Krause et al., 2018, "Dynamic Evaluation of Neural Sequence Models", arXiv:1709.07432.
    """
    objective = module.objective
    if not isinstance(objective, LanguageModelling):
        raise ConfigError(
            f"dynamic: got {type(objective).__name__}, expected LanguageModelling.\n"
            f"  Only a model whose targets are its next inputs gets to know the right answers."
        )
    check_number("dynamic", least=0, lr=lr)
    check_number("dynamic", least=0, most=1, decay=decay)
    learning = _Learning(objective, lr, decay)
    module.objective = cast(Objective, learning)
    try:
        yield
    finally:
        module.objective = objective
        learning.restore()


class _Learning:
    """An objective that updates the model's weights after each batch that it has scored."""

    def __init__(self, objective: Objective, lr: float, decay: float) -> None:
        self.objective, self.lr, self.decay = objective, lr, decay
        self._weights: list[nn.Parameter] = []
        self._originals: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        if len(batch.x) > 1:
            raise ConfigError(
                f"dynamic: got batches of {len(batch.x)} rows, expected 1.\n"
                "  Further rows are later parts of the text, which the model would learn from "
                "before it is scored on earlier ones.\n"
                "  Set dataset.batch_size=1."
            )
        if not self._weights:  # not earlier, as they are moved to the device first
            self._weights = [weight for weight in model.parameters() if weight.requires_grad]
            self._originals = [weight.detach().clone() for weight in self._weights]
        with torch.enable_grad():
            outcome = self.objective(model, batch, state)
            gradients = torch.autograd.grad(outcome.loss, self._weights, allow_unused=True)
        with torch.no_grad():
            for weight, original, gradient in zip(
                self._weights, self._originals, gradients, strict=True
            ):
                weight.lerp_(original, self.decay)
                if gradient is not None:
                    weight.sub_(gradient, alpha=self.lr)
        return outcome._replace(loss=outcome.loss.detach())

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the original weights."""
        for weight, original in zip(self._weights, self._originals, strict=True):
            weight.copy_(original)
