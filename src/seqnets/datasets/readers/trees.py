"""Labelled trees in Penn Treebank bracket notation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqnets.datasets.readers.files import check_text
from seqnets.errors import DataError

_PIECE = re.compile(r"[()]|[^() \t]+")  # a word may contain other white space

_BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}


@dataclass
class Tree:
    """A phrase with its label: one word, or one or more phrases.

    Attributes:
        label: The label, verbatim.
        word: The word of a leaf, otherwise "".
        children: The phrases it consists of; empty for a leaf.
    """

    label: str
    word: str
    children: list[Tree]

    def phrases(self) -> Iterator[Tree]:
        """Yield all subtrees in pre-order, this one first."""
        waiting = [self]
        while waiting:
            tree = waiting.pop()
            yield tree
            waiting.extend(reversed(tree.children))

    def words(self) -> list[str]:
        """Its words, left to right."""
        return [tree.word for tree in self.phrases() if tree.word]


def read_trees(path: Path, labels: Sequence[str]) -> list[Tree]:
    r"""Read a file with one tree per line, such as ``(3 (3 Good) (2 fun))``, skipping empty lines.

    Escaped brackets (``-LRB-`` and the like), ``\/`` and ``\*`` are unescaped.

    Args:
        path: The file, UTF-8.
        labels: The allowed labels.

    Raises:
        DataError: The file is missing or empty, or a line is malformed; the message says in which
            line and column.
    """
    check_text(path)
    trees = []
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    trees.append(parse_tree(line.rstrip("\r\n"), labels))
                except ValueError as error:
                    raise DataError(f"{path}, line {number}, {error}") from None
    return trees


def parse_tree(text: str, labels: Sequence[str]) -> Tree:
    """Read one tree.

    Raises:
        ValueError: The text is not a tree; the message says in which column.
    """
    opened: list[Tree] = []
    done: Tree | None = None
    expected: Sequence[str] = _START
    for match in _PIECE.finditer(text):
        piece = match[0]
        kind = piece if piece in ("(", ")") else _LABEL if expected is _LABELS else _WORD
        if kind not in expected or (kind is _LABEL and piece not in labels):
            column, came = match.start() + 1, repr(piece[:40])
            raise ValueError(f"column {column}: got {came}, expected {_or(expected, labels)}.")
        if kind == "(":
            expected = _LABELS
        elif kind is _LABEL:
            opened.append(Tree(piece, "", []))
            expected = _CONTENT
        elif kind is _WORD:
            opened[-1].word = _BRACKETS.get(piece, piece.replace("\\/", "/").replace("\\*", "*"))
            expected = _CLOSE
        else:
            done = opened.pop()
            expected = _MORE if opened else _NOTHING
            if opened:
                opened[-1].children.append(done)
    if expected is not _NOTHING or done is None:
        raise ValueError(
            f"column {len(text) + 1}: the line ends, expected {_or(expected, labels)}."
        )
    return done


_WORD, _LABEL = "a word", "a label"
# What may come next, after ...
_START = ("(",)
_LABELS = (_LABEL,)  # a bracket
_CONTENT = ("(", _WORD)  # a label
_CLOSE = (")",)  # a word
_MORE = ("(", ")")  # a phrase in another
_NOTHING = ("the end of the line",)


def _or(expected: Sequence[str], labels: Sequence[str]) -> str:
    of = f", one of {', '.join(labels)}" if _LABEL in expected else ""
    return " or ".join(expected) + of
