"""What tracing finds out about a cell's projection: it may draw, mix steps, or be affine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.engine.graph import Columns, Untraceable
from seqnets.engine.tracing.compare import RandomCell, are_near, errors_as_untraceable
from seqnets.engine.tracing.meanings import Watcher
from seqnets.engine.tracing.placing import Placing
from seqnets.engine.tracing.trace import stand_ins

_ROWS, _STEPS = 7, 3


def watch_projection(cell: Cell) -> tuple[bool, bool]:
    """Whether a cell's projection draws random numbers, and whether it maps each step alone.

    A projection that draws random numbers does not count as mapping each step alone.

    Raises:
        Untraceable: It depends on tensors that require gradients and are not parameters.
    """
    drawn, random = RandomCell(cell), torch.get_rng_state()
    bound = drawn.bound_to(drawn.kept | drawn.drawn)
    x = drawn.numbers(_ROWS, _STEPS, cell.input_size)
    with errors_as_untraceable(), torch.enable_grad(), _Draws() as watch:
        projected = bound.project(x)
        alone = bound.project(x[:, 0])
    if watch.drew:  # leave the global generator as it was
        torch.set_rng_state(random)
    if not isinstance(projected, Tensor):
        raise Untraceable(f"project gives {type(projected).__name__}, not a tensor")
    if projected.dtype != x.dtype:
        raise Untraceable(f"project gives {projected.dtype}, not {x.dtype} as its inputs are")
    if projected.shape != (_ROWS, _STEPS, *alone.shape[1:]):
        raise Untraceable("project gives other columns for all steps at once than for each")
    if projected.requires_grad:
        raise Untraceable("it projects by a trainable tensor that is none of its parameters")
    if watch.drew:
        return True, False
    with errors_as_untraceable(), torch.no_grad():
        apart = torch.stack([bound.project(step) for step in x.unbind(1)], 1)
    return False, apart.shape == projected.shape and are_near(apart, projected)


class _Draws(Watcher):
    """Detects random operations of this thread; the generator's state is shared by all.

    Attributes:
        drew: Whether there was one.
    """

    drew = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.drew = self.drew or torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def trace_projection(cell: Cell) -> tuple[str, str | None] | None:
    """Names of weight and bias, if ``cell.project`` is ``F.linear`` by unmodified parameters."""
    recorder, bound, x, _ = stand_ins(cell, Placing)
    try:
        with errors_as_untraceable(), torch.no_grad(), recorder:
            projected = recorder.node(bound.project(x))
    except Untraceable:
        return None
    if len(recorder.products) != 1:
        return None
    product, graph = recorder.products[0], recorder.graph
    shapes = {name: tuple(p.shape) for name, p in cell.tensors().items()}
    weight, rows = product.weight, product.weight.rows
    if weight.name not in shapes:
        return None
    whole = weight.covers(shapes[weight.name]) and not weight.turned
    if product.value is not recorder.node(x) or not whole:
        return None
    linear = graph.leaf(Columns("product", 0), rows)
    if projected is linear:
        return weight.name, None
    for name in (name for name, shape in shapes.items() if shape == (rows,)):
        bias = graph.leaf(Columns("parameter", name), rows)
        if projected is graph.apply("add", linear, bias):
            return weight.name, name
    return None
