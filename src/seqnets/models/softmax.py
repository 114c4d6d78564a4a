"""Softmax outputs over many classes that save memory or time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seqnets.checks import check_count
from seqnets.errors import ConfigError
from seqnets.layers import Linear
from seqnets.models.heads import Head, upcast
from seqnets.typing import HALF, IGNORE


class SoftmaxHead(Head):
    """A head that predicts one class per step and computes the nats of targets."""

    @abstractmethod
    def score(self, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The nats of each target, 0 at ``IGNORE``, and the likeliest classes, both (B, T).

        Args:
            y: Features, (B, T, H).
            targets: Classes, (B, T).
        """

    def predict(self, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The likeliest classes, (B, T)."""
        return self.score(y, y.new_full(y.shape[:2], IGNORE, dtype=torch.int64))[1]


class FusedSoftmax(Linear, SoftmaxHead):
    """A linear layer and softmax that never materialises all logits in training.

    Loss and gradients are those of ``Linear`` and cross-entropy, computed in chunks: of the
    (B * T, V) logits, log-probabilities and gradients only ``chunk`` rows exist at a time. The
    parameters have the names of a ``Linear``'s. With fewer classes than features the logits are
    small, and all are computed at once.

    From torch 2.13 on this uses its ``linear_cross_entropy``, which has no second derivatives. With
    older versions, and in half precision, chunks are recomputed in the backward pass.

    Args:
        in_features: Features of a step, H.
        out_features: Number of classes, V.
        bias: Whether classes have a bias.
        chunk: Steps in a chunk.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, chunk: int = 256
    ) -> None:
        super().__init__(in_features, out_features, bias)
        check_count("FusedSoftmax", chunk=chunk)
        self.num_classes, self.chunk = out_features, chunk

    def loss(self, y: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The nats of all targets, summed."""
        targets = self.scored(y, targets, lengths).flatten()
        y = y.flatten(0, -2)
        if self.out_features <= self.in_features or len(y) <= self.chunk:
            return self._nats(y, targets).sum()
        half = self.weight.dtype in HALF  # torch would return the sum in half precision
        if hasattr(F, "linear_cross_entropy") and not half:
            return self._fused_loss(y, targets)
        parts = [
            checkpoint(self._nats, *part, use_reentrant=False)
            for part in zip(y.split(self.chunk), targets.split(self.chunk), strict=True)
        ]
        return torch.cat(parts).sum()

    def score(self, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The nats of each target and the likeliest classes."""
        nats, likeliest = [], []
        for part, right in zip(
            y.flatten(0, 1).split(self.chunk), targets.flatten().split(self.chunk), strict=True
        ):
            logits = self(part)
            nats.append(_nats(logits, right))
            likeliest.append(logits.argmax(-1))
        return torch.cat(nats).view(targets.shape), torch.cat(likeliest).view(targets.shape)

    def _nats(self, y: Tensor, targets: Tensor) -> Tensor:
        return _nats(self(y), targets)

    def _fused_loss(self, y: Tensor, targets: Tensor) -> Tensor:
        options = nn.LinearCrossEntropyOptions(batch_chunk_size=self.chunk, acc_policy="compact")
        return F.linear_cross_entropy(
            y.to(self.weight.dtype),
            self.weight,
            targets,
            linear_bias=self.bias,
            reduction="sum",
            ignore_index=IGNORE,
            options=options,
        )


class AdaptiveSoftmax(SoftmaxHead):
    """A softmax over frequent classes and clusters of rare ones, for very large vocabularies.

    A cluster's classes are compared only at targets in it, and rarer clusters have fewer features.
    Classes must be sorted by falling frequency, as ids of words are; ids of characters and byte
    pairs are not.

    Args:
        in_features: Features of a step, H.
        num_classes: Number of classes, V.
        cutoffs: The first class of each cluster of rare classes, ascending; a tenth and a half of
            the classes if omitted.
        div_value: Factor by which features shrink from each cluster to the next.

    Raises:
        ConfigError: Cutoffs are not ascending between 1 and V - 1, or there are too many clusters
            for the features.

    References:
        Grave et al., 2017, "Efficient softmax approximation for GPUs", arXiv:1609.04309.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        cutoffs: Sequence[int] | None = None,
        div_value: float = 4.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        borders = [num_classes // 10, num_classes // 2] if cutoffs is None else list(cutoffs)
        narrowest = in_features // div_value ** len(borders)
        if narrowest < 1 or not _ascend([0, *borders, num_classes]):
            raise ConfigError(
                f"AdaptiveSoftmax: cutoffs are {borders} and div_value is {div_value}, expected "
                f"ascending numbers between 0 and {num_classes}, the number of classes, and at "
                f"least 1 feature for the last cluster; it would get {narrowest:g} of "
                f"{in_features}.\n  With few classes or features use a plain softmax."
            )
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(
            in_features, num_classes, borders, div_value, head_bias=True
        )

    def forward(self, y: Tensor) -> Tensor:
        """The logarithm of each class's probability, (B, T, V)."""
        return self.softmax.log_prob(y.flatten(0, -2)).unflatten(0, y.shape[:-1])

    def loss(self, y: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The nats of all targets, summed."""
        return self._nats(y, self.scored(y, targets, lengths)).sum()

    def score(self, y: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The nats of each target and the likeliest classes."""
        likeliest = self.softmax.predict(y.flatten(0, 1)).view(targets.shape)
        scored, nats = targets != IGNORE, self._nats(y, targets)
        return nats.new_zeros(targets.shape).masked_scatter(scored, nats), likeliest

    def _nats(self, y: Tensor, targets: Tensor) -> Tensor:
        """The nats of each target other than ``IGNORE``."""
        scored = targets != IGNORE
        if not scored.any():
            return y[scored].sum(-1)
        with torch.autocast(y.device.type, enabled=False):  # nats in half precision are too coarse
            features = y[scored].to(self.softmax.head.weight.dtype)
            return -self.softmax(features, targets[scored]).output


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(upcast(logits), targets, ignore_index=IGNORE, reduction="none")


def _ascend(numbers: Sequence[float]) -> bool:
    return all(a < b for a, b in pairwise(numbers))
