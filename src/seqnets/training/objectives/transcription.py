"""Transcription: the labels of an unsegmented sequence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from seqnets.alignment import frames_needed
from seqnets.checks import check_choice, check_count, check_n_best
from seqnets.datasets import DataModule, SequenceData, Sequences
from seqnets.datasets.parts import PARTS, Part
from seqnets.datasets.scores.edits import edit_rate
from seqnets.datasets.scores.exact import exact_match
from seqnets.datasets.text.vocabulary import PLAIN_UNITS, Unit
from seqnets.errors import ConfigError, DataError, ShapeError, counted
from seqnets.insight.canvas import Picture
from seqnets.insight.transcription import draw_transcription
from seqnets.insight.visible import table
from seqnets.layers.lengths import lengths_after
from seqnets.models import ConditionalRandomField
from seqnets.models.ctc import best_path, ctc_loss, prefix_beam_search
from seqnets.models.heads import upcast
from seqnets.training.metrics import EditRate, SequenceMatch
from seqnets.training.objectives.base import Objective, Outcome, Row
from seqnets.training.objectives.rows import (
    candidates,
    class_texts,
    lengths_of,
    written_texts,
)
from seqnets.training.objectives.scoring import check_classes
from seqnets.typing import IGNORE, Batch, Known

PICTURES, EXAMPLES = 3, 12
"""Sequences of a batch that are drawn, and that are listed as text."""


class Frames(NamedTuple):
    """What a model says of each frame.

    Attributes:
        logits: Logits of the classes, (B, frames, C).
        of_steps: The frame of each step of the input, (T,).
        n_best: Labels (B, N, U) and log-probabilities (B, N) of the N best of a beam, if there is
            one.
    """

    logits: Tensor
    of_steps: Tensor
    n_best: tuple[Tensor, Tensor] | None = None


class Transcription(Objective):
    """Connectionist temporal classification; compared by errors per label.

    The loss is in nats per label of the targets, where one without labels counts as one label, so
    that it does not depend on the batches. The model gives logits of each frame, (B, frames, C); if
    frames are fewer than steps, it has a method ``lengths_after(lengths)``, as
    :class:`~seqnets.models.Transcriber` has.

    Metrics are edits (insertions, deletions, substitutions) per label of the targets: ``cer``, or
    ``wer`` if labels are words; ``wer`` also if words are spelled, since one of the characters is a
    space; and ``exact_match``, the share of sequences without an error.

    Args:
        beam_size: Beam width of decoding; 1 takes the likeliest class of each frame.
        unit: Unit of a label: "characters", or "words", between which a text has a space.
        n_best: If above 1, rows have so many ``candidates`` of the beam, likeliest first, with
            their log-probabilities as scores.

    Raises:
        ConfigError: ``beam_size`` or ``n_best`` is out of range, or ``unit`` is unknown.

    References:
        Graves et al., 2006, "Connectionist Temporal Classification: Labelling Unsegmented Sequence
        Data with Recurrent Neural Networks".
    """

    mode = "min"

    def __init__(self, beam_size: int = 1, unit: Unit = "characters", n_best: int = 1) -> None:
        check_count("Transcription", beam_size=beam_size)
        check_n_best("Transcription", n_best, beam_size)
        check_choice("Transcription", PLAIN_UNITS, unit=unit)
        self.beam_size, self.n_best = beam_size, n_best
        self.unit = unit
        self.metric = "wer" if unit == "words" else "cer"
        self._classes: int | None = None

    def prepare(self, known: Known) -> None:
        """Take the number of classes; check that a text can be taken apart into its labels.

        Raises:
            ConfigError: It cannot, or its labels are of another unit.
        """
        self._classes = known["sizes"]["num_classes"]
        joiner = known["joiner"]
        unit = "words" if joiner == " " else "characters"
        if self.unit != unit:
            raise ConfigError(
                f"Transcription: unit is {self.unit!r}, expected {unit!r}, since {joiner!r} stands "
                "between labels."
            )
        expected = f"a text without {joiner!r}" if joiner else "a single character"
        for number, label in enumerate(class_texts(known)[1:], start=1):
            if not label or (joiner in label if joiner else len(label) > 1):
                raise ConfigError(
                    f"Transcription: label {number} is {label!r}, expected {expected}, since "
                    f"{joiner!r} stands between labels."
                )

    def check(self, model: nn.Module, data: DataModule) -> None:
        """Check that the model can spell each target.

        Raises:
            ConfigError: Its output is a random field, which scores a label for each step.
            DataError: A target has more labels than there are frames.
        """
        if isinstance(getattr(model, "output", None), ConditionalRandomField):
            raise ConfigError(
                f"Transcription: {type(model).__name__} has a ConditionalRandomField as output, "
                "expected logits: a random field scores a label for each step, and these have "
                "none.\n  model=transcriber has logits, and so has model=tagger."
            )
        if not isinstance(data, SequenceData):
            return
        for part in PARTS:
            sequences = data.part(part)
            if not sequences.transcribed:  # as __call__ says
                return
            _check_room(model, part, sequences, sequences.lengths)
        if data.augmenter is not None:
            train = data.part("train")
            _check_room(model, "train", train, data.augmenter.fewest(train.lengths, train.y))

    def __call__(self, model: Any, batch: Batch, state: Any = None) -> Outcome:
        """Score the labels of each sequence; in evaluation also decode them.

        Predictions are labels (B, U), in training none. The ``details`` of an evaluation are
        ``Frames``.
        """
        logits, state = model(batch.x, state, batch.lengths)
        if logits.dim() != 3 or batch.y.dim() != 2 or batch.y.is_floating_point():
            raise DataError(
                f"Transcription: targets have shape {tuple(batch.y.shape)} and predictions "
                f"{tuple(logits.shape)}, expected labels (B, U) and logits (B, frames, C)."
            )
        check_classes(logits.shape[-1], self._classes)
        _check_frames(model, batch.x.shape[1], logits.shape[1])
        lengths = None if batch.lengths is None else lengths_after(model, batch.lengths)
        least = min(1, batch.y.shape[1])  # targets of shape (B, 0) are unknown
        count = (batch.y != IGNORE).sum(1).clamp(min=least).sum()
        total = self._nats(logits, batch.y, lengths, model.training)
        loss = total / count.clamp(min=1)
        if model.training:
            return Outcome(loss, count, torch.full_like(batch.y, IGNORE), batch.y, state)
        n_best = None
        if self.beam_size == 1:
            labels, _ = best_path(logits, lengths)
        else:
            n_best = prefix_beam_search(logits, lengths, self.beam_size, self.n_best)
            labels = n_best[0][:, 0]
        steps = torch.arange(1, batch.x.shape[1] + 1, device=logits.device)
        frames = Frames(logits.detach(), lengths_after(model, steps) - 1, n_best)
        return Outcome(loss, count, labels, batch.y, state, frames)

    def _nats(self, logits: Tensor, targets: Tensor, lengths: Any, training: bool) -> Tensor:
        if not training:  # where what cannot be learned can be scored
            frames = logits.shape[1] if lengths is None else lengths
            if not targets.shape[1]:
                return logits.new_zeros(())
            if (frames_needed(targets) > frames).any():
                return logits.new_tensor(torch.inf)
        return ctc_loss(logits, targets, lengths)

    def metrics(self, known: Known) -> dict[str, Metric]:
        """Errors per label, and per word if words are spelled, and the share of correct texts."""
        found: dict[str, Metric] = {self.metric: EditRate()}
        if _spells_words(known):
            found["wer"] = EditRate(partial(_words, class_texts(known)))
        return {**found, "exact_match": SequenceMatch()}

    def served(
        self, model: nn.Module, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[dict[str, Tensor], Any]:
        """The probability of each frame's classes, (B, frames, C), and the frames of each row."""
        logits, state = model(x, state, lengths)
        found = {"probabilities": logits.softmax(-1)}
        if lengths is not None:
            found["frames"] = lengths_after(model, lengths).clone()  # which may be the input itself
        return found, state

    def rows(self, outcome: Outcome, batch: Batch, known: Known) -> list[Row]:
        """A row per sequence: the text of its labels, the right one if known, and the n best."""
        known_targets, labels = outcome.targets.shape[1] > 0, class_texts(known)
        pairs = zip(outcome.predictions.tolist(), outcome.targets.tolist(), strict=True)
        rows: list[Row] = [
            {
                "prediction": _text(written, labels, known),
                "target": _text(right, labels, known) if known_targets else None,
            }
            for written, right in pairs
        ]
        if self.n_best > 1:
            best, scores = outcome.details.n_best
            several = candidates(best, scores, lambda ids: _text(ids, labels, known))
            for row, found in zip(rows, several, strict=True):
                row["candidates"] = found
        return rows

    def scores(self, rows: Sequence[Row], known: Known) -> dict[str, float]:
        """The metrics of the texts themselves, whose labels the model need not know."""
        written, right = (_taken_apart(rows, c, known) for c in ("prediction", "target"))
        found = {self.metric: edit_rate(written, right)}
        texts = [[known["joiner"].join(labels) for labels in side] for side in (written, right)]
        if _spells_words(known):
            found["wer"] = edit_rate(*([text.split() for text in side] for side in texts))
        return {**found, "exact_match": exact_match(*texts)}

    def pictures(self, outcome: Outcome, batch: Batch, known: Known) -> dict[str, Picture]:
        """Where labels fire in the first sequences of a batch, and a table of transcripts."""
        rows = self.rows(outcome, batch, known)
        texts = [(row["prediction"], row["target"]) for row in rows[:EXAMPLES]]
        found: dict[str, Picture] = {"written": table(("written", "right"), texts)}
        frames: Frames = outcome.details
        for number, (row, length) in enumerate(zip(rows, lengths_of(batch), strict=True)):
            if number == PICTURES:
                break
            probabilities = upcast(frames.logits[number]).softmax(-1)
            by_step = probabilities[frames.of_steps[:length]].cpu().numpy()
            signal = batch.x[number, :length].cpu().numpy() if batch.x.dim() == 3 else None
            found[f"labels/{number}"] = draw_transcription(
                by_step, class_texts(known), signal, row["prediction"], row["target"]
            )
        return found


