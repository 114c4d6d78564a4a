"""States of any layer: tensors in nested tuples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seqnets.errors import ShapeError
from seqnets.typing import State


def map_state(function: Callable[[Tensor], Any], state: Any) -> Any:
    """Apply a function to every tensor of a state; None stays None.

    Raises:
        ShapeError: Something else is in the state.
    """
    if state is None:
        return None
    if isinstance(state, Tensor):
        return function(state)
    if not isinstance(state, Sequence) or isinstance(state, str):
        raise ShapeError(
            f"map_state: a state has {type(state).__name__} in it, expected tensors, None and "
            f"tuples of these.\n  Give the state as a layer returns it."
        )
    return tuple(map_state(function, part) for part in state)


def detach(state: Any) -> Any:
    """The same numbers without history: where a gradient ends."""
    return map_state(Tensor.detach, state)


def restarted(resets: Tensor, start: State, state: State) -> State:
    """A state, each part (B, H), which is ``start`` in the rows where ``resets``, (B,), is true."""
    return tuple(torch.where(resets[:, None], a, b) for a, b in zip(start, state, strict=True))
