"""Validation of a trace: the cell's step and its graph are run on the same numbers and compared.

Outputs and gradients must agree. This catches what tracing cannot see: branches, dependence on the
number of rows or on the grad mode, ``no_grad``, hooks, custom autograd functions, and
decompositions that overflow or have another derivative at a kink.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from seqnets.cells import Cell
from seqnets.engine.equation import loose_attributes, with_own_containers
from seqnets.engine.evaluate import parameters_of, replay
from seqnets.engine.graph import Untraceable
from seqnets.engine.modes import dispatches
from seqnets.engine.pieces import cut, joined, pieces_of
from seqnets.engine.preparation import Preparation
from seqnets.engine.step import Step
from seqnets.engine.tracing.pointwise import instead
from seqnets.typing import State

_ROWS, _STEPS = 7, 3  # another number of rows than was traced
_LARGE, _STEEP = 100, 1e5
_ROUGHER = 100  # how much more than the step its trace may round; chance alone makes it 10
_NO_DERIVATIVE = re.compile(r"derivative for aten::(\w+) is not implemented")
_COLUMNS, _DRAWS = 32, 16  # the most inputs that are NaN in turn, and how often
_SPREADS = (
    "it moves units to other places or reads some of them, where others are {0}: loops do so by a "
    "product, and 0 times {0} is no number"
)
_WHERE = {
    1: "",
    _LARGE: " for large inputs",
    0: " for small inputs, or other values of buffers",
}
"""The scales of inputs and states, and where that is, in words for a refusal."""


_Both = Callable[[Tensor, State], tuple[State, State]]
"""The state after a step of the cell, and of its trace, from an input and a state."""


class OwnDerivative(Untraceable):
    """A step has a custom autograd function, which ``Surrogates`` may be able to trace."""


class RandomCell:
    """A cell and random parameters for it, drawn once.

    Attributes:
        dtype: The dtype of the comparison.
        kept: Tensors that keep their values: periods, counts, masks.
        drawn: All others.
    """

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.dtype = torch.float64 if cell._like.dtype == torch.float64 else torch.float32
        self._draw = torch.Generator().manual_seed(0)
        mean = dict(cell.origin.named_buffers()) | loose_attributes(cell.origin)
        self.kept: dict[str, Tensor] = {}
        self.drawn: dict[str, Tensor] = {}
        for name, tensor in cell.tensors().items():
            if name in mean or not tensor.is_floating_point():
                some = torch.ones(tensor.shape, dtype=tensor.dtype)
                now = tensor.detach().cpu().clone() if _is_real(tensor) else some
                self.kept[name] = now.to(self.dtype) if now.is_floating_point() else now
            else:
                wide = tensor.dim() > 1
                drawn = self.numbers(*tensor.shape)
                self.drawn[name] = drawn.div_(tensor.shape[-1] ** 0.5) if wide else drawn

    def numbers(self, *shape: int) -> Tensor:
        """Random numbers."""
        return torch.randn(shape, generator=self._draw, dtype=self.dtype)

    def bound_to(self, tensors: dict[str, Tensor]) -> Cell:
        """The cell with these tensors, and with containers of its own."""
        return with_own_containers(self.cell.bind(tensors))


class Comparison(RandomCell):
    """Compares a cell's step with its trace, on common numbers, on large ones and on 0.

    Args:
        cell: The cell.
        step: The traced step.
        preparation: Its operations on parameters alone.
        project: Whether the step includes the projection of the input.
        functions: The custom autograd functions that were traced with it.
        chooses: Whether it chooses among units, of which equal ones may have each other's gradient.
    """

    def __init__(
        self,
        cell: Cell,
        step: Step,
        preparation: Preparation,
        project: bool,
        functions: Container[type],
        chooses: bool,
    ) -> None:
        super().__init__(cell)
        self._step, self._preparation = step, preparation
        self._project, self._functions, self._chooses = project, functions, chooses
        self._width = cell.input_size if project else step.wx_size

    def run(self) -> None:
        """Compare the two.

        Raises:
            OwnDerivative: The step has other custom autograd functions.
            Untraceable: The two differ.
        """
        for scale in _WHERE:
            self._run_on_numbers(scale)
        self._run_on_no_numbers()

    def _own(self, cell: Cell, wx: Tensor, state: State) -> State:
        """The state after a step of the cell itself."""
        return cell.step(cell.project(wx) if self._project else wx, state)

    def _traced(self, wx: Tensor, state: State, used: dict[str, Tensor]) -> State:
        """The state after a traced step."""
        pieces = pieces_of(self.cell.state_sizes, self._step.state_sizes)
        return joined(replay(self._step, wx, cut(state, pieces), used), pieces)

    def _used(self, tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """The parameters of the traced step, made of the cell's."""
        return parameters_of(self._step, self._preparation.of(tensors, dtype), dtype)

    def _run_on_numbers(self, scale: int) -> None:
        """Compare on inputs and states of a scale; at 0, biases are 0 too, as initialised."""
        tensors = {name: kept.clone() for name, kept in self.kept.items()}
        for name, kept in tensors.items():
            if not scale and kept.is_floating_point():  # buffers may change
                tensors[name] = torch.where(kept == 0, 0.5, kept * 1.25)
        for name, drawn in self.drawn.items():
            now = torch.zeros_like(drawn) if not scale and drawn.dim() < 2 else drawn.detach()
            learns = scale == 1 or drawn.dim() < 2  # matrices once: they take longest
            read = name in self._step.parameters or name in self._preparation.reads
            tensors[name] = now.requires_grad_(learns and read)
        cell = self.bound_to(tensors)
        if scale == _LARGE and not self._project:  # within what it projects to, say 0 and more
            with errors_as_untraceable(), torch.no_grad():
                wx = cell.project(self.numbers(_ROWS, cell.input_size).mul_(scale)).clone()
        else:
            wx = self.numbers(_ROWS, self._width).mul_(scale)
        state = tuple(self.numbers(_ROWS, size).mul_(scale) for size in cell.state_sizes)

        finite = self._compare(scale, tensors, wx, state)
        if scale == 1 and not finite:  # say, a square root of the state
            self._compare(scale, tensors, wx, tuple(part.abs() for part in state))

    @torch.no_grad()
    def _run_on_no_numbers(self) -> None:
        """Compare from the cell's initial state, if that has infinities, and on inputs of NaN.

        Data movement is traced as products, in which either would spread to all units.
        """
        tensors = self.kept | self.drawn
        cell = self.bound_to(tensors)
        with errors_as_untraceable():
            used = self._used(tensors, self.dtype)
            state = tuple([part.to(self.dtype) for part in cell.initial_state(_ROWS)])
            is_infinite = any(part.isinf().any() for part in state)

        def both(wx: Tensor, state: State) -> tuple[State, State]:
            with errors_as_untraceable():
                return self._own(cell, wx, state), self._traced(wx, state, used)

        if is_infinite:
            self._run_from_infinity(both, state)
        if self._width:
            self._run_on_nan(both)

    def _run_from_infinity(self, both: _Both, state: State) -> None:
        for _ in range(_STEPS):
            own, traced = both(self.numbers(_ROWS, self._width), state)
            if not all(map(are_near, own, traced)):
                raise Untraceable(_SPREADS.format("inf"))
            state = own

    def _run_on_nan(self, both: _Both) -> None:
        """Compare on inputs of which each column in turn is NaN, or some if there are many."""
        columns = torch.arange(0, self._width, max(1, self._width // _COLUMNS))[:_COLUMNS]
        for draws in (1, _DRAWS):  # more where chance, such as a mask, may have hidden what is NaN
            lacking = columns.repeat_interleave(draws)
            wx = self.numbers(len(lacking), self._width)
            wx[range(len(lacking)), lacking] = torch.nan
            sizes = self.cell.state_sizes
            own, traced = both(wx, tuple(self.numbers(len(lacking), size) for size in sizes))
            finite = torch.stack([part.isfinite().all(-1) for part in own]).all(0)
            always = finite.view(-1, draws).all(1)
            whole = always.repeat_interleave(draws)
            if all(are_near(a[whole], b[whole]) for a, b in zip(own, traced, strict=True)):
                return
            columns = columns[always]
        told = "it gives a number for NaN, of which its recorded operations make NaN"
        raise Untraceable(_SPREADS.format("nan") if self._preparation.constants else told)

    def _compare(self, scale: int, tensors: dict[str, Tensor], wx: Tensor, state: State) -> bool:
        """Compare outputs and, where these are finite, gradients; whether they are finite."""
        ends = [self.numbers(_ROWS, size) for size in self.cell.state_sizes]
        own, traced = self._both(scale, tensors, wx, state, ends)
        if told := self._difference(scale, own, traced):
            if scale == _LARGE or self.dtype == torch.float64:
                raise Untraceable(told)
            tensors = {name: _doubled(tensor) for name, tensor in tensors.items()}
            wx, *rest = (given.double() for given in (wx, *state, *ends))
            state, ends = tuple(rest[: len(state)]), rest[len(state) :]
            try:
                exact, traced_exactly = self._both(scale, tensors, wx, state, ends)
                wrong = self._difference(scale, exact, traced_exactly)
            except Untraceable:
                wrong = told
            if wrong or not all(map(_round_alike, own, traced, exact)):
                raise Untraceable(told)
        return _are_finite(own[: len(state)])

    def _both(
        self,
        scale: int,
        tensors: dict[str, Tensor],
        wx: Tensor,
        state: State,
        ends: Sequence[Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The numbers to compare, in the dtype of what it is given: the step's and the trace's."""
        cell = self.bound_to(tensors)
        wx = wx.detach().requires_grad_()
        state = tuple(part.detach().requires_grad_() for part in state)
        learned = [tensor for tensor in tensors.values() if tensor.requires_grad]
        with errors_as_untraceable(), torch.enable_grad():
            used = self._used(tensors, wx.dtype)
            own = self._own(cell, wx, state)
            cell.check_after(own, state)
            if _has_python(own, self._functions):
                raise OwnDerivative(
                    "its gradient is not that of its operations: it has a function with a "
                    "backward pass of its own"
                )
            traced = self._traced(wx, state, used)
            wanted = [wx, *state, *learned]
            slopes = [_slopes(parts, ends, wanted) for parts in (own, traced)]
            if scale == 1:  # and large gradients, which may be clipped
                for found, parts in zip(slopes, (own, traced), strict=True):
                    found += [slope / _STEEP for slope in _slopes(parts, ends, wanted, _STEEP)]
        distinct = scale or not self._chooses  # of small inputs units are equal, at 0
        if self._project or not distinct or not _are_finite(own):
            slopes = [[], []]
        return [*own, *slopes[0]], [*traced, *slopes[1]]

    def _difference(self, scale: int, own: list[Tensor], traced: list[Tensor]) -> str:
        """In what a step and its trace differ, in words; empty if in nothing but rounding."""
        are_alike = _are_both_finite if scale == _LARGE else are_near
        alike = list(map(are_alike, own, traced))
        if all(alike):
            return ""
        self._check_spread(own, traced)
        states = len(self.cell.state_sizes)
        if all(alike[:states]):
            slopes = zip(own[states:], traced[states:], strict=True)
            if any((b.isfinite() & ~a.isfinite()).any() for a, b in slopes):
                return (
                    f"its gradient is infinite or NaN{_WHERE[scale]}, where that of its recorded "
                    f"operations is a number: a quotient, root or power near 0, perhaps"
                )
            return (
                f"its gradient is not that of its operations{_WHERE[scale]}: no_grad, a "
                f"hook, or a function with a backward pass of its own"
            )
        return (
            f"it gives something else than its recorded operations{_WHERE[scale]}, so it "
            f"depends on more than tensors: a branch on their values, the number of rows, "
            f"or whether gradients are on"
        )

    def _check_spread(self, own: Sequence[Tensor], traced: Sequence[Tensor]) -> None:
        """Raise Untraceable if infinities, as of an overflow, may have reached other units."""
        pairs = zip(own, traced, strict=True)
        moves = self._preparation.constants  # by matrices of ones and zeros
        if moves and any((b.isnan() & a.isfinite()).any() for a, b in pairs):
            raise Untraceable(_SPREADS.format("inf"))


def _has_python(outputs: Sequence[Tensor], known: Container[type]) -> bool:
    """Whether a backward pass goes through a custom autograd function that is not known."""
    seen: set[Any] = set()
    ahead = [part.grad_fn for part in outputs]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, BackwardCFunction) and node._forward_cls not in known:
            return True
        seen.add(node)
        ahead += [before for before, _ in node.next_functions]
    return False


def _is_real(tensor: Tensor) -> bool:
    """Whether a tensor has values; buffers have none while a model is exported."""
    return not tensor.is_meta and not dispatches(tensor)


@contextmanager
def errors_as_untraceable() -> Iterator[None]:
    """Convert errors that a step raises on stand-ins to ``Untraceable``."""
    try:
        yield
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        told = str(error).splitlines()[0] if str(error) else repr(error)
        if found := _NO_DERIVATIVE.match(told):
            told = f"aten.{found[1]}{instead(found[1])}"
        raise Untraceable(told) from error


def _doubled(tensor: Tensor) -> Tensor:
    """A tensor of numbers in float64, with a gradient of its own where it has one."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.detach().double().requires_grad_(tensor.requires_grad)


def _slopes(
    outputs: Sequence[Tensor], ends: Sequence[Tensor], inputs: Sequence[Tensor], steep: float = 1
) -> list[Tensor]:
    """Vector-Jacobian products of outputs, scaled by ``steep``; zeros where there are none."""
    total = sum((y * end).sum() for y, end in zip(outputs, ends, strict=True))
    if not isinstance(total, Tensor) or not total.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    total = total * steep  # passing grad_outputs loads sympy, a third of a second
    found = torch.autograd.grad(total, inputs, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def _round_alike(own: Tensor, traced: Tensor, exact: Tensor) -> bool:
    """Whether a trace is as near as its step to what both give in float64, or nearly so.

    Both are far from it where they divide by nearly 0, but a trace alone where only it overflows.
    """
    finite = own.isfinite() & exact.isfinite()
    if are_near(own, traced) or not finite.any():
        return True
    off = [(part - exact)[finite].abs().nan_to_num(torch.inf).max() for part in (own, traced)]
    return bool(off[1] <= _ROUGHER * off[0])


def _are_finite(parts: Sequence[Tensor]) -> bool:
    return all(bool(part.isfinite().all()) for part in parts)


def _are_both_finite(a: Tensor, b: Tensor) -> bool:
    """Whether the same elements are finite; on large inputs rounding may dominate values."""
    return bool((a.isfinite() == b.isfinite()).all())


def are_near(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree up to rounding."""
    if bool(((a - b).abs() <= 1e-4).all()):  # fast path
        return True
    near = torch.isclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True) | (a.isinf() & b.isinf())
    return bool(near.all())
