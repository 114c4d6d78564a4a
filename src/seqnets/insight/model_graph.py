"""Which layers of a model feed which, as one call shows it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from seqnets.checks import name_of


@dataclass
class Layer:
    """A layer with parameters that was called, and calls no other with any.

    Attributes:
        kind: The name of its class.
        parameters: The number of its parameters.
        shapes: Of the tensors that its first call returned.
        sources: Names of the layers whose outputs it is given, nearest first; none if it is given
            the input alone.
    """

    kind: str
    parameters: int
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def layers_of(model: nn.Module, call: Callable[[], Any]) -> dict[str, Layer]:
    """The innermost layers with parameters that a model calls, by name, in that order.

    Where gradients of a layer's arguments lead to another layer, whatever operations and modules
    without parameters are in between, it is given the other's output.
    """
    watch = _Watch()
    lists = [m for m in model.modules() if isinstance(m, parametrize.ParametrizationList)]
    computing = {part for each in lists for part in each.modules()}  # weights of layers
    floats = [p for p in model.parameters() if p.is_floating_point()]
    frozen = [parameter for parameter in floats if not parameter.requires_grad]
    handles = []
    for name, module in model.named_modules():
        if name and module not in computing and any(True for _ in module.parameters()):
            before, after = watch.hooks(name)
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            call()
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for handle in handles:
            handle.remove()
    return {name: layer for name, layer in watch.layers.items() if name not in watch.outer}


class _Watch:
    """What hooks see of a model's call.

    Attributes:
        layers: The modules that were called, by name.
        outer: Names of those that call others.
    """

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}
        self.outer: set[str] = set()
        self._open: list[str] = []
        self._made_by: dict[Any, str] = {}  # nodes of the graph of gradients

    def hooks(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        """The hooks that run before and after a module's forward pass."""

        def before(module: nn.Module, *given: Any) -> None:
            self.outer.update(self._open)
            self._open.append(name)
            count = sum(parameter.numel() for parameter in module.parameters())
            layer = self.layers.setdefault(name, Layer(name_of(module), count))
            new = (source for source in self._sources(given) if source != name)
            layer.sources = list(dict.fromkeys((*layer.sources, *new)))

        def after(module: nn.Module, given: Any, output: Any) -> None:
            self._open.pop()
            tensors = list(_tensors(output))
            layer = self.layers[name]
            layer.shapes = layer.shapes or [tuple(tensor.shape) for tensor in tensors]
            if name not in self.outer:
                for tensor in tensors:
                    if tensor.grad_fn is not None:
                        self._made_by.setdefault(tensor.grad_fn, name)

        return before, after

    def _sources(self, given: Any) -> Iterator[str]:
        """The layers that are met first on the way of gradients from these tensors."""
        left = deque(tensor.grad_fn for tensor in _tensors(given))
        seen = {None}  # of what has no gradient
        while left:
            node: Any = left.popleft()
            if node in seen:
                continue
            seen.add(node)
            if node in self._made_by:
                yield self._made_by[node]
            else:
                left.extend(other for other, _ in node.next_functions)


def _tensors(given: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and mappings."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, dict):
        yield from _tensors([*given.values()])
    elif isinstance(given, list | tuple):
        for one in given:
            yield from _tensors(one)
