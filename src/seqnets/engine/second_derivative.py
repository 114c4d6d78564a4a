"""Second derivatives of torch's recurrent kernels: torch itself has only the first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seqnets.cells import GatedCell
from seqnets.engine import reference
from seqnets.engine.request import Request
from seqnets.typing import State

_ONEDNN = "MkldnnRnnLayerBackward0"
_KERNELS = {_ONEDNN, "CudnnRnnBackward0", "MiopenRnnBackward0"}
"""The names of their gradients in autograd."""


def let_derive_twice(cells: Sequence[GatedCell], directions: int, h: Tensor) -> None:
    """Let a kernel's gradient be derived again, by the plain loop.

    Args:
        cells: The cells whose steps the kernel ran, one for each layer and direction.
        directions: D, 1 or 2.
        h: The first state part after the last step, which the kernel returned second.
    """
    node = h.grad_fn
    if node is None:
        return
    if node.name() in _KERNELS:  # all layers in one
        node.register_hook(partial(_again_by_the_plain_loop, cells, directions))
    elif node.name() == "StackBackward0":
        for cell, (layer, _) in zip(cells, node.next_functions, strict=True):
            if layer is not None and layer.name() in _KERNELS:  # else it ran operations
                layer.register_hook(partial(_again_by_the_plain_loop, [cell], 1))


def _again_by_the_plain_loop(
    cells: Sequence[GatedCell],
    directions: int,
    found: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...] | None:
    """A hook of a kernel's node in autograd: gradients that can be derived again.

    Args:
        cells: The cells whose steps the kernel ran.
        directions: The number of cells of each layer.
        found: The kernel's gradients: of its input, of each weight, and of two state parts.
        grads: The incoming gradients: of the outputs, and of the state after the last step.

    Returns:
        Gradients in place of the kernel's; None where nobody derives them again.
    """
    if not torch.is_grad_enabled():
        return None
    node: Any = torch._C._current_autograd_node()
    x, state, weights = _saved(node)
    parts, count = len(cells[0].states), len(cells) * len(cells[0].parameter_shapes)
    state, weights = state[:parts], weights[:count]

    def run(given: Sequence[Tensor]) -> tuple[Tensor, State]:
        x, state, weights = given[0], given[1 : 1 + parts], given[1 + parts :]
        if node.name() == _ONEDNN:
            return _run_layer(cells[0], x, state, weights, node._saved_reverse)
        if node._saved_batch_first:
            return _run_layers(cells, directions, x, state, weights)
        y, after = _run_layers(cells, directions, x.transpose(0, 1), state, weights)
        return y.transpose(0, 1), after

    wanted = found[0], *found[-2:][:parts], *found[1 : 1 + count]
    again = reference.gradients_of(
        run, (x, *state, *weights), grads[: 1 + parts], [grad is not None for grad in wanted]
    )
    of_x, of_state, of_weights = again[0], again[1 : 1 + parts], again[1 + parts :]
    others = [None] * (len(found) - 3 - count)
    return of_x, *of_weights, *others, *of_state, *[None] * (2 - parts)


def _run_layer(
    cell: GatedCell, x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], reverse: bool
) -> tuple[Tensor, State]:
    """As oneDNN runs a layer: time first, and states without a dimension for layers."""
    before = [part.view(1, -1, part.shape[-1]) for part in state]
    y, after = _run_layers([cell], 1, x.transpose(0, 1), before, weights, reverse=reverse)
    after = tuple([a.view_as(b) for a, b in zip(after, state, strict=True)])
    return y.transpose(0, 1), after


def _run_layers(
    cells: Sequence[GatedCell],
    directions: int,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    *,
    reverse: bool = False,
) -> tuple[Tensor, State]:
    """What the kernel ran, by the plain loop: outputs, and the state after the last step.

    Args:
        cells: One for each layer and direction.
        directions: D, 1 or 2.
        x: Inputs, (B, T, I).
        state: The state before the first step, each (L*D, B, H).
        weights: Those of all cells, one cell after the other.
        reverse: Whether time runs backwards in the first direction too.
    """
    names, afters = tuple(cells[0].parameter_shapes), []
    for layer in range(0, len(cells), directions):
        outputs = []
        for place in range(layer, layer + directions):
            own = weights[place * len(names) : (place + 1) * len(names)]
            bound = cells[place].bind(dict(zip(names, own, strict=True)))
            before = tuple([part[place] for part in state])
            backwards = reverse or place > layer
            y, after = reference.run(Request(bound, x, before, reverse=backwards))
            outputs.append(y)
            afters.append(after)
        x = torch.cat(outputs, -1)
    return x, tuple([torch.stack(part) for part in zip(*afters, strict=True)])


def _saved(node: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The input, state and weights that torch saved for a kernel's gradient.

    The input is laid out as the kernel took it: (T, B, I) for oneDNN, either way for the others.
    """
    if node.name() == _ONEDNN:
        weights = [getattr(node, f"_saved_weight{i}") for i in range(4)]
        return node._saved_input, [node._saved_hx_, node._saved_cx_], weights
    return node._saved_input, [node._saved_hx, node._saved_cx], [*node._saved_weight]
