"""New data that come by standard input."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seqnets.cli.options import Config
from seqnets.errors import DataError

NAME = "-"

_CALLED = "standard input"


@contextmanager
def spooled(dataset: Config) -> Iterator[Path]:
    """Yield a temporary file with all of standard input, named as its format wants.

    What begins with a brace is JSON Lines; the rest has the format of the training data.

    Raises:
        DataError: There is nothing, or the training data are not one file; or from the body, where
            messages call the file "standard input".
    """
    content = sys.stdin.buffer.read()
    if not content.strip():
        raise DataError("input: standard input is empty, expected data.")
    trained = dataset.get("path") or dataset.get("source_path") or ""
    suffix = ".jsonl" if content.lstrip()[:1] == b"{" else Path(str(trained)).suffix
    if not suffix:
        raise DataError(
            "input: standard input has no format, for the training data are not one file.\n"
            "  Give JSON Lines, or a file's name."
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"stdin{suffix}"
        path.write_bytes(content)
        try:
            yield path
        except DataError as error:
            raise DataError(str(error).replace(str(path), _CALLED)) from error
