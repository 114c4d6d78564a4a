"""Model output made safe to display."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MARKS = re.compile(r"[\\`*_\[\]|]")


def visible(text: str) -> str:
    r"""A text with control characters escaped, so that no terminal interprets them.

    Line ends and tabs are kept. The escapes are valid in JSON, Python and C.

    Example:
        >>> print(visible("a bell\a"))
        a bell\u0007
    """
    return _CONTROLS.sub(lambda control: f"\\u{ord(control[0]):04x}", text)


def unmarked(text: str) -> str:
    r"""Escape a text so that a cell of a Markdown table shows it verbatim.

    Example:
        >>> print(unmarked("<unk> *a|b*"))
        &lt;unk&gt; \*a\|b\*
    """
    return html.escape(_MARKS.sub(r"\\\g<0>", text), quote=False)


def table(headings: Sequence[str], rows: Iterable[Sequence[str | None]]) -> str:
    r"""Write texts as a Markdown table that shows them verbatim, but for their white space.

    Example:
        >>> print(table(("written", "right"), [("a\nb", None)]))
        | written | right |
        |---|---|
        | a b |  |
    """
    lines = [f"| {' | '.join(headings)} |", f"|{'---|' * len(headings)}"]
    for row in rows:
        cells = (unmarked(" ".join((text or "").split())) for text in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
