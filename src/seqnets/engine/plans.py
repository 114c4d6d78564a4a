"""The program of a cell, made once for each equation and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.engine.graph import Step, Untraceable, step_from_text
from seqnets.engine.program import Program, make_program
from seqnets.engine.trace import trace_projection, trace_step

_T = TypeVar("_T")
_known: dict[Any, Any] = {}
_MODULE = frozenset(nn.Module().__dict__) | {"_origin", "_around", "_initial", "parameter_shapes"}


def program_of(cell: Cell) -> Program:
    """What a cell's loops run.

    An equation may read its arguments, its parameters and its attributes. What it reads besides,
    a global say, must not change: it is traced once.

    Raises:
        Untraceable: Its step is no such program; the message tells why.
    """
    return plan_of(cell)[0]


def plan_of(cell: Cell) -> tuple[Program, tuple[str, str | None] | None]:
    """A cell's program, and the names of weight and bias if its projection is affine and no more.

    Raises:
        Untraceable: As ``program_of`` says.
    """
    return _once("plan", cell, lambda: (_program(trace_step(cell)), trace_projection(cell)))


def streaming_program_of(cell: Cell) -> Program:
    """The same for single steps without gradients, the input's projection included."""
    return _once(
        "stream", cell, lambda: make_program(trace_step(cell, project=True), backward=False)
    )


def program_from_text(text: str) -> Program:
    """The program of a step that was written down, as ``Step.to_text`` does."""
    if ("text", text) not in _known:
        _apart(lambda: _program(step_from_text(text)))
    return _known["text", text]


def _program(step: Step) -> Program:
    """A step's program: the same one for equal steps, in training and evaluation for most cells."""
    key = "text", step.to_text()
    if key not in _known:
        _known[key] = make_program(step)
    return _known[key]


def _once(what: str, cell: Cell, make: Callable[[], _T]) -> _T:
    tensors = tuple((name, tuple(p.shape), p.dtype) for name, p in cell.tensors().items())
    try:
        key = (what, tensors, *_equation(cell))
    except (TypeError, RecursionError):  # an attribute that cannot be compared: traced each time
        return _apart(make)
    if key not in _known:
        try:
            _known[key] = _apart(make)
        except Untraceable as reason:
            _known[key] = reason
    found = _known[key]
    if isinstance(found, Untraceable):
        raise Untraceable(str(found))
    return found


def _apart(make: Callable[[], _T]) -> _T:
    """Call a function where none of the caller's modes hold: in a thread of its own.

    Inside an operator nothing is differentiated, under a compiler tensors are fake, and in
    inference mode they cannot require gradients; tracing a step must not notice.
    """
    with torch.random.fork_rng(devices=[]), ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


def _equation(cell: nn.Module) -> tuple[Any, ...]:
    """What a cell computes by: its class, its mode, its attributes, and the same of what is inside.

    Raises:
        TypeError: An attribute of a module has nothing to compare it by, or a module has hooks.
    """
    owners = (cell, cell.origin) if isinstance(cell, Cell) else (cell,)
    inside = []
    for name, module in cell._modules.items():
        if name != "parametrizations" and module is not None:
            if module._forward_hooks or module._forward_pre_hooks:
                raise TypeError(f"{name} has hooks")
            inside.append((name, *_equation(module)))
    return type(cell), cell.training, _frozen(attributes_of(cell), owners), *inside


def attributes_of(module: nn.Module) -> dict[str, Any]:
    """What a module has of its own, besides tensors and modules."""
    return {name: value for name, value in module.__dict__.items() if name not in _MODULE}


def _frozen(value: Any, owners: tuple[nn.Module, ...]) -> Any:
    """A value as something that can be compared with its like.

    Args:
        value: An attribute of a cell, or what is inside one.
        owners: The cell, and the one it was bound from: their own methods are known by their class.

    Raises:
        TypeError: It cannot.
    """
    if value is None or isinstance(
        value, (bool, int, float, str, bytes, type, FunctionType, BuiltinFunctionType, torch.dtype)
    ):
        return type(value), value
    if isinstance(value, partial):
        parts = value.func, value.args, value.keywords, vars(value)
        return type(value), tuple(_frozen(part, owners) for part in parts)
    if isinstance(value, MethodType):
        if any(value.__self__ is owner for owner in owners):
            return MethodType, value.__func__
        return MethodType, value.__func__, _frozen(value.__self__, owners)
    if isinstance(value, Mapping):
        return tuple((name, _frozen(part, owners)) for name, part in value.items())
    if isinstance(value, Sequence):
        return type(value), tuple(_frozen(part, owners) for part in value)
    if isinstance(value, (Tensor, nn.Module)) or not _is_told_by_vars(value):
        raise TypeError(f"{type(value).__name__} is not compared")
    return type(value), _frozen(vars(value), owners)


class _Plain:
    """A class of no more than attributes."""


def _is_told_by_vars(value: Any) -> bool:
    """Whether an object is all in its ``__dict__``, nothing of it in slots or in memory of C's."""
    kind = type(value)
    return (
        hasattr(value, "__dict__")
        and kind.__basicsize__ <= _Plain.__basicsize__
        and not any(base.__dict__.get("__slots__") for base in kind.__mro__)
    )
