"""Options that change a cell's equation in training and evaluation alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqnets.cells.base import Cell
from seqnets.cells.clockwork import Clockwork
from seqnets.cells.gated import GatedCell
from seqnets.cells.wrapper import Wrapper, gated, results_of_methods
from seqnets.checks import check_choice, check_number, name_of
from seqnets.errors import ConfigError
from seqnets.typing import State

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "hardsigmoid": lambda a: (a / 6 + 0.5).clamp(0, 1),  # F's derivative is 1/6 in float32 only
    "hardtanh": F.hardtanh,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "silu": F.silu,
    "gelu": F.gelu,
    "identity": lambda a: a,
}
"""Activation functions by their names in ``torch.nn.functional``."""


class Activations(Wrapper):
    """Replace the activation functions of gates, candidate and memory.

    Args:
        cell: The recurrence; its equation must call the methods that are replaced.
        gate: Activation of the gates in place of the logistic function: a name in ``ACTIVATIONS``.
        candidate: Activation of the candidate.
        squash: Activation between memory and output.

    Raises:
        ConfigError: A name is unknown, or the equation does not call the method of that name.

    Example:
        >>> cell = Activations(LSTMCell(8, 16), gate="hardsigmoid", candidate="relu")
    """

    def __init__(
        self,
        cell: Cell,
        *,
        gate: str | None = None,
        candidate: str | None = None,
        squash: str | None = None,
    ) -> None:
        super().__init__(cell)
        names = {"gate": gate, "candidate": candidate, "squash": squash}
        self.names = {method: name for method, name in names.items() if name is not None}
        for method, name in self.names.items():
            check_choice("Activations", ACTIVATIONS, **{method: name})
            self._require_call(method, f"calls no {method}")

    def step(self, wx: Tensor, state: State) -> State:
        """A step with these functions."""
        return self._with_functions().step(wx, state)

    def adapted(self, **around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
        """A copy with methods of the innermost cell decorated, these functions included."""
        return self._with_functions().adapted(**around)

    def _with_functions(self) -> Cell:
        """The inner cell with its functions replaced."""
        around = {method: _replace_by(ACTIVATIONS[name]) for method, name in self.names.items()}
        return self.cell.adapted(**around)

    def extra_repr(self) -> str:
        """The replaced functions."""
        return ", ".join(f"{method}={name!r}" for method, name in self.names.items())


def _replace_by(function: Callable[[Tensor], Tensor]) -> Callable[[Any], Callable[..., Tensor]]:
    """A decorator that ignores the method and returns ``function``."""
    return lambda _: function


class LayerNorm(Wrapper):
    r"""Normalise the products that enter the gates, and the memory before it is squashed.

    .. math::
        \mathrm{LN}(W x_t; \gamma_w) + b + \mathrm{LN}(U h_{t-1}; \gamma_u) + d
        \quad\text{for}\quad W x_t + b + U h_{t-1} + d

    and :math:`\mathrm{LN}(c_t; \gamma_c, \beta_c)` for the memory before it is squashed. Mean and
    variance are taken over each product: over all gates together, unless the cell computes its
    product in parts. The cell's biases become the norms' shifts.

    Differs from the paper in one place: its GRU normalises the candidate's rows separately from the
    gates; here they belong to one product and are normalised together.

    Args:
        cell: The recurrence, around a :class:`GatedCell` that projects its input by one product.
        eps: Number added to the variance.

    Attributes:
        gain_ih: :math:`\gamma_w`, one number for each row of ``weight_ih``.
        gain_hh: :math:`\gamma_u`, one for each row of ``weight_hh``.
        shift_ih: b, of the shape of ``gain_ih``.
        shift_hh: d, of the shape of ``gain_hh``.
        gain_memory: :math:`\gamma_c`, (H,), if the cell has a memory.
        shift_memory: :math:`\beta_c`, (H,), likewise.

    Raises:
        ConfigError: The cell has no recurrent product by gates, is convolutional, or projects its
            input inside the step.

    References:
        Ba et al., 2016, "Layer Normalization", arXiv:1607.06450.
    """

    gain_ih: Tensor
    gain_hh: Tensor
    shift_ih: Tensor
    shift_hh: Tensor
    gain_memory: Tensor
    shift_memory: Tensor

    def __init__(self, cell: Cell, *, eps: float = 1e-5) -> None:
        super().__init__(cell)
        inner = gated(self._name, self)
        _check_products(cell, inner)
        self.eps = eps
        for side in ("ih", "hh"):
            weight = getattr(inner, f"weight_{side}")
            setattr(self, f"gain_{side}", nn.Parameter(weight.new_ones(len(weight))))
            setattr(self, f"shift_{side}", nn.Parameter(weight.new_zeros(len(weight))))
        self.memory = "squash" in results_of_methods(self.cell)
        if self.memory:
            self.gain_memory = nn.Parameter(weight.new_ones(self.hidden_size))
            self.shift_memory = nn.Parameter(weight.new_zeros(self.hidden_size))
        self.biased = [side for side in ("ih", "hh") if getattr(inner, f"bias_{side}") is not None]
        self._take_biases(inner)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the parameters anew: gains are one, shifts what the cell draws for its biases."""
        inner = gated(self._name, self)
        for side in self.biased:
            shift = getattr(self, f"shift_{side}")
            setattr(inner, f"bias_{side}", nn.Parameter(torch.zeros_like(shift)))
        super().reset_parameters()
        for name, parameter in self.named_parameters(recurse=False):
            parameter.fill_(1.0 if name.startswith("gain") else 0.0)
        self._take_biases(inner)

    @torch.no_grad()
    def _take_biases(self, inner: GatedCell) -> None:
        for side, shift in (("ih", self.shift_ih), ("hh", self.shift_hh)):
            bias = getattr(inner, f"bias_{side}")
            if bias is not None:
                shift.copy_(bias)
            inner.register_parameter(f"bias_{side}", None)
            inner.parameter_shapes.pop(f"bias_{side}", None)

    def project(self, x: Tensor) -> Tensor:
        """The input's product, normalised, without the columns that options inside append."""
        wx, size = self.cell.project(x), len(self.gain_ih)
        normed = F.layer_norm(wx[..., :size], (size,), self.gain_ih, self.shift_ih, self.eps)
        return normed if wx.shape[-1] == size else torch.cat([normed, wx[..., size:]], -1)

    def step(self, wx: Tensor, state: State) -> State:
        """A step between normalised products."""
        around: dict[str, Any] = {"recur": self._around_recur}
        if self.memory:
            around["squash"] = lambda f: lambda c: f(self._memory_normed(c))
        return self.cell.adapted(**around).step(wx, state)

    def _around_recur(self, recur: Callable[..., Any]) -> Callable[..., Any]:
        def normed(h: Tensor, *gates: str) -> Any:
            products = recur(h, *gates)
            names = gated(self._name, self).recurrent
            first = names.index(gates[0]) if gates else 0
            rows = slice(first * self.hidden_size, (first + len(products)) * self.hidden_size)
            gains, shifts = (
                tensor[rows].chunk(len(products)) for tensor in (self.gain_hh, self.shift_hh)
            )
            parts = zip(_normalised(products, self.eps), gains, shifts, strict=True)
            after = [part * gain + shift for part, gain, shift in parts]
            kind = type(products)
            return tuple(after) if kind is tuple else kind(*after)

        return normed

    def _memory_normed(self, c: Tensor) -> Tensor:
        size = (self.hidden_size,)
        return F.layer_norm(c, size, self.gain_memory, self.shift_memory, self.eps)


