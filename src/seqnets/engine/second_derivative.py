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
"""What torch calls their gradients."""


def let_derive_twice(cells: Sequence[GatedCell], directions: int, h: Tensor) -> None:
    """Go around a kernel where its gradient is derived again.

    Args:
        cells: Whose steps it ran: for each layer, one for each direction.
        directions: How many these are, 1 or 2.
        h: What it returned second, the state's first part after the last step.
    """
    node = h.grad_fn
    if node is None:
        return
    if node.name() in _KERNELS:  # all layers in one
        node.register_hook(partial(_around, cells, directions))
    elif node.name() == "StackBackward0":
        for cell, (layer, _) in zip(cells, node.next_functions, strict=True):
            if layer is not None and layer.name() in _KERNELS:  # else it ran operations
                layer.register_hook(partial(_around, [cell], 1))


def _around(
    cells: Sequence[GatedCell],
    directions: int,
    found: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
) -> tuple[Tensor | None, ...] | None:
    """Gradients by the plain loop in place of a kernel's; None where these are good enough.

    Args:
        cells: Whose steps the kernel ran.
        directions: For how many directions each layer has one.
        found: The kernel's: of its input, of each weight, and of the two parts of a state.
        grads: Those that came in: of the output, and of the state after.
    """
    if not torch.is_grad_enabled():
        return None
    node: Any = torch._C._current_autograd_node()
    x, state, weights = _given(node)
    names, parts = tuple(cells[0].parameter_shapes), len(cells[0].states)
    turn = node.name() == _ONEDNN  # which gets time first
    reverse = turn and node._saved_reverse

    def batch_first(rows: Tensor | None) -> Any:
        return rows.transpose(0, 1) if turn and rows is not None else rows

    def with_layers(part: Tensor | None) -> Any:  # of which that runs one at a time
        return part.view(1, -1, part.shape[-1]) if turn and part is not None else part

    def stack(given: Sequence[Tensor]) -> tuple[Tensor, State]:
        x, state, weights = given[0], given[1 : 1 + parts], given[1 + parts :]
        finals = []
        for layer in range(0, len(cells), directions):
            outputs = []
            for place in range(layer, layer + directions):
                own = weights[place * len(names) : (place + 1) * len(names)]
                bound = cells[place].bind(dict(zip(names, own, strict=True)))
                before = tuple([part[place] for part in state])
                backwards = reverse or place > layer
                y, after = reference.run(Request(bound, x, before, reverse=backwards))
                outputs.append(y)
                finals.append(after)
            x = torch.cat(outputs, -1)
        return x, tuple([torch.stack(part) for part in zip(*finals, strict=True)])

    count = len(cells) * len(names)
    tensors = batch_first(x), *map(with_layers, state[:parts]), *weights[:count]
    wanted = found[0], *found[-2:][:parts], *found[1 : 1 + count]
    again = reference.gradients_of(
        stack,
        tensors,
        [batch_first(grads[0]), *map(with_layers, grads[1 : 1 + parts])],
        [grad is not None for grad in wanted],
    )
    of_x, of_state, of_weights = again[0], again[1 : 1 + parts], again[1 + parts :]
    others = [None] * (len(found) - 3 - count)
    of_state = [
        None if grad is None else grad.view_as(part)
        for grad, part in zip(of_state, state, strict=False)
    ]
    return batch_first(of_x), *of_weights, *others, *of_state, *[None] * (2 - parts)


def _given(node: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Input, state and weights of a kernel, as torch keeps them for its gradient."""
    if node.name() == _ONEDNN:
        weights = [getattr(node, f"_saved_weight{i}") for i in range(4)]
        return node._saved_input, [node._saved_hx_, node._saved_cx_], weights
    return node._saved_input, [node._saved_hx, node._saved_cx], [*node._saved_weight]
