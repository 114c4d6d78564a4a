"""Training batches as CUDA graphs."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from seqnets.training.callbacks.base import SequenceCallback
from seqnets.training.graphs import BatchGraphs
from seqnets.warn import warn


class CUDAGraphs(SequenceCallback):
    """Run the forward and backward pass of training batches on a GPU in one launch each.

    With a small model the GPU waits for Python between kernels. Here each kind of batch (its shapes
    and whether it carries a state) runs three times as usual, is then captured as a CUDA graph, and
    from then on replayed, with the same results and random numbers. The optimizer, and batches of
    kinds beyond the first sixteen, run as usual.

    Python code in the model's forward pass is not run again on replay: leave this callback out if
    its behaviour changes during training. Models with hooks, several processes, gradient
    accumulation and float16 with loss scaling train as usual, with a warning; so do other devices,
    without one.

    Raises:
        ConfigError: From the training loop, at the fourth batch of a kind: the model cannot be
            captured, since it synchronises with the GPU.
    """

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Begin to count batches of each kind."""
        pl_module.graphs = graphs = BatchGraphs(pl_module)
        if graphs.refusal is not None and pl_module.device.type == "cuda":
            warn(f"CUDAGraphs: batches run as usual: {graphs.refusal}.")

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Free the graphs and their memory."""
        pl_module.graphs = None
