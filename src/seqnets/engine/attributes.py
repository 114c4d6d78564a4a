"""Attributes of a cell that are passed to its loops as buffers, instead of compiled into them.

A number among a cell's attributes is part of its equation, and a constant in the compiled loops.
Some numbers change between calls: temperatures, slopes, rates on a schedule. From the second value
on, such a number is passed as a tensor, so that further values need no compilation. A tensor that
is a plain attribute, where it should have been a buffer, is passed as one too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.engine.equation import loose_attributes
from seqnets.engine.guards import read
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

    def notice(self, numbers: _Numbers) -> None:
        """Note which numbers have changed since the last call."""
        if numbers != self.numbers:
            before, self.numbers = self.numbers, numbers
            self.changed |= {n for n in numbers if before.get(n, numbers[n]) != numbers[n]}

    def obstacle(self, cell: Cell, given: dict[str, Tensor], more: dict[str, Tensor]) -> str | None:
        """Why the step cannot be traced if more attributes become buffers; None if it can."""
        place: tuple[bool | str, ...] = (cell.training, *more)
        if place not in self.obstacles:
            self.obstacles[place] = _obstacle(cell.bind(cell.tensors() | given | more))
        return self.obstacles[place]


_histories: WeakKeyDictionary[Cell, _History] = WeakKeyDictionary()


def with_attributes_given(cell: Cell) -> tuple[Cell, str | None]:
    """The cell with its plain tensors, and the numbers that change between calls, as buffers.

    An attribute stays as it is if the step needs it so: a number that it branches on, or a tensor
    that it writes to; and a number that is too large for a tensor of the parameters' dtype.

    Returns:
        The cell, itself if nothing becomes a buffer; and why the step cannot be traced even with
        its tensors as buffers, None if it can or there are none.
    """
    if torch.compiler.is_compiling():
        names = cell.origin.as_constant(names_given)
        given = {name: read(cell, name) for name in names}
        return (cell.bind(cell.tensors() | given) if given else cell), None
    found = loose_attributes(cell)
    if not found:
        return cell, None
    numbers = {
        name: value
        for name, value in found.items()
        if not isinstance(value, Tensor) and not name.endswith("_size")
    }
    history, like = _histories.setdefault(cell.origin, _History(numbers)), cell._like
    history.notice(numbers)
    given = _tensors_like(like, found)
    obstacle = history.obstacle(cell, {}, given) if given else None
    if obstacle is not None:  # all of them, or none
        given = {}
    for name in sorted(history.changed & numbers.keys()):
        kind = torch.int64 if type(numbers[name]) is int else like.dtype
        try:
            number = {name: like.new_full((), numbers[name], dtype=kind)}
        except (OverflowError, RuntimeError):  # no tensor of this dtype holds it
            continue
        if history.obstacle(cell, given, number) is None:
            given |= number
    return (cell.bind(cell.tensors() | given) if given else cell), obstacle


def with_tensors_given(cell: Cell) -> Cell:
    """The cell with its plain tensors as buffers, for compilers, which keep numbers as constants.

    Itself if it has none, or its step needs them as they are.
    """
    given = _tensors_given(cell)
    return cell.bind(cell.tensors() | given) if given else cell


def names_given(cell: Cell) -> tuple[str, ...]:
    """The names of the tensors that ``with_tensors_given`` makes buffers."""
    return tuple(_tensors_given(cell))


def _tensors_given(cell: Cell) -> dict[str, Tensor]:
    given = _tensors_like(cell._like, loose_attributes(cell))
    if given and _histories.setdefault(cell, _History({})).obstacle(cell, {}, given):
        return {}
    return given


def _tensors_like(like: Tensor, found: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors on the parameters' device, of their dtype or of an integer or boolean one.

    With any other, the step fails in torch, whose message says why.
    """
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, Tensor)
        and value.device == like.device
        and (value.dtype == like.dtype or not value.is_floating_point())
    }


def _obstacle(cell: Cell) -> str | None:
    try:
        plan_of(cell)
    except Exception as reason:  # a user's class may raise anything when a number is a tensor
        return str(reason) or repr(reason)
    return None
