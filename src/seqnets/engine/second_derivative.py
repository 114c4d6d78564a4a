"""Second derivatives of torch's recurrent kernels, of which torch has the first alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seqnets.cells import GatedCell
from seqnets.engine import reference
from seqnets.engine.request import Request

_ONEDNN = "MkldnnRnnLayerBackward0"
_KERNELS = {_ONEDNN, "CudnnRnnBackward0", "MiopenRnnBackward0"}
"""What torch calls their gradients."""


def let_derive_twice(cell: GatedCell, y: Tensor) -> None:
    """Go around a kernel where its gradient is derived again.

    Args:
        cell: Whose step the kernel ran.
        y: What the kernel returned first.
    """
    node = y.grad_fn
    if node is not None and node.name() not in _KERNELS:
        node = node.next_functions[0][0]  # torch may have turned what the kernel returned
        if node is None or node.name() not in _KERNELS:
            return  # it ran operations
    if node is not None:
        node.register_hook(partial(_around, cell))


def _around(
    cell: GatedCell, found: Sequence[Tensor | None], grads: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...] | None:
    """Gradients by the plain loop in place of a kernel's; None where these are good enough.

    Args:
        cell: Whose step the kernel ran.
        found: The kernel's: of its input, of each weight, and of the two parts of a state.
        grads: Those that came in: of the output, and of the state after.
    """
    if not torch.is_grad_enabled():
        return None
    node: Any = torch._C._current_autograd_node()
    x, state, weights = _given(node)
    names, parts = tuple(cell.parameter_shapes), len(cell.states)
    turn = node.name() == _ONEDNN  # which gets time first

    def batch_first(rows: Tensor | None) -> Any:
        return rows.transpose(0, 1) if turn and rows is not None else rows

    def flat(part: Tensor | None) -> Any:
        return None if part is None else part.view(-1, part.shape[-1])  # without layers

    tensors = batch_first(x), *map(flat, state[:parts]), *weights[: len(names)]
    wanted = found[0], *found[-2:][:parts], *found[1 : 1 + len(names)]
    again = reference.gradients(
        Request(cell, tensors[0], tensors[1 : 1 + parts]),
        names,
        tensors,
        [batch_first(grads[0]), *map(flat, grads[1 : 1 + parts])],
        [grad is not None for grad in wanted],
    )
    of_x, of_state, of_weights = again[0], again[1 : 1 + parts], again[1 + parts :]
    others = [None] * (len(found) - 3 - len(names))
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
