"""The projection of the input before the loops, and its vector-Jacobian product after them.

An affine projection is computed and differentiated by hand; any other is recorded by autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seqnets.engine.derivative import Entry
from seqnets.engine.layout import Layout
from seqnets.engine.loops import Affine, Gradients, Loops
from seqnets.engine.products import in_linear, product, torch_is_slow
from seqnets.engine.request import Request, rebuilt
from seqnets.engine.workspaces import room
from seqnets.typing import State


def project(
    loops: Loops, request: Request, layout: Layout, x: Tensor, parameters: dict[str, Tensor]
) -> tuple[Tensor, Affine | None]:
    """The projected input, (B*T, W), without gradients, and None.

    Or else the input, (B*T, I), and its projection, where the loop computes that.

    Args:
        loops: The loops that will read it.
        request: The request.
        layout: The layout of the steps.
        x: The request's inputs, with zeros for padding.
        parameters: The cell's tensors.
    """
    names = request.plan.projection
    if names is None:
        return _projected(request, x, layout, loops.tiled), None
    affine = _affine(parameters, names)
    if _in_the_loop(loops, request, layout, x):
        return layout.rows(x), affine
    inside = rows_inside(loops, request, layout)
    return _product(layout.rows(x), affine, inside, loops.tiled), None


def _in_the_loop(loops: Loops, request: Request, layout: Layout, x: Tensor) -> bool:
    """Whether the loop is to project the input itself, step by step."""
    program = request.program
    sizes = layout.B, layout.T, x.shape[-1], program.step.wx_size
    return loops.projects(program) and _pays_in_the_loop(*sizes)


def _pays_in_the_loop(B: int, T: int, features: int, columns: int) -> bool:
    """Whether that takes less time than one product for all steps.

    It needs no memory for the results, but reads the weight at every step, for so many rows. Where
    torch's products are as fast as the loops', this pays for smaller weights alone.
    """
    numbers = features * columns
    if numbers <= _NUMBERS_FOR_ONE_ROW:
        return numbers > 0
    if numbers > (_NUMBERS_IN_CACHE if torch_is_slow() else _NUMBERS_NEAR):
        return False
    return B * T >= _ROWS_TO_PACK_FOR and (B >= 8 or numbers <= _NUMBERS_FOR_ONE_ROW * B * B)


_NUMBERS_FOR_ONE_ROW = 2**13  # in a weight that is read for one row at every step
_NUMBERS_IN_CACHE = 2**21  # of a weight that is read at every step, for any number of rows
_NUMBERS_NEAR = 2**16  # of one that stays in the cache of a core
_ROWS_TO_PACK_FOR = 16  # at least, over all steps, for which a larger weight is packed


def _affine(parameters: dict[str, Tensor], names: tuple[str, str | None]) -> Affine:
    """The weight and bias of an affine projection, by their names."""
    weight, bias = names
    return parameters[weight], None if bias is None else parameters[bias]


def _product(x: Tensor, affine: Affine, inside: Tensor | None, tiled: bool) -> Tensor:
    weight, bias = affine
    wx = room(x, x.shape[0], weight.shape[0])
    out = wx if inside is None else x.new_empty(inside.shape[0], weight.shape[0])
    product(picked(x, inside), weight.T, bias, out, tiled)
    if inside is not None:
        wx.index_copy_(0, inside, out)
    return wx


def _projected(request: Request, x: Tensor, layout: Layout, tiled: bool) -> Tensor:
    """The projected input, (B*T, W), by the cell's own ``project``."""
    with in_linear(x, tiled):
        if layout.time_first and request.plan.per_step:
            return request.project(x.transpose(0, 1)).contiguous().flatten(0, 1)
        return layout.rows(request.project(x)).contiguous()


def rows_inside(loops: Loops, request: Request, layout: Layout) -> Tensor | None:
    """The indices of valid rows of a matrix, where it pays to multiply these alone; else None.

    Only where loops skip padding: on the CPU, where counting them needs no synchronisation.
    """
    lengths = request.lengths
    if lengths is None or not loops.skips_padding or request.memory == "lean":
        return None
    if int(lengths.sum()) > _DENSE * layout.B * layout.T:
        return None
    valid = request.valid
    assert valid is not None  # there are lengths
    return layout.rows(valid).nonzero()[:, 0]


_DENSE = 0.7  # share of valid rows above which gathering costs more than multiplying padding


