"""Transcription of a user's own sequences."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence, Set
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from seqnets.checks import check_choice
from seqnets.datasets.baselines.transcripts import repeated_label
from seqnets.datasets.examples import show_columns, show_target
from seqnets.datasets.files.sequences import SequenceFiles
from seqnets.datasets.parts import Part
from seqnets.datasets.readers.cells import Row, few, need, shown, text_of
from seqnets.datasets.readers.records import Record
from seqnets.datasets.text.vocabulary import PLAIN_UNITS, Unit
from seqnets.errors import DataError, counted
from seqnets.typing import BLANK, IGNORE, Known, Sizes


class TranscriptionFiles(SequenceFiles):
    """Your own sequences of features or text with a transcript each; transcription.

    A transcript is text: the labels of a sequence in their order, without their places. A label is
    a character or a word of it, numbered in sorted order; any white space is one space, and none at
    the ends. The first sequence with a label is not held out, so that training has all labels. A
    step of an image is a column of its pixels. In a folder, ``a.txt`` is the transcript of
    ``a.wav``.

    Args:
        path: File or folder of the training sequences.
        text: Name of a table's column of transcripts.
        unit: Unit of a label: "characters" or "words". Text as input is read by characters.
        **files: The other arguments of :class:`SequenceFiles`.
    """

    transcribed = True

    def __init__(
        self, path: str, text: str = "text", *, unit: Unit = "characters", **files: Any
    ) -> None:
        super().__init__(path, **files)
        check_choice("TranscriptionFiles", PLAIN_UNITS, unit=unit)
        self.text, self.label_unit = text, unit

    @property
    def columns(self) -> tuple[str, ...]:
        """The column of the transcript."""
        return (self.text,)

    @property
    def joiner(self) -> str:
        """The text between two labels of a transcript."""
        return " " if self.label_unit == "words" else ""

    def read_target(self, where: str, row: Row) -> str:
        """A row's transcript."""
        need(where, row, self.text, advice="dataset.text=COLUMN names another.")
        transcript = row[self.text]
        if transcript is None:
            raise DataError(
                f"{where}: column {self.text} is missing, expected text.\n"
                '  A transcript without labels is "" in JSON Lines, or an empty file.'
            )
        if transcript != "":
            transcript = text_of(where, self.text, transcript)
        for place, character in enumerate(transcript, start=1):
            if unicodedata.category(character) == "Cc" and not character.isspace():
                raise DataError(
                    f"{where}: character {place} of column {self.text} is {character!r}, a control "
                    "character, expected text."
                )
        return " ".join(transcript.split())

    def strata(self, records: Sequence[Record]) -> np.ndarray:
        """A class of its own for the first record of a label, and one for all others.

        So the first one stays in the training part, which has every label.
        """
        found: set[str] = set()
        strata = np.zeros(len(records), np.int64)
        for row, record in enumerate(records):
            labels = set(self._labels(record))
            if not labels <= found:
                strata[row] = row + 1
                found |= labels
        return strata

    def encode(self, parts: dict[Part, list[Record]]) -> tuple[dict[Part, Tensor], dict[str, Any]]:
        """Each part's labels, (N, U) int64, and the names of the classes."""
        found = sorted({label for record in parts["train"] for label in self._labels(record)})
        for part, records in parts.items():
            if not any(self._labels(record) for record in records):
                path = self.paths.get(part, self.paths["train"])
                raise DataError(
                    f"{path}: no transcript of the {part} part has a label, expected some."
                )
        self._check_known(parts, set(found))
        for record in chain.from_iterable(parts.values()):
            _check_room(record, self._labels(record))
        names = ["", *found]
        encoded = {part: self._encode(records, names) for part, records in parts.items()}
        return encoded, {"labels": names}

    def encode_new(self, records: Sequence[Record], known: Known) -> Tensor:
        """Labels, (N, U) int64; a transcript with one that is not known has none."""
        return self._encode(records, known["labels"])

    def verbatim(self, records: Sequence[Record]) -> Mapping[str, Sequence[str | None]]:
        """The transcripts as they stand in the file, which predictions are written with."""
        return {"target": [record.target for record in records]}

    def show_target(self, target: Tensor) -> dict[str, str]:
        """A transcript."""
        return {self.text: show_target(target, self.labels, self.joiner)}

    def example(self, x: Tensor, y: Tensor) -> dict[str, str]:
        """The transcript, length and beginning of a sequence; an image is drawn."""
        example, facts = super().example(x, y), self.contents.facts
        if "height" in facts:
            scaling = self.contents.inputs.scaling
            columns = x if scaling is None else scaling.undo(x)
            pixels = columns.unflatten(1, (facts["height"], -1))
            colours = len(facts["mode"].removesuffix("A"))  # without how opaque they are
            example["begins"] = show_columns(pixels[..., :colours].mean(2).numpy())
        return example

    @property
    def sizes(self) -> Sizes:
        """The number of tokens or features, and of labels and the blank, as ``num_classes``."""
        return {**self.input_sizes, "num_classes": len(self.labels or ())}

    def describe(self) -> dict[str, Any]:
        """The metadata that a checkpoint stores, including what joins labels to a text."""
        return {**super().describe(), "joiner": self.joiner}

    def baselines(self) -> dict[str, float]:
        """The test errors per label of the best constant transcript of one label."""
        return repeated_label(self.part("train").y, self.part("test").y)

    def _labels(self, record: Record) -> list[str]:
        """The labels of a transcript."""
        transcript = record.target or ""
        return transcript.split() if self.label_unit == "words" else list(transcript)

    def _check_known(self, parts: Mapping[Part, Sequence[Record]], known: Set[str]) -> None:
        """Raise DataError if a part has labels that the training part lacks."""
        lacking = [
            (part, record, foreign)
            for part, records in parts.items()
            for record in records
            if (foreign := [label for label in self._labels(record) if label not in known])
        ]
        if lacking:
            part, first, (label, *_) = lacking[0]
            unknown = {label for _, _, foreign in lacking for label in foreign}
            raise DataError(
                f"{first.where}: got {shown(label)} in a transcript of the {part} part, expected "
                f"{self.label_unit} of the training part.\n"
                f"  {counted(len(unknown), self.label_unit.removesuffix('s'))} that it lacks in "
                f"{counted(len(lacking), 'transcript')}: {few(sorted(unknown))}\n"
                "  Leave these transcripts out, or add some like them to the training part."
            )

    def _encode(self, records: Sequence[Record], names: Sequence[str]) -> Tensor:
        """Labels by number, (N, U), padded; none of a transcript with one that has no name."""
        numbers = {name: number for number, name in enumerate(names) if number != BLANK}
        rows = []
        for record in records:
            row = [numbers.get(label, BLANK) for label in self._labels(record)]
            rows.append(torch.tensor([] if BLANK in row else row, dtype=torch.int64))
        return pad_sequence(rows, batch_first=True, padding_value=IGNORE)


def _check_room(record: Record, labels: Sequence[str]) -> None:
    """Raise DataError if a sequence is too short to be aligned with its labels."""
    steps, least = len(record.steps), len(labels) + sum(a == b for a, b in pairwise(labels))
    if steps < least:
        raise DataError(
            f"{record.where}: got {counted(steps, 'step')} for {counted(len(labels), 'label')}, "
            f"expected at least {least:,}: one for each label, and one between two that are the "
            "same.\n  Leave the sequence out; of sound, a shorter dataset.audio.hop makes more "
            "steps."
        )
