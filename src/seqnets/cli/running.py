"""A run's folder while the run trains: locked, with a log, and removed if no step was taken."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist
from lightning.pytorch import Trainer
from omegaconf import OmegaConf

import seqnets
from seqnets.cli import report, runs
from seqnets.cli.options import Config
from seqnets.cli.stopping import Stopped, is_full, is_unread
from seqnets.cli.sweep import note_folder
from seqnets.errors import ConfigError, SeqnetsError

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "SEQNETS_RUN_FOLDER"
"""Environment variable that passes the run folder to the processes Lightning starts."""

_FIRST_VARIABLE = "SEQNETS_RUN_PROCESS"
"""Environment variable that passes the number of the run's first process to those it starts."""

_PEER_LOST = ("closed by peer", "reset by peer", "remote process exited", "remote server shutdown")
"""Fragments of the Gloo and NCCL errors raised when a peer process has exited."""

_LOST = (
    "Training: another process of the run has ended, expected all to keep running.\n"
    "  It has said why, unless the system ended it, perhaps for lack of memory. A run with a "
    "checkpoint can be resumed."
)

_POLL = 0.5  # seconds between two looks at the first process


@dataclass
class Running:
    """A run's folder, and its trainer once created."""

    folder: Path
    trainer: Trainer | None = None


@contextlib.contextmanager
def running(existing: Path | None, options: Config, dataset: str) -> Iterator[Running]:
    """Yield a run with its existing or new folder, locked and logged while training.

    Raises:
        ConfigError: The folder cannot be used, its disk is full, or processes were started by
            another program.
        SeqnetsError: Another process of the run has ended.
        Stopped: Nobody reads the output any more.
    """
    with (
        _full_disk(),
        _in_folder(existing, options, dataset) as run,
        _lost_peers(),
        _unread_output(),
    ):
        yield run


def mark_started(options: Config, folder: Path, trainer: Trainer) -> None:
    """Save the resolved configuration and clear the mark of a finished run."""
    if trainer.is_global_zero:
        runs.mark_unfinished(folder)
        OmegaConf.save(OmegaConf.create(options), folder / "config.yaml")


def open_log(folder: Path) -> None:
    """Open the run's log, appending to an existing one."""
    handler = _Log(folder / "run.log", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.name = FOLDER_VARIABLE
    logging.getLogger().addHandler(handler)
    logging.getLogger("seqnets").setLevel(logging.INFO)
    logger.info("seqnets %s: %s", seqnets.__version__, shlex.join(sys.argv[1:]))


def _close_log() -> None:
    root = logging.getLogger()
    for handler in [h for h in root.handlers if h.name == FOLDER_VARIABLE]:
        root.removeHandler(handler)
        handler.close()


class _Log(logging.FileHandler):
    """A log file that drops lines a full disk cannot take; the terminal reports the error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (its name in logging)
        """Ignore the error."""

    def close(self) -> None:
        """Close the file even if its buffer cannot be flushed."""
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _in_folder(existing: Path | None, options: Config, dataset: str) -> Iterator[Running]:
    """Yield the run in its folder, which the first of its processes creates, locks and logs to."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        if FOLDER_VARIABLE not in os.environ:
            raise ConfigError(
                "trainer: another program started the processes, expected seqnets to.\n"
                "  Call `seqnets train` once; trainer.devices says how many there are."
            )
        if sys.platform != "win32":  # where a process's parent may be a launcher of Python's
            first = int(os.environ[_FIRST_VARIABLE])
            threading.Thread(target=_end_with, args=(first,), daemon=True).start()
        yield Running(Path(os.environ[FOLDER_VARIABLE]))
        return
    made = None if existing else runs.absent_parents(options["output"], dataset)
    run = Running(existing or runs.new_folder(options["output"], dataset))
    with _logged(run, made), runs.locked(run.folder):
        yield run


@contextlib.contextmanager
def _logged(run: Running, made: Sequence[Path] | None) -> Iterator[None]:
    """Log how the run ends; remove the folder of a new run that fails before its first step.

    The error that ends it names a folder that stays.

    Args:
        run: The run.
        made: Folders that were made for a new run's folder to be in, inner ones first; they are
            removed with it, unless other runs are there. None for a run that is resumed.
    """
    variables = {FOLDER_VARIABLE: str(run.folder), _FIRST_VARIABLE: str(os.getpid())}
    os.environ.update(variables)
    try:
        yield
    except BaseException as error:
        trace = None if isinstance(error, SeqnetsError | Stopped) else error
        logger.info("ended by %s: %s", type(error).__name__, error, exc_info=trace)
        if made is not None and (run.trainer is None or run.trainer.global_step == 0):
            _close_log()
            shutil.rmtree(run.folder)
            with contextlib.suppress(OSError):
                for parent in made:
                    parent.rmdir()
        else:
            note_folder(error, report.shown(run.folder))
        raise
    finally:
        for name in variables:
            del os.environ[name]
        _close_log()


@contextlib.contextmanager
def _full_disk() -> Iterator[None]:
    """Turn a full disk into a ConfigError, whichever file of the run could not be written.

    TensorBoard writes in a thread, whose error reaches the run later: its traceback is not printed.
    """
    before = threading.excepthook
    threading.excepthook = lambda raised: None if is_full(raised.exc_value) else before(raised)
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise ConfigError(
            f"output: the run's files, or what it prints, cannot be written: {error.strerror}.\n"
            "  Free some space or choose another folder (output=FOLDER). A run with a checkpoint "
            "can be resumed."
        ) from error
    finally:
        threading.excepthook = before


@contextlib.contextmanager
def _unread_output() -> Iterator[None]:
    """End a run whose output's reader has gone as SIGPIPE would have, since it is not done."""
    try:
        yield
    except (BrokenPipeError, SystemExit) as end:
        if not is_unread(end) or sys.platform == "win32":
            raise
        raise Stopped(signal.SIGPIPE) from end


@contextlib.contextmanager
def _lost_peers() -> Iterator[None]:
    """Turn the loss of a peer process into a SeqnetsError; the peer reports the cause itself."""
    try:
        yield
    except RuntimeError as error:
        if not any(text in str(error) for text in _PEER_LOST):
            raise
        raise SeqnetsError(_LOST) from error


def _end_with(first: int) -> None:
    """End this process when the first one has ended, until both are in a group.

    The wait for a group ends with torch's timeout only; within one, the loss of a process is an
    error.
    """
    while not (dist.is_available() and dist.is_initialized()):
        if os.getppid() != first:
            print(f"{SeqnetsError.__name__}: {_LOST}", file=sys.stderr, flush=True)
            os._exit(1)  # the main thread waits in torch
        time.sleep(_POLL)
