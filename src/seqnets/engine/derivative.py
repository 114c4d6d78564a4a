"""Derivatives of a graph's expressions, by recording torch's autograd on stand-ins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from seqnets.engine.evaluate import Values
from seqnets.engine.graph import COMPARISONS, Columns, Graph, Node
from seqnets.engine.tracing.recorder import Recorder


def derive(
    graph: Graph, outputs: Mapping[Any, Node], inputs: Sequence[Node], width: int
) -> tuple[Node | None, ...]:
    """The vector-Jacobian product of expressions, by recording torch's autograd.

    Args:
        graph: The graph in which the derivatives are built.
        outputs: Expressions by key; the leaf ``Columns("grad", key)`` is the incoming gradient.
        inputs: What to differentiate with respect to: leaves, or nodes treated as leaves. A value
            shared by all units of a row counts as one number per unit; the caller sums these.
        width: Number of units, also of outputs that are one number for all of them.

    Returns:
        The gradient of each input; None where there is none.
    """
    recorder = Recorder(graph, 2, {torch.float64, torch.get_default_dtype()})
    like = torch.empty(2, width, dtype=torch.float64)
    stand_ins: dict[Node, Tensor] = {}
    for node in inputs:
        truth = node.op in COMPARISONS
        stand_ins[node] = torch.empty_like(like, dtype=torch.bool if truth else like.dtype)
        recorder.set_meaning(stand_ins[node], node)
        stand_ins[node].requires_grad_(not truth)
    live = {key: node for key, node in outputs.items() if node.op != "const"}
    grads = [torch.empty_like(like) for _ in live]
    for grad, key in zip(grads, live, strict=True):
        recorder.set_meaning(grad, graph.leaf(Columns("grad", key), width))
    with recorder, torch.enable_grad():
        values = Values(stand_ins.__getitem__, like, stand_ins)
        computed = [values[node] for node in live.values()]
        reached = [(y, g) for y, g in zip(computed, grads, strict=True) if y.requires_grad]
        if not reached:
            return (None,) * len(inputs)
        end = Entry.apply([g for _, g in reached], *(y for y, _ in reached))
        smooth = [node for node in inputs if stand_ins[node].requires_grad]
        wanted = [stand_ins[node] for node in smooth]
        gradients = torch.autograd.grad(end, wanted, allow_unused=True)
        found = dict(zip(smooth, gradients, strict=True))
    return tuple(None if (g := found.get(node)) is None else recorder.node(g) for node in inputs)


class Entry(torch.autograd.Function):
    """A dummy scalar that feeds the gradients in a list to its inputs when it is differentiated.

    Passing ``grad_outputs`` to ``torch.autograd.grad`` would load sympy, which takes a third of a
    second. The list may be filled after ``apply``.
    """

    @staticmethod
    def forward(ctx: Any, grads: list[Tensor], *outputs: Tensor) -> Tensor:  # noqa: D102
        ctx.grads = grads
        return outputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        return None, *ctx.grads
