"""Hoisting of what depends on the parameters alone: run by torch once a call, before the loop.

A masked, antisymmetric or factorised weight is the same at all steps. Any operation of torch may
make it, so it is no node of the graph: ``tracing/preparing.py`` records its operations in a
``Preparation``, and the step reads the result as one more parameter, whose gradient goes back to
the cell's parameters through autograd. ``ahead.py`` hoists what depends on the input alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter

PREPARED = "prepared_"
"""How the names begin by which a step reads what is made of parameters alone."""


@dataclass(frozen=True)
class Operand:
    """A reference to a tensor in a call: a parameter's name, or an index among all results."""

    key: str | int


@dataclass(frozen=True)
class Call:
    """A recorded operation, and the indices of its results."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[int, ...]

    @property
    def reads(self) -> set[str | int]:
        """The keys of its operands."""
        return {part.key for part in tree_iter((self.args, self.kwargs)) if type(part) is Operand}


_Found = dict[Any, Tensor]
"""Tensors by the keys of ``Operand``."""


@dataclass(frozen=True)
class OwnGradient:
    """The recorded backward pass of a custom autograd function whose inputs are parameters.

    Attributes:
        calls: Its operations.
        grad: The key of the incoming gradient.
        reads: The keys of all else that it reads.
        gradients: The keys of the gradients of the function's inputs; None for no gradient.
    """

    calls: tuple[Call, ...]
    grad: int
    reads: tuple[str | int, ...]
    gradients: tuple[str | int | None, ...]

    def __call__(self, value: Tensor, *tensors: Tensor) -> Tensor:
        """The function's output, attached to its inputs with this backward pass.

        Args:
            value: The output.
            tensors: The inputs, then what the backward pass reads.
        """
        made: Tensor = _WithGradient.apply(self, value, *tensors)
        return made


class _WithGradient(torch.autograd.Function):
    """See ``OwnGradient``."""

    @staticmethod
    def forward(ctx: Any, own: OwnGradient, value: Tensor, *tensors: Tensor) -> Tensor:
        ctx.own = own
        ctx.save_for_backward(*tensors[len(own.gradients) :])
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        own = ctx.own
        found = dict(zip(own.reads, ctx.saved_tensors, strict=True)) | {own.grad: grad}
        found = _run(own.calls, found, grad.device)
        gradients = (None if key is None else found[key] for key in own.gradients)
        return None, None, *gradients, *(None for _ in own.reads)


def _run(calls: Iterable[Call], found: _Found, device: torch.device) -> _Found:
    """Run calls, adding their results to ``found``, from which they read."""
    for call in calls:
        args, kwargs = _filled_in(call.args, found), _filled_in(call.kwargs, found)
        if kwargs.get("device") is not None:  # the stand-ins' device
            kwargs["device"] = device
        found.update(zip(call.results, listed(call.func(*args, **kwargs)), strict=True))
    return found


def _filled_in(part: Any, found: _Found) -> Any:
    """A call's arguments, or a part of them; torch's ``tree_map`` takes longer than the call."""
    kind = type(part)
    if kind is Operand:
        return found[part.key]
    if kind is tuple or kind is list:
        return kind([_filled_in(each, found) for each in part])
    if kind is dict:
        return {name: _filled_in(each, found) for name, each in part.items()}
    return part


@dataclass(frozen=True)
class Preparation:
    """Operations on parameters that run before a loop.

    Attributes:
        calls: In execution order.
        made: The results that the loop reads: pairs of a name in the step, and a key.
    """

    calls: tuple[Call, ...] = ()
    made: tuple[tuple[str, str | int], ...] = ()
    _kept: dict[torch.device, _Found] = field(default_factory=dict, repr=False, compare=False)

    @property
    def reads(self) -> set[str]:
        """The names of the parameters that it reads."""
        return {key for key in self._read_with(self.calls) if isinstance(key, str)}

    @property
    def constants(self) -> set[str]:
        """The names of results that depend on no parameter, as ones and zeros."""
        made = {key for call in self._parted[0] for key in call.results}
        return {name for name, key in self.made if key in made}

    def _read_with(self, calls: Iterable[Call]) -> set[str | int]:
        """The keys that the loop or some calls read."""
        return {*dict(self.made).values()}.union(*(call.reads for call in calls))

    def of(self, tensors: dict[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """A loop's parameters by name: a cell's tensors, and the results computed from them.

        Args:
            tensors: The cell's tensors.
            dtype: Their floating-point type, if it is not the one that was traced.
        """
        if not self.made:
            return tensors
        device = next(iter(tensors.values())).device
        _, depending = self._parted
        constants = self._constants_on(device)
        if dtype is not None:
            constants = {
                key: tensor.to(dtype) if tensor.is_floating_point() else tensor
                for key, tensor in constants.items()
            }
        found = _run(depending, {**tensors, **constants}, device)
        return tensors | {name: found[key] for name, key in self.made}

    @cached_property
    def _parted(self) -> tuple[list[Call], list[Call]]:
        """The calls that depend on no parameter, and all others."""
        known: set[str | int] = set()
        constant, depending = [], []
        for call in self.calls:
            if call.results and call.reads <= known:
                known.update(call.results)
                constant.append(call)
            else:
                depending.append(call)
        return constant, depending

    def _constants_on(self, device: torch.device) -> _Found:
        """The constants on a device; cached, unless operations are being captured or watched."""
        constant, depending = self._parted
        captured = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack()
        if captured or watched:
            return _run(constant, {}, device)
        if device not in self._kept:
            with torch.inference_mode(False), torch.no_grad():
                found = _run(constant, {}, device)
            if device.type == "cuda":  # another stream may be the next to read them
                torch.cuda.current_stream(device).synchronize()
            read = found.keys() & self._read_with(depending)
            self._kept[device] = {key: found[key] for key in read}
        return self._kept[device]


def listed(results: Any) -> list[Tensor]:
    """An operation's results as a list; empty for an assertion."""
    return [results] if isinstance(results, Tensor) else list(results or ())
