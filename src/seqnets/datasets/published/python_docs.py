"""Python's reference manual as a language modelling corpus."""

from __future__ import annotations

from collections.abc import Iterable

from seqnets.datasets.text.language import LanguageData
from seqnets.datasets.text.tokens import Tokens
from seqnets.errors import DataError


class PythonDocs(LanguageData):
    """Python's reference manual, bundled with Python; language modelling without a download.

    The topics of ``pydoc_data`` in alphabetical order, about 373,000 characters. Duplicate
    paragraphs are kept once, so no test text occurs in the training text.

    The arguments are those of :class:`LanguageData`.
    """

    def read_tokens(self) -> Tokens:
        """The manual as token ids.

        Raises:
            DataError: This Python lacks the manual.
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
    """Join the distinct paragraphs of some texts, compared without regard to white space."""
    paragraphs: dict[str, str] = {}
    for text in texts:
        for paragraph in text.split("\n\n"):
            paragraphs.setdefault(" ".join(paragraph.split()), paragraph.strip("\n"))
    paragraphs.pop("", None)
    return "\n\n".join(paragraphs.values())
