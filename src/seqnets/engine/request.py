"""``Request``: the checked arguments of ``unroll``, and what is known of the cell's program.

``unroll`` makes one, ``dispatch.py`` asks each backend whether it can run it, and one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from seqnets.cells import Cell
from seqnets.cells.given import autocasts
from seqnets.engine.attributes import with_attributes_given
from seqnets.engine.graph import Untraceable
from seqnets.engine.lengths import checked_lengths
from seqnets.engine.plans import Plan, plan_of
from seqnets.engine.program import Program
from seqnets.errors import ConfigError, DeviceError, DtypeError, ShapeError
from seqnets.typing import State


@dataclass(eq=False)
class Request:
    """A cell, and the sequences to run it over.

    Attributes:
        cell: The recurrence.
        x: Inputs, (B, T, I).
        given: State before the first step, each (B, H); None if it is zero.
        lengths: Valid steps of each row, (B,) int64 on the device of ``x``; None if all are.
        resets: Steps before which the state is reset, (B, T) boolean; None if there are none.
        reverse: Whether time runs backwards.
        memory: "full", or "lean" if the forward pass is to keep inputs and states alone.
        obstacle: Why the step cannot be traced even with its plain tensors as buffers, if so.
        known_plan: ``plan``, once it is known; of an equal call before, perhaps.
        known_step: Torch's function for a single step, if an equal call before was one by it.
    """

    cell: Cell
    x: Tensor
    given: State | None = None
    lengths: Tensor | None = None
    resets: Tensor | None = None
    reverse: bool = False
    memory: str = "full"
    obstacle: str | None = None
    known_plan: Plan | None = field(default=None, init=False, repr=False)
    known_step: Any = field(default=None, init=False, repr=False)
    _own: dict[str, Tensor] | None = field(default=None, init=False, repr=False)
    _tensors: dict[str, Tensor] | None = field(default=None, init=False, repr=False)

    @property
    def program(self) -> Program:
        """The program of the cell's step.

        Raises:
            Untraceable: The step cannot be traced.
        """
        return self.plan.program

    @property
    def untraceable(self) -> str | None:
        """Why the step cannot be traced; None if it can."""
        try:
            self.plan  # noqa: B018
        except Untraceable as reason:
            return f"the step cannot be traced: {self.obstacle or reason}"
        return None

    def project(self, x: Tensor) -> Tensor:
        """The program's input, (..., W), from inputs (..., I): projection and hoisted products.

        Raises:
            DtypeError, ShapeError: :meth:`project` gives something else.
            Untraceable: As for the program.
        """
        wx, ahead = self.cell.check_projected(self.cell.project(x), x), self.plan.ahead
        self.cell.check_projected_dtype(wx, x)  # a loop would read other memory, here and below
        if wx.shape[x.dim() - 1 :] != (columns := self.plan.step.wx_size,):
            raise ShapeError(
                f"{self.cell._name}: project gives shape {tuple(wx.shape)} for inputs "
                f"{tuple(x.shape)}, expected {columns} columns, as many as for other inputs."
            )
        return wx if ahead is None else ahead.of(wx, self.tensors)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The program's parameters by name: the cell's tensors, and those prepared from them.

        Raises:
            Untraceable: As for the program.
        """
        if self._tensors is None:  # a cached_property takes a lock
            self._tensors = self.plan.preparation.of(self._own or self.own_tensors)
        return self._tensors

    @property
    def own_tensors(self) -> dict[str, Tensor]:
        """The cell's tensors by name."""
        if self._own is None:
            self._own = self.cell.tensors()
        return self._own

    @property
    def arguments(self) -> dict[str, Tensor]:
        """The tensors beside the input that were given: each part of the state by its name."""
        state = zip(self.cell.states, self.given or (), strict=False)
        found = {f"state '{name}'": part for name, part in state}
        if self.lengths is not None:
            found["lengths"] = self.lengths
        if self.resets is not None:
            found["resets"] = self.resets
        return found

    @property
    def plan(self) -> Plan:
        """How the cell is run over time.

        Raises:
            Untraceable: As for the program.
        """
        if self.known_plan is None:
            self.known_plan = plan_of(self.cell, self._own or self.own_tensors)
        return self.known_plan

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that kernels compute in: the inputs', or autocast's."""
        x = self.x
        if autocasts(x) and x.is_floating_point():
            return torch.get_autocast_dtype(x.device.type)
        return x.dtype

    @property
    def state(self) -> State:
        """State before the first step, each (B, H)."""
        if self.given is not None:
            return self.given
        return tuple([self.x.new_zeros(self.x.shape[0], n) for n in self.cell.state_sizes])

    @property
    def start(self) -> State:
        """The state after a reset, each (B, H); empty if there are no resets."""
        return () if self.resets is None else self.cell.checked_start(self.x.shape[0])

    @property
    def valid(self) -> Tensor | None:
        """Which steps are within the lengths, (B, T) boolean; None if all are."""
        if self.lengths is None:
            return None
        steps = torch.arange(self.x.shape[1], device=self.x.device)
        return steps < self.lengths[:, None]

    @property
    def clean_x(self) -> Tensor:
        """Inputs with zeros for padding, so that not even a NaN there can reach a gradient."""
        valid = self.valid
        return self.x if valid is None else self.x.masked_fill(~valid[..., None], 0)


def parted(
    names: Sequence[str], tensors: Sequence[Tensor]
) -> tuple[Tensor, State, dict[str, Tensor]]:
    """Split the differentiable tensors of a request: input, state if given, and parameters."""
    first = len(tensors) - len(names)
    parameters = dict(zip(names, tensors[first:], strict=True))
    return tensors[0], tuple(tensors[1:first]), parameters


def rebuilt(request: Request, names: Sequence[str], tensors: Sequence[Tensor]) -> Request:
    """The request with other tensors."""
    x, given, parameters = parted(names, tensors)
    own = {name: parameters[name] for name in request.cell.tensors()}
    return replace(request, cell=request.cell.bind(own), x=x, given=given or None)


def converted(request: Request, dtype: torch.dtype) -> Request:
    """The request in another dtype; through the conversion, gradients reach what it had."""
    cell = request.cell
    return replace(
        request,
        cell=cell.bind(
            {
                name: tensor.to(dtype) if tensor.is_floating_point() else tensor
                for name, tensor in cell.tensors().items()
            }
        ),
        x=request.x.to(dtype),
        given=request.given and tuple([part.to(dtype) for part in request.given]),
    )


def make_request(
    cell: Cell,
    x: Tensor,
    state: State | None,
    lengths: Tensor | None,
    resets: Tensor | None,
    reverse: bool,
    memory: str = "full",
) -> Request:
    """Check the arguments of ``unroll`` beside the cell, and fill in defaults.

    Raises:
        ConfigError, ShapeError, DtypeError, DeviceError: As for ``unroll``.
    """
    cell = computed(cell, x)
    cell.check_parameters()
    cell.check_input(x, "B", "T", "I")
    if state is not None or not cell.starts_at_zero:
        state = state_before(cell, x, state)
    if lengths is not None:
        lengths = checked_lengths(cell._name, lengths, x)
    if resets is not None:
        resets = checked_resets(cell._name, resets, x, "B", "T")
    if not isinstance(reverse, bool):
        raise DtypeError(f"{cell._name}: reverse is {reverse!r}, expected True or False.")
    if memory not in ("full", "lean"):
        raise ConfigError(f"{cell._name}: memory is {memory!r}, expected 'full' or 'lean'.")
    if not torch.is_grad_enabled():
        memory = "full"  # nothing is kept, and backends that would keep more may run
    cell, obstacle = with_attributes_given(cell)
    return Request(cell, x, state, lengths, resets, reverse, memory, obstacle)


def computed(cell: Cell, x: Tensor) -> Cell:
    """The cell, each of whose weights is computed once, and not wherever it is read."""
    if cell._modules or cell._forward_pre_hooks:  # else no weight is computed
        cell.compute_weights(x)
        return cell.computed()
    return cell


def state_before(cell: Cell, x: Tensor, state: State | None) -> State:
    """The state before the first step, checked; by default the cell's initial state.

    It has the dtype of the input, which under autocast may differ from the parameters'.
    """
    if state is not None:
        return cell.check_state(state, x)
    return tuple([part.to(x.dtype) for part in cell.checked_start(x.shape[0])])


def checked_resets(name: str, resets: Tensor, x: Tensor, *legend: str) -> Tensor:
    """Check resets against the dimensions of x that the legend names, (B, T) or (B,).

    Raises:
        DtypeError, ShapeError, DeviceError: As for ``unroll``.
    """
    sizes = f"({', '.join(legend)}{',' * (len(legend) == 1)})"
    expected = tuple(x.shape[: len(legend)])
    if not isinstance(resets, Tensor) or resets.dtype != torch.bool:
        kind = resets.dtype if isinstance(resets, Tensor) else type(resets).__name__
        raise DtypeError(
            f"{name}: resets are {kind}, expected a boolean tensor {sizes}.\n"
            f"  torch.as_tensor(resets).bool() makes one of numbers 0 and 1."
        )
    if tuple(resets.shape) != expected:
        come = f"{' and '.join(legend)} come{'s' * (len(legend) == 1)}"
        raise ShapeError(
            f"{name}: resets have shape {tuple(resets.shape)}, expected {sizes} = {expected}.\n"
            f"  {come} from x, shape {tuple(x.shape)}."
        )
    if resets.device != x.device:
        raise DeviceError(f"{name}: resets are on {resets.device}, expected {x.device} as x is.")
    return resets
