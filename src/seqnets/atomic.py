"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from seqnets.errors import ConfigError

_NAME = re.compile(r"\.(\d+)-([0-9a-f]{8})-[0-9a-f]{8}\.partial(\..*)?", re.DOTALL)
"""What is being written is called after the process that writes it, and after its machine."""

_STALE = 24 * 3600.0
"""Seconds after which what another machine has not written to is taken to be abandoned."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a path to write to; what is written takes a file's place once it is complete.

    It is hidden beside that file, then flushed to the disk and renamed over what was there: at any
    moment the name holds a whole file, the old or the new. Where writing fails nothing is left.
    What a killed process left is cleared away by the next one that writes into the folder; what it
    left on another machine that shares the folder, after a day.

    For instance::

        with atomic(path) as partial:
            partial.write_text(text)

    Args:
        path: Where the file goes; its folder is made if need be.
    """
    writer = f"{os.getpid()}-{_machine()}-{secrets.token_hex(4)}"
    partial = path.with_name(f".{writer}.partial{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_partials_of_the_dead(path.parent)
    try:
        yield partial
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def named_by(option: str, path: Path) -> Iterator[None]:
    """Turn what keeps a file from being written into a ConfigError about the option naming it."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{option}: is {str(path)!r}, expected a file that can be written: "
            f"{error.strerror or error}."
        ) from error


def _remove_partials_of_the_dead(folder: Path) -> None:
    """Unlink what processes that were killed while writing have left behind."""
    for partial in folder.glob(".*.partial*"):
        named = _NAME.fullmatch(partial.name)
        if named and _is_abandoned(partial, int(named[1]), named[2]):
            with suppress(OSError):  # it may be another user's
                partial.unlink()


def _is_abandoned(partial: Path, process: int, machine: str) -> bool:
    """Whether nobody writes to a file any more; of a process elsewhere, its age has to tell."""
    if machine == _machine():
        return not _lives(process)
    with suppress(OSError):  # it may have become whole meanwhile
        return partial.stat().st_mtime < time.time() - _STALE
    return False


@cache
def _machine() -> str:
    """A digest of this machine, or container: each numbers its processes by itself."""
    processes = None
    with suppress(OSError):  # not every system has it, or shows it
        processes = os.readlink("/proc/self/ns/pid")  # those that see each other
    return hashlib.sha256(repr((platform.node(), processes)).encode()).hexdigest()[:8]


def _lives(process: int) -> bool:
    """Whether there is a process of this number; on Windows all are taken to be alive."""
    if sys.platform == "win32":  # where signal 0 is no question, but Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; systems without folder handles need nothing."""
    with suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
