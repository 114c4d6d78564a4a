"""The base of gated cells, which are nearly all cells."""

from __future__ import annotations

from collections import namedtuple
from functools import cache
from itertools import combinations
from typing import Any, ClassVar, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets import initializers
from seqnets.cells.base import Cell
from seqnets.cells.checks import check_among_gates, check_free, check_names, check_size
from seqnets.checks import check_flags
from seqnets.errors import ConfigError, ShapeError
from seqnets.typing import State

_TAKEN = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "input_size", "hidden_size", "training")
"""Instance attributes of every gated cell, which its class does not show."""


class GatedCell(Cell):
    """A cell made of gates: affine maps of the input and the last output, joined by an equation.

    A subclass declares its ``gates`` and writes :meth:`update`, or :meth:`step` if its step needs
    more than one product. Everything else follows from these.

    ``super().__init__`` makes and draws the parameters. A subclass with options of its own first
    sets those that the methods for parameters and sizes read.

    Attributes:
        gates: Names of the gates, in the order of their rows in the weights (torch.nn's order).
        inputs: Gates that read the input; all by default.
        recurrent: Gates that read the last output; all by default. If empty, there is no
            ``weight_hh``.
        keeping: Gates that preserve the memory when open; "-i" if gate i does so when closed.
        square: Whether the equation uses the input itself, so that I must equal H.
        per_unit: Names of further parameters with one number per unit, each (H,).
        weight_ih: One block of rows for each of ``inputs``, (G*H, I).
        weight_hh: One block of rows for each of ``recurrent``, (G*H, output size).
        bias_ih: (G*H,), or None.
        bias_hh: (G*H,), or None.
        parameter_shapes: The shape of each existing parameter.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        bias: Whether the affine maps have biases.
        device: Where the parameters live.
        dtype: Their floating-point type.

    Raises:
        ConfigError: The class declares no gates, or names that it cannot have; a size is below 1,
            or I is not H where the equation uses the input itself.
        DtypeError: A size is not an integer, or ``bias`` neither true nor false.
    """

    gates: ClassVar[tuple[str, ...]]
    inputs: ClassVar[tuple[str, ...]]
    recurrent: ClassVar[tuple[str, ...]]
    keeping: ClassVar[tuple[str, ...]] = ()
    square: ClassVar[bool] = False
    per_unit: ClassVar[tuple[str, ...]] = ()
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    _input_gates: ClassVar[type[Any]]
    _recurrent_gates: ClassVar[dict[tuple[str, ...], type[Any]]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_names(cls, "gates", "inputs", "recurrent", "keeping", "per_unit")
        check_free(cls, "per_unit", _TAKEN)
        for declared in ("inputs", "recurrent", "keeping"):
            check_among_gates(cls, declared)
        if "gates" in cls.__dict__:
            cls.declare("inputs", cls.__dict__.get("inputs", cls.gates))
            cls.declare("recurrent", cls.__dict__.get("recurrent", cls.gates))
        if "inputs" in cls.__dict__:
            cls._input_gates = named(cls.inputs)
        if "recurrent" in cls.__dict__:  # all at once: torch.compile cannot trace a new class
            ends = combinations(range(len(cls.recurrent) + 1), 2)
            some = [cls.recurrent[first:last] for first, last in ends]
            cls._recurrent_gates = {names: named(names) for names in [cls.recurrent, *some]}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not hasattr(self, "inputs") or not hasattr(self, "recurrent"):
            raise ConfigError(
                f"{self._name}: declares no gates, expected a tuple of their names.\n"
                '  For example, write gates = ("f", "n") in the class: update reads wx.f and uh.f.'
            )
        self.input_size = check_size(self, "input_size", input_size)
        self.hidden_size = check_size(self, "hidden_size", hidden_size)
        if self.square and input_size != hidden_size:
            raise ConfigError(
                f"{self._name}: input_size is {input_size}, expected hidden_size = {hidden_size}.\n"
                f"  Its equation uses the input itself; put a linear layer before it."
            )
        self.check_sizes()
        check_flags(self._name, bias=bias)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))

        rows, *columns = self.block_shape(self.input_size)
        inputs, recurrent = len(self.inputs) * rows, len(self.recurrent) * rows
        self.weight_ih = parameter(inputs, *columns)
        if recurrent:
            self.weight_hh = parameter(recurrent, *self.block_shape(self.output_size)[1:])
        self.register_parameter("bias_ih", parameter(inputs) if bias else None)
        self.register_parameter("bias_hh", parameter(recurrent) if bias and recurrent else None)
        for name in self.per_unit:
            self.register_parameter(name, parameter(self.hidden_size))
        self.add_parameters(parameter)
        self.parameter_shapes = {n: p.shape for n, p in self.named_parameters(recurse=False)}
        self.reset_parameters()

    def block_shape(self, features: int) -> tuple[int, ...]:
        """Shape of one gate's block of a weight over ``features`` features."""
        return self.hidden_size, features

    def add_parameters(self, parameter: Any) -> None:
        """Register a subclass's further parameters; ``parameter(*shape)`` makes an empty one.

        Modules may be made here too. Values are set in :meth:`reset_parameters`, which draws them
        anew: those that are set here are lost.
        """

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the parameters: Xavier for input, orthogonal for recurrent weights, others zero.

        A module inside the cell draws its own parameters, and those of the modules inside it, by
        its ``reset_parameters``; if it has no such method, each module inside it does so.
        """
        for parameter in self.parameters(recurse=False):
            nn.init.zeros_(parameter)
        for name, module in self.named_children():
            if name == "parametrizations":
                for parameter in module.parameters():
                    nn.init.zeros_(parameter)
                continue
            _draw(module)
        if self.weight_ih is not None:  # as in the later cells of DeepTransition
            initializers.xavier_(self.learned("weight_ih"), len(self.inputs))
        if self.recurrent:
            initializers.orthogonal_(self.learned("weight_hh"), len(self.recurrent))

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equation after the products: pointwise, over tensors (B, H).

        Args:
            wx: ``W x + b`` of this step, by gate: ``wx.i``.
            uh: ``U h + d`` of this step, by gate; empty without recurrent gates.
            state: The state before the step.

        Returns:
            The state after it, in the order of ``states``.
        """
        raise NotImplementedError(f"{self._name} defines neither update nor step.")

    def project(self, x: Tensor) -> Tensor:
        """``W x + b`` of every gate: (..., I) to (..., G*H)."""
        return self.product(x, self.weight_ih, self.bias_ih)

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Apply some gates' weight and bias to features: (..., I) to (..., G*H)."""
        return F.linear(x, weight, bias)

    def recur(self, h: Tensor, *gates: str) -> Any:
        """``U h + d`` by gate: (B, H) each.

        Args:
            h: The vector that the recurrent weights multiply, (B, output size).
            gates: The gates to compute, adjacent in ``recurrent``; all by default.

        Returns:
            These gates by name, in their order, as in ``recur(h, "r", "z").r``. A plain tuple
            if the cell has set itself other recurrent gates than its class.

        Raises:
            ConfigError: The gates are not adjacent ones of ``recurrent``, in their order.
        """
        if not self.recurrent:
            return self._recurrent_gates[()]()
        weight, bias = self.weight_hh, self.bias_hh
        if gates:
            first = self.recurrent.index(gates[0]) if gates[0] in self.recurrent else 0
            if self.recurrent[first : first + len(gates)] != gates:
                raise ConfigError(
                    f"{self._name}: recur got gates {gates}, expected adjacent ones of "
                    f"{self.recurrent}."
                )
            size = len(weight) // len(self.recurrent)
            rows = slice(first * size, (first + len(gates)) * size)
            weight, bias = weight[rows], None if bias is None else bias[rows]
        gates = gates or self.recurrent
        products = self.product(h, weight, bias).chunk(len(gates), -1)
        named = self._recurrent_gates.get(gates)
        return products if named is None else named(*products)

    def split(self, tensor: Tensor) -> Any:
        """Name the gates of a tensor (..., G*H): ``split(wx).i`` is (..., H). Views, no copies."""
        return self._input_gates(*tensor.chunk(len(self.inputs), -1))

    def step(self, wx: Tensor, state: State) -> State:
        """One product, or none without recurrent gates, then :meth:`update`."""
        return self.update(self.split(wx), self.recur(state[0]), state)

    def check_parameters(self) -> None:
        """Raise if a parameter was replaced by one of another shape, dtype or device."""
        for name, shape in self.parameter_shapes.items():
            tensor = self._tensor(name)
            if tensor is None:
                raise ConfigError(
                    f"{self._name}: {name} is None, expected a parameter {tuple(shape)}.\n"
                    f"  Fill it with zeros, or make a cell without biases: bias=False."
                )
            if tensor.shape != shape:
                raise ShapeError(
                    f"{self._name}: {name} has shape {tuple(tensor.shape)}, expected "
                    f"{tuple(shape)}.\n"
                    f"  It follows from input_size = {self.input_size} and hidden_size = "
                    f"{self.hidden_size}."
                )
        super().check_parameters()

    @property
    def _like(self) -> Tensor:
        weight = self._tensor("weight_ih")
        return self._first_tensor() if weight is None else weight

    def _shown_values(self) -> dict[str, Any]:
        return {**super()._shown_values(), "bias": self.bias_ih is not None}


def _draw(module: nn.Module) -> None:
    """Draw a module's parameters by its ``reset_parameters``, or else by those of its parts."""
    if callable(reset := getattr(module, "reset_parameters", None)):
        reset()
        return
    for inside in module.children():
        _draw(inside)


@cache
def named(gates: tuple[str, ...]) -> type[Any]:
    """A class of named tuples with a field for each gate."""
    kind = namedtuple("Gates", gates)  # type: ignore[misc]  # mypy knows literal names alone
    kind.__getattr__ = _refuse  # type: ignore[attr-defined]
    return kind


def _refuse(gates: Any, name: str) -> NoReturn:
    """Raise AttributeError, as Python does, for a gate that is not there."""
    there = f"one of {', '.join(gates._fields)}" if gates else "none"
    raise AttributeError(
        f"Gates: {name!r} is not a gate here, expected {there}.\n"
        f"  wx has the gates that the cell lists in inputs, uh those in recurrent."
    )
