"""The terminal, and silence where Lightning says what nobody needs to hear."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

from rich.console import Console

_NEEDLESS = (
    r".*does not have many workers.*",  # our loaders are in memory
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    r".*GPU available but not used.*",
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*lr_scheduler\.step\(\)` before `optimizer\.step\(\)`.*",  # after a resume: it is not so
    r".*The number of training batches .* is smaller than the logging interval.*",
    r".*callbacks used to create the checkpoint .*\['Timer'\].*",  # it may have no limit now
    r".*You requested to overfit but enabled .* dataloader shuffling.*",  # none is shuffled then
    r"Glyph .* missing from font.*",  # a letter that the fonts lack is drawn as a box
    r".*It is recommended to use `self\.log\(.*sync_dist=True\)`.*",  # they are summed up already
)


def terminal(stderr: bool = False) -> Console:
    """Return a console on which brackets and colons of a text are no markup and no emoji."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep back Lightning's tips, its list of devices and warnings that are false here.

    Ctrl-C stays what it is: Lightning would make it an exit with 1.
    """
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [talker.level for talker in loggers]
    for talker in loggers:
        talker.setLevel(logging.WARNING)
    with warnings.catch_warnings():
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
