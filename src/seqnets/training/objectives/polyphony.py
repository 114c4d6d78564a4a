"""Polyphonic music: prediction of the keys that sound next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex

from seqnets.checks import is_number
from seqnets.datasets.published.music import KEYS, LOWEST, chord
from seqnets.errors import DataError, counted
from seqnets.insight.canvas import Picture
from seqnets.insight.roll import draw_rolls
from seqnets.models.heads import upcast
from seqnets.training.objectives.base import Objective, Outcome, Row
from seqnets.training.objectives.rows import entries
from seqnets.training.objectives.scoring import check_shape
from seqnets.typing import IGNORE, Batch, Known


class Polyphony(Objective):
    """Binary cross-entropy of each key, summed over the keys; compared in nats per step.

    The nats of a step are averaged over the steps of all pieces, as the literature reports them.
    ``frame_accuracy`` is TP / (TP + FP + FN) over all steps and keys (Bay et al., 2009), where a
    key is predicted to sound at a probability above one half.
    """

    metric = "nll"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score K binary targets per step; ``IGNORE`` is not scored."""
        logits, state = model(batch.x, state, batch.lengths)
        check_shape(self, logits, batch.y)
        scored = batch.y[..., 0] != IGNORE
        nats = F.binary_cross_entropy_with_logits(
            upcast(logits), upcast(batch.y.clamp(min=0)), reduction="none"
        ).sum(-1)
        count = scored.sum()
        loss = (nats * scored).sum() / count.clamp(min=1)
        inside = scored[..., None].expand_as(logits)
        targets = batch.y.masked_fill(~inside, IGNORE).long().flatten(0, 1)
        predicted = logits.detach().sigmoid().flatten(0, 1)
        return Outcome(loss, count, predicted, targets, state, nats.detach())

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Frame accuracy and F1 over all keys and scored steps."""
        return {
            "frame_accuracy": BinaryJaccardIndex(ignore_index=IGNORE),
            "f1": BinaryF1Score(ignore_index=IGNORE),
        }

    def derived(self, loss: float) -> dict[str, float]:
        """The loss by the name it has in the literature."""
        return {"nll": loss}

    def served(
        self, model: nn.Module, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[dict[str, Tensor], Any]:
        """The probability that each key sounds at the next step, (B, T, K)."""
        logits, state = model(x, state, lengths)
        return {"probabilities": logits.sigmoid()}, state

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """A row per piece: predicted and heard chords as MIDI numbers, and each step's nats."""
        predicted = outcome.predictions.unflatten(0, batch.y.shape[:2])
        rows = []
        for p, y, nats in zip(predicted.cpu(), batch.y.cpu(), outcome.details.cpu(), strict=True):
            scored = y[:, 0] != IGNORE
            rows.append(
                {
                    "prediction": [chord(step) for step in p[scored]],
                    "target": [chord(step) for step in y[scored]],
                    "nats": [round(cost, 6) for cost in nats[scored].tolist()],
                }
            )
        return rows

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """Predicted and heard chords as piano rolls."""
        predicted, heard = _rolls(rows, "prediction"), _rolls(rows, "target")
        if len(predicted) != len(heard):
            raise DataError(
                f"Predictions: got {len(predicted)} predicted and {len(heard)} heard chords, "
                "expected the same number."
            )
        return predicted.float(), heard

    def scores(self, rows: Sequence[Row], known: Known) -> dict[str, float]:
        """The mean nats of all steps, and the metrics."""
        costs: list[float] = []
        pairs = zip(entries(rows, "nats"), entries(rows, "prediction"), strict=True)
        for number, (nats, chords) in enumerate(pairs, start=1):
            steps = len(_list(f"Row {number}: prediction", chords))
            if len(_list(f"Row {number}: nats", nats)) != steps or not all(
                is_number(cost) and cost >= 0 for cost in nats
            ):
                raise DataError(
                    f"Row {number}: nats are {nats}, expected a number of at least 0 for each of "
                    f"{counted(steps, 'step')}."
                )
            costs += nats
        mean = float(torch.tensor(costs, dtype=torch.float64).mean())
        return {"loss": mean, "nll": mean, **super().scores(rows, known)}

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """The first piece of the batch: the keys that sounded, and predicted probabilities."""
        predicted = outcome.predictions.unflatten(0, batch.y.shape[:2])[0]
        scored = batch.y[0, :, 0] != IGNORE
        rolls = {"target": batch.y[0, scored], "probability, one step ahead": predicted[scored]}
        return {
            "next step": draw_rolls(
                {name: roll.cpu().numpy() for name, roll in rolls.items()}, LOWEST
            )
        }


def _rolls(rows: Sequence[Row], column: str) -> Tensor:
    rolls = []
    for number, chords in enumerate(entries(rows, column), start=1):
        for keys in _list(f"Row {number}: {column}", chords):
            roll = torch.zeros(KEYS, dtype=torch.int64)
            if not isinstance(keys, list) or any(
                not isinstance(key, int) or not LOWEST <= key < LOWEST + KEYS for key in keys
            ):
                raise DataError(
                    f"Row {number}: {column} has the chord {keys}, expected MIDI numbers from "
                    f"{LOWEST} to {LOWEST + KEYS - 1}."
                )
            roll[[key - LOWEST for key in keys]] = 1
            rolls.append(roll)
    return torch.stack(rolls)


def _list(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(f"{what}: got {value!r}, expected a list with an entry per step.")
    return value
