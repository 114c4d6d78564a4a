"""Predicting what comes next."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from torchmetrics import Metric

from seqnets.errors import ConfigError
from seqnets.training.objectives.base import Objective, Outcome, score_steps
from seqnets.typing import Batch, Known


class LanguageModelling(Objective):
    """Cross-entropy of the next token, over all steps.

    Args:
        unit: What a token is: "characters" (compared in bits per character) or "words" (compared
            in perplexity).
    """

    def __init__(self, unit: str = "characters") -> None:
        if unit not in ("characters", "words"):
            raise ConfigError(
                f"LanguageModelling: unit is {unit!r}, expected 'characters' or 'words'."
            )
        self.metric = "bits_per_character" if unit == "characters" else "perplexity"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score each next token; ``IGNORE`` where none is."""
        return score_steps(model, batch, state)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """None: all figures follow from the loss."""
        return {}

    def derived(self, loss: float) -> dict[str, float]:
        """The loss in bits for each token, or as perplexity."""
        if self.metric == "perplexity":
            return {"perplexity": math.exp(min(loss, 700.0))}
        return {"bits_per_character": loss / math.log(2)}
