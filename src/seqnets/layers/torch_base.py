"""What modules with torch.nn's interfaces have in common: parameters under torch.nn's names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from numbers import Integral
from operator import is_
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from typing_extensions import TypeVar

from seqnets import initializers
from seqnets.cells import GatedCell
from seqnets.cells.checks import not_scriptable
from seqnets.cells.constructors import arguments_of, check_keywords, shown_options
from seqnets.checks import name_of
from seqnets.errors import ConfigError, SeqnetsError

Device = torch.device | str | None

Hidden = TypeVar("Hidden", default=Any)
"""How a module takes and returns its state: a tensor, or a tuple of as many as it has parts."""

Pair = tuple[Tensor, Tensor]
"""A state of two parts. Type checkers let any tuple of tensors be given for it, since they do not
know the length of ``tuple(part.detach() for part in hx)``."""

_OPTIONS_DOC = "What the cell takes beyond these"
"""How the classes below describe ``options``; the names that each cell takes are appended."""


class TorchBase(nn.Module):
    """A module with its parameters under torch.nn's names, read by the equations of its cells.

    Attributes:
        cell_class: The cell, named in the class statement.
        starts_as_torch: Whether parameters are drawn as torch.nn draws them, not as the cell does.
        hidden_size: Units, H.
    """

    cell_class: ClassVar[type[GatedCell]]
    starts_as_torch: ClassVar[bool] = True
    hidden_size: int
    _cell_factories: dict[str, Callable[..., GatedCell]]
    _bound_cells: dict[str, tuple[GatedCell, list[str]]]

    _fixed: ClassVar[tuple[str, ...]] = ()
    """Options that decide what cells are made, and stay as they were then."""

    def __init__(self) -> None:
        super().__init__()
        if not hasattr(self, "cell_class"):
            base = next(k.__name__ for k in type(self).__mro__ if TorchBase in k.__bases__)
            raise ConfigError(
                f"{self._name}: has no cell, expected one.\n"
                f"  Name it in the class statement: class Mine({base}, cell=MyCell)."
            )
        self._bound_cells = {}
        for name in self._fixed:  # as they were if a module is initialised again
            self.__dict__.pop(name, None)

    def __init_subclass__(cls, cell: type[GatedCell] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cell is not None:
            if not (isinstance(cell, type) and issubclass(cell, GatedCell)):
                came = cell.__name__ if isinstance(cell, type) else repr(cell)
                raise ConfigError(
                    f"{cls.__name__}: cell is {came}, expected a class derived from GatedCell, "
                    f"whose parameters have torch.nn's names.\n"
                    f"  Use Recurrent, Bidirectional or DeepRNN with any other cell."
                )
            cls.cell_class = cell
            cls.__doc__ = _docstring_with_arguments(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if name in self._fixed and name in own and own.get("_cell_factories"):  # they are made
            built = own[name]
            if not isinstance(value, (Integral, str)) or value != built:
                raise ConfigError(
                    f"{self._name}: {name} is set to {value!r}, expected {built!r}, which it was "
                    f"built with.\n"
                    f"  Build another module, and load the weights into it."
                )
        super().__setattr__(name, value)

    def _check_names(self, options: Iterable[str]) -> None:
        """Raise TypeError, as Python does, for an option that neither module nor cell takes."""
        known = {*arguments_of(type(self)), *arguments_of(self.cell_class)}
        check_keywords(self._name, known, options)

    def reset_parameters(self) -> None:
        """Draw all parameters uniformly in [-1/sqrt(H), 1/sqrt(H)], as torch.nn does.

        Modules generated for cells without a counterpart in torch.nn start as the cell does.
        """
        if self.starts_as_torch:
            with initializers.whole(self):
                initializers.torch_uniform_(self, self.hidden_size)
            return
        # in the digits of float64 if it has them; half precision lacks what some cells draw by
        dtype = torch.promote_types(next(self.parameters()).dtype, torch.get_default_dtype())
        with initializers.whole(self):
            for suffix, make in self._cell_factories.items():
                made = make(dtype=dtype)
                for name, drawn in (*made.named_parameters(), *made.named_buffers()):
                    getattr(self, name + suffix).data.copy_(drawn.detach())

    def _declare(
        self,
        make: Callable[..., GatedCell],
        suffix: str,
        device: Device,
        dtype: torch.dtype | None,
    ) -> GatedCell:
        """Register a cell's parameters and buffers here; return the cell with meta tensors."""
        try:
            equation = make(device="meta")
        except SeqnetsError as error:
            self._say_as_own(error)
            raise
        inside = [name for name, _ in equation.named_children()]
        if inside:
            raise ConfigError(
                f"{self._name}: {self.cell_class.__name__} has submodules or computed weights: "
                f"{', '.join(inside)}, expected plain parameters.\n"
                f"  torch.nn has no names for these.\n"
                f"  Use Recurrent, Bidirectional or DeepRNN with the cell itself."
            )
        for name, like in equation.named_parameters():
            parameter = nn.Parameter(torch.empty(like.shape, device=device, dtype=dtype))
            self.register_parameter(name + suffix, parameter)
        if equation._buffers:
            real = make(device=device, dtype=dtype)  # buffers on "meta" hold no values
            for name, buffer in real.named_buffers():
                persistent = name not in real._non_persistent_buffers_set
                self.register_buffer(name + suffix, buffer, persistent=persistent)
        self._cell_factories[suffix] = make
        return equation

    def _bound(self, equation: GatedCell, suffix: str) -> GatedCell:
        """The cell with this module's parameters; cached until one of them is replaced."""
        if torch.compiler.is_compiling():
            bound = self._bind(equation, suffix)
        else:
            bound, names = self._bound_cells.get(suffix, (equation, []))
            mine = map(self._parameters.get, names)
            if not (names and all(map(is_, mine, bound._parameters.values()))):
                bound = self._bind(equation, suffix)
                if all(type(tensor) is nn.Parameter for tensor in bound.tensors().values()):
                    names = [name + suffix for name in bound._parameters]
                    self._bound_cells[suffix] = bound, names
        bound.__dict__["training"] = self.training  # not a submodule, so train() does not reach it
        return bound

    def _bind(self, equation: GatedCell, suffix: str) -> GatedCell:
        own = (*equation._parameters.items(), *equation._buffers.items())
        names = [name for name, tensor in own if tensor is not None]
        return equation.bind({name: getattr(self, name + suffix) for name in names})

    def _say_as_own(self, error: SeqnetsError) -> None:
        """Make an error of the cell begin with the module's name, which is what users wrote."""
        whose, colon, what = str(error).partition(": ")
        if whose == self.cell_class.__name__:
            error.args = (f"{self._name}{colon}{what}",)

    def _shown_with(self, equation: GatedCell) -> list[str]:
        """The options of a cell that differ from their defaults, but for the module's own."""
        own = arguments_of(type(self))
        shown = shown_options(type(equation), equation._shown_values())
        return [option for option in shown if option.partition("=")[0] not in own]

    def __prepare_scriptable__(self) -> NoReturn:
        raise not_scriptable(self)  # torch.jit.script asks this of every module

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bound_cells": {}}

    @property
    def _name(self) -> str:
        return name_of(self)

    def _get_name(self) -> str:  # nn.Module shows it in its repr
        return self._name


def leaf_call(module: nn.Module, input: torch.fx.Proxy, *further: Any) -> Any:
    """Record a call of the module as one node, as ``torch.fx`` does for torch.nn's modules."""
    tracer: Any = input.tracer
    return tracer.create_proxy("call_module", tracer.path_of_module(module), (input, *further), {})


def _docstring_with_arguments(cls: type[TorchBase]) -> str:
    """The class's docstring, completed by its base's arguments unless it has its own."""
    cell = cls.cell_class
    default = f"{cell.__name__} with torch.nn's interface."
    own = inspect.cleandoc(cls.__dict__.get("__doc__") or default)
    _, found, arguments = inspect.cleandoc(cls.__base__.__doc__ or "").partition("\n\nArgs:")
    if "Args:" in own or not found:
        return own
    beyond = ", ".join(sorted(arguments_of(cell) - arguments_of(cls))) or "nothing"
    return f"{own}{found}{arguments.replace(_OPTIONS_DOC, f'{_OPTIONS_DOC}: {beyond}')}"
