"""Prediction of the next frame of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

from seqnets.errors import ConfigError, DataError
from seqnets.insight.canvas import Picture
from seqnets.insight.frames import draw_frames
from seqnets.models.heads import upcast
from seqnets.training.objectives.base import Objective, Outcome, Row
from seqnets.training.objectives.scoring import check_shape
from seqnets.typing import IGNORE, Batch, Known

LARGEST = 64 * 64
"""The most numbers of a frame that is written to a file of predictions."""


class FramePrediction(Objective):
    """Cross-entropy of each pixel of the next frame, a number in 0..1.

    The model outputs logits. Compared by the squared error of a pixel.

    References:
        Shi et al., 2015, "Convolutional LSTM Network: A Machine Learning Approach for
        Precipitation Nowcasting", arXiv:1506.04214.
    """

    metric = "mse"

    def __call__(self, model: nn.Module, batch: Batch, state: Any = None) -> Outcome:
        """Score a frame per step; ``IGNORE`` past the end of a row.

        Raises:
            DataError: Targets and predictions differ in shape.
        """
        logits, state = model(batch.x, state, batch.lengths)
        check_shape(self, logits, batch.y)
        targets = batch.y.flatten(0, 1)
        logits = logits.flatten(0, 1)
        if batch.lengths is not None:
            scored = _scored(batch).flatten()
            logits, targets = logits[scored], targets[scored]
        count = torch.tensor(targets.numel(), device=targets.device)
        total = F.binary_cross_entropy_with_logits(upcast(logits), upcast(targets), reduction="sum")
        return Outcome(total / count.clamp(min=1), count, logits.detach().sigmoid(), targets, state)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Mean squared and mean absolute error of a pixel."""
        return {"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}

    def served(
        self, model: nn.Module, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[dict[str, Tensor], Any]:
        """Each next frame, as ``x``."""
        logits, state = model(x, state, lengths)
        return {"pixels": logits.sigmoid()}, state

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """A row per video: predicted and true next frames, as lists (T, C, height, width).

        Raises:
            ConfigError: A frame has more than 4,096 numbers, too many to write as lists.
        """
        numbers = batch.y[0, 0].numel()
        if numbers > LARGEST:
            raise ConfigError(
                f"FramePrediction: a frame has {numbers:,} numbers, expected at most {LARGEST:,} "
                "for a file of predictions.\n"
                "  As text they would take megabytes per video. `seqnets evaluate` scores them, "
                "and TensorBoard shows some."
            )
        frames = _scored(batch).sum(1).tolist()
        videos = zip(outcome.predictions.split(frames), outcome.targets.split(frames), strict=True)
        return [
            {"prediction": _listed(predicted), "target": _listed(true)}
            for predicted, true in videos
        ]

    def read(self, rows: Sequence[Row], known: Known) -> tuple[Tensor, Tensor]:
        """All frames, (N, C, height, width)."""
        predicted, true = zip(
            *(_read(number, row) for number, row in enumerate(rows, 1)), strict=True
        )
        return torch.cat(predicted), torch.cat(true)

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """The first video of the batch: input, target and predicted frames."""
        frames = int(_scored(batch)[0].sum())
        videos = {
            "seen": batch.x[0, :frames],
            "to come": outcome.targets[:frames],
            "predicted": outcome.predictions[:frames],
        }
        return {
            "next frame": draw_frames(
                {name: video.float().cpu().numpy() for name, video in videos.items()}
            )
        }


def _scored(batch: Batch) -> Tensor:
    """Which steps have a target frame, (B, T) boolean."""
    return (batch.y != IGNORE).flatten(2).all(2)


def _listed(frames: Tensor) -> Any:
    """Frames as lists, rounded to a thousandth: a screen has 256 shades."""
    return frames.cpu().double().mul(1000).round().div(1000).tolist()


def _read(number: int, row: Row) -> tuple[Tensor, Tensor]:
    try:
        predicted, true = (torch.tensor(row[column]).float() for column in ("prediction", "target"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"Row {number}: the frames cannot be read: {error}.\n"
            "  Prediction and target are lists of numbers, (T, C, height, width)."
        ) from error
    if predicted.dim() != 4 or predicted.shape != true.shape:
        raise DataError(
            f"Row {number}: prediction has shape {tuple(predicted.shape)} and target "
            f"{tuple(true.shape)}, expected the same, (T, C, height, width)."
        )
    return predicted, true
