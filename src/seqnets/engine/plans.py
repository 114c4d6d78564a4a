"""The program of a cell, made once for each equation and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from seqnets.cells import Cell
from seqnets.cells.base import class_changes
from seqnets.engine.compare import attributes_of, watch_projection
from seqnets.engine.graph import Step, Untraceable, step_from_text
from seqnets.engine.program import Program, make_program
from seqnets.engine.trace import trace_projection, trace_step

_T = TypeVar("_T")
_known: dict[Any, Any] = {}


def program_of(cell: Cell) -> Program:
    """What a cell's loops run.

    An equation may read its arguments, its parameters and its attributes. What it reads besides,
    a global say, must not change: it is traced once.

    Raises:
        Untraceable: Its step is no such program; the message tells why.
    """
    return plan_of(cell).program


class Plan(NamedTuple):
    """How a cell is run over time.

    Attributes:
        program: What its loops run.
        projection: The names of weight and bias, if its projection is affine and no more.
        draws: Whether its projection draws random numbers.
        apart: Whether it maps the input of each step alone, which it does not where it draws.
    """

    program: Program
    projection: tuple[str, str | None] | None
    draws: bool
    apart: bool


def plan_of(cell: Cell) -> Plan:
    """A cell's program, and how its inputs are projected.

    Raises:
        Untraceable: As ``program_of`` says.
    """
    return _once("plan", cell, lambda: _plan(cell))


def streaming_program_of(cell: Cell) -> Program:
    """The same for single steps without gradients, the input's projection included."""
    return _once("stream", cell, lambda: _streaming_program(cell))


def _plan(cell: Cell) -> Plan:
    draws, apart = watch_projection(cell)
    with torch.random.fork_rng(devices=[], enabled=draws):  # whoever draws next must not notice
        program = _program(trace_step(cell))
        return Plan(program, trace_projection(cell) if apart else None, draws, apart)


def _streaming_program(cell: Cell) -> Program:
    draws, _ = watch_projection(cell)
    with torch.random.fork_rng(devices=[], enabled=draws):
        return make_program(trace_step(cell, project=True), backward=False)


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
    tensors = tuple([(name, p.shape, p.dtype) for name, p in cell.tensors().items()])
    try:
        key = (what, class_changes(), tensors, *_equation(cell))
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
    watched = torch.is_anomaly_enabled()  # which is on in all threads
    torch.set_anomaly_enabled(False, torch.is_anomaly_check_nan_enabled())
    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(make).result()
    finally:
        torch.set_anomaly_enabled(watched, torch.is_anomaly_check_nan_enabled())


def _equation(cell: nn.Module) -> tuple[Any, ...]:
    """What a cell computes by: its class, its mode, its attributes, and the same of what is inside.

    Raises:
        TypeError: An attribute of a module has nothing to compare it by.
        Untraceable: A module has hooks.
    """
    owners = (cell, cell.origin) if isinstance(cell, Cell) else (cell,)
    inside = []
    for name, module in cell._modules.items():
        if name != "parametrizations" and module is not None:
            if any(getattr(module, kind) for kind in _HOOKS):
                raise Untraceable(f"{name} has hooks, which are called at every step")
            inside.append((name, *_equation(module)))
    code = _code(type(cell))
    return type(cell), code, cell.training, _frozen(attributes_of(cell), owners), *inside


def _code(kind: type[nn.Module]) -> tuple[Any, ...]:
    """What the methods of an equation are compiled to: notebooks put new code into old ones."""
    methods = (getattr(kind, name, None) for name in ("project", "step", "update"))
    return tuple([getattr(method, "__code__", None) for method in methods])


_HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"


def _frozen(value: Any, owners: tuple[nn.Module, ...]) -> Any:
    """A value as something that can be compared with its like.

    Args:
        value: An attribute of a cell, or what is inside one.
        owners: The cell, and the one it was bound from: their own methods are known by their class.

    Raises:
        TypeError: It cannot.
    """
    if isinstance(value, _COMPARED):
        return type(value), value
    if type(value) is dict:
        kinds = tuple(map(type, value.values()))
        if _PLAIN.issuperset(kinds):  # as with most cells
            return tuple(value), kinds, tuple(value.values())
    if isinstance(value, partial):
        inside = value.func, value.args, value.keywords, vars(value)
        return type(value), tuple(_frozen(part, owners) for part in inside)
    if isinstance(value, MethodType):
        if any(value.__self__ is owner for owner in owners):
            return MethodType, value.__func__
        return MethodType, value.__func__, _frozen(value.__self__, owners)
    if isinstance(value, Mapping):
        parts = tuple((name, _frozen(part, owners)) for name, part in value.items())
        return type(value), parts
    if isinstance(value, Sequence):
        return type(value), tuple(_frozen(part, owners) for part in value)
    if isinstance(value, (Tensor, nn.Module)) or not _is_told_by_vars(value):
        raise TypeError(f"{type(value).__name__} is not compared")
    return type(value), _frozen(vars(value), owners)


_PLAIN = {bool, int, float, complex, str, bytes, torch.dtype, torch.device, NoneType}
_COMPARED = (*_PLAIN, type, FunctionType, BuiltinFunctionType)
"""Types of what is compared as it stands."""


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
