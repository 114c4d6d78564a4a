"""What users type: mistyped names, and quoting."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable

from seqnets.errors import ConfigError

_PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)$)[a-z_/][\w./+-]*", re.ASCII | re.IGNORECASE)
"""Values that Hydra's grammar reads as text without quotes: no number, boolean or null."""


class UsageError(ConfigError):
    """The command line cannot be understood; the command exits with 2."""


def near(name: str, known: Iterable[object]) -> str:
    """Name the known names that end alike, else the similar ones, else all beside it."""
    names = sorted({str(entry) for entry in known} - {name})
    alike = [entry for entry in names if _last(entry) == _last(name)]
    similar = alike or [entry for entry in names if _likeness(_last(entry), _last(name)) > 0.6]
    close = difflib.get_close_matches(name, similar, n=3, cutoff=0 if alike else 0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    beside = [entry for entry in names if _parent(entry) == _parent(name)]
    names = beside or [entry for entry in names if "." not in entry]
    return f"There are: {', '.join(names)}." if names else "There are none."


def _last(name: str) -> str:
    return re.split("[./]", name)[-1]


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _likeness(a: str, b: str) -> float:
    """How alike two names are, 0 to 1; parents that they share would make all names alike."""
    return difflib.SequenceMatcher(None, a, b).ratio()


def override(key: str, value: object) -> str:
    """An override of a key by a text, quoted for Hydra if necessary."""
    text = str(value)
    if not _PLAIN.fullmatch(text):
        escaped = text.replace("\\", "\\\\").replace("'", "\\'")
        text = f"'{escaped}'"
    return f"{key}={text}"


def shell(text: str) -> str:
    """Quote an argument for a shell, in double quotes if it contains single ones (Hydra's)."""
    doubly = "'" in text and not re.search(r'["$`\\!]', text)
    return f'"{text}"' if doubly else shlex.quote(text)
