"""Lines that break between words where the terminal ends."""

from __future__ import annotations

import shutil
import sys
import textwrap


def hanging(line: str, indent: int) -> str:
    """Break a line for the terminal; what follows stands below the column where its text begins.

    Lines that go to a file or to another program stay whole, for it to search.

    Args:
        line: The line.
        indent: The column where the text begins that may need several lines.
    """
    if not sys.stdout.isatty():
        return line
    width = max(shutil.get_terminal_size().columns, indent + 20)
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_on_hyphens=False)
