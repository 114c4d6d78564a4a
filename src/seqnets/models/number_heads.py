"""Heads that predict numbers, with or without their uncertainty."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets.checks import check_choice, is_number
from seqnets.errors import ConfigError
from seqnets.layers.lengths import broadcast_steps, valid_steps
from seqnets.models.heads import Head
from seqnets.models.negative_binomial import negative_binomial_quantiles

QUANTILES = (0.05, 0.5, 0.95)

_LEAST = -16.0
"""The least logarithm of a dispersion that is computed with; less is a Poisson distribution."""


def check_levels(who: str, quantiles: Sequence[float]) -> list[float]:
    """The levels, as a list; raise ConfigError unless they rise between 0 and 1, 0.5 among them."""
    levels = list(quantiles) if isinstance(quantiles, Iterable) else []
    inside = all(is_number(level) and 0 < level < 1 for level in levels)
    if not (levels and inside and levels == sorted(set(levels))):
        raise ConfigError(
            f"{who}: quantiles is {quantiles!r}, expected rising numbers between 0 and 1."
        )
    if 0.5 not in levels:
        raise ConfigError(
            f"{who}: quantiles is {levels}, expected 0.5 among them.\n"
            "  The median is the forecast itself."
        )
    return levels


class NumberHead(Head):
    """Predicts one or more quantiles of each number, from ``size`` features per number.

    It has no parameters: the features come from a model's last layer, (..., ``size``) for each
    number. Targets that are NaN are not scored.

    Attributes:
        shifts: Whether numbers may be shifted; otherwise they are at least 0.
        size: Features of each number, P.
        quantiles: The Q levels in (0, 1) of the predicted quantiles, rising; [0.5] for a head that
            predicts one number.

    Raises:
        ConfigError: The quantiles do not rise between 0 and 1, or 0.5 is not among them.
    """

    shifts = True

    def __init__(self, size: int, quantiles: Sequence[float]) -> None:
        super().__init__()
        self.size, self.quantiles = size, check_levels(type(self).__name__, quantiles)

    @abstractmethod
    def moved(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Features (..., P) of ``shift + scale * number``; shift and scale are (..., 1)."""

    @abstractmethod
    def point(self, y: Tensor) -> Tensor:
        """The point prediction, (...)."""

    @abstractmethod
    def errors(self, y: Tensor, targets: Tensor) -> Tensor:
        """The loss of each number, (...), for targets without NaN."""

    def loss(self, y: Tensor, targets: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The loss summed over all targets that are not NaN, for features (..., P)."""
        hidden = targets.isnan()
        if lengths is not None:
            hidden = hidden | ~broadcast_steps(valid_steps(targets, lengths), targets)
        errors = self.errors(y, targets.masked_fill(hidden, 0))
        return errors.masked_fill(hidden, 0).sum()


class PointHead(NumberHead):
    """Predicts one number.

    Args:
        error: The loss: "squared", which predicts the mean, or "absolute", which predicts the
            median and is less sensitive to outliers.

    Raises:
        ConfigError: ``error`` is unknown.
    """

    def __init__(self, error: str = "squared") -> None:
        super().__init__(1, [0.5])
        check_choice("PointHead", ("squared", "absolute"), error=error)
        self.error = error

    def forward(self, y: Tensor) -> Tensor:
        """The number, (..., 1)."""
        return y

    def moved(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Features of ``shift + scale * number``."""
        return shift + scale * y

    def point(self, y: Tensor) -> Tensor:
        """The number."""
        return y[..., 0]

    def errors(self, y: Tensor, targets: Tensor) -> Tensor:
        """The squared or absolute error of each number."""
        missed = y[..., 0] - targets
        return missed.square() if self.error == "squared" else missed.abs()


class GaussianHead(NumberHead):
    r"""Predicts a normal distribution of each number.

    .. math::
        -\log p(y) = \tfrac12 \log 2 \pi + s + \tfrac12 \left( (y - m) e^{-s} \right)^2

    Features are the mean :math:`m` and the logarithm :math:`s` of the deviation.

    Args:
        quantiles: Levels of the quantiles to output.
    """

    def __init__(self, quantiles: Sequence[float] = QUANTILES) -> None:
        super().__init__(2, quantiles)

    def forward(self, y: Tensor) -> Tensor:
        """The quantiles, (..., Q)."""
        mean, spread = y[..., :1], y[..., 1:].exp()
        return mean + spread * y.new_tensor([NormalDist().inv_cdf(q) for q in self.quantiles])

    def moved(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Features of ``shift + scale * number``."""
        return torch.cat([shift + scale * y[..., :1], y[..., 1:] + scale.log()], -1)

    def point(self, y: Tensor) -> Tensor:
        """The mean."""
        return y[..., 0]

    def errors(self, y: Tensor, targets: Tensor) -> Tensor:
        """The negative log-likelihood of each number, in nats."""
        mean, spread = y.unbind(-1)
        return (
            0.5 * math.log(2 * math.pi)
            + spread
            + 0.5 * ((targets - mean) * (-spread).exp()).square()
        )


class NegativeBinomialHead(NumberHead):
    r"""Predicts a negative binomial distribution of each count: a whole number of at least 0.

    .. math::
        p(y) = \frac{\Gamma(y + 1 / a)}{\Gamma(y + 1) \, \Gamma(1 / a)}
            \left( \frac{1}{1 + a m} \right)^{1 / a} \left( \frac{a m}{1 + a m} \right)^y

    Features are the logarithms of the mean :math:`m` and of the dispersion :math:`a`: the variance
    is :math:`m + a m^2`. Differs from the paper, which has softplus in place of exponentials, and
    draws samples. In training mode all predictions are the mean: quantiles would take longer than
    the rest of a step, and nobody reads them.

    Args:
        quantiles: Levels of the quantiles to output.

    References:
        Salinas et al., 2020, "DeepAR: Probabilistic Forecasting with Autoregressive Recurrent
        Networks", arXiv:1704.04110.
    """

    shifts = False

    def __init__(self, quantiles: Sequence[float] = QUANTILES) -> None:
        super().__init__(2, quantiles)

    def forward(self, y: Tensor) -> Tensor:
        """The quantiles, (..., Q): whole numbers up to 15."""
        mean, dispersion = y.double().unbind(-1)
        dispersion = dispersion.clamp(min=_LEAST).exp()
        found = negative_binomial_quantiles(mean.exp(), dispersion, self.quantiles)
        return found.to(y.dtype)

    def predict(self, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The quantiles; in training mode the mean in place of each."""
        if not self.training:
            return self(y)
        return self.point(y)[..., None].expand(*y.shape[:-1], len(self.quantiles))

    def moved(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Features of ``scale * number``, whose dispersion is less; the shift must be 0."""
        size = scale.log()
        return torch.cat([y[..., :1] + size, y[..., 1:] - size / 2], -1)

    def point(self, y: Tensor) -> Tensor:
        """The mean."""
        return y[..., 0].exp()

    def errors(self, y: Tensor, targets: Tensor) -> Tensor:
        """The negative log-likelihood of each count, in nats."""
        mean, dispersion = y.double().unbind(-1)  # differences of large numbers
        dispersion = dispersion.clamp(min=_LEAST)
        odds, size, count = mean + dispersion, (-dispersion).exp(), targets.double()
        ways = (count + size).lgamma() - (count + 1).lgamma() - size.lgamma()
        none, more = F.logsigmoid(-odds), F.logsigmoid(odds)  # F.softplus drops e⁻²⁰, times counts
        return -(ways + size * none + count * more).to(y.dtype)


class QuantileHead(NumberHead):
    r"""Predicts quantiles of each number, without assuming a distribution.

    .. math::
        \ell(y) = \sum_q \max(q (y - y_q), (q - 1) (y - y_q))

    Features are the quantiles :math:`y_q`. Outputs are sorted, which only improves quantiles that
    cross (Chernozhukov et al., 2010, "Quantile and Probability Curves Without Crossing",
    arXiv:0704.3649).

    Args:
        quantiles: Their levels.

    References:
        Koenker and Bassett, 1978, "Regression Quantiles". Wen et al., 2017, "A Multi-Horizon
        Quantile Recurrent Forecaster", arXiv:1711.11053.
    """

    def __init__(self, quantiles: Sequence[float] = QUANTILES) -> None:
        levels = check_levels(type(self).__name__, quantiles)
        super().__init__(len(levels), levels)

    def forward(self, y: Tensor) -> Tensor:
        """The quantiles, (..., Q), rising."""
        return y.sort(-1).values

    def moved(self, y: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Features of ``shift + scale * number``."""
        return shift + scale * y

    def point(self, y: Tensor) -> Tensor:
        """The median."""
        return self(y)[..., self.quantiles.index(0.5)]

    def errors(self, y: Tensor, targets: Tensor) -> Tensor:
        """The pinball loss of each number, summed over the levels."""
        return pinball(y, targets, self.quantiles).sum(-1)


def pinball(y: Tensor, targets: Tensor, quantiles: Sequence[float]) -> Tensor:
    """The pinball loss of each quantile, (..., Q), for targets (...)."""
    levels = y.new_tensor(quantiles)
    missed = targets[..., None] - y
    return levels * missed + F.relu(-missed)