def _check_products(cell: Cell, inner: GatedCell) -> None:
    """Raise unless LayerNorm finds both products of a cell, with rows for each unit and gate."""
    rows = len(inner.recurrent) * inner.hidden_size
    if len(inner.weight_hh) != rows:
        raise ConfigError(
            f"LayerNorm: weight_hh of {name_of(inner)} has {len(inner.weight_hh)} rows, expected "
            f"one for each unit and gate, {rows}.\n"
            f"  Gains and shifts belong to units: not to positions of a frame, which would share "
            f"them, or to a layer within the cell."
        )
    while isinstance(cell, Wrapper):
        if cell.projects_within:
            name = name_of(cell)
            raise ConfigError(
                f"LayerNorm: got {name} inside, which projects the input in the step, expected it "
                f"outside.\n  LayerNorm normalises that product: {name}(LayerNorm(cell))."
            )
        cell = cell.cell
    if inner.projects_within:
        raise ConfigError(
            f"LayerNorm: {name_of(inner)} projects the input in the step, expected a cell that "
            f"projects it before.\n  LayerNorm normalises the product of all steps at once."
        )


def _normalised(parts: Sequence[Tensor], eps: float) -> list[Tensor]:
    """Parts of one row (B, G*H), normalised together to mean 0 and variance 1."""
    mean = _mean(parts)
    centred = [part - mean for part in parts]
    scale = torch.rsqrt(_mean([part * part for part in centred]) + eps)
    return [part * scale for part in centred]


