"""Values as snapshots that are compared later: what they hold now, and not what they are."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from types import BuiltinFunctionType, EllipsisType, FunctionType, MethodType, NoneType
from typing import Any

import torch
from torch import Tensor, nn

_Reads = Callable[[Any], tuple[Any, ...]]
"""A key of what a function, or an object that is called as one, reads outside it."""


def _nothing(function: Any) -> tuple[Any, ...]:
    return ()


def frozen(value: Any, owners: tuple[nn.Module, ...], reads: _Reads = _nothing) -> Any:
    """A value as a comparable snapshot.

    Args:
        value: An attribute of a cell, or a part of one.
        owners: The cell, and the one it was bound from; their bound methods compare by function.
        reads: What is a part of the snapshot of a function besides its code.

    Raises:
        TypeError: The value cannot be compared.
    """
    if type(value) is dict:
        kinds = tuple(map(type, value.values()))
        if _PLAIN.issuperset(kinds):  # as with most cells
            numbers = tuple(value.values())
            return tuple(value), kinds, numbers, _signs(numbers) if 0 in numbers else ()
    if isinstance(value, FunctionType):
        return FunctionType, weakref.ref(value), value.__code__, *reads(value)
    if isinstance(value, type):
        return type, weakref.ref(value)
    if isinstance(value, COMPARED):
        return type(value), value, _signs([value]) if value == 0 else ()
    kind = weakref.ref(type(value))
    if isinstance(value, partial):
        inside = value.func, value.args, value.keywords, vars(value)
        return kind, tuple(frozen(part, owners, reads) for part in inside)
    if isinstance(value, MethodType):
        function = frozen(value.__func__, owners, reads)
        if any(value.__self__ is owner for owner in owners):
            return MethodType, function
        return MethodType, function, frozen(value.__self__, owners, reads)
    if isinstance(value, slice):
        value = value.start, value.stop, value.step
    own = getattr(value, "__dict__", {}) if isinstance(value, _CONTAINERS) else {}
    beside = (frozen(own, owners, reads),) if own else ()
    if isinstance(value, Mapping):
        parts = tuple((name, frozen(part, owners, reads)) for name, part in value.items())
        return kind, parts, *beside
    if isinstance(value, (Sequence, Set)):  # of sets the order counts too: a step may go by it
        return kind, tuple(frozen(part, owners, reads) for part in value), *beside
    if not is_only_a_dict(value):
        raise TypeError(f"{type(value).__name__} is not compared")
    called = reads(value) if callable(value) else ()
    return kind, frozen(vars(value), owners, reads), *called


def _signs(values: Sequence[Any]) -> tuple[float, ...]:
    """The signs of floats among values, since 0.0 equals -0.0."""
    return tuple([math.copysign(1, value) for value in values if type(value) is float])


_PLAIN = {
    bool, int, float, complex, str, bytes, torch.dtype, torch.device, NoneType, EllipsisType,
}  # fmt: skip
COMPARED = (*_PLAIN, BuiltinFunctionType)
"""Types whose values are compared directly."""
_CONTAINERS = dict, list, tuple, set, frozenset
"""Python's own, whose subclasses may have attributes beside what they contain."""


def is_only_a_dict(value: Any) -> bool:
    """Whether an object's state is its ``__dict__`` alone, without tensors, slots or C fields."""
    kind = type(value)
    pointers = (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)  # else before it
    return (
        not isinstance(value, (Tensor, nn.Module))
        and hasattr(value, "__dict__")
        and kind.__basicsize__ == object.__basicsize__ + pointers * tuple.__itemsize__
    )
