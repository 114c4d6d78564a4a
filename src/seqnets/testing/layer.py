"""Check of a layer against the laws of recurrence."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from seqnets.cells import Cell
from seqnets.cells.checks import wrong_argument
from seqnets.testing.laws import LAWS, example, obey, perturb, without


def check_layer(layer: Any, *, skip: Collection[str] = ()) -> None:
    """Check that a layer obeys the laws of recurrence, with any backend that it chooses.

    A copy with random parameters runs in float64 and evaluation mode; the layer and the global
    random state are preserved.

    Args:
        layer: A module with an ``input_size`` and the call signature of ``Recurrent``.
        skip: Names of laws that need not hold. For a bidirectional layer, which sees the future:
            "chunks", "steps", "causality"; for a reversed one also "resets". For
            :class:`Truncated`, which cuts gradients on purpose: "gradients".

    Raises:
        AssertionError: A law is broken; the message gives the law, the layer and the numbers.
        ConfigError: A name in ``skip`` is unknown, or ``layer`` is none.

    Example:
        >>> check_layer(Bidirectional(cells.LSTMCell(3, 4)), skip=("chunks", "steps", "causality"))
    """
    made = isinstance(layer, nn.Module) and not isinstance(layer, Cell)
    if not made or not hasattr(layer, "input_size"):
        expected = "a layer with an input_size" if made else "a layer that is made already"
        raise wrong_argument("check_layer", "layer", layer, expected)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        other: nn.Module = copy.deepcopy(layer).double().eval()
        perturb(other)
        obey(without(LAWS, skip), other, example(other, layer.input_size), type(layer).__name__)
