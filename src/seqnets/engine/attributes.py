"""Attributes of a cell that are passed to its loops as buffers, instead of compiled into them.

A number among a cell's attributes is part of its equation, and a constant in the compiled loops.
Some numbers change between calls: temperatures, slopes, rates on a schedule. From the second value
on, such a number is passed as a tensor, so that further values need no compilation. A tensor that
is a plain attribute, where it should have been a buffer, is passed as one too.
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
    """What earlier calls of a cell have shown.

    Attributes:
        numbers: Its numeric attributes at the last call.
        changed: The names of those whose value has changed between calls.
        obstacles: Why its step cannot be traced when some attributes are buffers; None if it can.
            The key is the cell's ``training`` flag, then the names of these attributes.
    """

    numbers: _Numbers
    changed: set[str] = field(default_factory=set)
    obstacles: dict[tuple[bool | str, ...], str | None] = field(default_factory=dict)


_histories: WeakKeyDictionary[Cell, _History] = WeakKeyDictionary()


def with_attributes_given(cell: Cell) -> tuple[Cell, str | None]:
    """The cell with its plain tensors, and the numbers that change between calls, as buffers.

    An attribute stays as it is if the step needs it so: a number that it branches on, or a tensor
    that it writes to.

    Returns:
        The cell, itself if nothing becomes a buffer; and why the step cannot be traced even with
        its tensors as buffers, None if it can or there are none.
    """
    if torch.compiler.is_compiling():
        return cell, None
    found = loose_attributes(cell)
    if not found:
        return cell, None
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

    def give(more: dict[str, Tensor]) -> str | None:
        """Make attributes buffers, unless that is why the step cannot be traced: then say why."""
        place: tuple[bool | str, ...] = (cell.training, *more)
        if place not in history.obstacles:
            history.obstacles[place] = _obstacle(cell.bind(cell.tensors() | given | more))
        if history.obstacles[place] is None:
            given.update(more)
        return history.obstacles[place]

    tensors = _like_parameters(tensors, cell)
    obstacle = give(tensors) if tensors else None  # together, or not at all
    for name in changed:
        give({name: _as_tensor(numbers[name], cell._like)})
    return (cell.bind(cell.tensors() | given) if given else cell), obstacle


def _like_parameters(tensors: dict[str, Tensor], cell: Cell) -> dict[str, Tensor]:
    """The tensors on the parameters' device, of their dtype or of an integer or boolean one.

    With any other, the step fails in torch, whose message says why.
    """
    like = cell._like
    return {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.device == like.device
        and (tensor.dtype == like.dtype or not tensor.is_floating_point())
    }


def _as_tensor(number: int | float, like: Tensor) -> Tensor:
    return like.new_full((), number, dtype=torch.int64 if type(number) is int else like.dtype)


def _obstacle(cell: Cell) -> str | None:
    try:
        plan_of(cell)
    except Exception as reason:  # a user's class may raise anything when a number is a tensor
        return str(reason) or repr(reason)
    return None
