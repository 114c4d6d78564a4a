"""Language modelling: prediction of the next token."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric

from seqnets.checks import check_choice, check_number, is_number
from seqnets.datasets.text.codecs import UNITS
from seqnets.datasets.text.pieces import read_vocabulary, spell
from seqnets.errors import ConfigError, DataError
from seqnets.insight.canvas import Picture
from seqnets.insight.surprise import draw_surprise
from seqnets.models import SoftmaxHead
from seqnets.models.heads import upcast
from seqnets.training.metrics import BitsPerCharacter
from seqnets.training.objectives.base import Objective, Outcome, Row
from seqnets.training.objectives.rows import entries
from seqnets.training.objectives.scoring import (
    check_logits,
    check_targets,
    perplexity,
    score_features,
    score_steps,
)
from seqnets.typing import IGNORE, Batch, Known

_PICTURED = 8
"""The most rows of a batch that are drawn."""


class LanguageModelling(Objective):
    """Cross-entropy of the next token, over all steps.

    Args:
        unit: What a token is: "words" (compared by perplexity), "characters", or "bpe", pieces of
            words (both compared by bits per character).
        alpha: Weight of activation regularisation in training: the mean square of the last
            layer's outputs after dropout.
        beta: Weight of temporal activation regularisation in training: the mean square of their
            differences from step to step, before dropout.

    Raises:
        ConfigError: ``unit`` is unknown, or a weight is negative.

    References:
        Merity et al., 2017, "Revisiting Activation Regularization for Language RNNs",
        arXiv:1708.01009.
    """

    def __init__(self, unit: str = "characters", alpha: float = 0.0, beta: float = 0.0) -> None:
        check_choice("LanguageModelling", UNITS, unit=unit)
        check_number("LanguageModelling", least=0, alpha=alpha, beta=beta)
        self.alpha, self.beta = alpha, beta
        self.unit = unit
        self.metric = "perplexity" if unit == "words" else "bits_per_character"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score each next token; ``IGNORE`` is not scored.

        In evaluation the predictions are the nats of each target, (B, T), 0 at ``IGNORE``, and the
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
        """Bits per character for pieces of words; none else, as figures follow from the loss.

        Raises:
            ConfigError: The figure is bits per character, and the dataset's tokens are of another
                unit.
        """
        own = known.get("unit")
        if self.metric == "bits_per_character" and own in UNITS and own != self.unit:
            raise ConfigError(
                f"LanguageModelling: unit is {self.unit!r} and the dataset's tokens are {own}, "
                f"expected the same.\n  In a new run it follows from dataset.unit; "
                f"objective.unit={own} sets it."
            )
        if self.unit != "bpe":
            return {}
        vocabulary: Any = read_vocabulary(known)
        return {"bits_per_character": BitsPerCharacter(vocabulary.characters)}

    def derived(self, loss: float) -> dict[str, float]:
        """Perplexity of words or bits per character; nothing for pieces of words."""
        if self.unit == "words":
            return {"perplexity": perplexity(loss)}
        return {"bits_per_character": loss / math.log(2)} if self.unit == "characters" else {}

    def in_metric(self, baselines: Mapping[str, float], known: Known) -> dict[str, float]:
        """Baselines are in bits per word or per character; perplexity is a power of bits."""
        if self.metric != "perplexity":
            return dict(baselines)
        return {name: math.pow(2, bits) for name, bits in baselines.items()}

    def served(
        self, model: nn.Module, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[dict[str, Tensor], Any]:
        """Logits of the token after each step, (B, T, V)."""
        logits, state = model(x, state, lengths)
        return {"logits": logits}, state

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """A row per scored token: the likeliest token, the target, and the target's nats.

        Words and characters are written as the vocabulary lists them, pieces of words as in
        running text (:func:`~seqnets.datasets.text.pieces.spell`). ``text`` is the row of the
        batch. Each row reads its own part of the text, so a stable sort by ``text`` restores the
        text's order.
        """
        name, tokens = _naming(known), known["vocabulary"]
        scored = batch.y != IGNORE
        texts = scored.nonzero()[:, 0].tolist()
        predicted, targets = outcome.details[scored].tolist(), batch.y[scored].tolist()
        nats = outcome.predictions[scored].tolist()
        return [
            {
                "text": text,
                "prediction": name(tokens[likeliest]),
                "target": name(tokens[target]),
                "nats": round(cost, 6),
            }
            for text, likeliest, target, cost in zip(texts, predicted, targets, nats, strict=True)
        ]

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """The nats of each target, and the targets, both (N,)."""
        names = map(_naming(known), known["vocabulary"])
        numbers = {name: number for number, name in enumerate(names)}
        targets, nats = entries(rows, "target"), entries(rows, "nats")
        for place, (target, cost) in enumerate(zip(targets, nats, strict=True), start=1):
            if not isinstance(target, str) or target not in numbers:
                raise DataError(
                    f"Row {place}: got target {target!r}, expected one of the {len(numbers):,} "
                    f"tokens of the vocabulary."
                )
            if not is_number(cost) or not cost >= 0:
                raise DataError(f"Row {place}: got nats {cost!r}, expected a number of at least 0.")
        ids = [numbers[target] for target in targets]
        return torch.tensor(nats, dtype=torch.float64), torch.tensor(ids)

    def scores(self, rows: Sequence[Row], known: Known) -> dict[str, float]:
        """The mean nats of a token, and the figures that follow."""
        mean = float(self.read(rows, known)[0].mean())
        return {"loss": mean, **self.derived(mean), **super().scores(rows, known)}

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """The text of the first rows, with less expected tokens darker."""
        vocabulary = read_vocabulary(known)
        x, y, nats = (each[:_PICTURED].cpu() for each in (batch.x, batch.y, outcome.predictions))
        passages = []
        for first, targets, costs in zip(x[:, :1], y, nats, strict=True):
            scored = targets != IGNORE
            shown = [vocabulary.piece(n) for n in [*first.tolist(), *targets[scored].tolist()]]
            passages.append((shown, [math.nan, *costs[scored].tolist()]))
        return {"surprise": draw_surprise(passages)}


def _naming(known: Known) -> Callable[[str], str]:
    """How a token of the vocabulary is written in rows."""
    return spell if known["unit"] == "bpe" else str


def _nats_of_each(model: nn.Module, batch: Batch, state: Any) -> Outcome:
    """The nats of each token of a batch, by the model's head if it has one."""
    output = getattr(model, "output", None)
    if isinstance(output, SoftmaxHead):
        check_targets(batch.y, output.num_classes)
        y, state = model.features(batch.x, state, batch.lengths)  # type: ignore[operator]
        nats, likeliest = output.score(y, batch.y)
    else:
        logits, state = model(batch.x, state, batch.lengths)
        check_logits(logits, batch.y, of_steps=True)
        check_targets(batch.y, logits.shape[-1])
        nats = F.cross_entropy(
            upcast(logits).flatten(0, 1), batch.y.flatten(), ignore_index=IGNORE, reduction="none"
        ).view_as(batch.y)
        likeliest = logits.argmax(-1)
    count = (batch.y != IGNORE).sum()
    nats = upcast(nats)
    loss = nats.sum() / count.clamp(min=1)
    return Outcome(loss, count, nats.detach(), batch.y, state, likeliest)
