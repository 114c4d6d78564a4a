"""Telling which keys sound next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import BinaryF1Score, BinaryJaccardIndex

from seqnets.datasets.music import KEYS, LOWEST, chord
from seqnets.errors import DataError
from seqnets.insight.canvas import Picture
from seqnets.insight.roll import draw_rolls
from seqnets.training.objectives.base import Objective, Outcome, Row, check_shape
from seqnets.typing import IGNORE, Batch, Known


class Polyphony(Objective):
    """Cross-entropy of many yes-or-no answers a step, summed over them; compared in nats a step.

    The nats of a step are those of all keys together, averaged over the steps of all pieces, as
    the literature reports them. ``frame_accuracy`` is TP / (TP + FP + FN) over all steps and keys
    (Bay et al., 2009), where a key is said to sound at a probability above one half.
    """

    metric = "nll"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score K answers a step; ``IGNORE`` where none are."""
        logits, state = model(batch.x, state, batch.lengths)
        check_shape(self, logits, batch.y)
        scored = batch.y[..., 0] != IGNORE
        nats = F.binary_cross_entropy_with_logits(
            logits, batch.y.clamp(min=0), reduction="none"
        ).sum(-1)
        count = scored.sum()
        loss = (nats * scored).sum() / count.clamp(min=1)
        inside = scored[..., None].expand_as(logits)
        targets = batch.y.masked_fill(~inside, IGNORE).long().flatten(0, 1)
        return Outcome(loss, count, logits.detach().sigmoid().flatten(0, 1), targets, state)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Frame accuracy and F1 over all keys and scored steps."""
        return {
            "frame_accuracy": BinaryJaccardIndex(ignore_index=IGNORE),
            "f1": BinaryF1Score(ignore_index=IGNORE),
        }

    def derived(self, loss: float) -> dict[str, float]:
        """The loss by the name it has in the literature."""
        return {"nll": loss}

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """A row a piece: the chords said and heard, as MIDI numbers, and the nats of each step."""
        said = outcome.predictions.unflatten(0, batch.y.shape[:2])
        rows = []
        for probabilities, y in zip(said.cpu(), batch.y.cpu(), strict=True):
            scored = y[:, 0] != IGNORE
            p, heard = probabilities[scored].double(), y[scored]
            likely = torch.where(heard > 0, p, 1 - p).clamp(min=1e-30)
            rows.append(
                {
                    "prediction": [chord(step) for step in p],
                    "target": [chord(step) for step in heard],
                    "nats": [round(nats, 6) for nats in (-likely.log().sum(-1)).tolist()],
                }
            )
        return rows

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """Chords as rolls."""
        return _rolls(rows, "prediction").float(), _rolls(rows, "target")

    def scores(self, rows: Sequence[Row], known: Known) -> dict[str, float]:
        """The mean nats of all steps, and the metrics."""
        nats = torch.tensor([n for row in rows for n in row["nats"]], dtype=torch.float64)
        return {
            "loss": float(nats.mean()),
            "nll": float(nats.mean()),
            **super().scores(rows, known),
        }

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """The first piece of the batch: what came, and how likely the model thought each key."""
        said = outcome.predictions.unflatten(0, batch.y.shape[:2])[0]
        scored = batch.y[0, :, 0] != IGNORE
        rolls = {"heard": batch.y[0, scored], "probability, one step ahead": said[scored]}
        return {
            "next step": draw_rolls(
                {name: roll.cpu().numpy() for name, roll in rolls.items()}, LOWEST
            )
        }


def _rolls(rows: Sequence[Row], column: str) -> Tensor:
    rolls = []
    for number, row in enumerate(rows, start=1):
        for keys in row[column]:
            roll = torch.zeros(KEYS, dtype=torch.int64)
            if any(not isinstance(key, int) or not LOWEST <= key < LOWEST + KEYS for key in keys):
                raise DataError(
                    f"Row {number}: {column} has the chord {keys}, expected MIDI numbers from "
                    f"{LOWEST} to {LOWEST + KEYS - 1}."
                )
            roll[[key - LOWEST for key in keys]] = 1
            rolls.append(roll)
    return torch.stack(rolls)
