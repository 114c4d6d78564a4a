"""Modules that can be copied with other tensors or methods in place of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import Self

from seqnets.checks import is_torch_from, name_of
from seqnets.errors import ConfigError


class Bindable(nn.Module):
    """A module that lists its tensors, and can be copied with others in their place.

    Engines use such copies to run an equation over other tensors, options to change its methods.

    Attributes:
        parametrizations: What computes each parametrised tensor, by its name; it exists only if
            ``torch.nn.utils.parametrize`` computes any.
    """

    parametrizations: Mapping[str, parametrize.ParametrizationList]

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by name, with parametrised ones computed.

        Those of submodules follow, prefixed by the submodule's name: "cell.weight_hh".
        """
        return _tensors_of(self)

    def learned(self, name: str) -> Tensor:
        """The tensor that is learned: the parameter itself, or what it is computed from.

        Raises:
            ConfigError: It is computed from several.
        """
        if not parametrize.is_parametrized(self, name):
            found: Tensor = getattr(self, name)
            return found
        computed = self.parametrizations[name]
        if not hasattr(computed, "original"):
            raise ConfigError(
                f"{name_of(self)}: {name} is computed from several tensors, expected one that can "
                f"be drawn.\n"
                f"  Draw parameters first, and let weight_norm or the like compute them then."
            )
        return computed.original

    @property
    def parametrised(self) -> bool:
        """Whether any tensor is computed by ``torch.nn.utils.parametrize``."""
        return _computes_any(self)

    def computed(self) -> Self:
        """The cell, each of whose parametrised tensors is computed once, not at each read."""
        return self.bind(self.tensors()) if self.parametrised else self

    def compute_weights(self, x: Tensor) -> None:
        """Run the forward pre-hooks of ``torch.nn.utils`` (``prune``, ``weight_norm``).

        Calling the cell would run them, but loops over time call only its step.
        """
        for hook in self._forward_pre_hooks.values():
            if type(hook).__module__.startswith("torch.nn.utils"):
                hook(self, (x,))
        for module in self._modules.values():
            if isinstance(module, Bindable):
                module.compute_weights(x)

    def bind(self, parameters: Mapping[str, Tensor]) -> Self:
        """A copy of this cell that reads other tensors in place of its own.

        Args:
            parameters: A tensor for each name in :meth:`tensors`.
        """
        given, nested = _by_module(parameters)
        own = {**dict.fromkeys((*self._parameters, *self._buffers)), **given}
        bound_modules = {name: _bound(self._modules[name], part) for name, part in nested.items()}
        modules = {k: v for k, v in self._modules.items() if k != "parametrizations"}
        bound = self._copy(parametrize.type_before_parametrizations(self), own)
        bound.__dict__["_parameters"], bound.__dict__["_buffers"] = own, {}
        bound.__dict__["_modules"] = {**modules, **bound_modules}
        bound.__dict__["_origin"] = self.origin
        return bound

    def adapted(self, **around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Self:
        """A copy of this cell with some of its methods decorated, for one step.

        Args:
            around: A decorator for each method, by name.

        Example:
            >>> halved = cell.adapted(candidate=lambda f: lambda a: f(a) / 2)
        """
        copy = self._copy(type(self))
        for name, make in around.items():
            copy.__dict__[name] = make(getattr(self, name))
        copy.__dict__["_around"] = (*self.__dict__.get("_around", ()), *around)
        return copy

    def _copy(self, kind: type[Any], without: Iterable[str] = ()) -> Self:
        """A cell of class ``kind`` with the same attributes, except for those in ``without``."""
        copy: Self = object.__new__(kind)
        if _READS_ALL_ATTRIBUTES or not torch.compiler.is_compiling():
            copy.__dict__.update(self.__dict__)
            for name in without:
                copy.__dict__.pop(name, None)
            return copy
        names = self.origin.as_constant(_names_of_attributes).split()
        for name in (*names, *self.__dict__.get("_around", ())):
            if name not in without:
                copy.__dict__[name] = getattr(self, name)
        copy.__dict__["_around"] = self.__dict__.get("_around", ())
        copy.__dict__["_origin"] = self.origin
        return copy

    def as_constant(self, function: Callable[..., Any], *further: Any) -> Any:
        """The result of a function of this cell, which ``torch.compile`` treats as a constant.

        Further arguments are plain values; the result is a number, a string, or a tuple of them.
        """
        return function(self, *further)

    # torch.compiler.assume_constant_result does only this, but imports the whole compiler
    as_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]

    @property
    def origin(self) -> Self:
        """The cell that this one was copied from by :meth:`bind`; else the cell itself."""
        return self.__dict__.get("_origin", self)

    @property
    def _is_parametrised(self) -> bool:
        """Whether the cell itself is parametrised."""
        return _computes(self)

    def _tensor(self, name: str) -> Any:
        """A parameter by name, faster than by ``nn.Module.__getattr__``."""
        found = self._parameters.get(name)
        return getattr(self, name) if found is None else found


_READS_ALL_ATTRIBUTES = is_torch_from(2, 13)
"""Whether ``torch.compile`` can trace a read of a module's whole ``__dict__``."""


def _names_of_attributes(cell: Bindable) -> str:
    return " ".join(cell.__dict__)


def _computes(module: Any) -> bool:
    """Whether a module is parametrised; torch's check is slow for one that is not."""
    return "parametrizations" in module._modules and parametrize.is_parametrized(module)


def _computes_any(module: Any) -> bool:
    """Whether a module is parametrised, or one inside."""
    return _computes(module) or any(
        _computes_any(inside) for inside in module._modules.values() if inside is not None
    )


def _tensors_of(module: Any) -> dict[str, Tensor]:
    """Parameters and buffers by name, of modules inside too, with parametrised ones computed."""
    names = dict.fromkeys(getattr(module, "parameter_shapes", ()))
    if _computes(module):
        names |= dict.fromkeys(module.parametrizations)
    found = {}
    for name, own in (names | module._parameters | module._buffers).items():
        tensor = getattr(module, name) if own is None else own
        if tensor is not None:
            found[name] = tensor
    for child, inside in module._modules.items():
        if child != "parametrizations" and inside is not None:
            found |= {f"{child}.{name}": tensor for name, tensor in _tensors_of(inside).items()}
    return found


def _by_module(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """A module's own tensors, and those of each submodule by their names there."""
    own: dict[str, Tensor] = {}
    nested: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        child, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(child, {})[rest] = tensor
        else:
            own[name] = tensor
    return own, nested


def _bound(module: Any, tensors: Mapping[str, Tensor]) -> Any:
    """A copy of a module that reads other tensors; see :meth:`Bindable.bind`."""
    if isinstance(module, Bindable):
        return module.bind(tensors)
    own, nested = _by_module(tensors)
    copy: Any = object.__new__(parametrize.type_before_parametrizations(module))
    copy.__dict__.update(module.__dict__)
    bound_modules = {name: _bound(module._modules[name], part) for name, part in nested.items()}
    modules = {k: v for k, v in module._modules.items() if k != "parametrizations"}
    parameters = [name for name in (*own, *module._parameters) if name not in module._buffers]
    copy.__dict__.update(
        _parameters={name: own.get(name) for name in parameters},
        _buffers={name: own.get(name) for name in module._buffers},
        _modules={**modules, **bound_modules},
    )
    if isinstance(module, nn.RNNBase):  # it holds its weights in a second list
        copy.__dict__["_flat_weights"] = [
            getattr(copy, name) for name in module._flat_weights_names
        ]
    return copy
