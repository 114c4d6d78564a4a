"""The interface of loops over time: ``Loops``, and what its two passes exchange.

Implemented in C, Triton and torch's operations, and called by ``fused.py``. Loops know a program
and tensors; nothing of cells, autograd or requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from seqnets.engine.layout import Layout
from seqnets.engine.program import Program
from seqnets.errors import DtypeError
from seqnets.typing import State


class Order(NamedTuple):
    """Which steps run, and in which order.

    Attributes:
        layout: Their layout in memory.
        lengths: Valid steps of each row, (B,) int64, contiguous; None if all are.
        resets: See ``Request``.
        reverse: Whether time runs backwards.
    """

    layout: Layout
    lengths: Tensor | None = None
    resets: Tensor | None = None
    reverse: bool = False


def make_order(
    layout: Layout, lengths: Tensor | None, resets: Tensor | None, reverse: bool
) -> Order:
    """An ``Order`` with contiguous int64 lengths, as loops require."""
    return Order(layout, None if lengths is None else lengths.long().contiguous(), resets, reverse)


def check_saved(name: str, dtype: torch.dtype, saved: Sequence[Tensor]) -> None:
    """Raise unless what the backward pass of a cell reads came back in the dtype it was saved in.

    Raises:
        DtypeError: Hooks of saved tensors changed it: loops would read other memory.
    """
    if others := {tensor.dtype for tensor in saved} - {dtype}:
        raise DtypeError(
            f"{name}: saved tensors came back as {' and '.join(map(str, others))}, expected "
            f"{dtype}, in which they were saved.\n"
            f"  They come from the unpack hook of torch.autograd.graph.saved_tensors_hooks: "
            f"convert them there with .to({dtype})."
        )


Affine = tuple[Tensor, Tensor | None]
"""Weight (W, I) and bias (W), or None, of an affine projection of inputs."""


class Inputs(NamedTuple):
    """What a forward pass reads.

    Attributes:
        wx: The projected input, (B*T, W); where the loop projects it, the input, (B*T, I).
        initial: The state before the first step, each (B, H); empty if it is zero.
        start: The state after a reset, each (B, H); empty if there are no resets.
        parameters: The program's, by name.
        projection: By which the loop projects the input; None if that is done already.
    """

    wx: Tensor
    initial: State
    start: State
    parameters: dict[str, Tensor]
    projection: Affine | None = None


@dataclass
class Kept:
    """What the forward pass keeps for the backward pass.

    Attributes:
        program: The program.
        tensors: ``befores``, ``values`` and ``saved``, in this order.
    """

    program: Program
    tensors: Sequence[Tensor]

    @property
    def befores(self) -> dict[int, Tensor]:
        """State parts before each step, (B*T, H), by index in the state."""
        return dict(zip(self.program.befores, self.tensors, strict=False))

    @property
    def values(self) -> dict[int, Tensor]:
        """Operands of the products in ``Program.kept_values``, (B*T, columns), by product."""
        others = self.tensors[len(self.program.befores) : -1]
        return dict(zip(self.program.kept_values, others, strict=True))

    @property
    def saved(self) -> Tensor:
        """The program's ``saved``, concatenated, (B*T, saved_size).

        At least one column, since it carries dtype and device.
        """
        return self.tensors[-1]


Grads = Sequence[Tensor | None]
"""The gradients of the outputs, (B*T, H), and of each part of the final state; None means zero."""


@dataclass
class Gradients:
    """The gradients that the backward loops compute.

    Attributes:
        wx: Of the projected input, (B*T, W).
        products: Of each of ``Program.learned``, (B*T, rows); those of ``Program.shared`` are
            ``wx`` itself.
        units: Of pointwise parameters, summed over rows and steps, by ``Program.unit_columns``;
            None if there are none.
        initial: Of the state before the first step, each (B, H); empty if not requested.
        start: Of the state after a reset, each (B, H); empty where nothing is reset.
    """

    wx: Tensor
    products: dict[int, Tensor]
    units: Tensor | None
    initial: State
    start: State

    @cached_property
    def total(self) -> Tensor:
        """``wx`` summed over rows and steps, (W)."""
        return self.wx.sum(0)


Results = tuple[Tensor, State, Kept | None]
"""Of a forward pass: outputs, (B, T, H); the state after each row's last step; what is kept."""


class Loops(Protocol):
    """An implementation of loops. Sequences are matrices with a row for each step; see ``Layout``.

    Attributes:
        skips_padding: Whether ``wx`` past a row's end is never read, and may be uninitialised.
        tiled: Whether tiles of bfloat16 may compute products, in these loops and beside them.
    """

    skips_padding: bool
    tiled: bool

    def projects(self, program: Program) -> bool:
        """Whether the loop forward can compute an affine projection of the input itself."""

    def forward(self, program: Program, inputs: Inputs, order: Order, save: bool) -> Results:
        """The results, with what the backward pass needs if ``save`` is true."""

    def backward(
        self, kept: Kept, grads: Grads, parameters: dict[str, Tensor], order: Order
    ) -> Gradients:
        """All gradients, from those of the outputs and of the state after the last step."""
