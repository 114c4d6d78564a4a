"""The signals that ask a process to end: ``kill``, Ctrl-C and a closed terminal."""

from __future__ import annotations

import os
import signal
import stat

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP")  # Windows has no SIGHUP


def heeded() -> list[signal.Signals]:
    """Return those that the process was not started to ignore, as ``nohup`` has it."""
    there = [signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__]
    return [number for number in there if signal.getsignal(number) is not signal.SIG_IGN]


def outlive_terminal(number: int) -> None:
    """Where a signal says that the terminal is closed, end in order without it.

    What would be printed on it is discarded, since that would be an error, and the signal is
    ignored from now on: the shell sends it, and so does the system once the shell has ended.
    """
    if signal.Signals(number).name != "SIGHUP":
        return
    signal.signal(number, signal.SIG_IGN)
    for output in (1, 2):
        if stat.S_ISCHR(os.fstat(output).st_mode) and not os.isatty(output):
            os.dup2(os.open(os.devnull, os.O_WRONLY), output)
