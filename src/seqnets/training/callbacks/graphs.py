"""One launch for a whole batch."""

from __future__ import annotations

import warnings
from typing import Any

from lightning.pytorch import Callback, Trainer

from seqnets.training.graphs import BatchGraphs


class CUDAGraphs(Callback):
    """Run the forward and backward pass of training batches on a GPU in one launch each.

    A small model keeps a GPU waiting while Python decides what it does next. Here that is decided
    three times for each kind of batch (its shapes, whether it carries a state on), then recorded as
    a CUDA graph, and from then on replayed: same numbers, same random numbers. Batches of other
    kinds than the first sixteen, and the optimizer, run as they always do.

    What Python does in the model's forward pass is not done again: leave this callback out where
    that changes as training goes on. Models with hooks, several processes, added-up gradients and
    float16 with a scaled loss train as usual, and a warning says so; so does, without one, what
    trains on another device.

    Raises:
        ConfigError: From the training loop, at the fourth batch of a kind: the model cannot be
            recorded, since it waits for the GPU.
    """

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Begin to look out for batches of the same kind."""
        pl_module.graphs = graphs = BatchGraphs(pl_module)
        if graphs.refusal is not None and pl_module.device.type == "cuda":
            warnings.warn(f"CUDAGraphs: batches run as usual: {graphs.refusal}.", stacklevel=2)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Let go of the graphs and their memory."""
        pl_module.graphs = None
