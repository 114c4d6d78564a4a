"""Quantiles of the negative binomial distribution, by operations that exported models have, too."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_FIRST, _NODES = 16, 64
"""Counts of which each has its probability, and nodes at which the density of larger ones is."""


def negative_binomial_quantiles(
    mean: Tensor, dispersion: Tensor, levels: Sequence[float]
) -> Tensor:
    """The least counts whose cumulative probability reaches some levels, (..., Q) float64.

    The probabilities of the first counts are added up; those of larger ones are an integral over
    nodes that are evenly spaced in the logarithm. Quantiles up to 15 are exact, and those below
    200, rounded up, at most 1 off. The cumulative probability of larger ones is within 0.005 of the
    level, for means up to a million and levels from 0.01 to 0.99. Beyond 15 they are not rounded:
    another machine's last bits would decide between two counts.

    Args:
        mean: Means m, (...), above 0.
        dispersion: Dispersions a, (...), above 0: the variance is m + a m².
        levels: The Q levels.
    """
    mean, size = mean.double()[..., None], 1 / dispersion.double()[..., None]
    more = mean / (mean + size)
    first = torch.arange(1, _FIRST, dtype=torch.float64, device=mean.device)
    steps = ((first - 1 + size) / first * more).log()
    logs = torch.cat([-size * (mean / size).log1p(), steps], -1).cumsum(-1)
    head = logs.exp().cumsum(-1)

    spread = 1 / size + 1 / mean  # squared, relative to the mean
    reach = math.sqrt(max(levels) / (1 - max(levels)))  # Cantelli's inequality
    low = (mean * (-6 * spread.sqrt() - 8 * spread).exp()).clamp(min=_FIRST - 0.5)
    high = torch.maximum(mean * (1 + reach * spread.sqrt()), low + 1)
    shares = torch.linspace(0, 1, _NODES, dtype=torch.float64, device=mean.device)
    nodes, last = low * (high / low) ** shares, torch.full_like(mean, _FIRST - 1)
    gammas = _log_gamma(nodes + size) - _log_gamma(last + size)
    gammas = gammas - _log_gamma(nodes + 1) + _log_gamma(last + 1)
    density = nodes * (logs[..., -1:] + gammas + (nodes - last) * more.log()).exp()
    areas = (density[..., 1:] + density[..., :-1]) / 2 * (high / low).log() / (_NODES - 1)
    tail = head[..., -1:] + torch.cat([torch.zeros_like(mean), areas.cumsum(-1)], -1)

    found = []
    for level in levels:
        small = (head < level).sum(-1)
        after = (tail < level).sum(-1, keepdim=True).clamp(1, _NODES - 1)
        (a, b), (x, y) = (
            (values.gather(-1, after - 1), values.gather(-1, after)) for values in (tail, nodes)
        )
        between = ((level - a) / (b - a).clamp(min=1e-300)).clamp(0, 1)
        large = x + (y - x) * between - 0.5  # a count is half to either side
        found.append(torch.where(small < _FIRST, small.double(), large[..., 0]))
    return torch.stack(found, -1)


def _log_gamma(x: Tensor) -> Tensor:
    """The logarithm of the gamma function but for a constant, for x of at least 15."""
    return (x - 0.5) * x.log() - x + 1 / (12 * x) - 1 / (360 * x**3)
