"""The terminal, without Lightning's needless messages."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Iterator

from rich.console import Console

SLOW = 5.0
"""Seconds of reading data after which a command says what it is doing."""

_NARROWEST = 40  # columns; a terminal may say that it has 0 or 1

_NEEDLESS = (
    r".*does not have many workers.*",  # the loaders read from memory
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*GPU available but not used.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*lr_scheduler\.step\(\)` before `optimizer\.step\(\)`.*",  # false after a resume
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*callbacks used to create the checkpoint .*\['Timer'\].*",  # a limit may be gone
    r".*You requested to overfit but enabled .* dataloader shuffling.*",  # none is shuffled then
    r".*overriding `LightningModule\.optimizer_\{step,zero_grad\}`.*",  # once a step is right here
    r"Glyph .* missing from font.*",  # a letter that the fonts lack is drawn as a box
    r".*It is recommended to use `self\.log\(.*sync_dist=True\)`.*",  # they are summed already
)


def terminal(stderr: bool = False) -> Console:
    """A console that prints brackets and colons as they are, not as markup or emoji.

    It is at least :data:`_NARROWEST` wide: in less, rich cannot draw a table, or cuts its figures.
    """
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if console.width < _NARROWEST:
        console.width = _NARROWEST
    return console


@contextlib.contextmanager
def told_if_slow() -> Iterator[None]:
    """Say on standard error that data are being read, once that has taken :data:`SLOW`.

    Of the processes of a run, the first one says it.
    """
    timer = threading.Timer(SLOW, terminal(stderr=True).print, ["Reading the data ..."])
    timer.daemon = True
    if os.environ.get("LOCAL_RANK", "0") == "0":
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _profiles() -> Iterator[None]:
    """Print the reports of Lightning's profilers, which log them."""
    reports, handler = logging.getLogger("lightning.pytorch.profilers"), _Printer()
    reports.addHandler(handler)
    reports.setLevel(logging.INFO)
    reports.propagate = False
    try:
        yield
    finally:
        reports.removeHandler(handler)
        reports.setLevel(logging.NOTSET)
        reports.propagate = True


class _Printer(logging.Handler):
    """Prints messages as they are, on the standard output of the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        terminal().print(record.getMessage().strip(), soft_wrap=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress Lightning's tips, its list of devices, and warnings that are false here.

    Ctrl-C stays a KeyboardInterrupt, which Lightning would turn into an exit with 1.
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [talker.level for talker in loggers]
    for talker in loggers:
        talker.setLevel(logging.WARNING)
    with warnings.catch_warnings(), _profiles():
        for message in _NEEDLESS:
            warnings.filterwarnings("ignore", message)
        try:
            yield
        except SystemExit as end:
            if isinstance(end.__context__, KeyboardInterrupt):
                raise end.__context__ from None
            raise
        finally:
            for talker, level in zip(loggers, levels, strict=True):
                talker.setLevel(level)
