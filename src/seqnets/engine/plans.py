"""The plan of a cell: its traced step and its program, made once for each equation and cached."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import attrgetter
from pathlib import Path
from traceback import walk_tb
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seqnets.cells import Cell, MatrixMemoryCell
from seqnets.cells.metaclass import class_changes
from seqnets.engine.ahead import Ahead, computed_ahead, with_pieces_apart
from seqnets.engine.equation import equation_of, leave_out_what_tracing_changed
from seqnets.engine.graph import Untraceable
from seqnets.engine.modes import anomaly_mode
from seqnets.engine.outside import LIBRARIES
from seqnets.engine.pieces import pieces_of
from seqnets.engine.preparation import Preparation
from seqnets.engine.program import Program
from seqnets.engine.schedule import make_program
from seqnets.engine.serialised import step_from_text, step_to_text
from seqnets.engine.step import Step
from seqnets.engine.tracing.projecting import trace_projection, watch_projection
from seqnets.engine.tracing.trace import trace_step

_T = TypeVar("_T")
_shape_and_dtype = attrgetter("shape", "dtype")
_programs: dict[str, Program] = {}
"""By a step's text: one for equal steps, as most cells have in training and evaluation."""
_by_equation: dict[Any, Any] = {}
"""For each equation the ``class_changes`` so far, and what was made of it, or why nothing was."""
_locks: dict[Any, threading.RLock] = {}
"""By equation: of threads that need the same one, the first makes it."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_locks.clear)  # no thread of a forked process holds them
_traces: WeakKeyDictionary[Cell, int] = WeakKeyDictionary()
"""The number of equations that each cell has had: one for each mode and value of attributes."""
_reasons: WeakKeyDictionary[Cell, dict[Any, str]] = WeakKeyDictionary()
"""Why cells whose equations cannot be compared cannot be traced."""
_MOST_TRACES = 32  # tracing and compiling takes longer than many calls of the plain loop
_MOST_OF_MATRICES = 800  # 32 by 32 took 54 s to compile, eight of 8 by 8 took 15 s


def program_of(cell: Cell) -> Program:
    """The program of a cell's whole step, also where ``Plan.ahead`` leaves its loop less.

    Pieces of the input that the step reads are apart in it.

    It is traced once, until something changes that ``equation_of`` looks at. Anything else that the
    step reads must stay as it is.

    Raises:
        Untraceable: The step cannot be traced; the message says why.
    """
    plan = plan_of(cell)
    if plan.ahead is None:
        return plan.program
    whole, _ = with_pieces_apart(plan.step)
    return _in_own_thread(lambda: _program(whole))


class Plan(NamedTuple):
    """How a cell is run over time.

    Attributes:
        step: The traced step.
        preparation: What is computed from parameters alone, before the loop.
        program: What the loop runs: the whole step, or the rest of it where ``ahead`` is not None.
        ahead: What is computed from inputs alone, before the loop and after the projection; None
            if there is nothing to compute.
        pieces: The number of pieces of each part of the cell's state; empty if none is cut.
        projection: The names of weight and bias, if an affine map of the input is all that is
            computed from inputs before the loop; else None.
        draws: Whether the projection draws random numbers.
        per_step: Whether the projection maps the input of each step alone; False if it draws.
        mostly_moves: Whether a step's products by constants, which move units from place to place,
            are of more numbers than those by parameters.
    """

    step: Step
    preparation: Preparation
    program: Program
    ahead: Ahead | None
    pieces: tuple[int, ...]
    projection: tuple[str, str | None] | None
    draws: bool
    per_step: bool
    mostly_moves: bool


def plan_of(cell: Cell, tensors: Mapping[str, Tensor] | None = None) -> Plan:
    """A cell's plan.

    Args:
        cell: The recurrence.
        tensors: ``cell.tensors()``, if the caller has it already.

    Raises:
        Untraceable: As for ``program_of``.
    """
    return _once(_plan, cell, cell.tensors() if tensors is None else tensors)


def streaming_program_of(cell: Cell) -> tuple[Program, Preparation]:
    """The program and preparation for single steps without gradients, projection included."""
    return _once(_streaming_program, cell, cell.tensors())


def _plan(cell: Cell) -> Plan:
    if matrix := _matrix_memory(cell):
        raise Untraceable(f"{matrix._name} keeps matrices, too many numbers for a loop to compile")
    draws, per_step = watch_projection(cell)
    with torch.random.fork_rng(devices=[], enabled=draws):  # keep the caller's random state
        step, preparation = trace_step(cell)
        ahead = computed_ahead(step)
        rest = step if ahead is None else ahead.rest
        program = _program(rest)
        projection = trace_projection(cell) if per_step and ahead is None else None
        pieces = pieces_of(cell.state_sizes, step.state_sizes)
        moves = _mostly_moves(rest)
        return Plan(step, preparation, program, ahead, pieces, projection, draws, per_step, moves)


def _mostly_moves(step: Step) -> bool:
    """Whether products by constants are of more numbers than those by parameters."""
    numbers = [0, 0]
    for k, product in enumerate(step.products):
        numbers[step.is_learned(k)] += product.weight.rows * product.weight.columns
    constant, learned = numbers
    return constant > learned


def _streaming_program(cell: Cell) -> tuple[Program, Preparation]:
    numbers = sum(cell.state_sizes) if _matrix_memory(cell) else 0
    if numbers > _MOST_OF_MATRICES:
        raise Untraceable(
            f"{numbers} numbers of its state would be unrolled, expected {_MOST_OF_MATRICES} at "
            f"most: more took a minute to compile"
        )
    draws, _ = watch_projection(cell)
    with torch.random.fork_rng(devices=[], enabled=draws):
        step, preparation = trace_step(cell, project=True)
        return make_program(step, backward=False), preparation


def _matrix_memory(cell: Cell) -> MatrixMemoryCell | None:
    """The first cell inside whose memory is a matrix; None if there is none."""
    return next((one for one in cell.modules() if isinstance(one, MatrixMemoryCell)), None)


def program_from_text(text: str) -> Program:
    """The program of a step that ``step_to_text`` wrote."""
    if text not in _programs:  # written anew, its nodes may be in another order
        _programs[text] = _in_own_thread(lambda: _program(step_from_text(text)))
    return _programs[text]


def _program(step: Step) -> Program:
    """A step's program."""
    text = step_to_text(step)
    if text not in _programs:
        _programs[text] = make_program(step)
    return _programs[text]


