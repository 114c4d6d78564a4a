"""Gradients of the parameters, from those that the backward loops return.

A weight's is one product over all rows and steps; that of a pointwise parameter is a sum.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from seqnets.engine.loops import Gradients, Kept
from seqnets.engine.products import add_product, product
from seqnets.engine.program import Program
from seqnets.engine.projection import picked
from seqnets.engine.step import Weight


def parameter_gradients(
    program: Program,
    found: Gradients,
    kept: Kept,
    parameters: dict[str, Tensor],
    wanted: Container[str],
    inside: Tensor | None = None,
    tiled: bool = False,
) -> dict[str, Tensor]:
    """The gradients of the parameters by name.

    Args:
        program: The program that was run.
        found: The gradients from its loops.
        kept: What the forward pass kept.
        parameters: The parameters as loops used them.
        wanted: Names of the parameters that need gradients.
        inside: Row indices of the steps with nonzero gradients; all if omitted.
        tiled: Whether tiles of bfloat16 may multiply.
    """
    gradients = {
        name: parameter.gradient(found)
        for name, parameter in _pointwise_parameters(program).items()
        if name in wanted
    }
    befores, values = kept.befores, kept.values
    for k, (weight, part, is_whole) in enumerate(_products(program)):
        if k not in program.learned or weight.name not in wanted:
            continue
        value = values[k] if part is None else befores[part]
        grad = found.wx if k in program.shared else found.products[k]
        left, right = picked(grad, inside).T, picked(value, inside)
        if is_whole and weight.name not in gradients:
            factors = (right.T, left.T) if weight.turned else (left, right)
            gradients[weight.name] = product(*factors, tiled=tiled)
        else:
            zeros = torch.zeros_like(parameters[weight.name])
            total = gradients.setdefault(weight.name, zeros)
            add_product(weight.of(total), left, right, tiled)
    return gradients


@lru_cache(maxsize=1024)
def _products(program: Program) -> list[tuple[Weight, int | None, bool]]:
    """The weight of each product, its operand by ``part_of``, and if it is a whole parameter."""
    step = program.step
    weights = [product.weight for product in step.products]
    return [
        (weight, program.part_of(k), weight.covers(step.parameters[weight.name]))
        for k, weight in enumerate(weights)
    ]


class _Piece(NamedTuple):
    """A contiguous range of a parameter whose gradient is a contiguous range of sums.

    Attributes:
        offset: First element in the parameter.
        size: Number of elements.
        of_wx: Whether the sums are ``Gradients.total``; else they are ``Gradients.units``.
        first: First column among the sums.
        sums: Number of columns, as many as elements; that of a parameter's only element may be the
            total of several.
    """

    offset: int
    size: int
    of_wx: bool
    first: int
    sums: int

    def before(self, other: _Piece) -> bool:
        """Whether another piece is adjacent, both in the parameter and among the sums."""
        ends = self.offset + self.size, self.of_wx, self.first + self.sums
        return ends == (other.offset, other.of_wx, other.first)

    def of(self, found: Gradients) -> Tensor:
        """Its gradient, (size)."""
        all_sums = found.total if self.of_wx else found.units
        assert all_sums is not None  # this one is among them
        part = all_sums
        if self.sums < len(all_sums):
            part = all_sums[self.first : self.first + self.sums]
        return part if self.size == self.sums else part.sum(0, keepdim=True)


class _Pointwise(NamedTuple):
    """A pointwise parameter.

    Attributes:
        pieces: Its pieces, in order.
        shape: Its shape.
        is_covered: Whether the pieces cover it without gaps or overlaps.
    """

    pieces: list[_Piece]
    shape: tuple[int, ...]
    is_covered: bool

    def gradient(self, found: Gradients) -> Tensor:
        """The gradient of the whole parameter."""
        gradients = [piece.of(found) for piece in self.pieces]
        if not self.is_covered:
            whole = gradients[0].new_zeros(math.prod(self.shape))
            for piece, gradient in zip(self.pieces, gradients, strict=True):
                whole[piece.offset : piece.offset + piece.size] += gradient
        elif len(gradients) > 1:
            whole = torch.cat(gradients)
        else:
            (whole,) = gradients
            if self.pieces[0].of_wx:  # it may also be the projection's bias's gradient
                whole = whole.clone()
        return whole if len(self.shape) == 1 else whole.view(self.shape)


@lru_cache(maxsize=1024)
def _pointwise_parameters(program: Program) -> dict[str, _Pointwise]:
    """The pointwise parameters by name."""
    found = defaultdict(list)
    for leaf, column in program.biases.items():
        found[leaf.what.key].append(_Piece(leaf.what.offset, leaf.width, True, column, leaf.width))
    for (leaf, sums), column in program.unit_columns.items():
        place = leaf.what.offset, leaf.width or 1
        found[leaf.what.key].append(_Piece(*place, False, column, sums))
    parameters = {}
    for name, pieces in found.items():
        shape, joined = program.step.parameters[name], _joined(sorted(pieces))
        ends = [0, *(piece.offset + piece.size for piece in joined)]
        is_covered = ends == [*(piece.offset for piece in joined), math.prod(shape)]
        parameters[name] = _Pointwise(joined, shape, is_covered)
    return parameters


def _joined(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Merge adjacent pieces."""
    joined = list(pieces[:1])
    for piece in pieces[1:]:
        last = joined[-1]
        if last.before(piece):
            both = last.size + piece.size
            joined[-1] = last._replace(size=both, sums=both)
        else:
            joined.append(piece)
    return joined
