"""The influence of a layer's parameters on its state: the derivative of the state by them.

It is carried forwards from call to call, in place of a graph of earlier calls. What these did with
the parameters reaches the loss only through the state before the present call: the gradient there,
times the influence, is the gradient by way of all earlier calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from seqnets.errors import ConfigError
from seqnets.layers.state import leaves, with_leaves

Numbers = tuple[Tensor, ...]


class Influence(NamedTuple):
    """Which derivatives of a layer's state by its parameters are kept.

    Each is (B, S, ...), for S units of the state; or (B, K, ...), for K of its parts, if each row
    of a parameter influences only the unit that it belongs to, in any part. They have the
    parameter's dtype, whatever autocast makes of the state.

    Attributes:
        names: The parameters with an influence.
        parts: The parts of the state under an influence that later steps read, counted from 0.
        units: Units of each part if a parameter influences one alone, U; 0 if it influences all.
        shown: The parts under an influence that no later step reads, such as an output. That
            influence is not kept: only a row without a step passes such a part on.
    """

    names: tuple[str, ...]
    parts: tuple[int, ...]
    units: int
    shown: tuple[int, ...] = ()

    @property
    def mixes(self) -> bool:
        """Whether parameters influence other units than their own."""
        return bool(self.parts) and not self.units

    def shapes(self, layer: nn.Module, state: Any) -> list[tuple[int, ...]]:
        """The shape of each parameter's influence on a state."""
        found = leaves(state)
        ways = len(self.parts) if self.units else sum(found[p].shape[1] for p in self.parts)
        B = len(found[0])
        return [(B, ways, *layer.get_parameter(name).shape) for name in self.names]

    def attached(self, state: Any, numbers: Numbers, layer: nn.Module) -> Any:
        """A state without a graph, through which gradients reach the layer's parameters."""
        if not self.parts:
            return state
        found, places = leaves(state), (*self.parts, *self.shown)
        given = [*(found[p] for p in places), *map(layer.get_parameter, self.names)]
        for p, part in zip(places, _Attach.apply(self, numbers, *given), strict=True):
            found[p] = part
        return with_leaves(state, found)

    def of_no_rows(self, layer: nn.Module, state: Any) -> Numbers:
        """The influence on a state of no rows, over which ``vmap`` does not run."""
        pairs = zip(map(layer.get_parameter, self.names), self.shapes(layer, state), strict=True)
        return tuple([parameter.new_zeros(shape) for parameter, shape in pairs])

    def after(
        self,
        layer: nn.Module,
        before: Any,
        numbers: Numbers | None,
        x: Tensor,
        lengths: Tensor | None,
        resets: Tensor | None,
    ) -> Numbers:
        """The influence after a call of the layer.

        Args:
            layer: The layer.
            before: The state before the call, each part (B, H); None if it was omitted.
            numbers: The influence before the call; None if there was none.
            x: The call's inputs, (B, T, I).
            lengths: Valid steps of each row, (B,); None if all are.
            resets: Steps before which the state is reset, (B, T); None if there are none.
        """
        if not self.parts:
            return ()
        theta = {name: layer.get_parameter(name).detach() for name in self.names}
        run = partial(self._of_row, layer, theta, before)
        given = [part.detach() for part in leaves(before)], x.detach(), lengths, resets
        sizes = tuple(None if each is None else 0 for each in given)
        with torch.no_grad():
            direct, moved = vmap(run, in_dims=sizes)(*given)
            found = tuple(direct[name] for name in self.names)
            if numbers is None:
                return found
            carried = [moved[p] for p in self.parts]
            with torch.autocast(x.device.type, enabled=False):
                pairs = zip(numbers, found, strict=True)
                return tuple([self._moved(carried, old, new) for old, new in pairs])

    def _of_row(
        self,
        layer: nn.Module,
        theta: Mapping[str, Tensor],
        like: Any,
        start: list[Tensor],
        x: Tensor,
        lengths: Tensor | None,
        resets: Tensor | None,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Derivatives of a single row's state by parameters and by the state before."""

        def final(theta: Mapping[str, Tensor], start: list[Tensor]) -> list[Tensor]:
            state = with_leaves(like, [part[None] for part in start])
            more = [None if each is None else each[None] for each in (lengths, resets)]
            _, after = functional_call(layer, dict(theta), (x[None], state, *more))
            found = leaves(after)
            return [found[p][0] for p in self.parts]

        parts, pull = vjp(final, theta, start)
        (found,) = vmap(lambda probe: (pull(probe),))(self._probes(parts))
        return found

    def _probes(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """What a state's parts are multiplied by, to have all derivatives: (S or K, H) each."""
        sizes = [1 if self.units else len(part) for part in parts]
        probes = torch.eye(sum(sizes), dtype=parts[0].dtype, device=parts[0].device)
        columns = probes.split(sizes, 1)
        # for separate units, the sum over all has each unit's derivatives in its own places
        return [column.expand(-1, len(part)) for column, part in zip(columns, parts, strict=True)]

    def _moved(self, carried: Sequence[Tensor], old: Tensor, new: Tensor) -> Tensor:
        """A parameter's influence: the one before, carried to the state after, plus the new one."""
        if not self.units:
            by = torch.cat(list(carried), -1).to(new.dtype)
            return torch.baddbmm(new.flatten(2), by, old.flatten(2)).view_as(new)
        by = torch.stack(list(carried), 2).to(new.dtype)
        by = by.repeat(1, 1, 1, new.shape[2] // self.units)
        return new + torch.einsum("bklr,blr...->bkr...", by, old)

    def pulled(self, grads: Sequence[Tensor], numbers: Numbers) -> list[Tensor]:
        """Gradients of parameters, from those of the state's parts, (B, H) each."""
        with torch.autocast(grads[0].device.type, enabled=False):
            return [self._summed(grads, old) for old in numbers]

    def _summed(self, grads: Sequence[Tensor], old: Tensor) -> Tensor:
        """A parameter's gradient, over all rows, in the dtype of its influence."""
        if not self.units:
            flat = torch.cat(list(grads), -1).to(old.dtype).flatten()
            return (flat @ old.flatten(0, 1).flatten(1)).view(old.shape[2:])
        by = torch.stack(list(grads), 1).to(old.dtype)
        return torch.einsum("bkr,bkr...->r...", by.repeat(1, 1, old.shape[2] // self.units), old)


class _Attach(torch.autograd.Function):
    """Parts of a state, as functions of parameters whose derivatives are known."""

    @staticmethod
    def forward(ctx: Any, influence: Influence, numbers: Numbers, *given: Tensor) -> Any:
        ctx.influence = influence
        ctx.save_for_backward(*numbers)
        count = len(influence.parts) + len(influence.shown)
        return tuple([part.clone() for part in given[:count]])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise ConfigError(
                "RTRL: its gradient is to be differentiated again (create_graph=True), expected "
                "first derivatives.\n  Influences are carried without their own derivatives."
            )
        count = len(ctx.influence.parts)
        shown = [grad.any() for grad in grads[count:]]
        if shown and torch.stack(shown).any():  # once: a GPU is waited for
            raise ConfigError(
                "RTRL: a loss reads the output in a state of rows with no step in their last call "
                "(length 0), expected one that reads it where it was made.\n"
                "  Later steps do not read that part of the state, so no influence on it is kept; "
                "score the outputs of the call in which a row ends."
            )
        return None, None, *grads, *ctx.influence.pulled(grads[:count], ctx.saved_tensors)
