"""What comes next in a series, many steps ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seqnets.checks import check_choice, check_count
from seqnets.errors import ShapeError, counted
from seqnets.layers import CellFactory
from seqnets.models.encoder import Encoder
from seqnets.models.horizons import Direct, Strategy, Task
from seqnets.models.number_heads import NumberHead, PointHead


class Forecaster(nn.Module):
    """Tell the steps to come of the first K features: recurrence over segments, and a head.

    These features of each window are normalised by themselves, and what is said of them put back,
    so that a series may wander away from where it was in training. The other features, of which
    nothing is told, are taken as they are. A segment of several steps may be one step of the
    recurrence: fewer steps, whose gradients reach further.

    Args:
        cell: Makes the stack's cells: a cell's class or a partial of it.
        input_size: Features of a step, I.
        output_size: Features to tell, K: the first ones.
        horizon: Steps to tell.
        strategy: How the recurrence reaches the horizon: ``Direct``, ``Recursive``,
            ``EncoderDecoder`` or ``Parallel``.
        head: What is said of each number: ``PointHead``, ``GaussianHead`` or ``QuantileHead``.
        segment: Steps that the recurrence takes and tells at once, w.
        embedding_size: Features that a segment becomes, by a linear map and a ReLU, before the
            recurrence; it is taken as it is if omitted.
        normalization: By what a window's K features are shifted and scaled: "none"; "last", its
            last step (Lin et al., 2023); or "reversible", its mean and deviation (Kim et al., 2022,
            here without learned gains).
        independent: Whether each of the K features is told from its own past and the I - K others,
            by one model that all share, rather than all from all.
        options: What :class:`Encoder` takes beside the cell, but not ``vocab_size`` and
            ``embedding``: steps are numbers.

    Raises:
        ConfigError: ``normalization`` is none of these, a size is no integer from 1, or the
            strategy or the stack cannot be built as asked.

    References:
        Lin et al., 2023, "SegRNN: Segment Recurrent Neural Network for Long-Term Time Series
        Forecasting", arXiv:2308.11200. Kim et al., 2022, "Reversible Instance Normalization for
        Accurate Time-Series Forecasting against Distribution Shift", ICLR.
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
        **options: Any,
    ) -> None:
        super().__init__()
        check_choice("Forecaster", NORMALIZATIONS, normalization=normalization)
        sizes = {"input_size": input_size, "output_size": output_size, "horizon": horizon}
        check_count("Forecaster", **sizes, segment=segment)
        if embedding_size is not None:
            check_count("Forecaster", embedding_size=embedding_size)
        self.output = head()
        self.input_size, self.output_size, self.horizon = input_size, output_size, horizon
        self.segment, self.independent = segment, independent
        self.normalization = normalization
        told = 1 if independent else output_size
        features = told + input_size - output_size
        self.shape = (segment, told, self.output.size)
        width = segment * features
        self.embedding: nn.Module = nn.Identity()
        if embedding_size is not None:
            self.embedding = nn.Sequential(nn.Linear(width, embedding_size), nn.ReLU())
        task = Task(
            input_size=embedding_size or width,
            output_size=segment * told * self.output.size,
            steps=-(-horizon // segment),
            fed_back=self._fed_back,
            complete=told == features,
        )
        self.strategy = strategy(cell, task, **options)

    def forward(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Quantiles of the numbers to come, (B, horizon, K, Q), and the state.

        Args:
            x: Features, (B, T, I), with T a multiple of the segment.
            state: The state before the first step; that of a beginning if omitted.
            lengths: None: windows are whole.

        Raises:
            ShapeError: T is no multiple of the segment, or lengths came.
        """
        y, state = self.features(x, state, lengths)
        return self.output(y), state

    def features(
        self, x: Tensor, state: Any = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """What the head is given, (B, horizon, K, P), and the state."""
        self._check(x, lengths)
        x, others = x.tensor_split([self.output_size], -1)
        shift, scale = NORMALIZATIONS[self.normalization](x)
        x = (x - shift) / scale
        if self.independent:
            x = x.mT.flatten(0, 1)[..., None]
            others = others.repeat_interleave(self.output_size, 0)
        x = torch.cat([x, others], -1)
        segments = self.embedding(x.unflatten(1, (-1, self.segment)).flatten(2))
        said, state = self.strategy(segments, state)
        said = said.unflatten(-1, self.shape).flatten(1, 2)[:, : self.horizon]
        if self.independent:
            said = said.squeeze(2).unflatten(0, (-1, self.output_size)).transpose(1, 2)
        return self.output.moved(said, shift[..., None], scale[..., None]), state

    def _fed_back(self, said: Tensor) -> Tensor:
        """The segment that is said, as the recurrence takes it."""
        return self.embedding(self.output.point(said.unflatten(-1, self.shape)).flatten(1))

    def _check(self, x: Tensor, lengths: Tensor | None) -> None:
        if lengths is not None:
            raise ShapeError("Forecaster: lengths came, expected None: windows are whole.")
        if x.shape[1] % self.segment or not x.shape[1]:
            raise ShapeError(
                f"Forecaster: {counted(x.shape[1], 'step')} came, expected a multiple of the "
                f"segment's {self.segment}.\n  Change dataset.lookback or model.segment."
            )


def _none(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(x[:, -1:]), torch.ones_like(x[:, -1:])


def _last(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:, -1:], torch.ones_like(x[:, -1:])


def _reversible(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, 1, correction=0, keepdim=True)
    return mean, (variance + 1e-5).sqrt()


NORMALIZATIONS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "none": _none,
    "last": _last,
    "reversible": _reversible,
}
"""What windows, (B, T, K), are shifted and scaled by, (B, 1, K) each."""
