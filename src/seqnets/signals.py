"""The signals that ask a process to end: ``kill``, Ctrl-C and a closed terminal."""

from __future__ import annotations

import os
import signal
import stat
import sys

HANGUP = getattr(signal, "SIGHUP", None)
"""That of a closed terminal; None on Windows, which has no such signal."""


def heeded() -> list[signal.Signals]:
    """Those that the process was not started to ignore, as ``nohup`` has it."""
    there = [signal.SIGTERM, signal.SIGINT, *([HANGUP] if HANGUP else [])]
    return [number for number in there if signal.getsignal(number) is not signal.SIG_IGN]


def outlive_terminal() -> None:
    """Once the terminal is closed, end in order without it.

    What would be printed is discarded, unless to a file: the terminal, or a program that read the
    output there, may end a moment later, and printing would be an error. The signal is ignored
    from now on: the shell sends it, and so does the system once the shell has ended.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in filter(None, (sys.__stdout__, sys.__stderr__)):  # None: closed when it began
        if not stat.S_ISREG(os.fstat(output.fileno()).st_mode):
            os.dup2(nowhere, output.fileno())
    os.close(nowhere)
