"""Training batches whose forward and backward pass is one launch: CUDA graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from seqnets.errors import ConfigError
from seqnets.layers import detach, map_state
from seqnets.typing import Batch

if TYPE_CHECKING:
    from seqnets.training.module import SequenceModule

_T = TypeVar("_T")

_USUAL = 3
"""So many batches of a kind run as they always do: they compile, and show that it comes often."""

_MOST = 16
"""Kinds of batches that have a graph of their own, each with gradients of its own in memory."""


class Replayed(NamedTuple):
    """What a batch gives that ran as a graph.

    Attributes:
        loss: As in ``Outcome``.
        total: As in ``Outcome``; it has been differentiated.
        state: The model's state after the batch, until the next one of its kind runs.
    """

    loss: Tensor
    total: Tensor
    state: Any


class BatchGraphs:
    """Forward and backward pass of training batches, recorded once for each kind and replayed.

    A kind is what a batch looks like without its numbers: shapes, dtypes, whether a state is
    carried, and what of the model is trained. What is replayed is what was recorded, number by
    number, random numbers included; only what Python did is not done again.

    Args:
        module: Whose batches.

    Attributes:
        replays: How many batches have run as a graph.
        refusal: Why no batch does any more; None if some may.
    """

    def __init__(self, module: SequenceModule) -> None:
        self._module = module
        self._seen: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, _Graph] = {}
        self._pool: Any = None
        self.replays = 0
        self.refusal = _refusal(module)

    def run(self, batch: Batch, state: Any) -> Replayed | None:
        """What a batch gives, its gradients in place; None if it has to run as usual.

        Args:
            batch: What is learned from.
            state: What is carried into it, or None.

        Raises:
            ConfigError: What the model does cannot be recorded.
        """
        if self.refusal is not None:
            return None
        kind = self._kind(batch, state)
        if kind not in self._graphs:
            self._seen[kind] += 1
            if self._seen[kind] <= _USUAL or len(self._graphs) == _MOST:
                return None
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            try:
                self._graphs[kind] = _record(self._module, self._pool, batch, state)
            except RuntimeError as error:
                told = str(error).strip().partition("\n")[0]
                raise ConfigError(
                    f"CUDAGraphs: the model's training step cannot be recorded: {told}\n"
                    f"  Something in it may wait for the GPU. callbacks.graphs=null leaves the "
                    f"callback out."
                ) from error
        self.replays += 1
        return self._graphs[kind].run(batch, state)

    def _kind(self, batch: Batch, state: Any) -> Hashable:
        model = self._module.model
        return (
            tuple((each.shape, each.stride(), each.dtype) for each in _tensors(batch, state)),
            batch.lengths is None,
            batch.carry,
            tuple(parameter.requires_grad for parameter in model.parameters()),
            tuple(each.training for each in model.modules()),
        )


def _refusal(module: SequenceModule) -> str | None:
    """Why a module's training cannot be recorded; None if it may."""
    trainer = module.trainer
    if module.device.type != "cuda":
        return f"it trains on {module.device}, and graphs are CUDA's"
    if trainer.world_size > 1:
        return "several processes train together"
    if trainer.accumulate_grad_batches > 1:
        return "gradients of several batches are added up"
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        return "the loss is scaled by a number that changes (take trainer.precision=bf16-mixed)"
    for name, each in module.model.named_modules():
        hooks = each._forward_pre_hooks, each._forward_hooks
        if any((*hooks, each._backward_pre_hooks, each._backward_hooks)):
            return f"{name or 'the model'} has hooks, which Python would have to call"
    return None


@dataclass
class _Graph:
    """A recorded batch.

    Attributes:
        replay: Does what was recorded, with the numbers that are in ``given`` by then.
        given: The tensors of the batch and of the state before it, which keep their places.
        loss: Where the loss comes to lie.
        total: Where what is differentiated does.
        state: Where the state after the batch does.
        gradients: Where the gradient of each parameter does, if it gets one.
    """

    replay: Callable[[], None]
    given: list[Tensor]
    loss: Tensor
    total: Tensor
    state: Any
    gradients: list[tuple[nn.Parameter, Tensor | None]]

    def run(self, batch: Batch, state: Any) -> Replayed:
        """What a batch gives."""
        torch._foreach_copy_(self.given, _tensors(batch, state))
        self.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return Replayed(self.loss.clone(), self.total.clone(), self.state)


def _record(module: SequenceModule, pool: Any, batch: Batch, state: Any) -> _Graph:
    """Record a batch."""
    same = batch.map(Tensor.clone)
    before = map_state(Tensor.clone, state)
    parameters = list(module.model.parameters())

    def train() -> tuple[Any, ...]:
        for parameter in parameters:
            parameter.grad = None  # so that what is recorded writes it, and adds to nothing
        outcome = module.objective(module.model, same, before)
        total = outcome.total
        with torch.autocast(total.device.type, enabled=False):  # as where nothing is recorded
            total.backward()
        found = [parameter.grad for parameter in parameters]
        return outcome.loss.detach(), total.detach(), detach(outcome.state), found

    replay, (loss, total, after, found) = recorded(train, pool)
    pairs = list(zip(parameters, found, strict=True))
    return _Graph(replay, _tensors(same, before), loss, total, after, pairs)


def recorded(function: Callable[[], _T], pool: Any) -> tuple[Callable[[], None], _T]:
    """Record what a function gives a GPU to do.

    Args:
        function: Is called once, and nothing of it is done.
        pool: The memory that graphs share which never run at the same time.

    Returns:
        What does it, as often as it is called; and what the function returned, where the results
        come to lie each time.
    """
    graph = torch.cuda.CUDAGraph()
    # Other threads, which bring batches and write logs, may go on meanwhile.
    with torch.cuda.graph(graph, pool, capture_error_mode="thread_local"):
        places = function()
    return graph.replay, places


def _tensors(batch: Batch, state: Any) -> list[Tensor]:
    found = [tensor for tensor in batch[:3] if tensor is not None]
    map_state(found.append, state)
    return found
