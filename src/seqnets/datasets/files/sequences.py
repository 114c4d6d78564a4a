"""The base class of datasets of a user's own sequences, whatever the targets are."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.checks import check_choice, check_count, check_fractions
from seqnets.datasets.augmentation.augmenter import Augmentations
from seqnets.datasets.examples import show_features, show_steps
from seqnets.datasets.files.inputs import FileInputs
from seqnets.datasets.parts import PARTS, Part, paths_of
from seqnets.datasets.readers.audio import LogMel
from seqnets.datasets.readers.cells import Row, listed, refuse_left_out
from seqnets.datasets.readers.folders import check_facts
from seqnets.datasets.readers.records import TIME, Record, Wanted, ids_of, part_of
from seqnets.datasets.readers.sources import read_source
from seqnets.datasets.scaling import Scaling
from seqnets.datasets.sequences.base import SequenceData
from seqnets.datasets.sequences.dealing import deal, deal_grouped
from seqnets.datasets.sequences.loader import SequenceLoader
from seqnets.datasets.sequences.sequences import Sequences, Splits
from seqnets.datasets.sequences.times import Times, Timing
from seqnets.datasets.text.vocabulary import PLAIN_UNITS, Unit, Vocabulary, split
from seqnets.errors import DataError
from seqnets.quoting import override_list, shell
from seqnets.typing import Known, Sizes

MISSING = ("error", "forward", "zero", "keep")


class SequenceFiles(SequenceData):
    """Your own sequences of features or text; a subclass defines the target of each.

    ``path`` is a table (CSV, TSV, JSON Lines, Parquet), a NumPy archive, a ``.ts`` file or a
    folder; docs/data.md describes each. A file may say which part a sequence belongs to; otherwise
    a part without a file of its own is a fraction of the training sequences. Sequences that belong
    together, such as those of one person, are in one part if a column says so.

    Args:
        path: File or folder of the training sequences, and of parts without a file of their own.
        validation_path: File or folder of separate validation sequences.
        test_path: File or folder of separate test sequences.
        validation_fraction: Fraction of ``path``, of each class, to use for validation.
        test_fraction: Fraction of ``path``, of each class, to use for the test.
        standardise: Whether to standardise features and numeric targets over the training part.
        groups: Column, or array, of the group that a sequence belongs to; no group is in two parts.
            None if each sequence is by itself. It is not a feature, and new files may lack it.
        leave_out: Columns that are not features, of a table with a row per step.
        missing: What to do about a missing feature value: "error"; "forward" for the value before
            it in the sequence, or 0 if there is none; "zero"; or "keep" for NaN, which few cells
            take (:class:`seqnets.cells.GRUDCell`). After standardising, 0 is the mean of the
            training part.
        time: Column, or array, of the times of steps, numbers or time stamps, which become the last
            feature: the time elapsed since the step before, for cells with ``timed=True``. None if
            steps have none.
        time_unit: Unit of that time, in seconds, or that of the numbers; None for the mean time
            between steps of the training part, so that a mean step is 1.
        time_stamps: Whether the last feature is the time since a sequence's first step instead, as
            :class:`seqnets.cells.PhasedLSTMCell` reads it.
        unit: Unit of a token of text: "characters" or "words".
        max_vocabulary: Maximum size of the vocabulary, ``<unk>`` included; the most frequent
            tokens are kept.
        audio: Converts sound to features.
        batch_size: Sequences in a batch of each process.
        seed: Determines which sequences are held out, and the order of the others in each epoch.
        bucket_batches: Batches in a pool that is sorted by length to reduce padding; 1 for none.
        augment: Augmentations of the training batches, in order; features only.
    """

    several_targets = False
    """Whether the user may ask for several target columns."""

    weight: str | None = None
    """Column, or array, of how much a sequence counts in the loss; None if all count alike."""

    transcribed = False
    """Whether the targets are transcripts, which decides how images and folders are read."""

    def __init__(
        self,
        path: str,
        *,
        validation_path: str | None = None,
        test_path: str | None = None,
        validation_fraction: float = 0.2,
        test_fraction: float = 0.2,
        groups: str | None = None,
        leave_out: Sequence[str] = (),
        standardise: bool = True,
        missing: str = "error",
        time: str | None = None,
        time_unit: float | None = None,
        time_stamps: bool = False,
        unit: Unit = "characters",
        max_vocabulary: int | None = None,
        audio: LogMel | None = None,
        batch_size: int = 32,
        seed: int = 0,
        bucket_batches: int = 50,
        augment: Augmentations = (),
    ) -> None:
        super().__init__(batch_size, seed, bucket_batches, augment)
        who = type(self).__name__
        check_fractions(who, validation_fraction=validation_fraction, test_fraction=test_fraction)
        check_choice(who, PLAIN_UNITS, unit=unit)
        if max_vocabulary is not None:
            check_count(who, least=2, max_vocabulary=max_vocabulary)
        check_choice(who, MISSING, missing=missing)
        self.paths = paths_of(path, validation_path, test_path)
        self.fractions: dict[Part, float] = {"test": test_fraction, "val": validation_fraction}
        self.groups, self.leave_out = groups, tuple(leave_out)
        self.standardise, self.missing = standardise, missing
        self.timing = Timing.given(who, time, time_unit, time_stamps)
        self.token_unit: Unit = unit
        self.max_vocabulary = max_vocabulary
        self.audio = audio or LogMel()

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Names of a table's target columns."""

    @abstractmethod
    def read_target(self, where: str, row: Row) -> Any:
        """The target of a sequence.

        Args:
            where: The row's place, for error messages.
            row: The row, by column.

        Raises:
            DataError: The target is missing or of the wrong type.
        """

    @abstractmethod
    def strata(self, records: Sequence[Record]) -> np.ndarray:
        """The class of each record, (N,), by which the parts are stratified."""

    @abstractmethod
    def encode(self, parts: dict[Part, list[Record]]) -> tuple[dict[Part, Tensor], dict[str, Any]]:
        """The targets of each part, (N,) or (N, K), and their metadata.

        Raises:
            DataError: A target does not fit those of the training part.
        """

    @abstractmethod
    def encode_new(self, records: Sequence[Record], known: Known) -> Tensor:
        """The targets of new data, (N,) or (N, K); ``IGNORE`` or NaN for missing ones."""

    @cached_property
    def contents(self) -> Contents:
        """The content of all files, read on first access."""
        parts, facts = self._read()
        inputs, statistics = self._fit_inputs(parts["train"], facts)
        targets, about = self.encode(parts)
        gaps = self.missing == "keep"
        sequences = {
            part: Sequences(
                *inputs(records),
                targets[part],
                ids=ids_of(records),
                gaps=gaps,
                weights=self._weights(records),
            )
            for part, records in parts.items()
        }
        groups = {part: {record.group for record in records} for part, records in parts.items()}
        return Contents(sequences, inputs, about, facts, statistics, groups)

    def read_splits(self) -> Splits:
        """The sequences of all parts.

        Raises:
            DataError: A file is missing or malformed, or does not fit another; the message says
                where.
        """
        return Splits(self.contents.sequences, self.contents.about.get("labels"))

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of text; None for features."""
        return self.contents.inputs.vocabulary

    @property
    def feature_names(self) -> Sequence[str]:
        """The names of the features; empty if they have none."""
        features = self.contents.facts["features"]
        return features if isinstance(features, list) else ()

    @property
    def input_sizes(self) -> Sizes:
        """The number of tokens, or of features."""
        if self.vocabulary is not None:
            return {"vocab_size": len(self.vocabulary)}
        return {"input_size": self.part("train").x.shape[1]}

    def describe(self) -> dict[str, Any]:
        """The metadata that a checkpoint stores, with all that reading new files needs."""
        inputs, about = self.contents.inputs, self.contents.about
        scaling = {"x": inputs.scaling, "y": about.get("scaling")}
        return {
            **super().describe(),
            **({} if inputs.times is None else inputs.times.describe()),
            "targets": list(self.columns),
            "token_unit": self.token_unit,
            "facts": self.contents.facts,
            "audio": asdict(self.audio) if "sample rate" in self.contents.facts else None,
            "gaps": bool(self.part("train").x.isnan().any()),  # kept, not filled
            "scaling": {
                name: None if scale is None else scale.plain() for name, scale in scaling.items()
            },
        }

    def _check_no_more_features(self, path: Path, found: Any, known: Any) -> None:
        """Raise DataError for features beside those that the model knows, and say the option."""
        if not isinstance(found, list) or not isinstance(known, list) or not {*found} > {*known}:
            return
        more = [name for name in found if name not in known]
        option = shell(override_list("dataset.leave_out", [*self.leave_out, *more]))
        raise DataError(
            f"{path}: got the features {listed(found)}, expected {listed(known)}, as in the "
            f"training data.\n  To leave the others out: {option}."
        )

    def new(self, path: Path, known: Known) -> SequenceLoader:
        """Batches of sequences in file order, with any targets that the file has."""
        features = known["facts"]["features"]
        wanted = self._wanted(new=True, features=features)
        if audio := known.get("audio"):
            wanted = replace(wanted, audio=LogMel(**audio))
        source = read_source(path, wanted).in_order(features)
        self._check_no_more_features(path, source.facts["features"], features)
        check_facts(str(path), source.facts, "the training data", known["facts"])
        tokens, scale = known["vocabulary"], known["scaling"]["x"]
        inputs = FileInputs(
            None if tokens is None else Vocabulary(tokens, known["token_unit"]),
            None if scale is None else Scaling.read(scale),
            self.missing,
            Times.known(known),
        )
        targets = self.encode_new(source.records, known)
        sequences = Sequences(
            *inputs(source.records),
            targets,
            ids=ids_of(source.records),
            texts=self.verbatim(source.records),
        )
        return SequenceLoader(sequences, self.batch_size)

    def verbatim(self, records: Sequence[Record]) -> Mapping[str, Sequence[str | None]]:
        """Texts of new data, by column, that take the place of what a model says of them."""
        return {}

    def group_counts(self) -> dict[Part, int] | None:
        """The number of groups in each part; None if each sequence is by itself."""
        if self.groups is None:
            return None
        return {part: len(found) for part, found in self.contents.groups.items()}

    def features(self) -> list[dict[str, str]]:
        """Each feature's statistics in the training part; none for text."""
        return self.contents.statistics

    def example(self, x: Tensor, y: Tensor) -> dict[str, str]:
        """The target, length and beginning of a sequence, in the units of the file."""
        begins = show_steps(x, self.vocabulary, self.contents.inputs.scaling)
        return {**self.show_target(y), "steps": str(len(x)), "begins": begins}

    @abstractmethod
    def show_target(self, target: Tensor) -> dict[str, str]:
        """A target as written in a file, by column."""

    def _weights(self, records: Sequence[Record]) -> Tensor | None:
        """How much each sequence counts, (N,) float64; None if all count alike."""
        if self.weight is None:
            return None
        return torch.tensor([record.weight for record in records], dtype=torch.float64)

    def _wanted(self, new: bool = False, features: Any = None) -> Wanted:
        """What to read from a file; new ones have the features that a model knows."""
        return Wanted(
            columns=self.columns,
            target=self.read_target,
            new=new,
            missing=self.missing != "error",
            audio=self.audio,
            leave_out=self.leave_out,
            several=self.several_targets,
            transcribed=self.transcribed,
            folder=self.folder_of_new if new else None,
            features=tuple(features) if isinstance(features, list) else None,
            groups=self.groups,
            weight=self.weight,
            time=None if self.timing is None else self.timing.column,
        )

    def _read(self) -> tuple[dict[Part, list[Record]], dict[str, Any]]:
        """Read all files, and distribute their sequences among the parts."""
        parts: dict[Part, list[Record]] = {part: [] for part in PARTS}
        facts: dict[str, Any] = {}
        unseen = {*self.leave_out}
        for own, name in self.paths.items():
            path = Path(name).expanduser()
            source = read_source(path, self._wanted())
            if not isinstance(source.facts["features"], list):
                refuse_left_out(str(path), self.leave_out)
            facts = facts or source.facts
            unseen -= source.left_out
            source = source.in_order(facts["features"])
            check_facts(str(path), source.facts, self.paths["train"], facts)
            for record in source.records:
                part = part_of(record.where, record.split, own, self.paths)
                parts[part].append(record)
        who = self.paths["train"]
        if unseen:
            raise DataError(
                f"{who}: no recording has a column {min(unseen)}, expected one or more with it.\n"
                "  dataset.leave_out names columns that are not features."
            )
        if not parts["train"]:
            raise DataError(f"{who}: no sequence is for training, expected some of split 'train'.")
        train = parts["train"]
        strata = self.strata(train)
        absent = {part: share for part, share in self.fractions.items() if not parts[part]}
        if self.groups is None:
            dealt = deal(who, strata, absent, self.seed)
        else:
            dealt = deal_grouped(who, self.groups, parts, strata, absent, self.seed)
        for part, rows in dealt.items():
            parts[part] = [train[row] for row in rows]
        return parts, facts

    def _fit_inputs(
        self, train: Sequence[Record], facts: dict[str, Any]
    ) -> tuple[FileInputs, list[dict[str, str]]]:
        """Build the vocabulary, or fit the scaling, from the training records, and describe it."""
        texts = [record.steps for record in train if isinstance(record.steps, str)]
        if texts:
            counts = Counter[str]()
            for text in texts:
                counts.update(split(text, self.token_unit))
            vocabulary = Vocabulary.build(
                counts, self.token_unit, unknown=True, max_size=self.max_vocabulary
            )
            return FileInputs(vocabulary, None, self.missing), []
        steps = torch.from_numpy(np.concatenate([record.steps for record in train]))
        names = facts["features"]
        named = isinstance(names, list)
        if not named:
            names = [str(number + 1) for number in range(steps.shape[1])]
        empty = steps.isnan().all(0).tolist()
        if any(empty):
            name = names[empty.index(True)]
            option = shell(override_list("dataset.leave_out", [*self.leave_out, name]))
            advice = f"Leave it out: {option}." if named else "Remove it from the data."
            raise DataError(
                f"{self.paths['train']}: feature {name} is missing at every step of the training "
                f"part, expected some values.\n  {advice}"
            )
        if self.timing is None:
            scaling = Scaling.of(steps)
            inputs = FileInputs(None, scaling if self.standardise else None, self.missing)
            return inputs, show_features(names, steps, scaling)
        lengths = torch.tensor([len(record.steps) for record in train])
        times = self.timing.learn(self.paths["train"], facts[TIME], steps, lengths)
        steps = times(steps, lengths)
        scaling = Scaling.of(steps)
        inputs = FileInputs(
            None, self.timing.scaling(scaling, times, self.standardise), self.missing, times
        )
        return inputs, show_features(names, steps, scaling)


@dataclass(frozen=True)
class Contents:
    """The content of all files.

    Attributes:
        sequences: The sequences of each part.
        inputs: The conversion of steps to model inputs.
        about: Metadata of the targets: "labels" or "scaling".
        facts: Properties that new files for the same model must share.
        statistics: Each feature's statistics in the training part, gaps aside; none for text.
        groups: The groups of each part's sequences; None alone if each is by itself.
    """

    sequences: dict[Part, Sequences]
    inputs: FileInputs
    about: dict[str, Any]
    facts: dict[str, Any]
    statistics: list[dict[str, str]]
    groups: dict[Part, set[str | None]]
