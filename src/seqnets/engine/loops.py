"""What loops over time are asked for, and what they give, in whatever language they are.

They know a program and buffers; nothing of cells, autograd or requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import NamedTuple, Protocol

from torch import Tensor

from seqnets.engine.graph import Weight
from seqnets.engine.layout import Layout
from seqnets.engine.memory import room
from seqnets.engine.program import Buffer, Program
from seqnets.typing import State


class Order(NamedTuple):
    """In which order steps run, and which of them.

    Attributes:
        layout: Where they lie.
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
    """An order whose lengths lie beside each other in memory, as loops read them."""
    return Order(layout, None if lengths is None else lengths.contiguous(), resets, reverse)


@dataclass
class Kept:
    """What the forward pass keeps for the backward pass.

    Attributes:
        befores: State parts before each step, (B*T, H), by their place in the state.
        values: What products other than a state's multiply, (B*T, columns), by product.
        saved: The program's ``saved``, side by side, (B*T, saved_size); one column at least, for
            it tells dtype and device.
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
        befores, values = program.befores, program.values
        middle = len(befores)
        return Kept(
            dict(zip(befores, tensors[:middle], strict=True)),
            dict(zip(values, tensors[middle:-1], strict=True)),
            tensors[-1],
        )


@dataclass
class Gradients:
    """What the backward pass finds.

    Attributes:
        wx: Of the projected input, (B*T, W).
        products: Of each product, (B*T, rows); those of ``Program.shared`` are ``wx`` itself.
        units: Of parameters with one number a unit, summed over rows and steps, by
            ``Program.unit_columns``; None if there are none.
        initial: Of the state before the first step, each (B, H); empty if nobody asks.
        start: Of the state after a reset, each (B, H); empty where nothing is reset.
    """

    wx: Tensor
    products: dict[int, Tensor]
    units: Tensor | None
    initial: State
    start: State

    @cached_property
    def total(self) -> Tensor:
        """Of the projected input, summed over rows and steps, (W)."""
        return self.wx.sum(0)


class Loops(Protocol):
    """A way to run a program over time. Of all steps there are matrices; see ``Layout``.

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
        """Outputs (B, T, H), the state after each row's last step, and if asked what to keep.

        All from the projected input, (B*T, W), and the state before the first step, each (B, H);
        empty if it is zero.
        """

    def backward(
        self,
        program: Program,
        kept: Kept,
        grad_y: Tensor | None,
        grad_final: Sequence[Tensor | None],
        parameters: dict[str, Tensor],
        order: Order,
    ) -> Gradients:
        """All gradients, from those of outputs (B*T, H) and final state; None stands for zeros."""


def numbered(name: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Tensors by a name and their place."""
    return dict(zip(_numbered(name, len(tensors)), tensors, strict=True))


@cache
def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{i}" for i in range(count)]


def parameter_buffers(program: Program, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parameters, and of each product its block of the weight, by the names of buffers.

    All are contiguous.
    """
    return {
        buffer: (parameters[name] if block is None else block.of(parameters[name])).contiguous()
        for buffer, name, block in _parameter_buffers(program)
    }


@lru_cache(maxsize=1024)
def _parameter_buffers(program: Program) -> list[tuple[str, str, Weight | None]]:
    """Each buffer, the parameter that it shows, and which block of it; None if all as it is."""
    step = program.step
    found: list[tuple[str, str, Weight | None]] = [
        (f"p_{name}".replace(".", "_of_"), name, None) for name in step.parameters
    ]
    for k, weight in enumerate(product.weight for product in step.products):
        whole = not weight.turned and weight.covers(step.parameters[weight.name])
        found.append((f"weight_{k}", weight.name, None if whole else weight))
    return found


def kept_buffers(program: Program, kept: Kept) -> dict[str, Tensor]:
    """What is kept, by the names of buffers."""
    return dict(zip(_kept_names(program), kept.to_list(), strict=True))


@lru_cache(maxsize=1024)
def _kept_names(program: Program) -> list[str]:
    befores = (f"before_{p}" for p in program.befores)
    return [*befores, *(f"value_{k}" for k in program.values), "saved"]


def room_for_kept(program: Program, wx: Tensor) -> Kept:
    """What the forward pass keeps, without numbers."""
    return Kept.from_list(program, [room(wx, wx.shape[0], size) for size in program.kept_sizes])


def room_for_gradients(program: Program, like: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
    """Of the projected input and of each product, without numbers; zeros where some stay so."""

    def gradient(columns: int, gaps: bool) -> Tensor:
        made = room(like, like.shape[0], columns)
        return made.zero_() if gaps else made

    of_wx, of_products = _gradient_columns(program)
    return gradient(*of_wx), {k: gradient(*each) for k, each in of_products.items()}


@lru_cache(maxsize=1024)
def _gradient_columns(program: Program) -> tuple[tuple[int, bool], dict[int, tuple[int, bool]]]:
    """How many columns those gradients have, and whether some of them are stored by no stage."""
    gaps = program.gaps
    return (program.step.wx_size, Buffer("dwx") in gaps), {
        k: (product.weight.rows, Buffer("dz", k) in gaps)
        for k, product in enumerate(program.step.products)
        if k not in program.shared
    }
