"""Text and music sampled from a model, in TensorBoard."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from seqnets.checks import check_count
from seqnets.datasets import Vocabulary
from seqnets.datasets.published.music import LOWEST
from seqnets.insight.roll import draw_rolls, play
from seqnets.insight.visible import visible
from seqnets.models.heads import upcast
from seqnets.training.callbacks.display import Display, can_draw, sample_batch, write
from seqnets.training.compose import compose
from seqnets.training.evaluating import evaluating
from seqnets.training.generate import check_options, generate, read_prompt
from seqnets.training.objectives import LanguageModelling, Polyphony
from seqnets.training.objectives.rows import lengths_of
from seqnets.training.trainers import data_of


class TextSamples(Display):
    """Write a sampled passage into TensorBoard's TEXT tab after validations.

    The random seed is fixed, so that passages differ only by what the model has learned.

    Args:
        length: Tokens of the passage.
        temperature: Divides the logits; 0 takes the likeliest token each time.
        prompt: The text to continue; the beginning of a line if empty.

    Raises:
        ConfigError: The length or the temperature is invalid.
        DataError: At the start of the run: the vocabulary lacks a character of the prompt.
    """

    def __init__(self, length: int = 300, temperature: float = 0.8, prompt: str = "") -> None:
        check_options(type(self).__name__, length, temperature)
        self.length = length
        self.temperature = temperature
        self.prompt = prompt

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Check the prompt before training rather than after the first validation."""
        vocabulary = _vocabulary(trainer, pl_module)
        if vocabulary is not None:
            read_prompt(vocabulary, self.prompt)

    def show(self, trainer: Trainer, pl_module: Any, writer: SummaryWriter) -> None:
        """Sample and write."""
        vocabulary = _vocabulary(trainer, pl_module)
        if vocabulary is None:
            return
        passage = visible(self.passage(pl_module.model, vocabulary)).replace("\n", "\n    ")
        writer.add_text("sample", f"    {passage}", trainer.global_step)

    def passage(self, model: nn.Module, vocabulary: Vocabulary) -> str:
        """The prompt and what the model continues it with."""
        pieces = generate(model, vocabulary, self.prompt, self.length, self.temperature)
        return self.prompt + "".join(pieces)


class MusicSamples(Display):
    """Write a sampled continuation of a piece into TensorBoard's AUDIO tab after validations.

    The piece is the first of the validation part. The random seed is fixed, so that continuations
    differ only by what the model has learned.

    Args:
        beginning: Steps of the piece that the model reads.
        length: Steps to sample.
    """

    def __init__(self, beginning: int = 16, length: int = 64) -> None:
        check_count(type(self).__name__, beginning=beginning, length=length)
        self.beginning, self.length = beginning, length

    def show(self, trainer: Trainer, pl_module: Any, writer: SummaryWriter) -> None:
        """Sample and write."""
        if not isinstance(pl_module.objective, Polyphony):
            return
        precision = trainer.precision_plugin
        batch = sample_batch(trainer, pl_module)
        piece = batch.x[0, : min(self.beginning, lengths_of(batch)[0])]
        with evaluating(pl_module.model), precision.forward_context():
            played = compose(pl_module.model, precision.convert_input(piece), self.length)
        roll = upcast(played).cpu().numpy()
        write(writer, "sample", play(roll, LOWEST), trainer.global_step)
        if can_draw():
            figure = draw_rolls({f"given for {len(piece)} steps, then played": roll}, LOWEST)
            write(writer, "sample", figure, trainer.global_step)


def _vocabulary(trainer: Trainer, pl_module: Any) -> Vocabulary | None:
    """The vocabulary of a language model; None for other models."""
    if not isinstance(pl_module.objective, LanguageModelling):
        return None
    return getattr(data_of(trainer), "vocabulary", None)
