"""Which derivatives of a layer's state by its parameters can be other than zero."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from seqnets.errors import ConfigError
from seqnets.layers.influence import Influence
from seqnets.layers.state import leaves, with_leaves

Gradients = tuple[dict[str, Tensor], list[Tensor]]
"""Of a layer's parameters by name, and of the parts of the state before."""

Pull = Callable[[Sequence[Tensor]], Gradients]


def influence_of(layer: nn.Module) -> Influence:
    """The influence to be kept for a layer: as little as tells all of it.

    Derivatives are looked at where parameters, inputs and states are random: there, only those are
    zero that always are. Parameters that are not trained have no influence.

    Raises:
        ConfigError: The layer's parameters have no values yet.
    """
    if any(p.is_meta for p in layer.parameters()):
        raise ConfigError(
            "influence_of: the layer's parameters are on meta, expected values: it looks at "
            "derivatives.\n  Give it a device first: to_empty(device=...)."
        )
    tried = copy.deepcopy(layer).to("cpu", torch.float64)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return _found(tried)


def _found(layer: nn.Module) -> Influence:
    pull, after = _tried(layer)
    trained = {name: p for name, p in layer.named_parameters() if p.requires_grad}
    learns: list[set[str]] = []
    reads: list[set[int]] = []
    for place in range(len(after)):
        of, by = pull([torch.randn_like(part) * (i == place) for i, part in enumerate(after)])
        learns.append({name for name in trained if of[name].any()})
        reads.append({i for i, part in enumerate(by) if part.any()})
    parts = tuple(sorted(_under_influence(learns, reads) & set().union(*reads)))
    names = tuple(name for name in trained if any(name in learns[p] for p in parts))
    widths = {after[p].shape[1] for p in parts}
    shapes = [trained[name].shape for name in names]
    units = widths.pop() if len(widths) == 1 else 0
    fits = units and all(shape and shape[0] % units == 0 for shape in shapes)
    kept = Influence(names, parts, units)
    return kept if fits and _is_apart(kept, pull, after) else kept._replace(units=0)


def _tried(layer: nn.Module) -> tuple[Pull, list[Tensor]]:
    """A layer's state after random steps and its outputs, and what pulls gradients back from there.

    Half of the rows begin with a state that other steps have left, the others with none.
    """
    theta = {
        name: torch.randn_like(p) / p.shape[1:].numel() ** 0.5
        for name, p in layer.named_parameters()
    }
    x = torch.randn(4, 12, layer.input_size, dtype=torch.float64)  # type: ignore[call-overload]
    _, before = functional_call(layer, theta, (x[:, :4],))

    def run(theta: dict[str, Tensor], start: list[Tensor]) -> list[Tensor]:
        y, later = functional_call(layer, theta, (x[:, 4:], with_leaves(before, start)))
        _, first = functional_call(layer, theta, (x[:, 4:],))
        states = zip(leaves(later), leaves(first), strict=True)
        return [*(torch.cat(pair) for pair in states), y]

    after, pull = vjp(run, theta, leaves(before))
    return pull, after


def _under_influence(learns: list[set[str]], reads: list[set[int]]) -> set[int]:
    """The parts of a state that parameters influence, at once or by way of others."""
    found = {part for part, names in enumerate(learns) if names}
    for _ in reads:
        found |= {part for part, others in enumerate(reads) if others & found}
    return found


def _is_apart(kept: Influence, pull: Pull, after: Sequence[Tensor]) -> bool:
    """Whether no unit depends on another's parameters, or on its past."""
    for chosen in _halves(kept.units):
        masks = [chosen if place in kept.parts else 0 for place in range(len(after))]
        of, by = pull([torch.randn_like(p) * mask for p, mask in zip(after, masks, strict=True)])
        rows = [of[name].movedim(0, -1) for name in kept.names]
        for found in (*rows, *(by[part] for part in kept.parts)):
            if found[..., ~chosen.repeat(found.shape[-1] // kept.units)].any():
                return False
    return True


def _halves(units: int) -> Iterator[Tensor]:
    """Sets of units, (U,) boolean: for any two of them, some set has the one without the other."""
    for bit in range((units - 1).bit_length()):
        side = (torch.arange(units) >> bit) % 2 == 1
        yield side
        yield ~side
