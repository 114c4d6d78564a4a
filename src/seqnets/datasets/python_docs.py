"""The text that every Python has with it."""

from __future__ import annotations

from collections.abc import Iterable

from seqnets.datasets.language import LanguageData
from seqnets.datasets.tokens import Tokens
from seqnets.errors import DataError


class PythonDocs(LanguageData):
    """Python's reference manual, which every Python has with it; language model, no download.

    The topics of ``pydoc_data`` in alphabetical order. A paragraph that occurs twice is kept once,
    so that no test text stands in the training text: some 373,000 characters.

    The arguments are those of :class:`LanguageData`.
    """

    def read_tokens(self) -> Tokens:
        """Return the manual as token ids.

        Raises:
            DataError: This Python came without its manual.
        """
        try:
            from pydoc_data.topics import topics
        except ImportError:
            raise DataError(
                "PythonDocs: this Python has no module pydoc_data.topics.\n"
                "  It is part of the standard library, though some systems package it apart.\n"
                "  Install it, or take another text: dataset=text dataset.path=FILE"
            ) from None
        return self.tokens_of(distinct_paragraphs(topics[name] for name in sorted(topics)))


def distinct_paragraphs(texts: Iterable[str]) -> str:
    """Join the paragraphs of some texts, each once; white space makes no difference."""
    paragraphs: dict[str, str] = {}
    for text in texts:
        for paragraph in text.split("\n\n"):
            paragraphs.setdefault(" ".join(paragraph.split()), paragraph.strip("\n"))
    paragraphs.pop("", None)
    return "\n\n".join(paragraphs.values())
