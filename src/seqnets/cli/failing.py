"""What is told of a job that failed: why, and the folder that its run left."""

from __future__ import annotations

from seqnets.cli.stopping import Stopped
from seqnets.cli.sweep import Failed
from seqnets.errors import SeqnetsError
from seqnets.insight.visible import visible

_FOLDER = "run_folder"
"""The attribute of an error that names the folder of the run that it ended."""

_LONGEST = 200
"""The most characters of a reason."""


def leave(error: BaseException, folder: str) -> None:
    """Let an error name the folder of the run that it ended, as printed; the folder stays."""
    setattr(error, _FOLDER, folder)


def failure(error: BaseException) -> Failed:
    """How a job failed, according to the error that ended it."""
    said = visible(str(error).partition("\n")[0])
    if not isinstance(error, SeqnetsError | Stopped):
        name = type(error).__name__
        said = f"{name}: {said}" if said else name
    reason = said if len(said) <= _LONGEST else f"{said[: _LONGEST - 3]}..."
    is_stop = isinstance(error, Stopped | KeyboardInterrupt)
    return Failed(reason, getattr(error, _FOLDER, None), is_stop)
