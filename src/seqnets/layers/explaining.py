"""Which backends run the recurrent layers of a layer or model, and why not others."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from textwrap import indent
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from seqnets import engine
from seqnets.cells import Cell, GatedCell
from seqnets.cells.checks import wrong_argument
from seqnets.engine import Explanation, native
from seqnets.engine.stack import OneCall, one_call
from seqnets.engine.unroll import unroll
from seqnets.layers.recurrent import Recurrent
from seqnets.layers.stand_ins import names_of_layers, ran_none, replaced_attributes
from seqnets.layers.torch_like import TorchLike
from seqnets.typing import State


class Explanations(UserDict[str, Explanation]):
    """What runs each recurrent layer, by its name; equal ones are shown together."""

    def __repr__(self) -> str:
        names: dict[str, list[str]] = {}
        for name, explanation in self.items():
            names.setdefault(str(explanation), []).append(name)
        return "\n".join(f"{', '.join(of)}:\n{indent(text, '  ')}" for text, of in names.items())


@overload
def explain(layer: Cell | Recurrent, /, *args: Any, **kwargs: Any) -> Explanation: ...


@overload
def explain(layer: nn.Module, /, *args: Any, **kwargs: Any) -> Explanations: ...


@overload
def explain(*, cell: Cell, **kwargs: Any) -> Explanation: ...


def explain(
    layer: nn.Module | None = None, /, *args: Any, **kwargs: Any
) -> Explanation | Explanations:
    """Which backend runs a layer or a cell, and why no other.

    A layer is called once, since what runs depends on what each layer inside is given: lengths,
    packed rows, the mode, autocast. The call gets copies of the buffers, and initialises lazy
    modules. After it, torch's default generators of random numbers, of the CPU and of the GPUs with
    parameters, are as before.

    Args:
        layer: A cell, which may be named ``cell``, a layer, or any module around layers.
        args: What it is called with; for a cell, the arguments of ``unroll``.
        kwargs: The same by name.

    Returns:
        The explanation for a cell, or for ``Recurrent`` that runs its own. Else a dictionary, with
        one for each recurrent layer that is called over a sequence, by its name in the module:
        "layers.0.forward_layer", or for modules with torch.nn's interface that of its weights,
        "l0_reverse". Of several calls of a layer the first is explained, and further ones that
        another backend runs, as "layers.0 (call 2)".

    Raises:
        ConfigError: The argument is not a module, or runs no recurrent layer over a sequence.

    Example:
        >>> print(seqnets.explain(seqnets.LSTM(8, 64, num_layers=2), torch.randn(5, 4, 8)))
        l0, l1:
          native: chosen (all layers in one call of torch's kernels)
          c: could run it, and is slower
          ...
    """
    if layer is None:
        layer = kwargs.pop("cell", None)
    if isinstance(layer, Cell):
        return engine.explain(layer, *args, **kwargs)
    if not isinstance(layer, nn.Module):
        raise wrong_argument("explain", "layer", layer, "a cell or a layer")
    calls = _Calls()
    with _unchanged(layer), replaced_attributes(_places(layer, calls.tell)):
        layer(*args, **kwargs)
    if not calls.told:
        raise ran_none("explain", "the call", layer)
    return calls.told.get("", calls.told)


class _Calls:
    """What runs the calls of recurrent layers, also of copies of a layer, such as RTRL makes."""

    def __init__(self) -> None:
        self.told = Explanations()
        self._backends: dict[str, list[str]] = {}

    def tell(self, name: str, explanation: Explanation) -> None:
        """Note what runs a layer's next call."""
        before = self._backends.setdefault(name, [])
        if explanation.chosen not in before:
            self.told[f"{name} (call {len(before) + 1})" if before else name] = explanation
        before.append(explanation.chosen)


_Tell = Callable[[str, Explanation], None]


def _places(model: nn.Module, tell: _Tell) -> Iterator[tuple[nn.Module, dict[str, Any]]]:
    """The modules that run cells, and the attributes that report what runs them."""
    for name, module in model.named_modules():
        if isinstance(module, Recurrent):
            yield module, {"_unroll": partial(_unroll, partial(tell, name))}
        elif isinstance(module, TorchLike):
            names = names_of_layers(name, module)
            unrolls = [partial(_unroll, partial(tell, each)) for each in names]
            at_once = partial(_one_call, tell, names)
            yield module, {"_unrolls": unrolls, "_one_call": at_once, "_last": None}


def _unroll(
    tell: Callable[[Explanation], None],
    cell: Cell,
    *args: Any,
    backend: str = "auto",
    **kwargs: Any,
) -> tuple[Tensor, State]:
    """The engine's ``unroll``, after a report of what runs it."""
    explanation = engine.explain(cell, *args, **kwargs)
    if backend != "auto":  # which runs or raises
        explanation = replace(explanation, chosen=backend, slower=(), how=f"{backend=}")
    tell(explanation)
    return unroll(cell, *args, backend=backend, **kwargs)


def _one_call(
    tell: _Tell,
    names: list[str],
    cells: list[GatedCell],
    x: Tensor,
    state: State | None,
    *,
    batch_first: bool,
    **options: Any,
) -> OneCall | None:
    """The engine's ``one_call``, with a report of each layer if there is one."""
    call = one_call(cells, x, state, batch_first=batch_first, **options)
    if call is not None:
        B, T = x.shape[:2] if batch_first else x.shape[1::-1]
        how = "all layers in one call of torch's kernels" if len(cells) > 1 else ""
        for name, cell in zip(names, cells, strict=True):
            each = engine.explain(cell, x.new_empty(B, T, cell.input_size))
            others = [other for other in (each.chosen, *each.slower) if other != native.name]
            tell(name, replace(each, chosen=native.name, slower=tuple(others), how=how))
    return call


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Leave buffers and generators of random numbers as they were."""
    own = [
        (module._buffers, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is None or not is_lazy(buffer)
    ]
    copies = {buffer: buffer.clone() for _, _, buffer in own if buffer is not None}
    devices = {p.device for p in model.parameters() if p.is_cuda}
    with torch.random.fork_rng(devices=[*devices]):
        try:
            for buffers, name, buffer in own:
                buffers[name] = buffer if buffer is None else copies[buffer]
            yield
        finally:
            for buffers, name, buffer in own:
                buffers[name] = buffer
