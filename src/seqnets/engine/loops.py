"""What loops over time are asked for, and what they give, in whatever language they are.

They know a program and buffers; nothing of cells, autograd or requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seqnets.engine.graph import Step
from seqnets.engine.layout import inner
from seqnets.engine.program import Program
from seqnets.typing import State


@dataclass(frozen=True)
class Order:
    """In which order steps run, and which of them: see ``Request``."""

    lengths: Tensor | None
    resets: Tensor | None
    reverse: bool

    def steps(self, T: int) -> range:
        """All steps, in order."""
        return range(T - 1, -1, -1) if self.reverse else range(T)


def make_order(lengths: Tensor | None, resets: Tensor | None, reverse: bool) -> Order:
    """An order whose lengths lie beside each other in memory, as loops read them."""
    return Order(None if lengths is None else lengths.contiguous(), resets, reverse)


@dataclass
class Kept:
    """What the forward pass keeps for the backward pass.

    Attributes:
        befores: State parts before each step, (B, T, H), by their place in the state.
        values: What products other than a state's multiply, (B, T, columns), by product.
        saved: The program's ``saved``, side by side, (B, T, saved_size); one column at least, for
            its layout is that of all.
    """

    befores: dict[int, Tensor]
    values: dict[int, Tensor]
    saved: Tensor

    def to_list(self) -> list[Tensor]:
        """The tensors alone."""
        return [*self.befores.values(), *self.values.values(), self.saved]

    @staticmethod
    def from_list(program: Program, tensors: Sequence[Tensor]) -> Kept:
        """What ``to_list`` took apart."""
        places = iter(tensors)
        return Kept(
            {p: next(places) for p in sorted(program.befores)},
            {k: next(places) for k in program.values},
            next(places),
        )


@dataclass
class Gradients:
    """What the backward pass finds.

    Attributes:
        wx: Of the projected input, (B, T, W).
        products: Of each product, (B, T, rows); those of ``Program.shared`` are ``wx`` itself.
        units: Of each parameter with one number a unit, or one for all, shaped as it is.
        initial: Of the state before the first step, each (B, H).
        start: Of the state after a reset, each (B, H); empty where nothing is reset.
    """

    wx: Tensor
    products: dict[int, Tensor]
    units: dict[str, Tensor]
    initial: State
    start: State


class Loops(Protocol):
    """A way to run a program over time. All tensors (B, T, …) are laid out in memory as ``wx``.

    Attributes:
        skips_padding: Whether nothing is read of ``wx`` past a row's end, not even to be dropped.
    """

    skips_padding: bool

    def forward(
        self,
        program: Program,
        wx: Tensor,
        initial: State,
        start: State,
        parameters: dict[str, Tensor],
        order: Order,
        save: bool,
    ) -> tuple[Tensor, State, Kept | None]:
        """Outputs (B, T, H), the state after each row's last step, and if asked what to keep."""

    def backward(
        self,
        program: Program,
        kept: Kept,
        grad_y: Tensor | None,
        grad_final: Sequence[Tensor | None],
        parameters: dict[str, Tensor],
        order: Order,
    ) -> Gradients:
        """All gradients, from those of outputs and final state; None stands for zeros."""


def numbers(step: Step, tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors that a step uses, as loops compute with them: masks and counts in their dtype."""
    used = {name: tensors[name] for name in step.parameters}
    return {name: t if t.dtype is dtype else t.to(dtype) for name, t in used.items()}


def numbered(name: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Tensors by a name and their place."""
    return {f"{name}_{i}": tensor for i, tensor in enumerate(tensors)}


def room_for_kept(program: Program, wx: Tensor) -> Kept:
    """What the forward pass keeps, without numbers."""
    step = program.step
    return Kept(
        {p: inner(wx, step.state_sizes[p]) for p in sorted(program.befores)},
        {k: inner(wx, step.products[k].weight.columns) for k in program.values},
        inner(wx, max(1, program.saved_size)),  # it tells the layout too
    )


def room_for_gradients(program: Program, like: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """Of the projected input and of each product, without numbers; zeros where some stay so."""
    gaps = {(buffer.kind, buffer.key) for buffer in program.gaps}

    def gradient(columns: int, kind: str, key: int = 0) -> Tensor:
        made = inner(like, columns)
        return made.zero_() if (kind, key) in gaps else made

    return gradient(program.step.wx_size, "dwx"), {
        k: gradient(product.weight.rows, "dz", k)
        for k, product in enumerate(program.step.products)
        if k not in program.shared
    }


def kept_sizes(program: Program) -> list[int]:
    """Columns of each tensor of ``Kept.to_list``."""
    step = program.step
    befores = [step.state_sizes[p] for p in sorted(program.befores)]
    values = [step.products[k].weight.columns for k in program.values]
    return [*befores, *values, max(1, program.saved_size)]
