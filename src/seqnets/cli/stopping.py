"""What ends a command from outside: a signal, an output that nobody reads, or a full disk."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from seqnets.signals import HANGUP, heeded, outlive_terminal

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stopped(BaseException):
    """Raised when a signal arrives; not an Exception, so that nobody handles it as an error.

    Attributes:
        code: The exit code, 128 + the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number

    def __str__(self) -> str:
        return f"Stopped by {signal.Signals(self.code - 128).name}"


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise :class:`Stopped` when a signal asks the process to end; a second one kills it.

    Training replaces these handlers by its own. Lightning calls them where by itself it would exit
    with 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in heeded()}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        restore()
        if number == HANGUP:
            outlive_terminal()
        elif HANGUP in before:  # the end of a session sends it beside SIGTERM: it is no second one
            signal.signal(HANGUP, lambda *_: outlive_terminal())
        raise Stopped(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


def is_unread(error: BaseException) -> bool:
    """Whether an error comes from a reader of the output that has closed the pipe."""
    cause = error.__context__ if isinstance(error, SystemExit) else error
    return isinstance(cause, BrokenPipeError)


def is_full(error: BaseException | None) -> bool:
    """Whether an error comes from a disk or quota that is full."""
    return isinstance(error, OSError) and error.errno in _FULL
