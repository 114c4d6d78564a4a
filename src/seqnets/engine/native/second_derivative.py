"""Second derivatives of torch's recurrent kernels: torch itself has only the first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from seqnets.cells import GatedCell, GRUCell, LSTMCell, RNNCell
from seqnets.engine import reference
from seqnets.engine.request import Request
from seqnets.typing import State

_Found = TypeVar("_Found")

_ONEDNN = "MkldnnRnnLayerBackward0"
_KERNELS = {_ONEDNN, "CudnnRnnBackward0", "MiopenRnnBackward0"}
"""The names of their gradients in autograd."""


def let_derive_twice(h: Tensor) -> None:
    """Let a kernel's gradient be derived again, by the plain loop.

    Args:
        h: The first state part after the last step, which the kernel returned second.
    """
    node = h.grad_fn
    if node is None:
        return
    nodes = [(node, 0)] if node.name() != "StackBackward0" else node.next_functions  # of layers
    for kernel, _ in nodes:
        if kernel is not None and kernel.name() in _KERNELS:  # else it ran operations
            kernel._register_hook_dict(_HOOKED)


def _hook(_: Tensor | None) -> None:
    """A hook that runs before a kernel's gradient: replace that, if it is to be derived again."""
    if not torch.is_grad_enabled():
        return

    def replace(*gradients: Any) -> tuple[Tensor | None, ...] | None:
        handle.remove()  # this hook registers it again before the next pass
        if not torch.is_grad_enabled():  # left by a pass that ended before the kernel
            return None
        return _again_by_the_plain_loop(*gradients)

    handle = torch._C._current_autograd_node().register_hook(replace)


_HOOKED = torch.empty(0, device="cpu")
"""A tensor with that hook: lending its hooks to a node is quicker than registering one."""

_HOOKED._backward_hooks = OrderedDict({0: _hook})


def _again_by_the_plain_loop(
    found: Sequence[Tensor | None], grads: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Gradients in place of a kernel's, that can be derived again; None where none is needed.

    Args:
        found: The kernel's gradients: of its input, of each weight, and of two state parts.
        grads: The incoming gradients: of the outputs, and of the state after the last step.
    """
    node: Any = torch._C._current_autograd_node()
    x, state, weights = _in_another_pass(lambda: _saved(node))
    cells, directions = _cells(node, weights)
    parts, count = len(cells[0].states), len(weights)
    state = state[:parts]

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


def _cells(node: Any, weights: Sequence[Tensor]) -> tuple[list[GatedCell], int]:
    """Cells with the equations that a kernel ran, one for each layer and direction; and D, 1 or 2.

    Their own parameters hold nothing.
    """
    one_layer = node.name() == _ONEDNN
    stride = len(weights) if one_layer else node._saved_weight_stride0
    options: dict[str, Any] = {"bias": stride > 3, "device": "meta"}
    kind: type[GatedCell] = _BY_MODE[node._saved_mode]
    if kind is LSTMCell:
        options["proj_size"] = getattr(node, "_saved_proj_size", 0)  # MIOpen has none
    elif kind is RNNCell:
        options["nonlinearity"] = ("relu", "tanh")[node._saved_mode]
    sizes = [(first.shape[1], node._saved_hidden_size) for first in weights[::stride]]
    directions = 1 if one_layer else 1 + node._saved_bidirectional
    return [kind(*size, **options) for size in sizes], directions


_BY_MODE = RNNCell, RNNCell, LSTMCell, GRUCell
"""The cells by the numbers that torch gives their equations."""


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


def _in_another_pass(read: Callable[[], _Found]) -> _Found:
    """What a function finds within a backward pass of its own.

    ``torch.utils.checkpoint`` gives each saved tensor once in a pass, and the kernel has it.
    """
    found: list[_Found] = []
    start = torch.zeros((), device="cpu", requires_grad=True)
    start.register_hook(lambda _: found.append(read()))
    torch.autograd.grad(start.clone(), start)
    return found[0]


def _saved(node: Any) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The input, state and weights that torch saved for a kernel's gradient.

    The input is laid out as the kernel took it: (T, B, I) for oneDNN, either way for the others.
    """
    if node.name() == _ONEDNN:
        count = 4 if node._saved_has_biases else 2
        weights = [getattr(node, f"_saved_weight{i}") for i in range(count)]
        return node._saved_input, [node._saved_hx_, node._saved_cx_], weights
    return node._saved_input, [node._saved_hx, node._saved_cx], [*node._saved_weight]