def _mean(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0].mean(-1, keepdim=True)
    for part in parts[1:]:
        total = total + part.mean(-1, keepdim=True)
    return total / len(parts)


class ClipState(Wrapper):
    """Clip parts of the state to [-limit, limit] after every step.

    Args:
        cell: The recurrence.
        limit: The largest absolute value, above 0.
        states: Names of the parts to clip; all but clocks if omitted.

    Raises:
        ConfigError: ``limit`` is not above 0, or a name is not one of the state's.

    References:
        Sak et al., 2014, "Long Short-Term Memory Based Recurrent Neural Network Architectures for
        Large Vocabulary Speech Recognition", arXiv:1402.1128 (memory within [-50, 50]).
    """

    def __init__(self, cell: Cell, limit: float, *, states: Sequence[str] | None = None) -> None:
        super().__init__(cell)
        check_number("ClipState", above=0, limit=limit)
        free = [name for name in self.states if name not in self.clocks]
        for name in states or ():
            if name not in free:
                raise ConfigError(
                    f"ClipState: states has {name!r}, expected names from {', '.join(free)}."
                )
        self.limit = float(limit)
        self.clipped = tuple(free if states is None else states)

    def step(self, wx: Tensor, state: State) -> State:
        """The state after one step, clipped."""
        after = zip(self.states, self.cell.step(wx, state), strict=True)
        return tuple(
            part.clamp(-self.limit, self.limit) if name in self.clipped else part
            for name, part in after
        )

    def _shown_values(self) -> dict[str, Any]:
        return {**super()._shown_values(), "states": self.clipped}


class AllStates(Wrapper):
    """Output all parts of the state at every step, side by side: an LSTM's memory, too.

    It goes around all other options, which would change the state after it was output. If the parts
    have more than 1024 numbers together, the cell runs in the plain loop.

    State: ``(all, ...)``: the output, then the cell's state. Output: ``all``, as wide as the parts
    together.

    Args:
        cell: The recurrence.

    Example:
        >>> y, _ = Recurrent(AllStates(LSTMCell(8, 64)))(x)
        >>> h, c = y.chunk(2, -1)  # (B, T, 64) each
    """

    outermost = True

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        self.states = ("all", *cell.states)
        self.output_only = True

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Width of each part of the state."""
        return (sum(self.cell.state_sizes), *self.cell.state_sizes)

    def initial_state(self, batch_size: int) -> State:
        """The cell's, after all of its parts side by side."""
        start = self.cell.initial_state(batch_size)
        return (torch.cat(start, -1), *start)

    def step(self, wx: Tensor, state: State) -> State:
        """A step of the cell, and its parts side by side."""
        after = self.cell.step(wx, state[1:])
        return (torch.cat(after, -1), *after)


class LearnedState(Wrapper):
    """Learn the initial state: one number for each unit.

    Args:
        cell: The recurrence. Parts that count time (``Cell.clocks``), and an output that no step
            reads (``Cell.output_only``), keep the cell's own initial values: likewise one that a
            clockwork alone keeps, whose units are all due at the first step.

    Attributes:
        initial_h: The initial value of ``h``, (H,); likewise for the other parts by their names.
            They start at the cell's own initial state.
    """

    def __init__(self, cell: Cell) -> None:
        super().__init__(cell)
        first = cell
        while isinstance(first, Clockwork):
            first = first.cell
        self.fixed = (*self.clocks, *(self.states[:1] if first.output_only else ()))
        for name, part in zip(self.states, cell.initial_state(1), strict=True):
            if name not in self.fixed:
                setattr(self, f"initial_{name}", nn.Parameter(part[0].detach().clone()))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the parameters anew; the initial state returns to the cell's own."""
        super().reset_parameters()
        for name, part in zip(self.states, self.cell.initial_state(1), strict=True):
            if name not in self.fixed:
                getattr(self, f"initial_{name}").copy_(part[0])

    def initial_state(self, batch_size: int) -> State:
        """The learned state for every row, (B, H) each."""
        parts = zip(self.states, self.cell.initial_state(batch_size), strict=True)
        return tuple(
            part if name in self.fixed else getattr(self, f"initial_{name}").expand(batch_size, -1)
            for name, part in parts
        )
