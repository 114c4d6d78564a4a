"""Download of a file whose SHA-256 is known."""

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
    """Download a file atomically, unless it exists already.

    Args:
        url: Address of the file.
        target: Where to save it; its folder is created if needed.
        sha256: SHA-256 of the content, in hexadecimal.
        max_bytes: Maximum number of bytes to read.

    Raises:
        DataError: The server cannot be reached, the content is not the expected one, or the folder
            is not writable.
    """
    if target.is_file() and hashlib.sha256(target.read_bytes()).hexdigest() == sha256:
        return
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            content = answer.read(max_bytes)
    except (OSError, HTTPException) as error:
        raise DataError(
            f"{url}: cannot be fetched: {error}.\n"
            f"  It was to be saved as {target}.\n"
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
