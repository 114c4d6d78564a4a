"""Mistyped names, and the error for a command line that cannot be understood."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from seqnets.errors import ConfigError


class UsageError(ConfigError):
    """The command line cannot be understood; the command exits with 2."""


def near(name: str, known: Iterable[object]) -> str:
    """Name the known names that end alike, else the similar ones, else all beside it.

    Capitals count as small letters.
    """
    names = sorted({str(entry) for entry in known} - {name})
    alike = [entry for entry in names if _last(entry) == _last(name)]
    similar = alike or [entry for entry in names if _likeness(_last(entry), _last(name)) > 0.6]
    small = {entry.casefold(): entry for entry in similar}
    close = difflib.get_close_matches(name.casefold(), small, n=3, cutoff=0 if alike else 0.5)
    if close:
        return f"Did you mean {' or '.join(small[entry] for entry in close)}?"
    beside = [entry for entry in names if _parent(entry) == _parent(name)]
    names = beside or [entry for entry in names if "." not in entry]
    return f"There are: {', '.join(names)}." if names else "There are none."


def _last(name: str) -> str:
    return re.split("[./]", name.casefold())[-1]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _likeness(a: str, b: str) -> float:
    """How alike two names are, 0 to 1; parents that they share would make all names alike."""
    return difflib.SequenceMatcher(None, a, b).ratio()
