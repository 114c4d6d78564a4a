"""What TensorBoard shows of a run as it goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn

from seqnets.datasets.base import check_count
from seqnets.training.callbacks.tensorboard import writer_of
from seqnets.training.callbacks.throughput import Throughput
from seqnets.typing import Batch


class Monitor(Callback):
    """Log learning rate, gradient norms, throughput, and histograms of parameters and gradients.

    Norms are those before clipping: ``gradient_norm/total`` and one for each layer. Throughput
    is in steps per second, B * T. All but histograms are logged at every
    ``trainer.log_every_n_steps`` steps, and nothing is computed at others.

    Args:
        histograms_every_n_steps: Steps between two histograms; 0 for none.
    """

    def __init__(self, histograms_every_n_steps: int = 500) -> None:
        check_count(type(self).__name__, 0, histograms_every_n_steps=histograms_every_n_steps)
        self.histograms_every_n_steps = histograms_every_n_steps
        self._throughput = Throughput()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Time runs."""
        self._throughput.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch's steps."""
        self._throughput.add(batch.x.shape[0] * batch.x.shape[1] * trainer.world_size)

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Time stands still."""
        self._throughput.pause()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        """Log, if it is time."""
        step = trainer.global_step
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.loggers and step % every == 0:
            norms = _norms(pl_module.model)
            # one transfer for all: each float() of its own would wait for the device
            values = torch.stack(list(norms.values())).tolist() if norms else []
            figures = {
                "learning_rate": optimizer.param_groups[0]["lr"],
                "throughput/steps_per_second": self._throughput.read(),
                **{f"gradient_norm/{n}": v for n, v in zip(norms, values, strict=True)},
            }
            for logger in trainer.loggers:
                logger.log_metrics(figures, step=step)
        writer = writer_of(trainer)
        every = self.histograms_every_n_steps
        if writer is not None and every and step % every == 0:
            for name, parameter in pl_module.model.named_parameters():
                writer.add_histogram(f"parameters/{name}", parameter.detach().float(), step)
                if parameter.grad is not None:
                    writer.add_histogram(f"gradients/{name}", parameter.grad.float(), step)


def _norms(model: nn.Module) -> dict[str, Tensor]:
    """The gradient's norm in total, and of each module that has parameters of its own."""
    named = dict(_gradients(model))
    flat = [gradient for gradients in named.values() for gradient in gradients]
    if not flat:
        return {}
    each = iter(torch._foreach_norm(flat))
    layers = {
        name: torch.linalg.vector_norm(torch.stack([next(each) for _ in gradients]))
        for name, gradients in named.items()
    }
    return {"total": torch.linalg.vector_norm(torch.stack(list(layers.values()))), **layers}


def _gradients(model: nn.Module) -> Iterator[tuple[str, list[Tensor]]]:
    for name, module in model.named_modules():
        own = [p.grad for p in module.parameters(recurse=False) if p.grad is not None]
        if own:
            yield name or "model", own
