"""Base of callbacks that read what a ``SequenceModule`` has."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer

from seqnets.checks import name_of
from seqnets.errors import ConfigError
from seqnets.training.module import SequenceModule


class SequenceCallback(Callback):
    """A callback for a :class:`~seqnets.training.SequenceModule`, which refuses other modules.

    Raises:
        ConfigError: When training or an evaluation starts: the module is another.
    """

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Check the module."""
        if not isinstance(pl_module, SequenceModule):
            raise ConfigError(
                f"{type(self).__name__}: the module is {name_of(pl_module)}, expected a "
                f"SequenceModule.\n"
                f"  Leave this callback out. Monitor takes any LightningModule."
            )
