"""Predicting what comes next."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from seqnets.checks import check_choice, is_number
from seqnets.datasets.codecs import UNITS
from seqnets.datasets.pieces import PieceVocabulary, read_vocabulary, spell
from seqnets.errors import ConfigError, DataError
from seqnets.insight.canvas import Picture
from seqnets.insight.surprise import draw_surprise
from seqnets.models import SoftmaxHead
from seqnets.training.metrics import BitsPerCharacter
from seqnets.training.objectives.base import (
    Objective,
    Outcome,
    Row,
    check_targets,
    entries,
    perplexity,
    score_features,
    score_steps,
    wide,
)
from seqnets.typing import IGNORE, Batch, Known

_PICTURED = 8
"""Rows of a batch that are drawn, at most."""


class LanguageModelling(Objective):
    """Cross-entropy of the next token, over all steps.

    Args:
        unit: What a token is: "words" (compared in perplexity), "characters" or "bpe", pieces of
            words (both compared in bits per character).
        alpha: Weight in training of the last layer's mean square, after dropout, which keeps its
            outputs small.
        beta: Weight in training of the mean square of what they change by from step to step,
            before dropout, which keeps them slow.

    Raises:
        ConfigError: ``unit`` is none of these, or a weight is negative.

    References:
        Merity et al., 2017, "Revisiting Activation Regularization for Language RNNs",
        arXiv:1708.01009.
    """

    def __init__(self, unit: str = "characters", alpha: float = 0.0, beta: float = 0.0) -> None:
        check_choice("LanguageModelling", UNITS, unit=unit)
        if min(alpha, beta) < 0:
            raise ConfigError(
                f"LanguageModelling: alpha is {alpha} and beta {beta}, expected weights from 0."
            )
        self.alpha, self.beta = alpha, beta
        self.unit = unit
        self.metric = "perplexity" if unit == "words" else "bits_per_character"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score each next token; ``IGNORE`` where none is.

        In evaluation the predictions are the nats of each target, (B, T), 0 where none is, and the
        details are the likeliest tokens.
        """
        if not model.training:
            return _nats_of_each(model, batch, state)
        if not (self.alpha or self.beta):
            return score_steps(model, batch, state)
        y, dropped, state = model.activations(  # type: ignore[operator]
            batch.x, state, batch.lengths
        )
        outcome = score_features(model.output, dropped, batch, state)  # type: ignore[arg-type]
        return outcome._replace(penalty=self._penalty(y, dropped))

    def _penalty(self, y: Tensor, dropped: Tensor) -> Tensor:
        penalty = self.alpha * dropped.square().mean()
        if y.shape[1] > 1:
            penalty = penalty + self.beta * y.diff(dim=1).square().mean()
        return penalty

    def metrics(self, known: Known) -> dict[str, Metric]:
        """None where all figures follow from the loss; else what pieces cost a character."""
        if self.unit != "bpe":
            return {}
        vocabulary = read_vocabulary(known)
        if not isinstance(vocabulary, PieceVocabulary):
            raise ConfigError(
                f"LanguageModelling: unit is 'bpe' and the dataset's tokens are "
                f"{vocabulary.unit}, expected the same.\n"
                f"  Leave objective.unit out: it is the dataset's."
            )
        return {"bits_per_character": BitsPerCharacter(vocabulary.characters)}

    def derived(self, loss: float) -> dict[str, float]:
        """The loss in bits for each character, or as perplexity; of pieces neither follows."""
        if self.unit == "words":
            return {"perplexity": perplexity(loss)}
        return {"bits_per_character": loss / math.log(2)} if self.unit == "characters" else {}

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """A row a scored token: the likeliest one, the one that came, and the nats of that.

        Words and characters are as the vocabulary lists them, pieces of words as they stand in a
        text (:func:`~seqnets.datasets.pieces.spell`). ``text`` says which row of the batch it
        stood in, each of which is a part of the text: a stable sort by it gives the text in its
        order.
        """
        tokens, scored = known["vocabulary"], (batch.y != IGNORE).cpu()
        name = _naming(known)
        columns = (
            scored.nonzero()[:, 0],
            *(each.cpu()[scored] for each in (outcome.details, batch.y, outcome.predictions)),
        )
        return [
            {
                "text": text,
                "prediction": name(tokens[said]),
                "target": name(tokens[came]),
                "nats": round(nats, 6),
            }
            for text, said, came, nats in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """The nats of each target, and the targets, both (N,)."""
        names = map(_naming(known), known["vocabulary"])
        numbers = {name: number for number, name in enumerate(names)}
        targets, nats = entries(rows, "target"), entries(rows, "nats")
        for place, (target, cost) in enumerate(zip(targets, nats, strict=True), start=1):
            if not isinstance(target, str) or target not in numbers:
                raise DataError(
                    f"Row {place}: target {target!r} came, expected one of the {len(numbers):,} "
                    f"tokens that the model knows."
                )
            if not is_number(cost) or not cost >= 0:
                raise DataError(f"Row {place}: nats {cost!r} came, expected a number from 0.")
        ids = [numbers[target] for target in targets]
        return torch.tensor(nats, dtype=torch.float64), torch.tensor(ids)

    def scores(self, rows: Sequence[Row], known: Known) -> dict[str, float]:
        """The mean nats of a token, and what follows from them."""
        mean = float(self.read(rows, known)[0].mean())
        return {"loss": mean, **self.derived(mean), **super().scores(rows, known)}

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """The text of the first rows; the darker a token, the less it was expected."""
        vocabulary = read_vocabulary(known)
        x, y, nats = (each[:_PICTURED].cpu() for each in (batch.x, batch.y, outcome.predictions))
        passages = []
        for first, targets, costs in zip(x[:, :1], y, nats, strict=True):
            scored = targets != IGNORE
            shown = [vocabulary.piece(n) for n in [*first.tolist(), *targets[scored].tolist()]]
            passages.append((shown, [math.nan, *costs[scored].tolist()]))
        return {"surprise": draw_surprise(passages)}


def _naming(known: Known) -> Callable[[str], str]:
    """How rows write a token that the vocabulary lists."""
    return spell if known["unit"] == "bpe" else str


def _nats_of_each(model: nn.Module, batch: Batch, state: Any) -> Outcome:
    """Score a batch token by token, by the model's head if it has one."""
    output = getattr(model, "output", None)
    if isinstance(output, SoftmaxHead):
        check_targets(batch.y, output.num_classes)
        y, state = model.features(batch.x, state, batch.lengths)  # type: ignore[operator]
        nats, likeliest = output.score(y, batch.y)
    else:
        logits, state = model(batch.x, state, batch.lengths)
        check_targets(batch.y, logits.shape[-1])
        nats = F.cross_entropy(
            wide(logits).flatten(0, 1), batch.y.flatten(), ignore_index=IGNORE, reduction="none"
        ).view_as(batch.y)
        likeliest = logits.argmax(-1)
    count = (batch.y != IGNORE).sum()
    nats = wide(nats)
    loss = nats.sum() / count.clamp(min=1)
    return Outcome(loss, count, nats.detach(), batch.y, state, likeliest)
