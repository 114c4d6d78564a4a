"""The contract: what a cell is, and nothing about sequences, devices or kernels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import Self

from seqnets import initializers
from seqnets.cells.checks import check_size
from seqnets.errors import ConfigError, DeviceError, DtypeError, ShapeError, counted
from seqnets.typing import State


class Cell(nn.Module, ABC):
    """One step of a recurrence: from an input and a state to the next state.

    A step has two parts, so that engines can treat them differently: :meth:`project` does what
    depends on the input alone (for all steps in one product), :meth:`step` does the rest. Both
    are pure and out of place, and treat every row of a batch on its own.

    An equation that squashes by :meth:`gate`, :meth:`candidate` and :meth:`squash` lets options
    around the cell put other functions there, or drop what the cell would write.

    Attributes:
        states: Names of the state's parts. The first is the cell's output.
        clocks: Those of them that count time, and are no memory: options leave them as they are.
        output_only: Whether the state's first part is the output and no more: no step reads it.
        input_size: Features of the input, I.
        hidden_size: Units, H.
    """

    states: tuple[str, ...] = ("h",)
    clocks: tuple[str, ...] = ()
    output_only: bool = False
    input_size: int
    hidden_size: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for declared in ("states", "clocks", "gates", "inputs", "recurrent", "keeping", "per_unit"):
            names = cls.__dict__.get(declared)
            if isinstance(names, str):
                raise ConfigError(
                    f"{cls.__name__}: {declared} is {names!r}, expected a tuple of names.\n"
                    f"  Write {declared} = ({names!r},) in the class; the comma makes it a tuple."
                )

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """Width of each part of the state, in the order of ``states``."""
        return (self.hidden_size,) * len(self.states)

    @property
    def output_size(self) -> int:
        """Width of the output: that of the state's first part."""
        return self.state_sizes[0]

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """What the steps need of the inputs: (..., I) to (..., G*H), for any leading shape."""

    @abstractmethod
    def step(self, wx: Tensor, state: State) -> State:
        """The state after one step.

        Args:
            wx: The projected input of this step, (B, G*H).
            state: The state before it, each (B, H).
        """

    def gate(self, a: Tensor) -> Tensor:
        """What opens and closes gates: the logistic function."""
        return torch.sigmoid(a)

    def candidate(self, a: Tensor) -> Tensor:
        """What the cell proposes to write: by default tanh."""
        return torch.tanh(a)

    def squash(self, a: Tensor) -> Tensor:
        """How a memory is shown: by default tanh."""
        return torch.tanh(a)

    @property
    def innermost(self) -> Cell:
        """The cell inside all wrappers: this one, if it is none."""
        return self

    @property
    def draws(self) -> bool:
        """Whether :meth:`project` draws random numbers now."""
        return False

    def initial_state(self, batch_size: int) -> State:
        """The state before the first step where none is given: zeros, each (B, H)."""
        like = self._like
        return tuple([like.new_zeros(batch_size, size) for size in self.state_sizes])

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Take one step.

        Args:
            x: Input, (B, I).
            state: The state before the step, each (B, H); the initial state if omitted.

        Returns:
            The output, (B, H), and the state after the step.

        Raises:
            ShapeError: ``x`` is not (B, I), a part of the state not (B, H), or the step gives
                something else than the state's parts.
            DtypeError: ``x`` or the state differ in dtype from the parameters.
            DeviceError: ``x`` or the state lie on another device than the parameters.
        """
        self.check_input(x, "B", "I")
        state = self.initial_state(x.shape[0]) if state is None else self.check_state(state, x)
        after = self.check_after(self.step(self.project(x), state), state)
        return after[0], after

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by name, as the equation reads them: parametrised ones computed.

        Those of a cell or another module inside this one follow, with its name before theirs:
        "cell.weight_hh".
        """
        names = dict.fromkeys(getattr(self, "parameter_shapes", ()))
        if self._is_parametrised:
            names |= dict.fromkeys(self.parametrizations)  # type: ignore[arg-type]
        names |= dict.fromkeys((*self._parameters, *self._buffers))
        own = ((name, self._tensor(name)) for name in names)
        found = {name: tensor for name, tensor in own if tensor is not None}
        for child, module in self._modules.items():
            if child != "parametrizations" and module is not None:
                inside = module.tensors() if isinstance(module, Cell) else _tensors_of(module)
                found |= {f"{child}.{name}": tensor for name, tensor in inside.items()}
        return found

    def learned(self, name: str) -> Tensor:
        """The numbers that are learned for a parameter: itself, or what it is computed from."""
        if parametrize.is_parametrized(self, name):
            return self.parametrizations[name].original  # type: ignore[index,union-attr]
        found: Tensor = getattr(self, name)
        return found

    @property
    def parametrised(self) -> bool:
        """Whether some of the tensors are computed, by ``torch.nn.utils.parametrize``."""
        return self._is_parametrised or any(
            isinstance(cell, Cell) and cell.parametrised for cell in self._modules.values()
        )

    def bind(self, parameters: Mapping[str, Tensor]) -> Self:
        """This cell's equation with other tensors in place of its own.

        Args:
            parameters: A tensor for each name in :meth:`tensors`.
        """
        given, inside = _by_module(parameters)
        own = {**dict.fromkeys((*self._parameters, *self._buffers)), **given}
        within = {name: _bound(self._modules[name], part) for name, part in inside.items()}
        bound = self._copy(parametrize.type_before_parametrizations(self))
        for name in own:
            bound.__dict__.pop(name, None)
        modules = {k: v for k, v in self._modules.items() if k != "parametrizations"}
        bound.__dict__.update(_parameters=own, _buffers={}, _modules={**modules, **within})
        bound.__dict__["_origin"] = self.origin
        return bound

    def adapted(self, **around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Self:
        """This cell's equation with something around some of its methods, for one step.

        Args:
            around: By a method's name, what takes it and gives what is to be called instead.

        Example:
            >>> halved = cell.adapted(candidate=lambda f: lambda a: f(a) / 2)
        """
        copy = self._copy(type(self))
        for name, make in around.items():
            copy.__dict__[name] = make(getattr(self, name))
        return copy

    def _copy(self, kind: type[Any]) -> Self:
        """A cell of a class with the same attributes."""
        copy: Self = object.__new__(kind)
        copy.__dict__.update(self.__dict__)
        return copy

    @property
    def origin(self) -> Cell:
        """The cell whose equation this is: another one if this was made by :meth:`bind`."""
        return self.__dict__.get("_origin", self)

    def check_parameters(self) -> None:
        """Raise if somebody has given a parameter a shape, dtype or device it cannot have.

        Raises:
            DtypeError: A parameter or buffer of real numbers has another dtype than the others.
            DeviceError: One lies on another device.
        """
        like = self._like
        device, dtype = like.device, like.dtype
        for tensors in (self._parameters, self._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                mixed = tensor.dtype is not dtype and tensor.is_floating_point()
                if mixed or tensor.device != device:
                    self._check_kind(name, tensor, like, "the cell's other parameters have")

    def check_input(self, x: Tensor, *legend: str) -> None:
        """Raise unless ``x`` has the legend's rank, I features, and the parameters' type."""
        if not isinstance(x, Tensor):
            raise DtypeError(
                f"{self._name}: input is {type(x).__name__}, expected a tensor "
                f"({', '.join(legend)})."
            )
        if x.dim() != len(legend) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{self._name}: input has shape {tuple(x.shape)}, expected ({', '.join(legend)}) "
                f"with I = {self.input_size}.\n"
                f"  I is the input_size this cell was built with."
            )
        self._check_kind("input", x, self._like, "the parameters have")

    def check_state(self, state: State, x: Tensor) -> State:
        """The state as a tuple; raise unless each part is (B, H), B being that of ``x``."""
        if isinstance(state, Tensor) or not isinstance(state, Sequence):
            raise ShapeError(
                f"{self._name}: state is {type(state).__name__}, expected a tuple of "
                f"{len(self.states)}: ({', '.join(self.states)}{',' * (len(self.states) == 1)})."
            )
        if len(state) != len(self.states):
            raise ShapeError(
                f"{self._name}: state has {counted(len(state), 'part')}, expected "
                f"{len(self.states)}: {', '.join(self.states)}."
            )
        for name, part, size in zip(self.states, state, self.state_sizes, strict=True):
            if not isinstance(part, Tensor):
                raise DtypeError(
                    f"{self._name}: state '{name}' is {type(part).__name__}, expected a tensor."
                )
            if tuple(part.shape) != (x.shape[0], size):
                raise ShapeError(
                    f"{self._name}: state '{name}' has shape {tuple(part.shape)}, "
                    f"expected (B, H) = {(x.shape[0], size)}.\n"
                    f"  B = {x.shape[0]} comes from x, shape {tuple(x.shape)}.\n"
                    f"  Pass state=None at the start of a batch, or a batch of {len(part)}."
                )
            self._check_kind(f"state '{name}'", part, x, "the input has")
        return tuple(state)

    def check_after(self, after: Any, before: State) -> State:
        """What a step gave; raise unless it is a tuple of parts shaped as those before the step."""
        if not isinstance(after, tuple) or len(after) != len(before):
            came = f"a tuple of {len(after)}" if isinstance(after, tuple) else type(after).__name__
            raise ShapeError(
                f"{self._name}: its step gives {came}, expected a tuple of {len(before)}: "
                f"({', '.join(self.states)}{',' * (len(before) == 1)}).\n"
                f"  The states that the class declares are what update or step has to return."
            )
        for name, part, old in zip(self.states, after, before, strict=True):
            if not isinstance(part, Tensor):
                raise DtypeError(
                    f"{self._name}: its step gives {type(part).__name__} for state '{name}', "
                    f"expected a tensor."
                )
            if part.shape != old.shape:
                raise ShapeError(
                    f"{self._name}: its step gives state '{name}' the shape {tuple(part.shape)}, "
                    f"expected (B, H) = {tuple(old.shape)} as before the step."
                )
        return after

    def extra_repr(self) -> str:
        """The sizes, as torch.nn prints them."""
        return f"{self.input_size}, {self.hidden_size}"

    @property
    def _is_parametrised(self) -> bool:
        """Without its cells; torch's own function takes long to find that nothing is."""
        return "parametrizations" in self._modules and parametrize.is_parametrized(self)

    @property
    def _name(self) -> str:
        return parametrize.type_before_parametrizations(self).__name__

    @property
    def _like(self) -> Tensor:
        return next(self.parameters())

    def _tensor(self, name: str) -> Any:
        """The attribute of a parameter's name; torch looks everywhere else before it finds one."""
        found = self._parameters.get(name)
        return getattr(self, name) if found is None else found

    def _check_kind(self, what: str, tensor: Tensor, like: Tensor, source: str) -> None:
        if tensor.device != like.device:
            raise DeviceError(
                f"{self._name}: {what} is on {tensor.device}, expected {like.device}.\n"
                f"  {like.device} is the device {source}.\n"
                f"  Move it there with .to({str(like.device)!r})."
            )
        if tensor.dtype != like.dtype and not autocasts(tensor):
            raise DtypeError(
                f"{self._name}: {what} is {tensor.dtype}, expected {like.dtype}.\n"
                f"  {like.dtype} is the dtype {source}.\n"
                f"  Convert it with .to({like.dtype})."
            )


def autocasts(x: Tensor) -> bool:
    """Whether autocast is on where a tensor lies; it knows nothing of "meta"."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a module that is no cell, by name."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _by_module(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """A module's own tensors, and those of each module inside it by their names there."""
    own: dict[str, Tensor] = {}
    inside: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        child, dot, rest = name.partition(".")
        if dot:
            inside.setdefault(child, {})[rest] = tensor
        else:
            own[name] = tensor
    return own, inside


def _bound(module: Any, tensors: Mapping[str, Tensor]) -> Any:
    """A module with other tensors in place of its own; see :meth:`Cell.bind`."""
    if isinstance(module, Cell):
        return module.bind(tensors)
    own, inside = _by_module(tensors)
    copy: Any = object.__new__(type(module))
    copy.__dict__.update(module.__dict__)
    within = {name: _bound(module._modules[name], part) for name, part in inside.items()}
    copy.__dict__.update(
        _parameters={name: own.get(name) for name in module._parameters},
        _buffers={name: own.get(name) for name in module._buffers},
        _modules={**module._modules, **within},
    )
    if isinstance(module, nn.RNNBase):  # it keeps its weights a second time
        copy.__dict__["_flat_weights"] = [
            getattr(copy, name) for name in module._flat_weights_names
        ]
    return copy


class GatedCell(Cell):
    """A cell made of gates: an affine map of input and output each, and an equation between.

    A subclass declares its ``gates`` and writes :meth:`update`, or :meth:`step` if its step has
    more than one product. Everything else follows from these.

    Attributes:
        gates: Names of the gates, in the order of their rows in the weights (torch.nn's order).
        inputs: Those with a product by the input; all if not said.
        recurrent: Those with a product by the output; all if not said. Without any there is no
            ``weight_hh``.
        keeping: Gates that keep the memory where they are open; "-i", where gate i is shut.
        square: Whether the input itself stands in the equation, so that I must be H.
        per_unit: Names of further parameters with one number a unit, each (H,).
        weight_ih: One block of rows for each of ``inputs``, (G*H, I).
        weight_hh: One for each of ``recurrent``, (G*H, output size).
        bias_ih: (G*H,), or None.
        bias_hh: (G*H,), or None.
        parameter_shapes: The shape of each parameter that is there.

    Args:
        input_size: Features of the input, I.
        hidden_size: Units, H.
        bias: Whether the affine maps have biases.
        device: Where the parameters live.
        dtype: Their floating-point type.
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
    _recurrent_gates: ClassVar[type[Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "gates" in cls.__dict__:
            cls.inputs = cls.__dict__.get("inputs", cls.gates)
            cls.recurrent = cls.__dict__.get("recurrent", cls.gates)
        if "inputs" in cls.__dict__:
            cls._input_gates = namedtuple("InputGates", cls.inputs)  # type: ignore[misc]
        if "recurrent" in cls.__dict__:
            cls._recurrent_gates = namedtuple("RecurrentGates", cls.recurrent)  # type: ignore[misc]

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
                '  Write gates = ("f", "n") in the class, say: update reads wx.f and uh.f.'
            )
        self.input_size = check_size(self, "input_size", input_size)
        self.hidden_size = check_size(self, "hidden_size", hidden_size)
        if self.square and input_size != hidden_size:
            raise ConfigError(
                f"{self._name}: input_size is {input_size}, expected hidden_size = {hidden_size}.\n"
                f"  The input itself stands in its equation; put a linear layer before it."
            )

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
        self.parameter_shapes = {name: p.shape for name, p in self.named_parameters()}
        self.reset_parameters()

    def block_shape(self, features: int) -> tuple[int, ...]:
        """One gate's rows of the weight by which so many features enter."""
        return self.hidden_size, features

    def add_parameters(self, parameter: Any) -> None:
        """Register what a subclass has beyond gates; ``parameter(*shape)`` makes an empty one."""

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the parameters anew: Xavier for inputs, orthogonal for recurrence, else zero."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        initializers.xavier_(self.learned("weight_ih"), len(self.inputs))
        if self.recurrent:
            initializers.orthogonal_(self.learned("weight_hh"), len(self.recurrent))

    def update(self, wx: Any, uh: Any, state: State) -> State:
        """The equation between the products: pointwise, tensors are (B, H).

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
        """What a weight of some gates and their bias make of features: (..., I) to (..., G*H)."""
        return F.linear(x, weight, bias)

    def recur(self, h: Tensor, *gates: str) -> Any:
        """``U h + d`` by gate: (B, H) each.

        Args:
            h: What the recurrent weights multiply, (B, output size).
            gates: Only these, neighbours in ``recurrent``; all of them if none is named.

        Returns:
            A named tuple of all gates, or a tuple of those named, in their order.
        """
        if not self.recurrent:
            return self._recurrent_gates()
        weight, bias = self.weight_hh, self.bias_hh
        if gates:
            first = self.recurrent.index(gates[0])
            if self.recurrent[first : first + len(gates)] != gates:
                raise ConfigError(
                    f"{self._name}: recur got gates {gates}, expected neighbours in "
                    f"{self.recurrent}."
                )
            size = len(weight) // len(self.recurrent)
            rows = slice(first * size, (first + len(gates)) * size)
            weight, bias = weight[rows], None if bias is None else bias[rows]
        products = self.product(h, weight, bias).chunk(len(gates or self.recurrent), -1)
        return products if gates else self._recurrent_gates(*products)

    def split(self, tensor: Tensor) -> Any:
        """Name the gates of a tensor (..., G*H): ``split(wx).i`` is (..., H). Views, no copies."""
        return self._input_gates(*tensor.chunk(len(self.inputs), -1))

    def step(self, wx: Tensor, state: State) -> State:
        """One product, or none without recurrent gates, then :meth:`update`."""
        return self.update(self.split(wx), self.recur(state[0]), state)

    def check_parameters(self) -> None:
        """Raise if somebody has given a parameter a shape, dtype or device it cannot have."""
        for name, shape in self.parameter_shapes.items():
            tensor = self._tensor(name)
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
        return super()._like if weight is None else weight

    def extra_repr(self) -> str:
        """The sizes, and the bias where there is none, as torch.nn prints them."""
        return super().extra_repr() + ("" if self.bias_ih is not None else ", bias=False")
