"""Which derivatives of a layer's state by its parameters can be other than zero.

Zeros at some numbers prove nothing: a spike's derivative is zero far from the threshold, and so is
that of a default where no value is missing. What counts is whether a graph leads from one to the
other, and for single units, whether a gradient of NaN arrives: NaN times 0 is NaN.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from seqnets.engine.modes import anomaly_mode
from seqnets.errors import ConfigError
from seqnets.layers.influence import Influence
from seqnets.layers.state import leaves, with_leaves

Gradients = tuple[dict[str, Tensor], dict[int, Tensor]]
"""Of a layer's parameters by name, and of the parts of the state before by number."""


class _Tried(NamedTuple):
    """Some steps of a layer, with their graph.

    Attributes:
        theta: The trained parameters by name.
        before: The parts of the state before the steps.
        after: Those after them, and the outputs.
    """

    theta: dict[str, Tensor]
    before: list[Tensor]
    after: list[Tensor]

    def pulled(self, parts: Sequence[Tensor], grads: Sequence[Tensor]) -> Gradients:
        """The gradients that a graph leads to, from those of some parts after the steps."""
        given = [*self.theta.values(), *self.before]
        if not any(part.requires_grad for part in parts):
            return {}, {}
        found = torch.autograd.grad(parts, given, grads, retain_graph=True, allow_unused=True)
        split = len(self.theta)
        of, by = zip(self.theta, found[:split], strict=True), enumerate(found[split:])
        return (
            {name: grad for name, grad in of if grad is not None},
            {part: grad for part, grad in by if grad is not None},
        )


def influence_of(layer: nn.Module) -> Influence:
    """The influence to keep for a layer: as little as certainly suffices.

    A parameter has an influence on a part of the state, and a part on a later one, if a graph leads
    there, whatever the numbers. Parameters that are not trained have no influence. Units are
    apart if a gradient of NaN at some of them arrives at none of the others: nothing stops it but
    what chooses a side (``torch.where``, a ReLU), so that several random steps are tried. They are
    the same ones whatever the seed.

    Raises:
        ConfigError: The layer's parameters have no values yet.
    """
    if any(p.is_meta for p in layer.parameters()):
        raise ConfigError(
            "influence_of: the layer's parameters are on meta, expected values: it looks at "
            "derivatives.\n  Give it a device first: to_empty(device=...)."
        )
    tried = _copied(layer).to("cpu", torch.float64)
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), anomaly_mode.blind():
        torch.default_generator.manual_seed(0)
        return _found(_tried(tried))


def _copied(layer: nn.Module) -> nn.Module:
    """A copy of a layer, also of one with weights that hooks make of parameters before each call.

    ``torch.nn.utils.prune`` and ``weight_norm`` leave these with the graph of the last call, with
    which torch copies no tensor.
    """
    held = [each for module in layer.modules() for each in vars(module).values()]
    made = [each for each in held if isinstance(each, Tensor) and not each.is_leaf]
    return copy.deepcopy(layer, {id(each): each.detach() for each in made})


def _found(tried: _Tried) -> Influence:
    learns: list[set[str]] = []
    reads: list[set[int]] = []
    for part in tried.after:
        of, by = tried.pulled([part], [torch.ones_like(part)])
        learns.append(set(of))
        reads.append(set(by))
    under, read = _under_influence(learns, reads), set().union(*reads)
    parts = tuple(sorted(under & read))
    shown = tuple(p for p in range(len(tried.before)) if p in under - read)
    names = tuple(name for name in tried.theta if any(name in learns[p] for p in parts))
    widths = {tried.after[p].shape[1] for p in parts}
    shapes = [tried.theta[name].shape for name in names]
    units = widths.pop() if len(widths) == 1 else 0
    fits = units and all(shape and shape[0] % units == 0 for shape in shapes)
    kept = Influence(names, parts, units, shown)
    return kept if fits and _is_apart(kept, tried) else kept._replace(units=0)


def _tried(layer: nn.Module) -> _Tried:
    """Random steps of a layer with random parameters.

    Half of the rows begin with a state that other steps have left, the others with none.
    """
    made = {
        name: torch.randn_like(p).div_(p.shape[1:].numel() ** 0.5).requires_grad_(p.requires_grad)
        for name, p in layer.named_parameters()
    }
    x = torch.randn(4, 12, layer.input_size, dtype=torch.float64)  # type: ignore[call-overload]
    _, state = functional_call(layer, made, (x[:, :4],))
    before = [part.detach().requires_grad_() for part in leaves(state)]

    def of_row(x: Tensor, start: list[Tensor]) -> list[Tensor]:
        given = with_leaves(state, [part[None] for part in start])
        y, later = functional_call(layer, made, (x[None], given))
        _, first = functional_call(layer, made, (x[None],))
        states = zip(leaves(later), leaves(first), strict=True)
        return [*(torch.cat(pair) for pair in states), y[0]]

    # a transform, under which layers take torch's own operations: their graph has what is read
    found = vmap(of_row, randomness="different")(x[:, 4:], before)
    theta = {name: p for name, p in made.items() if p.requires_grad}
    return _Tried(theta, before, [part.flatten(0, 1) for part in found])


def _under_influence(learns: list[set[str]], reads: list[set[int]]) -> set[int]:
    """The parts of a state that parameters influence, at once or by way of others."""
    found = {part for part, names in enumerate(learns) if names}
    for _ in reads:
        found |= {part for part, others in enumerate(reads) if others & found}
    return found


def _is_apart(kept: Influence, tried: _Tried) -> bool:
    """Whether no unit depends on another's parameters, or on its past."""
    parts = [tried.after[p] for p in kept.parts]
    for chosen in _halves(kept.units):
        probe = torch.where(chosen, torch.nan, 0.0).double()
        of, by = tried.pulled(parts, [probe.expand_as(part) for part in parts])
        rows = [of[name].movedim(0, -1) for name in kept.names]
        for found in (*rows, *(by[p] for p in kept.parts if p in by)):
            if found[..., ~chosen.repeat(found.shape[-1] // kept.units)].isnan().any():
                return False
    return True


def _halves(units: int) -> Iterator[Tensor]:
    """Sets of units, (U,) boolean: for any two of them, some set has the one without the other."""
    for bit in range((units - 1).bit_length()):
        side = (torch.arange(units) >> bit) % 2 == 1
        yield side
        yield ~side
