"""Operations on the states of layers: tensors in nested tuples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor

from seqnets.errors import ShapeError


def map_state(function: Callable[[Tensor], Any], state: Any) -> Any:
    """Apply a function to every tensor of a state; None stays None.

    Args:
        function: Takes a tensor.
        state: Of a cell or a layer: tensors in tuples, however deeply nested.

    Returns:
        What the function returned, in tuples as the state has them.

    Raises:
        ShapeError: The state contains anything else.
    """
    if state is None:
        return None
    if isinstance(state, Tensor):
        return function(state)
    if not isinstance(state, Sequence) or isinstance(state, str):
        raise ShapeError(
            f"map_state: the state contains {type(state).__name__}, expected tensors, None and "
            f"tuples of these.\n  Pass the state as a layer returns it."
        )
    return tuple(map_state(function, part) for part in state)


def detach(state: Any) -> Any:
    """Detach every tensor of a state, so that gradients end there."""
    return map_state(Tensor.detach, state)


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a state, in their order."""
    found: list[Tensor] = []
    map_state(found.append, state)
    return found


def with_leaves(state: Any, tensors: Iterable[Tensor]) -> Any:
    """A state with other tensors in the places of its own."""
    others = iter(tensors)
    return map_state(lambda _: next(others), state)
