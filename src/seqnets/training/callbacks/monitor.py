"""Logging of a run's progress."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from seqnets.checks import check_count
from seqnets.training.callbacks.deferred import Deferred
from seqnets.training.callbacks.throughput import Timed
from seqnets.training.loggers import writer_of
from seqnets.training.param_groups import rates_by_name
from seqnets.training.trainers import is_time_to_log

_BINS = 64


class Monitor(Timed):
    """Log loss, learning rate, gradient norms, throughput, and histograms of all parameters.

    Norms are taken before clipping: ``gradient_norm/total`` and one per layer. Parameter groups
    with a learning rate of their own have it as ``learning_rate/GROUP``. Throughput is in time
    steps per second, B * T. Everything but histograms is computed and logged every
    ``trainer.log_every_n_steps`` steps. To avoid synchronisation, a device's numbers are written
    one step later, under the step that they belong to.

    It takes any LightningModule. One that is no :class:`~seqnets.training.SequenceModule` logs its
    loss itself, and has a throughput if its batches are :class:`~seqnets.typing.Batch`.

    Args:
        histograms_every_n_steps: Steps between two histograms, apart from those of the parameters
            at the end; 0 for none.
    """

    def __init__(self, histograms_every_n_steps: int = 500) -> None:
        super().__init__()
        check_count(type(self).__name__, 0, histograms_every_n_steps=histograms_every_n_steps)
        self.histograms_every_n_steps = histograms_every_n_steps
        self._pending: _Figures | None = None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        """Log if it is due."""
        self._write(trainer)
        step = trainer.global_step
        ours = hasattr(pl_module, "last_loss")
        model = _model_of(pl_module)
        if trainer.loggers and is_time_to_log(trainer):
            named = {"train/loss": pl_module.last_loss} if ours else {}
            norms = _norms(model)
            named |= {f"gradient_norm/{name}": norm for name, norm in norms.items()}
            numbers = Deferred(torch.stack([value.float() for value in named.values()]))
            known = {**dict(rates_by_name(optimizer)), "epoch": trainer.current_epoch}
            rate = self.read_throughput()
            if rate:  # at least one batch has ended since the last reading
                known["throughput/time_steps_per_second"] = rate
            self._pending = _Figures(step, known, list(named), numbers)
        writer = writer_of(trainer)
        every = self.histograms_every_n_steps
        if writer is not None and every and step % every == 0:
            for name, parameter in model.named_parameters():
                _add_histogram(writer, f"parameters/{name}", parameter, step)
                if parameter.grad is not None:
                    _add_histogram(writer, f"gradients/{name}", parameter.grad, step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: Any) -> None:
        """Write the pending figures: a run that continues from there would not log them again."""
        self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the pending figures, and histograms of the parameters that training ended with."""
        self._write(trainer)
        writer = writer_of(trainer)
        if writer is not None and self.histograms_every_n_steps:
            for name, parameter in _model_of(pl_module).named_parameters():
                _add_histogram(writer, f"parameters/{name}", parameter, trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Write the pending figures."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if self._pending is None:
            return
        step, known, names, numbers = self._pending
        self._pending = None
        figures = {**known, **dict(zip(names, numbers.read(), strict=True))}
        for logger in trainer.loggers:
            logger.log_metrics(figures, step=step)
            logger.save()


def _model_of(module: Any) -> nn.Module:
    """What a module trains: of a SequenceModule its model, any other itself."""
    return module.model if hasattr(module, "last_loss") else module


class _Figures(NamedTuple):
    """A step's figures: values known at once, and those still on the device."""

    step: int
    known: dict[str, float]
    names: list[str]
    numbers: Deferred


def _add_histogram(writer: SummaryWriter, tag: str, tensor: Tensor, step: int) -> None:
    """Write a histogram with bins of equal width, computed on the device."""
    values = tensor.detach().float()
    moments = [values.amin(), values.amax(), values.sum(), values.square().sum()]
    low, high, total, squares = torch.stack(moments).tolist()
    if not (math.isfinite(low) and math.isfinite(high)):
        return
    left, right = (low, high) if low < high else (low - 0.5, low + 0.5)
    bins = ((values - left) * (_BINS / (right - left))).long().clamp_(0, _BINS - 1)
    counts = torch.bincount(bins.flatten(), minlength=_BINS).tolist()
    limits = torch.linspace(left, right, _BINS + 1, dtype=torch.float64)[1:].tolist()
    size = values.numel()
    writer.add_histogram_raw(tag, low, high, size, total, squares, limits, counts, step)


def _norms(model: nn.Module) -> dict[str, Tensor]:
    """The norm of all gradients, and of those of each module with parameters of its own."""
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
    """The gradients of each module's own parameters; shared ones belong to the first module."""
    seen: set[nn.Parameter] = set()
    for name, module in model.named_modules():
        parameters = [p for p in module.parameters(recurse=False) if p not in seen]
        seen.update(parameters)
        own = [p.grad for p in parameters if p.grad is not None]
        if own:
            yield name or "model", own
