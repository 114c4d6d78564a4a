"""Joint prediction of the classes of all steps of a sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqnets.errors import DataError
from seqnets.layers.lengths import valid_steps
from seqnets.models.heads import Head, invalid_targets, upcast
from seqnets.typing import IGNORE


class ConditionalRandomField(Head):
    r"""Linear-chain conditional random field: scores of steps plus scores of transitions.

    A sequence of classes :math:`y_1 \ldots y_T` has the score

    .. math::
        s(y) = a_{y_1} + \sum_{t=1}^T (W x_t + b)_{y_t} + \sum_{t=2}^T A_{y_{t-1}, y_t} + z_{y_T}

    and the probability :math:`\exp s(y) / \sum_{y'} \exp s(y')`. The loss is the negative
    log-likelihood of the target sequence; the prediction is the likeliest sequence. A step without
    a target (``IGNORE``) is marginalised over all its classes.

    Everything after the scores is computed in float32 at least.

    Args:
        features: Features of a step, H.
        num_classes: Number of classes, C.

    References:
        Lafferty et al., 2001, "Conditional Random Fields: Probabilistic Models for Segmenting and
        Labeling Sequence Data"; Lample et al., 2016, "Neural Architectures for Named Entity
        Recognition", arXiv:1603.01360.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.linear = nn.Linear(features, num_classes)
        self.start = nn.Parameter(torch.empty(num_classes))
        self.transitions = nn.Parameter(torch.empty(num_classes, num_classes))
        self.end = nn.Parameter(torch.empty(num_classes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Let all classes be alike at the start, at the end and after each other."""
        for scores in (self.start, self.transitions, self.end):
            nn.init.zeros_(scores)

    def forward(self, y: Tensor) -> Tensor:
        """Scores of each step's classes, (B, T, C), for features (B, T, H)."""
        return upcast(self.linear(y))

    def loss(self, y: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The negative log-likelihood of the targets, summed over the sequences.

        Args:
            y: Features, (B, T, H).
            targets: Classes, (B, T); ``IGNORE`` if any class is right.
            lengths: Valid steps of each row, (B,); all T if omitted.

        Raises:
            DataError: A target is no class; on a CPU alone, where looking at it does not wait.
        """
        scores, inside = self(y), _inside(y, lengths)
        targets = self.scored(y, targets, lengths)
        wrong = invalid_targets(targets, self.num_classes)
        if targets.device.type == "cpu" and wrong.any():  # elsewhere this would synchronise
            raise DataError(
                f"ConditionalRandomField: a target is {int(targets[wrong][0])}, expected "
                f"0..{self.num_classes - 1} (or {IGNORE}: any class is right)."
            )
        classes = torch.arange(self.num_classes, device=y.device)
        wrong = (targets != IGNORE)[..., None] & (targets[..., None] != classes)
        both = torch.cat([scores, scores.masked_fill(wrong, -torch.inf)])
        every, right = self._log_sum(both, torch.cat([inside, inside])).chunk(2)
        return (every - right).sum()

    def predict(self, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The likeliest sequence of classes (Viterbi), (B, T) int64; 0 past a row's end."""
        scores, inside = self(y), _inside(y, lengths)
        batch, steps, _ = scores.shape
        if not batch or not steps:
            return scores.new_zeros(batch, steps, dtype=torch.int64)
        stay = torch.arange(self.num_classes, device=y.device)
        best, came_from = self.start + scores[:, 0], []
        for t in range(1, steps):
            ahead, previous = (best[:, :, None] + self.transitions).max(1)
            going = inside[:, t, None]
            best = torch.where(going, ahead + scores[:, t], best)
            came_from.append(torch.where(going, previous, stay))
        path = [(best + self.end).argmax(-1, keepdim=True)]
        for previous in reversed(came_from):
            path.append(previous.gather(1, path[-1]))
        return torch.cat(path[::-1], 1).masked_fill(~inside, 0)

    def _log_sum(self, scores: Tensor, inside: Tensor) -> Tensor:
        """The logarithm of the summed exponentials of all sequences' scores, (B,)."""
        if not scores.shape[1]:
            return scores.sum((1, 2))
        total = self.start + scores[:, 0]
        for t in range(1, scores.shape[1]):
            ahead = (total[:, :, None] + self.transitions).logsumexp(1) + scores[:, t]
            total = torch.where(inside[:, t, None], ahead, total)
        return torch.where(inside[:, 0], (total + self.end).logsumexp(1), 0.0)


def _inside(y: Tensor, lengths: Tensor | None) -> Tensor:
    """Which steps are valid, (B, T)."""
    if lengths is None:
        return torch.ones(y.shape[:2], dtype=torch.bool, device=y.device)
    return valid_steps(y, lengths)
