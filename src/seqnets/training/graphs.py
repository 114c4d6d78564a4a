"""Forward and backward passes of training batches as CUDA graphs."""

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

_EAGER_BATCHES = 3
"""Batches of a kind run eagerly before recording: to compile, and to show it is frequent."""

_MAX_GRAPHS = 16
"""Maximum number of recorded kinds; each keeps its own gradients in memory."""


class Replayed(NamedTuple):
    """The result of a replayed batch.

    Attributes:
        loss: As in ``Outcome``.
        total: As in ``Outcome``; its backward pass has run.
        state: The model's state after the batch, valid until the next batch of its kind runs.
    """

    loss: Tensor
    total: Tensor
    state: Any


class BatchGraphs:
    """Forward and backward passes of training batches, recorded once per kind and replayed.

    A kind is everything about a batch but its values: shapes, dtypes, whether state is carried,
    and which parameters are trained. Replays compute exactly what was recorded, random numbers
    included; only the Python code does not run again.

    Args:
        module: The module to train.

    Attributes:
        replays: Number of batches replayed so far.
        refusal: Why batches cannot be recorded; None if they can.
    """

    def __init__(self, module: SequenceModule) -> None:
        self._module = module
        self._seen: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, _Graph] = {}
        self._pool: Any = None
        self.replays = 0
        self.refusal = _refusal(module)

    def run(self, batch: Batch, state: Any) -> Replayed | None:
        """Replay a batch and set its gradients; return None if it must run eagerly.

        Raises:
            ConfigError: The model's training step cannot be recorded.
        """
        if self.refusal is not None:
            return None
        kind = self._kind(batch, state)
        if kind not in self._graphs:
            self._seen[kind] += 1
            if self._seen[kind] <= _EAGER_BATCHES or len(self._graphs) == _MAX_GRAPHS:
                return None
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            try:
                self._graphs[kind] = _record(self._module, self._pool, batch, state)
            except RuntimeError as error:
                reason = str(error).strip().partition("\n")[0]
                raise ConfigError(
                    f"CUDAGraphs: the model's training step cannot be recorded: {reason}\n"
                    f"  Something in it may wait for the GPU. callbacks.graphs=null leaves the "
                    f"callback out."
                ) from error
        self.replays += 1
        return self._graphs[kind].run(batch, state)

    def _kind(self, batch: Batch, state: Any) -> Hashable:
        model = self._module.model
        return (
            tuple((each.shape, each.stride(), each.dtype) for each in _tensors(batch, state)),
            tuple(each is None for each in batch),
            batch.carry,
            tuple(parameter.requires_grad for parameter in model.parameters()),
            tuple(each.training for each in model.modules()),
        )


def _refusal(module: SequenceModule) -> str | None:
    """Why a module's training cannot be recorded; None if it can."""
    trainer = module.trainer
    if module.device.type != "cuda":
        return f"it trains on {module.device}, and graphs are CUDA's"
    if module.rules is not None:
        return "its rule of learning carries influences in Python"
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
        replay: Runs the recording on the current contents of ``inputs``.
        inputs: Static tensors for the batch and the state before it.
        loss: Static tensor that receives the loss.
        total: Static tensor that receives the differentiated total.
        state: Static tensors that receive the state after the batch.
        gradients: Each parameter with the static tensor of its gradient, if it gets one.
    """

    replay: Callable[[], None]
    inputs: list[Tensor]
    loss: Tensor
    total: Tensor
    state: Any
    gradients: list[tuple[nn.Parameter, Tensor | None]]

    def run(self, batch: Batch, state: Any) -> Replayed:
        """Replay the recording on a batch."""
        torch._foreach_copy_(self.inputs, _tensors(batch, state))
        self.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return Replayed(self.loss.clone(), self.total.clone(), self.state)


def _record(module: SequenceModule, pool: Any, batch: Batch, state: Any) -> _Graph:
    """Record the training step of a batch."""
    static = batch.map(Tensor.clone)
    before = map_state(Tensor.clone, state)
    parameters = list(module.model.parameters())

    def train() -> tuple[Any, ...]:
        for parameter in parameters:
            parameter.grad = None  # the recording then writes gradients, and adds to none
        outcome = module.objective(module.model, static, before)
        total = outcome.total
        with torch.autocast(total.device.type, enabled=False):  # as in an eager step
            total.backward()
        found = [parameter.grad for parameter in parameters]
        return outcome.loss.detach(), total.detach(), detach(outcome.state), found

    replay, (loss, total, after, found) = recorded(train, pool)
    pairs = list(zip(parameters, found, strict=True))
    return _Graph(replay, _tensors(static, before), loss, total, after, pairs)


def recorded(function: Callable[[], _T], pool: Any) -> tuple[Callable[[], None], _T]:
    """Record the GPU work of a function.

    Args:
        function: Called once; its GPU work is recorded, not executed.
        pool: Memory pool shared by graphs that never run concurrently.

    Returns:
        A callable that replays the work, and the function's result, whose tensors each replay
        overwrites.
    """
    graph = torch.cuda.CUDAGraph()
    # Other threads, which load batches and write logs, may use the GPU meanwhile.
    with torch.cuda.graph(graph, pool, capture_error_mode="thread_local"):
        results = function()
    return graph.replay, results


def _tensors(batch: Batch, state: Any) -> list[Tensor]:
    found = [each for each in batch if isinstance(each, Tensor)]
    map_state(found.append, state)
    return found
