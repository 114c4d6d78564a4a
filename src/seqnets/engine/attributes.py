"""Attributes of a cell that its loops are given as they are given buffers.

A number among a cell's attributes is part of its equation, and compiled into the loops. One that
changes between calls, as temperatures, slopes and rates on a schedule do, is a tensor to them from
its second value on, so that no further value compiles anything. A tensor that is a plain attribute
is read as the buffer that it should have been.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.engine.equation import loose_attributes
from seqnets.engine.plans import plan_of

_Numbers = dict[str, "int | float"]


@dataclass
class _History:
    """What is known of a cell.

    Attributes:
        numbers: Its numbers at the last call.
        changed: The names of those that were others at an earlier call.
        traced: Whether its step can be traced with some attributes given, in training or not.
    """

    numbers: _Numbers
    changed: set[str] = field(default_factory=set)
    traced: dict[tuple[bool | str, ...], bool] = field(default_factory=dict)


_histories: WeakKeyDictionary[Cell, _History] = WeakKeyDictionary()


def with_attributes_given(cell: Cell) -> Cell:
    """The cell with its plain tensors, and numbers that were changed between calls, as buffers.

    The same cell if there are none. One that the step needs as it is (it branches on a number, or
    writes to a tensor) stays.
    """
    if torch.compiler.is_compiling():
        return cell
    found = loose_attributes(cell)
    if not found:
        return cell
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    numbers = {
        name: value
        for name, value in found.items()
        if not isinstance(value, Tensor) and not name.endswith("_size")
    }
    history = _histories.setdefault(cell.origin, _History(numbers))
    if numbers != history.numbers:
        before, history.numbers = history.numbers, numbers
        history.changed |= {n for n in numbers if before.get(n, numbers[n]) != numbers[n]}
    changed = sorted(history.changed & numbers.keys())
    given: dict[str, Tensor] = {}
    groups = [_like_parameters(tensors, cell)]  # all of them, or none
    groups += [{name: _as_tensor(numbers[name], cell._like)} for name in changed]
    for more in filter(None, groups):
        place: tuple[bool | str, ...] = (cell.training, *more)
        if place not in history.traced:
            history.traced[place] = _can_be_traced(cell.bind(cell.tensors() | given | more))
        if history.traced[place]:
            given |= more
    return cell.bind(cell.tensors() | given) if given else cell


def _like_parameters(tensors: dict[str, Tensor], cell: Cell) -> dict[str, Tensor]:
    """Those of the parameters' device, and dtype if they are real: others are told by torch."""
    like = cell._like
    return {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.device == like.device
        and (tensor.dtype == like.dtype or not tensor.is_floating_point())
    }


def _as_tensor(number: int | float, like: Tensor) -> Tensor:
    return like.new_full((), number, dtype=torch.int64 if type(number) is int else like.dtype)


def _can_be_traced(cell: Cell) -> bool:
    try:
        plan_of(cell)
    except Exception:  # whatever a class raises that needs an attribute to be as it is
        return False
    return True