def _once(make: Callable[[Cell], _T], cell: Cell, tensors: Mapping[str, Tensor]) -> _T:
    """What is made of a cell, once for each equation, dtypes and shapes."""
    kinds = *tensors, *map(_shape_and_dtype, tensors.values())
    now = class_changes()
    try:
        key = (make, kinds, *equation_of(cell))
    except (TypeError, RecursionError):  # an attribute that cannot be compared
        return _each_time(make, cell, (make, kinds, cell.training, now))
    changes, found = _by_equation.get(key, (None, None))
    if changes != now:  # the equation may read attributes of a class
        with _locks.setdefault(key, threading.RLock()):
            changes, found = _by_equation.get(key, (None, None))  # perhaps made meanwhile
            try:
                if changes is None:
                    _count_equation(cell)
                if changes != now:
                    found = _made(make, cell)
                    _by_equation[key] = now, found
            finally:
                _locks.pop(key, None)
    if isinstance(found, Untraceable):
        raise Untraceable(str(found))
    return found


def _made(make: Callable[[Cell], _T], cell: Cell) -> _T | Untraceable:
    """What is made of a cell, or why nothing is."""
    try:
        return _in_own_thread(partial(make, cell))
    except Untraceable as reason:
        return Untraceable(_placed(reason))  # the one raised refers to the cell
    finally:
        leave_out_what_tracing_changed(cell)


def _count_equation(cell: Cell) -> None:
    """Count one more equation of a cell.

    Raises:
        Untraceable: It has had too many.
    """
    traces = _traces.get(cell.origin, 0) + 1
    if traces > _MOST_TRACES:
        raise Untraceable(
            f"its attributes, its class, or what it reads outside, were changed {_MOST_TRACES} "
            f"times, and it was traced anew each time; instead: buffers for what changes"
        )
    _traces[cell.origin] = traces


def _each_time(make: Callable[[Cell], _T], cell: Cell, key: Any) -> _T:
    """Trace at every call, until the cell turns out to be untraceable."""
    reasons = _reasons.setdefault(cell.origin, {})
    if key not in reasons:
        try:
            return _in_own_thread(partial(make, cell))
        except Untraceable as reason:
            reasons[key] = _placed(reason)
    raise Untraceable(reasons[key])


def _placed(reason: Untraceable) -> str:
    """A reason with the user's line that it was found at; as it is if there is no such line."""
    error: BaseException | None = reason
    while error is not None:
        for frame, line in reversed([*walk_tb(error.__traceback__)]):
            module, code = str(frame.f_globals.get("__name__")), frame.f_code
            if module.partition(".")[0] not in LIBRARIES:
                return f"{reason} (line {line} of {_file(code.co_filename)}, in {code.co_name})"
        error = error.__cause__
    return str(reason)


def _file(name: str) -> str:
    """The name of a file, or of a notebook's cell as it is shown, "Cell In[3]"."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    cell_of = getattr(getattr(shell, "compile", None), "format_code_name", lambda name: None)
    return " ".join(cell_of(name) or [Path(name).name])


def _in_own_thread(make: Callable[[], _T]) -> _T:
    """Call a function in a thread of its own, where none of the caller's torch modes is on.

    Tracing needs gradients, which are off inside a custom operator and in inference mode, and real
    tensors, which are fake ones under a compiler. Anomaly mode would read stand-ins' numbers.
    """
    with anomaly_mode.blind(), ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(make).result()
        except RecursionError:
            raise Untraceable(
                "hundreds of its operations depend on each other in a row; instead: fewer substeps"
            ) from None
