"""Pairs of texts: translation, and whatever else is written anew."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from seqnets.checks import check_choice, check_count
from seqnets.datasets.base import PARTS, Part
from seqnets.datasets.codecs import Codec, check_codec_options, fit_codecs, read_codec
from seqnets.datasets.files import read_lines
from seqnets.datasets.pairs import PairData, PairLoader, Pairs
from seqnets.datasets.readers import SUFFIXES, need, read_rows
from seqnets.datasets.readers import text as read_cell
from seqnets.datasets.rivals.dictionary import learn_dictionary, word_by_word
from seqnets.datasets.scores.bleu import bleu_of, corpus_bleu
from seqnets.datasets.scores.exact import exact_match
from seqnets.datasets.sequences import Splits
from seqnets.errors import DataError, counted
from seqnets.typing import Known

Aligned = tuple[list[str], list[str]]
"""Sources and their targets."""

METRICS = ("bleu", "exact_match")


class TextPairs(PairData):
    """Texts and what they are to become, that a subclass's ``read_texts`` gives.

    Args:
        unit: What a token is: "words", "characters" or "bpe", pieces of words.
        max_vocabulary: Most tokens of a side; all there are if None, which "bpe" does not take.
        min_count: How often a word or character must stand in the training part to be known.
        joint: Whether both sides share one vocabulary.
        metric: What models are compared by: "bleu", or "exact_match", the share of texts that are
            right to the letter.
        tokenize: What sacrebleu splits texts by: "13a", "intl", "char", ..., or "none" where
            spaces do already.
        batch_size: Pairs of a batch for each process.
        seed: Decides the order of the training pairs in each epoch.
        bucket_batches: Training batches that are made together of pairs sorted by length.
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
        """Return the sources and targets of all parts, none of them empty."""

    @cached_property
    def texts(self) -> dict[Part, Aligned]:
        """The texts, read when first asked for."""
        return self.read_texts()

    @cached_property
    def codecs(self) -> tuple[Codec, Codec]:
        """What source and target are written in, made of the training part."""
        return fit_codecs(*self.texts["train"], **self.codec_options)

    def read_splits(self) -> Splits:
        """Encode the texts of all parts."""
        source, target = self.codecs
        return Splits(
            {
                name: replace(
                    Pairs.of_ids(source.encode(texts[0]), target.encode(texts[1])),
                    texts={"source": self._shown(texts[0]), "target": self._shown(texts[1])},
                )
                for name, texts in self.texts.items()
            }
        )

    def _shown(self, texts: Sequence[str | None]) -> list[str | None]:
        """Texts as a model would write them: words with one space between them."""
        if self.codec_options["unit"] != "words":
            return list(texts)
        return [text if text is None else " ".join(text.split()) for text in texts]

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, with how BLEU splits texts."""
        return {**super().describe(), "tokenize": self.tokenize}

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """Return the first few pairs of a part."""
        sources, targets = self.texts[part]
        return [
            {"source": source, "target": target}
            for source, target in zip(sources[:count], targets[:count], strict=True)
        ]

    def new(self, path: Path, known: Known) -> PairLoader:
        """Return batches of texts to be rewritten.

        Args:
            path: A text file, one source a line, or a table with a column ``source`` and maybe one
                ``target``, which is not looked at but kept beside what the model writes.
            known: What :meth:`describe` said when the model was trained.

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
            texts={"source": self._shown(sources), "target": self._shown(targets)},
        )
        return PairLoader(pairs, self.batch_size, name=str(path))

    def baselines(self) -> dict[str, float]:
        """Return what copying the source reaches, and translating it word by word.

        The dictionary is IBM model 1's, of the first training pairs; see :func:`learn_dictionary`.
        """
        sources, targets = self.texts["test"]
        dictionary = learn_dictionary(*self.texts["train"])
        rivals = {
            "copying the source": sources,
            "word by word (IBM model 1)": [word_by_word(text, dictionary) for text in sources],
        }
        return {name: self._score(texts, targets) for name, texts in rivals.items()}

    def _score(self, predictions: Sequence[str], targets: Sequence[str]) -> float:
        if self.metric == "bleu":
            return corpus_bleu(predictions, targets, self.tokenize)[0]
        return exact_match(predictions, targets)


def read_aligned(source: Path, target: Path) -> Aligned:
    """Read two text files whose lines belong together.

    Raises:
        DataError: A file is missing, empty or not UTF-8, a line is empty, or their numbers differ.
    """
    sources, targets = read_filled(source), read_filled(target)
    if len(sources) != len(targets):
        raise DataError(
            f"{target}: got {counted(len(targets), 'line')}, expected {len(sources):,}, as many "
            f"as {source} has.\n  Each line is what the same line of the other file becomes."
        )
    return sources, targets


def read_filled(path: Path) -> list[str]:
    """Read a text file's lines, none of which may be empty; see :func:`read_lines`.

    Raises:
        DataError: The file is missing, empty or not UTF-8, or a line is empty; says which.
    """
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise DataError(
                f"{path}, line {number:,}: is empty, expected a text.\n"
                "  Leave the line out, and what belongs to it."
            )
    return lines


def read_side(where: str, column: str, value: Any) -> str:
    """Return a cell's text, which must be more than white space."""
    found = read_cell(where, column, value)
    if not found.strip():
        raise DataError(f"{where}: column {column} is {found!r}, expected a text.")
    return found


def by_part(rows: Sequence[tuple[Part, str, str]]) -> dict[Part, Aligned]:
    """Sort pairs into their parts."""
    return {
        name: (
            [source for part, source, _ in rows if part == name],
            [target for part, _, target in rows if part == name],
        )
        for name in PARTS
    }
