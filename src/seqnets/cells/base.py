"""The contract of a cell: one time step, without sequences, devices or kernels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from seqnets.cells.checks import check_names, not_scriptable
from seqnets.cells.constructors import shown_options
from seqnets.cells.given import ChecksGiven, as_tuple, autocasts
from seqnets.cells.metaclass import CellType
from seqnets.cells.redrawing import then_initialized
from seqnets.checks import is_whole
from seqnets.errors import ConfigError, DtypeError, ShapeError, counted
from seqnets.typing import State


class Cell(ChecksGiven, metaclass=CellType):
    """One step of a recurrence: from an input and a state to the next state.

    A step has two parts: :meth:`project` depends on the input alone, so that an engine can compute
    it for all steps in one product; :meth:`step` does the rest. Both are pure and out of place, and
    treat every row of a batch independently.

    Equations apply their nonlinearities through :meth:`gate`, :meth:`candidate` and :meth:`squash`,
    so that options around the cell can replace them or drop the candidate.

    Attributes:
        states: Names of the state's parts. The first is the cell's output.
        clocks: Those parts that count time rather than store memory; options leave them unchanged.
        output_only: Whether no step reads the state's first part.
        projects_within: Whether the input's product runs inside the step.
        input_size: Features of the input, I.
        hidden_size: Units, H.
    """

    states: tuple[str, ...] = ("h",)
    clocks: tuple[str, ...] = ()
    output_only: bool = False
    projects_within: ClassVar[bool] = False
    input_size: int
    hidden_size: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_names(cls, "states", "clocks")
        reset = getattr(cls, "reset_parameters", None)  # of the class, or of a mixin
        if callable(reset) and (followed := then_initialized(reset)) is not reset:
            cls.declare("reset_parameters", followed)
        if cls.forward is not Cell.forward:
            raise ConfigError(
                f"{cls.__name__}: defines forward, expected its equation in update or step.\n"
                f"  Layers call step at every time step; forward takes a single one outside them."
            )

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module) and callable(getattr(type(self), name, None)):
            raise ConfigError(
                f"{self._name}: cannot set {name} to the module {type(value).__name__}, since "
                f"{name} is a method of the class.\n"
                f"  Give the module another name and call it in a method {name} of your class."
            )
        super().__setattr__(name, value)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Width of each part of the state, in the order of ``states``."""
        return (self.hidden_size,) * len(self.states)

    @property
    def output_size(self) -> int:
        """Width of the output, which is the state's first part."""
        return self.state_sizes[0]

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """The part of all steps that depends on the inputs alone: (..., I) to (..., G*H)."""

    @abstractmethod
    def step(self, wx: Tensor, state: State) -> State:
        """The state after one step.

        Args:
            wx: The projected input of this step, (B, G*H).
            state: The state before it, each (B, H).
        """

    def gate(self, a: Tensor) -> Tensor:
        """The nonlinearity of gates: the logistic function."""
        return torch.sigmoid(a)

    def candidate(self, a: Tensor) -> Tensor:
        """The nonlinearity of the value that the cell proposes to write: by default tanh."""
        return torch.tanh(a)

    def squash(self, a: Tensor) -> Tensor:
        """The nonlinearity between memory and output: by default tanh."""
        return torch.tanh(a)

    @property
    def innermost(self) -> Cell:
        """The cell inside all wrappers; this cell if it is not a wrapper."""
        return self

    def initial_state(self, batch_size: int) -> State:
        """The state before the first step where none is given: zeros, each (B, H)."""
        like = self._like
        return tuple([like.new_zeros(batch_size, size) for size in self.state_sizes])

    @property
    def starts_at_zero(self) -> bool:
        """Whether the cell keeps the default initial state of zeros."""
        return getattr(self.initial_state, "__func__", None) is Cell.initial_state

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Take one step.

        Args:
            x: Input, (B, I).
            state: The state before the step, each (B, H); the initial state if omitted.

        Returns:
            The output, (B, H), and the state after the step.

        Raises:
            ShapeError: ``x`` is not (B, I), a part of the state is not (B, H), or the step does
                not return the declared states.
            DtypeError: ``x`` or the state differ in dtype from the parameters.
            DeviceError: ``x`` or the state are on another device than the parameters.
        """
        cell = self.computed()
        cell.check_input(x, "B", "I")
        state = cell.checked_start(x.shape[0]) if state is None else cell.check_state(state, x)
        after = cell.check_after(cell.step(cell.project(x), state), state)
        return after[0], after

    def __prepare_scriptable__(self) -> NoReturn:
        raise not_scriptable(self)  # torch.jit.script asks this of every module

    def check_sizes(self) -> None:
        """Raise unless ``state_sizes`` has one number for each state.

        Raises:
            ConfigError: ``state_sizes`` is anything but a tuple of that many integers from 0.
        """
        sizes = self.state_sizes
        listed = isinstance(sizes, (tuple, list)) and len(sizes) == len(self.states)
        if not listed or not all(is_whole(size) and size >= 0 for size in sizes):
            many, names = counted(len(self.states), "whole number"), ", ".join(self.states)
            raise ConfigError(
                f"{self._name}: state_sizes is {sizes!r}, expected a tuple of {many}: "
                f"the units of {names}."
            )

    def checked_start(self, batch_size: int) -> State:
        """The initial state; raise unless each part is (B, H) and of the parameters' dtype."""
        start = self.initial_state(batch_size)
        if self.starts_at_zero:
            return start
        expected = [(batch_size, size) for size in self.state_sizes]
        self._check_returned("initial_state", start, expected, "B is the argument batch_size.")
        for name, part in zip(self.states, start, strict=True):
            self._check_kind(f"initial state '{name}'", part, self._like, "the parameters have")
        return start

    def check_projected(self, wx: Any, x: Tensor) -> Tensor:
        """The result of ``project``; raise unless it has columns for each step of the inputs."""
        if not isinstance(wx, Tensor):
            raise DtypeError(
                f"{self._name}: project gives {type(wx).__name__}, expected a tensor "
                f"(B, T, columns).\n  torch.cat(…, -1) makes one of several; step takes it apart."
            )
        rows = x.shape[:-1]
        if wx.dim() < x.dim() or wx.shape[: len(rows)] != rows:
            expected = ", ".join(map(str, rows))
            raise ShapeError(
                f"{self._name}: project gives shape {tuple(wx.shape)} for inputs "
                f"{tuple(x.shape)}, expected ({expected}, columns).\n"
                f"  It gets all steps at once, (B, T, I), or a single one, (B, I): columns are "
                f"its last dimension, x[..., 1:]."
            )
        return wx

    def check_projected_dtype(self, wx: Tensor, x: Tensor) -> None:
        """Raise DtypeError unless ``project`` keeps the inputs' dtype, except under autocast."""
        if wx.dtype != x.dtype and x.is_floating_point() and not autocasts(x):
            raise DtypeError(
                f"{self._name}: project gives {wx.dtype} for inputs of {x.dtype}, expected the "
                f"same."
            )

    def check_after(self, after: Any, before: State) -> State:
        """The result of a step; raise unless its parts match those of the state before it."""
        expected = [tuple(part.shape) for part in before]
        source = "A state keeps its shape from step to step."
        self._check_returned("its step", after, expected, source)
        for name, part, old in zip(self.states, after, before, strict=True):
            if part.dtype != old.dtype and not autocasts(part):
                raise DtypeError(
                    f"{self._name}: its step returns state '{name}' as {part.dtype}, expected "
                    f"{old.dtype}.\n"
                    f"  A state keeps its dtype from step to step; convert it with .to(wx.dtype)."
                )
        return after

    def _check_returned(
        self, method: str, state: Any, expected: Sequence[tuple[int, ...]], source: str
    ) -> None:
        """Raise unless a method returned a tuple of tensors with these shapes, one per state."""
        if not isinstance(state, tuple) or len(state) != len(self.states):
            got = f"a tuple of {len(state)}" if isinstance(state, tuple) else type(state).__name__
            raise ShapeError(
                f"{self._name}: {method} returns {got}, expected a tuple of {len(self.states)}: "
                f"{as_tuple(self.states)}.\n"
                f"  It must return the states that the class declares."
            )
        for name, part, shape in zip(self.states, state, expected, strict=True):
            if not isinstance(part, Tensor):
                raise DtypeError(
                    f"{self._name}: {method} returns {type(part).__name__} for state '{name}', "
                    f"expected a tensor."
                )
            if tuple(part.shape) != shape:
                raise ShapeError(
                    f"{self._name}: {method} returns state '{name}' with shape "
                    f"{tuple(part.shape)}, expected (B, H) = {shape}.\n"
                    f"  {source}"
                )

    def extra_repr(self) -> str:
        """The sizes, as torch.nn prints them, and the options that differ from their defaults."""
        shown = shown_options(type(self), self._shown_values())
        return ", ".join([str(self.input_size), str(self.hidden_size), *shown])

    def _shown_values(self) -> dict[str, Any]:
        """Values of the constructor's options: the attributes of their names, among others."""
        return vars(self)

    def _get_name(self) -> str:  # nn.Module shows it in its repr
        return self._name
