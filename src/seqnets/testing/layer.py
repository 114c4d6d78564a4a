"""The laws of a layer over sequences."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from seqnets.testing.laws import LAWS, example, obey, perturb, without


def check_layer(layer: Any, *, skip: Collection[str] = ()) -> None:
    """Raise unless a layer obeys the laws of recurrence, by whichever backend it takes.

    A copy of it runs in float64, evaluation mode and with random parameters; the layer and the
    global random state stay as they are.

    Args:
        layer: A module with an ``input_size``, called as ``Recurrent`` is.
        skip: Names of laws that need not hold. A layer in both directions knows the future:
            "chunks", "steps", "causality". One against time also counts resets from behind:
            "resets". :class:`Truncated` cuts gradients off on purpose: "gradients".

    Raises:
        AssertionError: A law is broken; the message names it, the layer and the numbers.
        ConfigError: ``skip`` names no law.

    Example:
        >>> check_layer(Bidirectional(cells.LSTMCell(3, 4)), skip=("chunks", "steps", "causality"))
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        other: nn.Module = copy.deepcopy(layer).double().eval()
        perturb(other)
        obey(without(LAWS, skip), other, example(other, layer.input_size), type(layer).__name__)
