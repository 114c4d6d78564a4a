"""Requests under ``torch.compile`` and ``torch.export``: one operator in place of the loops.

A compiler sees the projection, what is prepared from parameters, and ``seqnets::unroll``
(``operator.py``). What the engine knows of a cell is found out of the compiler's sight, as plain
values that the compiler treats as constants (``Cell.as_constant``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.engine import onnx_export, operator  # noqa: F401  it is torch.ops.seqnets.unroll
from seqnets.engine.ahead import with_pieces_apart
from seqnets.engine.attributes import with_tensors_given
from seqnets.engine.evaluate import replay
from seqnets.engine.graph import Untraceable
from seqnets.engine.guards import stays
from seqnets.engine.pieces import cut, joined
from seqnets.engine.plans import Plan, plan_of, program_from_text, program_of
from seqnets.engine.preparation import Preparation
from seqnets.engine.request import Request
from seqnets.engine.serialised import step_to_text
from seqnets.typing import State


def refusal(request: Request) -> str | None:
    """Why the operator cannot run the request; None if it can."""
    cell = request.cell.origin
    if not stays(cell):
        return "attributes of the cell change while it is compiled, or are not numbers"
    return None if cell.as_constant(text_of) else "the step cannot be traced"


def run(request: Request) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step."""
    cell, x = request.cell, request.clean_x
    wx = cell.check_projected(cell.project(x), x)
    cell.check_projected_dtype(wx, x)
    if read := cell.origin.as_constant(pieces_read):
        wx = torch.cat([wx[..., first : first + width] for first, width in read], -1)
    parameters = _parameters(cell, wx.dtype)
    pieces = cell.origin.as_constant(pieces_used)
    state, start = cut(request.state, pieces), cut(request.start, pieces)
    text = cell.origin.as_constant(text_of)
    if onnx_export.runs_here():
        step = program_from_text(text).step

        def one(wx: Tensor, state: State, tensors: Sequence[Tensor]) -> State:
            return replay(step, wx, state, dict(zip(step.parameters, tensors, strict=True)))

        y, rest = onnx_export.scanned(one, parameters, wx, state, start, request)
        return y, joined(rest, pieces)
    given = [*state, *start, *parameters]
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (wx, *given))
    y, *rest = torch.ops.seqnets.unroll(
        wx, given, request.lengths, request.resets, request.reverse, save, text
    )
    return y, joined(rest[: len(state)], pieces)


def _parameters(cell: Cell, dtype: torch.dtype) -> list[Tensor]:
    """The parameters of a cell's step, those prepared from others too, converted to a dtype."""
    everything = cell.tensors()
    if preparation := cell.origin.as_constant(preparation_of):
        made = _made(preparation, list(everything), list(everything.values()))
        everything |= dict(zip(cell.origin.as_constant(made_names), made, strict=True))
    names = cell.origin.as_constant(parameters_used)
    return [everything[name].to(dtype) for name in names]  # masks and counts too


def _plan(cell: Cell) -> Plan:
    """How a cell runs with its plain tensors given, which a compiler would keep as constants."""
    return plan_of(with_tensors_given(cell))


def text_of(cell: Cell) -> str:
    """A cell's step as text; empty if it cannot be traced."""
    try:
        return step_to_text(program_of(with_tensors_given(cell)).step)
    except Untraceable:
        return ""


def parameters_used(cell: Cell) -> tuple[str, ...]:
    """The names of the parameters in a cell's step."""
    return tuple(program_of(with_tensors_given(cell)).step.parameters)


def pieces_read(cell: Cell) -> tuple[tuple[int, int], ...]:
    """The first column and the width of each piece of its input that a cell reads side by side.

    None if the input is read as a whole.
    """
    _, pieces = with_pieces_apart(_plan(cell).step)
    return tuple(pieces)


def pieces_used(cell: Cell) -> tuple[int, ...]:
    """The number of pieces of each part of a cell's state; see ``Plan``."""
    return _plan(cell).pieces


_preparations: dict[str, Preparation] = {}


def preparation_of(cell: Cell) -> str:
    """The key of a cell's ``Preparation`` in ``_preparations``; empty if it is empty."""
    preparation = _plan(cell).preparation
    if not preparation.made:
        return ""
    torch.compiler.allow_in_graph(_made)  # imports the compiler, which is running anyway
    _preparations[repr(preparation)] = preparation
    return repr(preparation)


def _made(text: str, names: list[str], tensors: list[Tensor]) -> list[Tensor]:
    """Run a preparation; ``allow_in_graph``, so that the compiler records its operations."""
    preparation = _preparations[text]
    found = preparation.of(dict(zip(names, tensors, strict=True)))
    return [found[name] for name, _ in preparation.made]


def made_names(cell: Cell) -> tuple[str, ...]:
    """The names of the prepared tensors of a cell's step."""
    return tuple([name for name, _ in _plan(cell).preparation.made])
