"""Fetching one file whose content is known beforehand."""

from __future__ import annotations

import hashlib
import urllib.request
from http.client import HTTPException
from pathlib import Path

from seqnets.atomic import atomic
from seqnets.errors import DataError

TIMEOUT = 30.0
"""Seconds that a server may be silent."""


def download(url: str, target: Path, *, sha256: str, max_bytes: int) -> None:
    """Fetch a file unless it is there already; the target never holds a part of it.

    Args:
        url: Where the file is.
        target: Where to put it; its folders are made.
        sha256: The SHA-256 of the file's content, in hexadecimal.
        max_bytes: No more than this is read.

    Raises:
        DataError: The server cannot be reached, the content is another, or the folder cannot be
            written.
    """
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == sha256:
        return
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            content = answer.read(max_bytes)
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{url}: cannot be fetched: {error}.\n"
            f"  It was to become {target}.\n"
            "  Connect to the network, or name a folder that holds the file as root."
        ) from None
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError(
            f"{url}: got {len(content):,} bytes with SHA-256 {found}, expected {sha256}.\n"
            "  The file has changed or was damaged on its way; nothing was kept."
        )
    try:
        with atomic(target) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror}.") from None
