"""The program of a cell, made once for each equation and its options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.cells.changes import class_changes
from seqnets.engine.ahead import Ahead, computed_ahead
from seqnets.engine.compare import watch_projection
from seqnets.engine.equation import equation_of
from seqnets.engine.graph import Step, Untraceable, step_from_text
from seqnets.engine.prepared import Preparation
from seqnets.engine.program import Program, make_program
from seqnets.engine.trace import trace_projection, trace_step

_T = TypeVar("_T")
_known: dict[Any, Any] = {}
_traces: WeakKeyDictionary[Cell, int] = WeakKeyDictionary()
"""How many equations each cell has had, in all its modes and with all values of its attributes."""
_reasons: WeakKeyDictionary[Cell, dict[Any, str]] = WeakKeyDictionary()
"""Why cells that nothing can be compared with cannot be traced."""
_MOST_TRACES = 32  # to trace and compile a step takes longer than many calls of the plain loop


def program_of(cell: Cell) -> Program:
    """A cell's step as a program.

    An equation may read its arguments, its parameters and its attributes. What it reads besides,
    a global say, must not change: it is traced once.

    Raises:
        Untraceable: Its step is no such program; the message tells why.
    """
    plan = plan_of(cell)
    return plan.program if plan.ahead is None else _apart(lambda: _program(plan.step))


class Plan(NamedTuple):
    """How a cell is run over time.

    Attributes:
        step: Its step.
        preparation: What is computed of its parameters alone before that.
        program: What its loops run: the step, or what is left of it.
        ahead: What is computed before the loop, if that is more than the projection.
        projection: The names of weight and bias, if all before the loop is affine and no more.
        draws: Whether its projection draws random numbers.
        apart: Whether it maps the input of each step alone, which it does not where it draws.
    """

    step: Step
    preparation: Preparation
    program: Program
    ahead: Ahead | None
    projection: tuple[str, str | None] | None
    draws: bool
    apart: bool


def plan_of(cell: Cell, tensors: Mapping[str, Tensor] | None = None) -> Plan:
    """A cell's program, and how its inputs are projected.

    Args:
        cell: The recurrence.
        tensors: Those of ``cell.tensors()``, if they are known already.

    Raises:
        Untraceable: As ``program_of`` says.
    """
    return _once("plan", cell, cell.tensors() if tensors is None else tensors, _plan)


def streaming_program_of(cell: Cell) -> tuple[Program, Preparation]:
    """The same for single steps without gradients, the input's projection included."""
    return _once("stream", cell, cell.tensors(), _streaming_program)


def _plan(cell: Cell) -> Plan:
    draws, apart = watch_projection(cell)
    with torch.random.fork_rng(devices=[], enabled=draws):  # whoever draws next must not notice
        step, preparation = trace_step(cell)
        ahead = computed_ahead(step, preparation.constants)
        program = _program(step if ahead is None else ahead.rest)
        projection = trace_projection(cell) if apart and ahead is None else None
        return Plan(step, preparation, program, ahead, projection, draws, apart)


def _streaming_program(cell: Cell) -> tuple[Program, Preparation]:
    draws, _ = watch_projection(cell)
    with torch.random.fork_rng(devices=[], enabled=draws):
        step, preparation = trace_step(cell, project=True)
        return make_program(step, backward=False), preparation


def program_from_text(text: str) -> Program:
    """The program of a step that was written down, as ``Step.to_text`` does."""
    if ("text", text) not in _known:  # nodes may come to stand in another order there
        _known["text", text] = _apart(lambda: _program(step_from_text(text)))
    return _known["text", text]


def _program(step: Step) -> Program:
    """A step's program: the same one for equal steps, in training and evaluation for most cells."""
    key = "text", step.to_text()
    if key not in _known:
        _known[key] = make_program(step)
    return _known[key]


def _once(what: str, cell: Cell, tensors: Mapping[str, Tensor], make: Callable[[Cell], _T]) -> _T:
    kinds = tuple([(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()])
    now = class_changes()
    try:
        key = (what, kinds, *equation_of(cell))
    except (TypeError, RecursionError):  # an attribute that cannot be compared
        return _each_time(cell, (what, kinds, cell.training, now), make)
    changes, found = _known.get(key, (None, None))
    if changes is None:
        _count_equation(cell)
    if changes != now:  # an attribute of a class may be one that the equation reads
        try:
            found = _apart(partial(make, cell))
        except Untraceable as reason:
            found = reason
        _known[key] = now, found
    if isinstance(found, Untraceable):
        raise Untraceable(str(found))
    return found


def _count_equation(cell: Cell) -> None:
    """Count one more equation of a cell; raise Untraceable if it has had too many."""
    traces = _traces.get(cell.origin, 0) + 1
    if traces > _MOST_TRACES:
        raise Untraceable(
            f"its attributes, or its class, were changed {_MOST_TRACES} times, and it was "
            f"traced anew each time; instead: buffers for what changes"
        )
    _traces[cell.origin] = traces


def _each_time(cell: Cell, key: Any, make: Callable[[Cell], _T]) -> _T:
    """Trace at every call, up to one that finds that this cell cannot be traced."""
    reasons = _reasons.setdefault(cell.origin, {})
    if key not in reasons:
        try:
            return _apart(partial(make, cell))
        except Untraceable as reason:
            reasons[key] = str(reason)
    raise Untraceable(reasons[key])


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
