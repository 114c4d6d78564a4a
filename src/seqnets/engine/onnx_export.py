"""What torch's exporter to ONNX sees in place of a loop, for any number of rows and steps.

Cells that ONNX has operators for become GRU, LSTM and RNN. All others become torch's operator
``scan``, which the exporter writes as ONNX's ``Scan``: a graph of one step, run over time. The
older exporter, ``dynamo=False``, traces the plain loop as any other code. ``torch.export`` sees
``scan`` in place of the plain loop, where it leaves the number of steps open without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from seqnets.cells import GatedCell, GRUCell, LSTMCell, RNNCell
from seqnets.engine.families import family
from seqnets.engine.lengths import where_rows
from seqnets.engine.modes import is_exporting
from seqnets.engine.request import Request
from seqnets.typing import State

StepOf = Callable[[Tensor, State, Sequence[Tensor]], State]
"""The state after a step, from its projected input, the state before it, and other tensors."""


def runs_here() -> bool:
    """Whether torch's exporter to ONNX, not its older one, records what is run."""
    return is_exporting() and torch.onnx.is_in_onnx_export()


def scanned(
    step: StepOf,
    tensors: Sequence[Tensor],
    wx: Tensor,
    initial: State,
    start: State,
    request: Request,
) -> tuple[Tensor, State]:
    """Outputs (B, T, H), and the state after each row's last valid step.

    Args:
        step: The step.
        tensors: All that it reads beyond its input and state.
        wx: Projected inputs, (B, T, W).
        initial: The state before the first step, each (B, H).
        start: The state after a reset, each (B, H); empty if there are no resets.
        request: Says which steps count, where the state is reset and in which order steps run.
    """
    masks = request.valid, request.resets
    along = [t.transpose(0, 1) for t in (wx, *masks) if t is not None]
    if request.reverse:
        along = [t.flip(0) for t in along]
    count = len(initial)

    def one(*given: Tensor) -> list[Tensor]:
        parts = iter(given)
        before = tuple(next(parts) for _ in range(count))
        now = next(parts)
        valid, resets = (None if mask is None else next(parts)[:, None] for mask in masks)
        anew = tuple(next(parts) for _ in start)
        reached = before if resets is None else where_rows(resets, anew, before)
        after = step(now, reached, [*parts])
        y = after[0]
        if valid is not None:
            y, after = torch.where(valid, y, 0), where_rows(valid, after, before)
        return [part.clone() for part in (*after, y)]  # none may be another, or what was given

    # Without gradients, of which the exporter fails to make some for open sizes; and apart, as
    # what the operator is given must not share memory.
    first, along, others = (
        [t.detach().clone() for t in group] for group in (initial, along, (*start, *tensors))
    )
    *final, y = torch.ops.higher_order.scan(one, first, along, others)
    if request.reverse:
        y = y.flip(0)
    return y.transpose(0, 1), tuple(final)


_OPERATORS: dict[type[GatedCell], tuple[str, str]] = {
    RNNCell: ("RNN", "h"),
    GRUCell: ("GRU", "zrn"),
    LSTMCell: ("LSTM", "iofg"),
}
"""The operator of each family, and its gates in ONNX's order by our letters."""


def refusal_of_operator(request: Request) -> str | None:
    """Why ONNX has no operator for a cell of torch.nn's; None if it has."""
    if request.x.dtype == torch.float64:
        return "ONNX Runtime has no such operator in float64"
    if getattr(request.cell, "proj_size", 0):
        return "ONNX's operator does not project its output"
    return None


def run_operator(request: Request) -> tuple[Tensor, State]:
    """As ``scanned``, by ONNX's own operator."""
    cell, x, lengths = cast(GatedCell, request.cell), request.clean_x, request.lengths
    B, T, _ = x.shape
    kind = cast(type[GatedCell], family(cell))
    operator, order = _OPERATORS[kind]

    def by_gate(name: str) -> Tensor:
        rows, H = cell._tensor(name), cell.hidden_size
        firsts = [cell.gates.index(gate) * H for gate in order]
        return torch.cat([rows[first : first + H] for first in firsts])

    weights: list[Tensor | None] = [by_gate(f"weight_{side}")[None] for side in ("ih", "hh")]
    biased = "bias_ih" in cell.parameter_shapes
    bias = torch.cat([by_gate(f"bias_{side}") for side in ("ih", "hh")])[None] if biased else None
    attributes: dict[str, Any] = {"hidden_size": cell.hidden_size}
    attributes["direction"] = "reverse" if request.reverse else "forward"
    if isinstance(cell, GRUCell):
        attributes["linear_before_reset"] = 1
    if isinstance(cell, RNNCell):
        attributes["activations"] = [cell.nonlinearity.capitalize()]
    state = request.state
    sizes = [(T, 1, B, cell.hidden_size), *[(1, B, cell.hidden_size) for _ in state]]
    y, *final = torch.onnx.ops.symbolic_multi_out(
        operator,
        [
            x.transpose(0, 1),
            *weights,
            bias,
            None if lengths is None else lengths.to(torch.int32),
            *[part[None] for part in state],
        ],
        attributes,
        dtypes=[x.dtype for _ in sizes],
        shapes=sizes,
    )
    after = tuple(part[0] for part in final)
    if lengths is not None:  # the operator forgets the state of rows without steps
        after = where_rows((lengths > 0)[:, None], after, state)
    return y[:, 0].transpose(0, 1), after
