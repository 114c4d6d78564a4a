"""Text that a model wrote, so that it can be looked at."""

from __future__ import annotations

import html
import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MARKS = re.compile(r"[\\`*_\[\]|]")


def visible(text: str) -> str:
    r"""Return a text with its control characters as escapes, which no terminal obeys.

    Line ends and tabs stay. The escapes are those of JSON, of Python and of C.

    Example:
        >>> print(visible("a bell\a"))
        a bell\u0007
    """
    return _CONTROLS.sub(lambda control: f"\\u{ord(control[0]):04x}", text)


def unmarked(text: str) -> str:
    r"""Return a text as it is written in a cell of a Markdown table to stand there to the letter.

    Example:
        >>> print(unmarked("<unk> *a|b*"))
        &lt;unk&gt; \*a\|b\*
    """
    return html.escape(_MARKS.sub(r"\\\g<0>", text), quote=False)
