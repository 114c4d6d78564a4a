"""The model's layers and the run's configuration in TensorBoard."""

from __future__ import annotations

from typing import Any

import yaml
from lightning.pytorch import Trainer
from torch import nn

from seqnets.checks import name_of
from seqnets.training.callbacks.base import SequenceCallback
from seqnets.training.loggers import writer_of


class ModelCard(SequenceCallback):
    """Write the model's layers and the run's configuration into TensorBoard's TEXT tab.

    :class:`ModelGraph` draws which layers feed which.
    """

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Write both."""
        writer = writer_of(trainer)
        if writer is not None:
            writer.add_text("model", summary(pl_module.model), trainer.global_step)
            if pl_module.card["config"]:
                config = yaml.safe_dump(pl_module.card["config"], sort_keys=False)
                indented = "".join(f"    {line}\n" for line in config.splitlines())
                writer.add_text("config", indented, trainer.global_step)


def summary(model: nn.Module) -> str:
    """A Markdown table of the layers with parameters: name, class, shapes, number of parameters.

    A shared parameter is counted once, at the first layer that has it.
    """
    rows: list[str] = []
    seen: set[nn.Parameter] = set()
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if own:
            shapes = ", ".join(f"{n} {'×'.join(map(str, p.shape))}" for n, p in own.items())
            count = sum(p.numel() for p in own.values() if p not in seen)
            seen.update(own.values())
            rows.append(f"| {name or 'model'} | {name_of(module)} | {shapes} | {count:,} |")
    total = sum(p.numel() for p in model.parameters())
    head = ["| layer | is | shapes | parameters |", "|---|---|---|---:|"]
    return "\n".join([*head, *rows, f"| total | {name_of(model)} | | {total:,} |"])
