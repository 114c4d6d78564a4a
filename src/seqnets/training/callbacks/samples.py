"""What a language model would write."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import nn

from seqnets.datasets import Vocabulary
from seqnets.training.callbacks.tensorboard import writer_of
from seqnets.training.generate import check_options, generate, read_prompt
from seqnets.training.objectives import LanguageModelling


class TextSamples(Callback):
    """Write a sampled passage into TensorBoard's TEXT tab after each validation.

    The choices are the same each time, so that what changes is what the model has learned.

    Args:
        length: Tokens of the passage.
        temperature: Divides the logits; 0 takes the likeliest token each time.
        prompt: The text to be continued; the beginning of a line if empty.

    Raises:
        ConfigError: The length or the temperature makes no sense.
        DataError: At the start of the run: the prompt has a character that the text lacks.
    """

    def __init__(self, length: int = 300, temperature: float = 0.8, prompt: str = "") -> None:
        check_options(type(self).__name__, length, temperature)
        self.length = length
        self.temperature = temperature
        self.prompt = prompt

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Check the prompt now rather than after the first validation."""
        vocabulary = _vocabulary(trainer, pl_module)
        if vocabulary is not None:
            read_prompt(vocabulary, self.prompt)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Sample and write."""
        writer = writer_of(trainer)
        vocabulary = _vocabulary(trainer, pl_module)
        if writer is None or vocabulary is None:
            return
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        passage = self.passage(pl_module.model, vocabulary).replace("\n", "\n    ")
        writer.add_text("sample", f"    {passage}", trainer.global_step)

    def passage(self, model: nn.Module, vocabulary: Vocabulary) -> str:
        """Return the prompt and what the model continues it with."""
        pieces = generate(model, vocabulary, self.prompt, self.length, self.temperature)
        return self.prompt + "".join(pieces)


def _vocabulary(trainer: Trainer, pl_module: Any) -> Vocabulary | None:
    """What the model writes with; None if it writes no text."""
    if not isinstance(pl_module.objective, LanguageModelling):
        return None
    return getattr(trainer.datamodule, "vocabulary", None)  # type: ignore[attr-defined]
