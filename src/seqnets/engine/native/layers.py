"""All layers of a stack by one call, or of a single step by one call for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from seqnets.cells import GatedCell
from seqnets.engine.native.over_time import call, function_of, options_of, zeros
from seqnets.engine.native.single_step import keeps_result, kernel_of, stepped
from seqnets.engine.native.weights import weights_of
from seqnets.typing import State


def layers_at_once(
    cells: Sequence[GatedCell], x: Tensor, directions: int, dropout: float, batch_first: bool
) -> Callable[[Tensor, State | None], tuple[Tensor, State]]:
    """All layers of a stack in one call, for inputs like ``x`` and the cells' present parameters.

    It is a function of inputs, laid out like ``x``, and the state before the first step, each
    (L*D, B, H), or None for zeros: it returns the outputs and the state after the last step.

    Args:
        cells: One cell for each layer and direction, directions of a layer next to each other; all
            of one family.
        x: Inputs, (B, T, I), or (T, B, I) unless ``batch_first``.
        directions: D, 1 or 2.
        dropout: Probability with which outputs between layers are dropped in this call.
        batch_first: Whether rows come before steps.
    """
    first, weights = cells[0], [weights_of(cell) for cell in cells]
    rows, time = (0, 1) if batch_first else (1, 0)
    if x.is_cpu and x.shape[time] == 1 and (kernel := kernel_of(first)):
        steps = [partial(stepped, kernel, own, first.hidden_size) for own in weights]
        return partial(_step_layers, steps, directions, dropout, time, keeps_result(first))
    function, options = function_of(first), options_of(cells, directions, dropout, batch_first)
    flat = [weight for own in weights for weight in own]
    sizes = first.state_sizes

    def run(x: Tensor, state: State | None) -> tuple[Tensor, State]:
        before = zeros(x, len(cells), x.shape[rows], sizes) if state is None else state
        y, *after = call(function, x, before, flat, options)
        return y, tuple(after)

    return run


def _step_layers(
    steps: Sequence[Callable[[Tensor, Sequence[Tensor] | None], State]],
    directions: int,
    dropout: float,
    time: int,
    is_kept: bool,
    x: Tensor,
    state: State | None,
) -> tuple[Tensor, State]:
    """All layers of a stack for a single step: outputs and states as of ``layers_at_once``.

    Args:
        steps: The step of each layer and direction, by an input and a state.
        directions: D, 1 or 2.
        dropout: Probability with which outputs between layers are dropped in this call.
        time: The dimension of time.
        is_kept: Whether a step's result is kept for its gradient, and callers get a copy.
        x: Inputs, of one step.
        state: The state before it, each (L*D, B, H); zeros if omitted.
    """
    y = x.squeeze(time)
    befores: Sequence[Sequence[Tensor] | None] = [None] * len(steps)
    if state is not None:
        befores = list(zip(*[part.unbind(0) for part in state], strict=True))
    if len(steps) == 1:  # as below, by fewer operations
        h, *others = [part.unsqueeze(0) for part in steps[0](y, befores[0])]
        y, after = (h.transpose(0, 1) if time else h), (h.clone(), *others)
        return (y.clone() if is_kept else y), after
    afters: list[State] = []
    for layer in range(0, len(steps), directions):
        if dropout and layer:
            y = F.dropout(y, dropout)
        afters += [steps[place](y, befores[place]) for place in range(layer, layer + directions)]
        found = [after[0] for after in afters[layer:]]
        y = found[0] if directions == 1 else torch.cat(found, -1)
    y, after = y.unsqueeze(time), tuple([torch.stack(part) for part in zip(*afters, strict=True)])
    return (y.clone() if is_kept else y), after