def _check_room(model: nn.Module, part: Part, sequences: Sequences, lengths: Tensor) -> None:
    """Raise DataError if a target has more labels than the frames of so many steps can spell.

    Args:
        model: The model, which makes frames of steps.
        part: The part.
        sequences: Its sequences.
        lengths: The steps of each, (N,); fewer than it has if augmentations may leave no more.
    """
    frames, needed = lengths_after(model, lengths), frames_needed(sequences.y)
    short = (needed > frames).nonzero()[:, 0].tolist()
    if not short:
        return
    first = short[0]
    own = None if sequences.ids is None else sequences.ids[first]
    name = "" if own is None else f" ({own})"
    labels = int(sequences.target_lengths[first])
    left, advice = "", "leave such sequences out"
    if lengths[first] < sequences.lengths[first]:
        left = ", which dataset.augment may leave of it"
        advice = "shorten sequences less by dataset.augment"
    raise DataError(
        f"Transcription: sequence {first}{name} of the {part} part has "
        f"{counted(labels, 'label')} and {counted(int(frames[first]), 'frame')} of "
        f"{counted(int(lengths[first]), 'step')}{left}, expected at least "
        f"{counted(int(needed[first]), 'frame')}: one for each label, and one more between two "
        f"that are the same.\n"
        f"  Give the model's convolutions a smaller stride, or {advice}: there are "
        f"{len(short):,} among {len(sequences):,}."
    )


def _check_frames(model: nn.Module, steps: int, frames: int) -> None:
    expected = int(lengths_after(model, torch.tensor([steps])))
    if frames != expected:
        raise ShapeError(
            f"Transcription: the model gives {counted(frames, 'frame')} of "
            f"{counted(steps, 'step')}, expected {expected:,}.\n"
            "  A model whose frames are fewer than its steps has a method lengths_after(lengths), "
            "which maps steps to frames."
        )


def _spells_words(known: Known) -> bool:
    """Whether words are made of several labels."""
    return not known["joiner"] and " " in class_texts(known)


def _text(ids: Sequence[int], labels: Sequence[str], known: Known) -> str:
    return known["joiner"].join(labels[number] for number in ids if number != IGNORE)


def _words(labels: Sequence[str], ids: Sequence[int]) -> list[str]:
    return "".join(labels[number] for number in ids).split()


def _taken_apart(rows: Sequence[Row], column: str, known: Known) -> list[list[str]]:
    """The labels of each row's text."""
    joiner, texts = known["joiner"], written_texts(rows, column)
    between = None if joiner == " " else joiner  # any white space between words is one space
    return [text.split(between) if joiner and text else list(text) for text in texts]
