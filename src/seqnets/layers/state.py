"""States of any layer: tensors in nested tuples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def map_state(function: Callable[[Tensor], Any], state: Any) -> Any:
    """Apply a function to every tensor of a state; None stays None."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return function(state)
    return tuple(map_state(function, part) for part in state)


def detach(state: Any) -> Any:
    """The same numbers without history: where a gradient ends."""
    return map_state(Tensor.detach, state)
