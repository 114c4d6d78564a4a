"""Forecasting of time series over a horizon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.checks import check_choice, check_count
from seqnets.errors import ConfigError, ShapeError, counted
from seqnets.layers import CellFactory
from seqnets.layers.checks import check_reads_no_times
from seqnets.models.encoder import Encoder
from seqnets.models.horizons import Direct, Strategy, Task
from seqnets.models.number_heads import NumberHead, PointHead


class Forecaster(nn.Module):
    """Forecast the first K features: recurrence over segments, and a head.

    These features are normalised within each window, and predictions mapped back, so that a series
    may drift away from its range in training. The other features serve as inputs only, unchanged.
    Several steps may form one segment, which is one step of the recurrence: the sequence is
    shorter, and gradients reach further.

    Args:
        cell: A cell's class or a partial of it, for the stack's cells.
        input_size: Features of a step, I.
        output_size: Features to forecast, K: the first ones.
        horizon: Steps to forecast.
        strategy: How the recurrence reaches the horizon: ``Direct``, ``Recursive``,
            ``EncoderDecoder`` or ``Parallel``.
        head: The kind of prediction: ``PointHead``, ``GaussianHead``, ``QuantileHead`` or, for
            counts, ``NegativeBinomialHead``.
        segment: Steps of a segment, w.
        embedding_size: Features to which a segment is mapped, by a linear layer and a ReLU, before
            the recurrence; not mapped if omitted.
        normalization: Shift and scale of a window's K features: "none"; "last", the last step as
            shift (Lin et al., 2023); "reversible", mean and standard deviation (Kim et al.,
            2022, here without learned gains); or "mean", no shift, and 1 + the mean magnitude as
            scale, for counts (Salinas et al., 2020).
        independent: Whether each of the K features is forecast from its own past and the I - K
            others alone, by one shared model.
        ahead_size: How many of the others, the last ones, are known over the horizon, too (future
            covariates), A.
        options: Further arguments of :class:`Encoder`, except ``vocab_size`` and ``embedding``.

    Raises:
        ConfigError: ``normalization`` is unknown, a size is not a positive integer, more features
            are known ahead than are not forecast, the head predicts counts and the normalization
            shifts, the cell takes times (``timed``), or the options of strategy or stack are
            invalid.

    References:
        Lin et al., 2023, "SegRNN: Segment Recurrent Neural Network for Long-Term Time Series
        Forecasting", arXiv:2308.11200. Kim et al., 2022, "Reversible Instance Normalization for
        Accurate Time-Series Forecasting against Distribution Shift", ICLR. Salinas et al., 2020,
        "DeepAR: Probabilistic Forecasting with Autoregressive Recurrent Networks",
        arXiv:1704.04110.
    """

    passes_options_to = Encoder

    def __init__(
        self,
        cell: CellFactory,
        input_size: int,
        output_size: int,
        horizon: int,
        *,
        strategy: Strategy = Direct,
        head: Callable[[], NumberHead] = PointHead,
        segment: int = 1,
        embedding_size: int | None = None,
        normalization: str = "last",
        independent: bool = False,
        ahead_size: int = 0,
        **options: Any,
    ) -> None:
        super().__init__()
        check_choice("Forecaster", NORMALIZATIONS, normalization=normalization)
        sizes = {"input_size": input_size, "output_size": output_size, "horizon": horizon}
        check_count("Forecaster", **sizes, segment=segment)
        check_count("Forecaster", least=0, ahead_size=ahead_size)
        if ahead_size > input_size - output_size:
            raise ConfigError(
                f"Forecaster: ahead_size is {ahead_size}, expected at most input_size - "
                f"output_size, {input_size - output_size}.\n"
                "  What is forecast is not known ahead."
            )
        if embedding_size is not None:
            check_count("Forecaster", embedding_size=embedding_size)
        self.output = head()
        if not self.output.shifts and normalization not in ("none", "mean"):
            raise ConfigError(
                f"Forecaster: normalization is {normalization!r}, expected 'mean' or 'none' with "
                f"{type(self.output).__name__}: counts cannot be shifted.\n"
                "  For example model.normalization=mean, with dataset.counts=true."
            )
        self.input_size, self.output_size, self.horizon = input_size, output_size, horizon
        self.segment, self.independent, self.ahead_size = segment, independent, ahead_size
        self.normalization = normalization
        targets = 1 if independent else output_size
        features = targets + input_size - output_size
        self.shape = (segment, targets, self.output.size)
        width = segment * features
        self.embedding: nn.Module = nn.Identity()
        if embedding_size is not None:
            self.embedding = nn.Sequential(nn.Linear(width, embedding_size), nn.ReLU())
        task = Task(
            input_size=embedding_size or width,
            output_size=segment * targets * self.output.size,
            steps=-(-horizon // segment),
            feed_back=self._feed_back,
            complete=targets + ahead_size == features,
            ahead_size=segment * ahead_size,
        )
        self.strategy = strategy(cell, task, **options)
        check_reads_no_times("Forecaster", self.strategy, "an embedded segment")

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        ahead: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Predicted quantiles, (B, horizon, K, Q), and the state.

        Args:
            x: Features, (B, T, I), with T a multiple of the segment.
            state: The state before the first step; the initial state if omitted.
            lengths: Must be None: windows have no padding.
            ahead: The features that are known ahead, which are the last A of ``x``, at the steps
                to forecast, (B, horizon, A); None if there are none.

        Raises:
            ShapeError: T is not a multiple of the segment, lengths are given, or ``ahead`` has
                another shape.
        """
        y, state = self.features(x, state, lengths, ahead)
        return self.output(y), state

    def features(
        self,
        x: Tensor,
        state: Any = None,
        lengths: Tensor | None = None,
        ahead: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """The input of the head, (B, horizon, K, P), and the state."""
        self._check(x, lengths, ahead)
        known = () if ahead is None else (self._known(x, ahead),)
        x, others = x.tensor_split([self.output_size], -1)
        shift, scale = NORMALIZATIONS[self.normalization](x)
        x = (x - shift) / scale
        if self.independent:
            x = x.mT.flatten(0, 1)[..., None]
            others = others.repeat_interleave(self.output_size, 0)
        x = torch.cat([x, others], -1)
        segments = self.embedding(x.unflatten(1, (-1, self.segment)).flatten(2))
        predicted, state = self.strategy(segments, state, *known)
        predicted = predicted.unflatten(-1, self.shape).flatten(1, 2)[:, : self.horizon]
        if self.independent:
            predicted = predicted.squeeze(2).unflatten(0, (-1, self.output_size)).transpose(1, 2)
        return self.output.moved(predicted, shift[..., None], scale[..., None]), state

    def _known(self, x: Tensor, ahead: Tensor) -> Tensor:
        """What is known of each segment, also of those to predict, as the strategy takes it."""
        last = F.pad(ahead, (0, 0, 0, -self.horizon % self.segment))
        known = torch.cat([x[..., -self.ahead_size :], last], 1)
        if self.independent:
            known = known.repeat_interleave(self.output_size, 0)
        return known.unflatten(1, (-1, self.segment)).flatten(2)

    def _feed_back(self, predicted: Tensor, known: Tensor | None = None) -> Tensor:
        """A predicted segment, with what is known of it, as input of the recurrence."""
        steps = self.output.point(predicted.unflatten(-1, self.shape))
        if known is not None:
            steps = torch.cat([steps, known.unflatten(-1, (self.segment, -1))], -1)
        return self.embedding(steps.flatten(1))

    def _check(self, x: Tensor, lengths: Tensor | None, ahead: Tensor | None) -> None:
        if lengths is not None:
            raise ShapeError("Forecaster: got lengths, expected None: windows have no padding.")
        if x.shape[1] % self.segment or not x.shape[1]:
            raise ShapeError(
                f"Forecaster: got {counted(x.shape[1], 'step')}, expected a multiple of the "
                f"segment's {self.segment}.\n  Change dataset.lookback or model.segment."
            )
        given = None if ahead is None else tuple(ahead.shape)
        expected = (x.shape[0], self.horizon, self.ahead_size) if self.ahead_size else None
        if given != expected:
            raise ShapeError(
                f"Forecaster: got ahead of shape {given}, expected {expected}: the features that "
                f"are known ahead, ahead_size={self.ahead_size}, at the steps to forecast."
            )


def _none(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(x[:, -1:]), torch.ones_like(x[:, -1:])


def _last(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:, -1:], torch.ones_like(x[:, -1:])


def _reversible(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
    return mean, (variance + 1e-5).sqrt()


def _mean(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(x[:, -1:]), 1 + x.abs().mean(1, keepdim=True)


NORMALIZATIONS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "none": _none,
    "last": _last,
    "reversible": _reversible,
    "mean": _mean,
}
"""Functions from windows (B, T, K) to shift and scale, (B, 1, K) each."""
