"""Overrides of a configuration as users type them: quoted for Hydra, then for the shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

_PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)$)[a-z_/][\w./+-]*", re.ASCII | re.IGNORECASE)
"""Values that Hydra's grammar reads as text without quotes: no number, boolean or null."""


def override(key: str, value: object) -> str:
    """An override of a key by a text, quoted for Hydra if necessary."""
    return f"{key}={value_of(value)}"


def override_list(key: str, values: Iterable[object]) -> str:
    """An override of a key by a list of texts, each quoted for Hydra if necessary."""
    return f"{key}=[{','.join(map(value_of, values))}]"


def value_of(value: object) -> str:
    """The value that means this text, quoted for Hydra if necessary."""
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"  # Hydra reads backslashes before a quote and at the end twice, no others


def shell(text: str) -> str:
    """Quote an argument for a shell, in double quotes if it contains single ones (Hydra's)."""
    doubly = "'" in text and not re.search(r'["$`\\!]', text)
    return f'"{text}"' if doubly else shlex.quote(text)
