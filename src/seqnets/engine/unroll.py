"""``unroll``: the engine's entry point, which runs a cell over a batch of sequences."""

from __future__ import annotations

from torch import Tensor

from seqnets.cells import Cell
from seqnets.cells.checks import check_is_cell
from seqnets.engine import recent_calls
from seqnets.engine.dispatch import choose, run, run_at_once
from seqnets.engine.modes import PLAIN_TYPES, is_plain
from seqnets.engine.request import Request, make_request
from seqnets.typing import State


def unroll(
    cell: Cell,
    x: Tensor,
    state: State | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    *,
    reverse: bool = False,
    backend: str = "auto",
    memory: str = "full",
) -> tuple[Tensor, State]:
    """Run a cell over a batch of sequences.

    Args:
        cell: The recurrence. Its parameters and ``x`` share dtype and device.
        x: Inputs, (B, T, I).
        state: State before the first step, each (B, H); the cell's initial state if omitted.
        lengths: Valid steps of each row, (B,) integers in 0..T, on any device, in any order; all
            T if omitted. Outputs past the end are zero, and padding never changes anything. The
            state of a row without steps is its state before the first.
        resets: Where true, the row's state becomes the cell's initial state before that step, in
            the order in which the steps run, (B, T) boolean; nowhere if omitted.
        reverse: Whether time runs backwards: from each row's last valid step to its first.
        backend: "auto", or the name of the backend that must run, one of ``engine.BACKENDS``.
        memory: "full", or "lean": a forward pass that is to be differentiated keeps the input and
            the states alone, and the backward pass computes the rest again in one product more.
            The plain loop keeps all it made in either case, and under ``torch.compile`` the
            compiler decides.

    Returns:
        Outputs, (B, T, H), each at the place of its input; and the state after the step that ran
        last in each row.

    Raises:
        ConfigError: ``memory`` is neither "full" nor "lean".
        ShapeError: ``x`` is not (B, T, I), a state not (B, H), or a length outside 0..T.
        DtypeError: Lengths are not integers, resets not boolean, or dtypes differ.
        DeviceError: ``x`` or a state lies on another device than the parameters.
        BackendError: The named backend cannot run this request; the message says why.
    """
    check_is_cell("unroll", cell)
    plain = lengths is None and resets is None and type(reverse) is bool and is_plain(x)
    options = state is None, reverse, memory, backend
    if plain and (known := recent_calls.repeated(cell, x, *options)):
        given = None if state is None else cell.check_state(state, x)
        if given is None or PLAIN_TYPES.issuperset(map(type, given)):
            request = Request(cell, x, given, reverse=reverse, memory=memory)
            chosen, request.known_plan, request.known_step = known
            return run_at_once(request, chosen)
    kind = recent_calls.kind_of((cell,), x, *options) if plain else None
    request = make_request(cell, x, state, lengths, resets, reverse, memory)
    chosen = choose(request, backend)
    recent_calls.remember(cell, kind, request, chosen)
    return run(request, chosen)