def picked(rows: Tensor, inside: Tensor | None) -> Tensor:
    """The rows of a matrix at some indices, or all of them."""
    return rows if inside is None else rows.index_select(0, inside)


class Projection(Protocol):
    """A projection with its backward pass.

    Attributes:
        start: The state after a reset; empty if there are no resets.
    """

    start: State

    def project(self, x: Tensor, parameters: dict[str, Tensor]) -> tuple[Tensor, Affine | None]:
        """See :func:`project`."""

    def backward(
        self, found: Gradients, x: Tensor, parameters: dict[str, Tensor], needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        """Gradients of all inputs of the autograd function, from those that the loops found."""


def make_projection(
    loops: Loops,
    request: Request,
    layout: Layout,
    names: Sequence[str],
    tensors: Sequence[Tensor],
    inside: Tensor | None,
) -> Projection:
    """``_AffineProjection`` if the projection is affine and the start needs no gradient."""
    affine = request.plan.projection  # the names of weight and bias
    start: State = ()
    if request.resets is not None:
        with torch.enable_grad():
            start = request.start
    if affine is None or any(part.requires_grad for part in start):
        return _RecordedProjection(request, layout, names, tensors, loops.tiled)
    in_loop = _in_the_loop(loops, request, layout, tensors[0])
    return _AffineProjection(start, layout, names, inside, loops.tiled, in_loop, affine)


@dataclass(eq=False)
class _AffineProjection:
    """An affine projection, differentiated by hand."""

    start: State
    layout: Layout
    names: Sequence[str]
    inside: Tensor | None
    tiled: bool
    in_loop: bool
    affine: tuple[str, str | None]

    def project(self, x: Tensor, parameters: dict[str, Tensor]) -> tuple[Tensor, Affine | None]:
        rows, affine = self.layout.rows(x), _affine(parameters, self.affine)
        if self.in_loop:
            return rows, affine
        return _product(rows, affine, self.inside, self.tiled), None

    def backward(
        self, found: Gradients, x: Tensor, parameters: dict[str, Tensor], needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        grads, states = picked(found.wx, self.inside), len(found.initial)
        wanted = dict(zip(self.names, needed[1 + states :], strict=True))
        weight, bias = self.affine
        gradients = {}
        if wanted[weight]:
            rows = picked(self.layout.rows(x), self.inside)
            gradients[weight] = product(grads.T, rows, tiled=self.tiled)
        if bias is not None and wanted[bias]:
            gradients[bias] = found.total
        grad_x = None
        if needed[0]:
            through = product(grads, parameters[weight], tiled=self.tiled)
            if self.inside is not None:
                everywhere = through.new_zeros(len(found.wx), through.shape[1])
                through = everywhere.index_copy_(0, self.inside, through)
            grad_x = self.layout.whole(through)
        return grad_x, *(None,) * states, *map(gradients.get, self.names)


class _RecordedProjection:
    """Any projection, differentiated by autograd."""

    def __init__(
        self,
        request: Request,
        layout: Layout,
        names: Sequence[str],
        tensors: Sequence[Tensor],
        tiled: bool,
    ) -> None:
        self._inputs = tuple(t.detach().requires_grad_(t.requires_grad) for t in tensors)
        again = rebuilt(request, names, self._inputs)
        self._entering: list[Tensor] = []
        with torch.enable_grad():
            wx = _projected(again, again.x, layout, tiled)
            self.start = again.start
            self._entry = Entry.apply(self._entering, wx, *self.start)
        self._again = request.memory == "lean"  # it is read twice, but masks must be drawn once
        self._wx: Tensor | None = wx.detach()

    def project(self, x: Tensor, parameters: dict[str, Tensor]) -> tuple[Tensor, Affine | None]:
        wx = self._wx
        assert wx is not None  # read once, and twice only in lean memory
        if not self._again:
            self._wx = None
        return wx, None

    def backward(
        self, found: Gradients, x: Tensor, parameters: dict[str, Tensor], needed: Sequence[bool]
    ) -> Sequence[Tensor | None]:
        if not self._entry.requires_grad:
            return [None] * len(self._inputs)
        inputs = [t for t in self._inputs if t.requires_grad]
        self._entering[:] = found.wx, *found.start
        grads = torch.autograd.grad(self._entry, inputs, retain_graph=True, allow_unused=True)
        self._entering.clear()  # free them before the function itself
        places = iter(grads)
        return [next(places) if t.requires_grad else None for t in self._inputs]
