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
    """A signal came; nobody who catches errors is to take it for one.

    Attributes:
        code: What the command ends with, 128 + the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(number).name}")
        self.code = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise :class:`Stopped` where a command is when SIGTERM or Ctrl-C comes; a second is final.

    Training puts its own way of stopping in place of this one, and Lightning calls it, where by
    itself it would say that all went well.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {  # without those that whoever started the command wants to be passed by
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
