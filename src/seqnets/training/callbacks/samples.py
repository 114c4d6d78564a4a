"""What a language model would write."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer

from seqnets.training.callbacks.tensorboard import writer_of
from seqnets.training.generate import generate
from seqnets.training.objectives import LanguageModelling


class TextSamples(Callback):
    """Write a sampled passage into TensorBoard's TEXT tab after each validation.

    The choices are the same each time, so that what changes is what the model has learned.

    Args:
        length: Tokens of the passage.
        temperature: Divides the logits; 0 takes the likeliest token each time.
        prompt: The text to be continued; the beginning of a line if empty.
    """

    def __init__(self, length: int = 300, temperature: float = 0.8, prompt: str = "") -> None:
        self.length = length
        self.temperature = temperature
        self.prompt = prompt

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Sample and write."""
        writer = writer_of(trainer)
        writes = isinstance(pl_module.objective, LanguageModelling)
        if writer is None or not writes or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        vocabulary = trainer.datamodule.vocabulary  # type: ignore[attr-defined]
        pieces = generate(pl_module.model, vocabulary, self.prompt, self.length, self.temperature)
        passage = (self.prompt + "".join(pieces)).replace("\n", "\n    ")
        writer.add_text("sample", f"    {passage}", trainer.global_step)
