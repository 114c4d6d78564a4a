"""Datasets of text pairs, for translation and other transduction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from seqnets.checks import check_choice, check_count
from seqnets.datasets.baselines.dictionary import learn_dictionary, word_by_word
from seqnets.datasets.parts import Part
from seqnets.datasets.readers.cells import need, text_of
from seqnets.datasets.readers.files import read_lines
from seqnets.datasets.readers.tables import SUFFIXES, read_rows
from seqnets.datasets.scores.bleu import bleu_of, corpus_bleu
from seqnets.datasets.scores.exact import exact_match
from seqnets.datasets.sequences.pairs import PairData, PairLoader, Pairs
from seqnets.datasets.sequences.sequences import Splits
from seqnets.datasets.text.codecs import Codec, check_codec_options, fit_codecs, read_codec
from seqnets.errors import DataError, counted
from seqnets.typing import Known

Aligned = tuple[list[str], list[str]]
"""Source texts and their target texts, of equal number."""

METRICS = ("bleu", "exact_match")


class TextPairs(PairData):
    """Source and target texts, which a subclass's ``read_texts`` returns.

    Args:
        unit: Unit of a token: "words", "characters" or "bpe" for byte pairs.
        max_vocabulary: Maximum vocabulary size of each side; unlimited if None, which "bpe" does
            not allow.
        min_count: How often a word or character must occur in the training part to be listed.
        joint: Whether both sides share one vocabulary.
        metric: The metric for model selection: "bleu", or "exact_match" for the fraction of texts
            that are predicted exactly.
        tokenize: The tokenizer of sacrebleu: "13a", "intl", "char", ..., or "none" for texts that
            are tokenized already.
        batch_size: Pairs in a batch of each process.
        seed: Determines the order of the training pairs in each epoch.
        bucket_batches: Batches in a pool that is sorted by length to reduce padding; 1 for none.
    """

    def __init__(
        self,
        unit: str = "bpe",
        max_vocabulary: int | None = 8_000,
        min_count: int = 1,
        joint: bool = False,
        metric: str = "bleu",
        tokenize: str = "13a",
        batch_size: int = 64,
        seed: int = 0,
        bucket_batches: int = 50,
    ) -> None:
        super().__init__(batch_size, seed, bucket_batches)
        who = type(self).__name__
        check_codec_options(who, unit, max_vocabulary)
        check_count(who, min_count=min_count)
        if max_vocabulary is not None:
            check_count(who, least=3, max_vocabulary=max_vocabulary)
        check_choice(who, METRICS, metric=metric)
        if metric == "bleu":
            bleu_of(tokenize)
        self.metric, self.tokenize = metric, tokenize
        self.codec_options: dict[str, Any] = {
            "unit": unit,
            "size": max_vocabulary,
            "min_count": min_count,
            "joint": joint,
        }

    @abstractmethod
    def read_texts(self) -> dict[Part, Aligned]:
        """The sources and targets of all parts, none of them empty."""

    @cached_property
    def texts(self) -> dict[Part, Aligned]:
        """The texts, read on first access."""
        return self.read_texts()

    @cached_property
    def codecs(self) -> tuple[Codec, Codec]:
        """The codecs of source and target, fitted to the training part."""
        return fit_codecs(*self.texts["train"], **self.codec_options)

    def read_splits(self) -> Splits:
        """Encode the texts of all parts."""
        source, target = self.codecs
        return Splits(
            {
                name: replace(
                    Pairs.of_ids(source.encode(sources), target.encode(targets)),
                    texts={"source": self._normalise(sources), "target": self._normalise(targets)},
                )
                for name, (sources, targets) in self.texts.items()
            }
        )

    def _normalise(self, texts: Sequence[str | None]) -> list[str | None]:
        """Texts as a model would write them: words separated by one space."""
        if self.codec_options["unit"] != "words":
            return list(texts)
        return [text if text is None else " ".join(text.split()) for text in texts]

    def describe(self) -> dict[str, Any]:
        """The metadata that a checkpoint stores, including metric and tokenizer of BLEU."""
        return {**super().describe(), "metric": self.metric, "tokenize": self.tokenize}

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """The first pairs of a part."""
        sources, targets = self.of_part(self.texts, part)
        return [
            {"source": source, "target": target}
            for source, target in zip(sources[:count], targets[:count], strict=True)
        ]

    def new(self, path: Path, known: Known) -> PairLoader:
        """Batches of sources to transduce.

        Args:
            path: A text file with one source per line, or a table with a column ``source`` and
                optionally ``target``, which is only copied next to the predictions.
            known: The result of :meth:`describe` when the model was trained.

        Raises:
            DataError: The file is missing, not UTF-8, empty, or has an empty source.
        """
        targets: list[str | None] = []
        if path.suffix.lower() in SUFFIXES:
            sources = []
            for where, row in read_rows(path):
                need(where, row, "source")
                sources.append(read_side(where, "source", row["source"]))
                targets.append(row["target"] if isinstance(row.get("target"), str) else None)
        else:
            sources = read_filled(path)
            targets = [None] * len(sources)
        pairs = replace(
            Pairs.unanswered(read_codec(known["source"]).encode(sources)),
            texts={"source": self._normalise(sources), "target": self._normalise(targets)},
        )
        return PairLoader(pairs, self.batch_size, name=str(path))

    def baselines(self) -> dict[str, float]:
        """The test scores of copying the source, and of translating it word by word.

        The dictionary is that of IBM model 1 on the first training pairs; see
        :func:`learn_dictionary`.
        """
        sources, targets = self.texts["test"]
        dictionary = learn_dictionary(*self.texts["train"])
        baselines = {
            "copying the source": sources,
            "word by word (IBM model 1)": [word_by_word(text, dictionary) for text in sources],
        }
        return {name: self._score(texts, targets) for name, texts in baselines.items()}

    def _score(self, predictions: Sequence[str], targets: Sequence[str]) -> float:
        if self.metric == "bleu":
            return corpus_bleu(predictions, targets, self.tokenize)[0]
        return exact_match(predictions, targets)


def read_aligned(source: Path, target: Path) -> Aligned:
    """Read two text files with corresponding lines.

    Raises:
        DataError: A file is missing, empty or not UTF-8, a line is empty, or the files differ in
            their number of lines.
    """
    sources, targets = read_filled(source), read_filled(target)
    if len(sources) != len(targets):
        raise DataError(
            f"{target}: got {counted(len(targets), 'line')}, expected {len(sources):,}, as many "
            f"as {source} has.\n  Each line is the target of the same line in that file."
        )
    return sources, targets


def read_filled(path: Path) -> list[str]:
    """Read a text file's lines, none of which may be empty; see :func:`read_lines`.

    Raises:
        DataError: The file is missing, empty or not UTF-8, or a line is empty.
    """
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise DataError(
                f"{path}, line {number:,}: is empty, expected a text.\n"
                "  Remove the line, and its counterpart in the other file."
            )
    return lines


def read_side(where: str, column: str, value: Any) -> str:
    """A cell's text; raise DataError if it is only white space."""
    found = text_of(where, column, value)
    if not found.strip():
        raise DataError(f"{where}: column {column} is {found!r}, expected a text.")
    return found
