"""Tracing: from a cell's ``step`` to a ``Step`` graph.

The step runs once on stand-in tensors, whose numbers do not matter, under a ``Recorder``. The trace
is lowered by ``settling.py``, then checked against the cell itself by ``compare.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.engine.equation import with_own_containers
from seqnets.engine.graph import Columns, Graph, Node, Untraceable
from seqnets.engine.pieces import repeated
from seqnets.engine.preparation import Preparation
from seqnets.engine.step import Step
from seqnets.engine.tracing.compare import Comparison, OwnDerivative, errors_as_untraceable
from seqnets.engine.tracing.copying import with_copies_compared
from seqnets.engine.tracing.placing import Placing
from seqnets.engine.tracing.settling import Settler, pieces_written
from seqnets.engine.tracing.surrogate import Surrogates
from seqnets.typing import HALF, State

_ROWS = 173  # not close to a round number, as 101 is: a step creates other sizes too


def trace_step(cell: Cell, *, project: bool = False) -> tuple[Step, Preparation]:
    """Trace ``cell.step``, and apart from it what depends on its parameters alone.

    Args:
        cell: The recurrence.
        project: Whether the step includes the projection of the input.

    Raises:
        Untraceable: It does something other than pointwise arithmetic, products by parameters and
            reductions of rows.
    """
    try:
        return _traced(cell, Placing, project)
    except OwnDerivative:
        return _traced(cell, Surrogates, project)


def _traced(cell: Cell, kind: type[Placing], project: bool) -> tuple[Step, Preparation]:
    """``trace_step`` with a given class of recorder."""
    recorder, bound, x, state = stand_ins(cell, kind)
    for name in bound._parameters.keys() - cell.origin._parameters:  # may be written to, for now
        bound._buffers[name] = bound._parameters.pop(name)
    with (
        errors_as_untraceable(),
        torch.set_grad_enabled(kind is Surrogates),
        _attributes_stay(bound),
    ):
        if not project:
            with torch.no_grad():
                x = bound.project(x)
            recorder.give_columns(x, Columns("wx", None))
        with recorder:
            after = bound.step(bound.project(x) if project else x, state)
        bound.check_after(after, state)
    step = _lowered(recorder, cell, after, x.shape[1])
    preparation = recorder.preparation(step.parameters)
    Comparison(cell, step, preparation, project, recorder.functions, recorder.chooses).run()
    return step, preparation


def _lowered(recorder: Placing, cell: Cell, after: State, wx_size: int) -> Step:
    """What a recorder has seen of a step that gave a state, as a ``Step``."""
    graph = recorder.graph
    nodes = with_copies_compared(recorder, list(map(recorder.node, after)))
    pieces = pieces_written(graph, nodes, [product.value for product in recorder.products])
    widths = [size // len(part) for part, size in zip(pieces, cell.state_sizes, strict=True)]
    written = [_written(recorder, *part) for part in zip(pieces, widths, strict=True)]
    settler = Settler(graph, recorder.products, written, widths, recorder.identity)
    roots = tuple(map(settler.settled, chain(*written)))
    products, reductions = tuple(settler.products), tuple(settler.reductions)
    shapes = {name: tuple(p.shape) for name, p in cell.tensors().items()} | recorder.shapes
    sizes = repeated(widths, [len(part) for part in pieces])
    constants = frozenset(recorder.preparation(shapes).constants)
    step = Step(graph, products, reductions, roots, sizes, wx_size, shapes, constants)
    return step.with_used_parameters()


def _written(recorder: Placing, pieces: Sequence[Node], width: int) -> list[Node]:
    """The pieces of a state part after the step, one number for each unit of each."""
    written = []
    for node in pieces:
        if node.op == "cat":
            node = recorder.times(node, recorder.identity(width))
        written.append(recorder.graph.spread(node, width))
    return written


@contextmanager
def _attributes_stay(cell: Cell) -> Iterator[None]:
    """Raise ``Untraceable`` if an attribute of the cell is written within the context."""
    before = {**cell.__dict__, **cell._buffers}
    sizes = {name: _length(value) for name, value in before.items()}
    yield
    for name, value in {**cell.__dict__, **cell._buffers}.items():
        if name not in before:
            raise Untraceable(
                f"it writes its attribute {name}, which was not there; instead: in __init__ what "
                f"stays, and a part of the state for what changes"
            )
        if before[name] is not value or _length(value) != sizes[name]:
            raise Untraceable(f"it writes its attribute {name}, at every step")


def _length(value: Any) -> int | None:
    """The length of a container; None for anything else."""
    try:
        return len(value)
    except Exception:  # a user's ``__len__`` may raise anything
        return None


def stand_ins(cell: Cell, kind: type[Placing]) -> tuple[Placing, Cell, Tensor, State]:
    """A recorder, and the stand-ins that it knows: a cell bound to parameters, input and state."""
    cell.check_sizes()
    dtype, tensors = cell._like.dtype, cell.tensors()
    sizes = {size for tensor in tensors.values() for size in tensor.shape}
    sizes |= {cell.input_size, *cell.state_sizes}  # no multiple of the number of rows
    rows = next(n for n in itertools.count(_ROWS) if all(size % n for size in sizes - {0}))
    dtypes = {dtype, torch.float32} if dtype in HALF else {dtype}  # may be computed in float32
    recorder = kind(Graph(), rows, dtypes, scalar=1 not in cell.state_sizes)

    # an integer may be used as an index: 0 is always in range
    parameters = {name: torch.zeros(t.shape, dtype=t.dtype) for name, t in tensors.items()}
    for name, tensor in parameters.items():
        if tensor.dim() > 1 and tensor.is_floating_point():  # stays invertible
            tensor.diagonal(dim1=-2, dim2=-1).fill_(1)
        recorder.give_parameter(tensor, name)
    state = tuple(torch.zeros(rows, size, dtype=dtype) for size in cell.state_sizes)
    for key, part in enumerate(state):
        recorder.give_columns(part, Columns("state", key))
    x = torch.zeros(rows, cell.input_size, dtype=dtype)
    recorder.give_columns(x, Columns("x", None))
    return recorder, with_own_containers(cell.bind(parameters)), x, state
