"""Surrogates for the derivative of a spike: functions of the distance above the threshold."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Surrogate = Callable[[Tensor], Tensor]


def fast_sigmoid(v: Tensor, slope: float = 10.0) -> Tensor:
    """Derivative of a fast sigmoid, scaled to 1 at the threshold.

    References:
        Zenke & Ganguli, 2018, "SuperSpike: Supervised Learning in Multilayer Spiking Neural
        Networks", arXiv:1705.11146.
    """
    return 1 / (1 + slope * v.abs()) ** 2


def arctan(v: Tensor) -> Tensor:
    """Derivative of an arc tangent, 1 at the threshold.

    References:
        Fang et al., 2021, "Incorporating Learnable Membrane Time Constant to Enhance Learning of
        Spiking Neural Networks", arXiv:2007.05785.
    """
    return 1 / (1 + (math.pi * v) ** 2)


def triangle(v: Tensor, dampening: float = 0.3) -> Tensor:
    """A triangle over (-1, 1), as high as the dampening.

    References:
        Bellec et al., 2018, "Long short-term memory and learning-to-learn in networks of spiking
        neurons", arXiv:1803.09574.
    """
    return dampening * torch.relu(1 - v.abs())


def boxcar(v: Tensor) -> Tensor:
    """1 from -0.5 to 0.5, and 0 elsewhere.

    References:
        Kaiser et al., 2020, "Synaptic Plasticity Dynamics for Deep Continuous Local Learning
        (DECOLLE)", arXiv:1811.10766.
    """
    return (v.abs() <= 0.5).to(v.dtype)


SURROGATES: dict[str, Surrogate] = {
    function.__name__: function for function in (fast_sigmoid, arctan, triangle, boxcar)
}
"""The functions by name."""
