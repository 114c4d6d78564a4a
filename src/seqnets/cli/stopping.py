"""Ending a command when a signal asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """Raised when a signal arrives; not an Exception, so that nobody handles it as an error.

    Attributes:
        code: The exit code, 128 + the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(number).name}")
        self.code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise :class:`Stopped` when SIGTERM or Ctrl-C arrives; a second one kills the process.

    Training replaces these handlers by its own. Lightning calls them where by itself it would exit
    with 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {  # without signals that the command was started to ignore
        number: signal.SIG_DFL if handler is None else handler
        for number, handler in handlers.items()
        if handler is not signal.SIG_IGN
    }

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        restore()
        raise Stopped(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
