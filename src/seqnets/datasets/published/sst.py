"""The Stanford Sentiment Treebank."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from seqnets.datasets.parts import Part
from seqnets.datasets.readers.files import find_folder
from seqnets.datasets.readers.trees import Tree, read_trees
from seqnets.datasets.sequences.labelled_texts import LabelledTexts, Texts, TextSplits
from seqnets.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

LABELS = ("very negative", "negative", "neutral", "positive", "very positive")
"""The labels 0 to 4."""

_FILES: dict[Part, str] = {"train": "train.txt", "val": "dev.txt", "test": "test.txt"}


class StanfordSentiment(LabelledTexts):
    """The sentiment of sentences from film reviews; classification.

    Reads ``train.txt``, ``dev.txt`` and ``test.txt``, with one labelled tree per line, whose words
    are converted to lower case. Training sentences and phrases that are also sentences of the
    validation or test part are left out: some copies of ``train.txt`` contain all of ``dev.txt``.

    Args:
        root: Folder with the files, or with a folder ``sst`` that contains them.
        classes: 5, or 2 for negative and positive, without neutral sentences.
        phrases: Whether to train on all distinct phrases of the training sentences, each of which
            has its own label, instead of whole sentences.
        **data: The arguments of :class:`LabelledTexts`.

    Raises:
        ConfigError: ``classes`` is neither 2 nor 5.

    References:
        Socher et al., 2013, "Recursive Deep Models for Semantic Compositionality Over a Sentiment
        Treebank".
    """

    def __init__(self, root: str, *, classes: int = 5, phrases: bool = False, **data: Any) -> None:
        super().__init__(**data)
        if classes not in (2, 5):
            raise ConfigError(f"StanfordSentiment: classes is {classes!r}, expected 5 or 2.")
        self.root, self.classes, self.phrases = root, classes, phrases

    def tokens_of(self, text: str) -> list[str]:
        """The words of a sentence that is tokenized by spaces."""
        return text.lower().split()

    def read_texts(self) -> TextSplits:
        """The sentences of all parts or, for training, their phrases if asked for.

        Raises:
            DataError: A file is missing or malformed; the message says in which line and column.
        """
        advice = (
            "They are the Stanford Sentiment Treebank's trees; set dataset.root to their folder."
        )
        files = [*_FILES.values()]
        folder = find_folder("StanfordSentiment", self.root, ("sst", ""), files, advice)
        trees = {part: read_trees(folder / file, "01234") for part, file in _FILES.items()}
        held_out = {_words(tree) for part in ("val", "test") for tree in trees[part]}
        kept = [tree for tree in trees["train"] if _words(tree) not in held_out]
        if len(kept) < len(trees["train"]):
            logger.info(
                "%s: %d sentences are left out, which dev.txt or test.txt have too.",
                folder / _FILES["train"],
                len(trees["train"]) - len(kept),
            )
        if self.phrases:
            kept = [p for tree in kept for p in tree.phrases() if _words(p) not in held_out]
        trees["train"] = kept
        labels = LABELS if self.classes == 5 else ("negative", "positive")
        parts = {part: self._texts(part, found) for part, found in trees.items()}
        for part, texts in parts.items():
            if not texts.y:
                raise DataError(f"{folder / _FILES[part]}: has no sentence of these labels.")
        return TextSplits(parts, list(labels))

    def _texts(self, part: Part, trees: Sequence[Tree]) -> Texts:
        pairs = [(_words(tree), int(tree.label)) for tree in trees]
        if part == "train" and self.phrases:
            pairs = list(dict.fromkeys(pairs))
        if self.classes == 2:
            pairs = [(words, int(label > 2)) for words, label in pairs if label != 2]
        return Texts([words for words, _ in pairs], [label for _, label in pairs])


def _words(tree: Tree) -> tuple[str, ...]:
    return tuple(word.lower() for word in tree.words())
