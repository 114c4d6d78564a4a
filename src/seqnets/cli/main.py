"""The ``seqnets`` command: its verbs and exit codes."""

from __future__ import annotations

import ctypes
import gc
import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import seqnets
from seqnets.cli.lines import hanging
from seqnets.cli.names import UsageError, near
from seqnets.cli.stopping import Stopped, is_full, is_unread, stoppable
from seqnets.errors import SeqnetsError
from seqnets.quoting import override, shell
from seqnets.signals import heeded

VERBS = {
    "train": "train a model, or resume a run",
    "evaluate": "score a checkpoint",
    "predict": "write a model's predictions for new data, or for a part of its dataset",
    "generate": "generate text with a language model",
    "export": "write a trained model to a file that other programs run",
    "inspect": "show a dataset, or draw what a trained model's layers hold",
    "benchmark": "time cells against other implementations and the hardware limit",
    "convert": "convert weights to and from torch.nn, Keras, Flax and ONNX",
    "list": "list models, cells, datasets, experiments, ...",
    "completion": "print a script for tab completion in bash, zsh or fish",
}

_MEANT = {"resume": ("train", "resume"), "test": ("evaluate", "checkpoint")}
"""Verbs of other programs: the verb here that does the same, and its key for a run."""

_MEMORY = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as <malloc.h> numbers them

_NO_HOME = "Could not determine home directory."  # as pathlib says it

_SOURCE = Path(seqnets.__file__).parent

_formatwarning = warnings.formatwarning

HELP = """\
seqnets: recurrent sequence models.

{verbs}

seqnets VERB --help explains a verb; --version prints the version.
Options are given as key=value:
  seqnets train dataset=text dataset.path=book.txt
"""


def main() -> None:
    """Run the command and exit: 0 done, 1 failed, 2 mistyped, 128 + N stopped by signal N.

    Unless the user's environment says otherwise, waiting threads soon sleep instead of spinning
    (docs/decisions/0008), and freed memory is kept (0015). A benchmark changes neither, so that it
    measures what other PyTorch code would see. Characters that the output's encoding lacks are
    written as escapes: no run should fail because of the lines of a table.
    """
    open_streams()
    leave_notebook()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = _format_warning
    if sys.argv[1:2] != ["benchmark"]:
        if "OMP_WAIT_POLICY" not in os.environ:  # read when torch is loaded, which happens later
            os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        keep_memory()
    code = command(sys.argv[1:])
    for number in heeded():  # one that comes now ends what is left, and is no other outcome
        signal.signal(number, lambda *_: os._exit(code))
    gc.collect()
    gc.freeze()  # else Python spends a second on the objects of all modules before it ends
    sys.exit(code)


def open_streams() -> None:
    """Open standard streams that were closed when the process began, for which Python has None.

    There is nothing to read from them, and what is written to them is discarded.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (for the whole process)


def leave_notebook() -> None:
    """Print line by line where the command was called after ``!`` in a notebook.

    ipykernel calls it a terminal with colours, but shows each line that is drawn again as another
    one. Its backend for matplotlib may be missing in the Python that runs here, and none is needed.
    """
    if (os.environ.get("TERM"), os.environ.get("GIT_PAGER")) == ("xterm-color", "cat"):
        os.environ["TERM"] = "dumb"
        os.environ.pop("MPLBACKEND", None)


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning as text; one of seqnets' own without a line of source, which explains nothing."""
    if _SOURCE in Path(filename).parents:
        return f"Warning: {message}\n"
    return _formatwarning(message, category, filename, lineno, line)


def keep_memory() -> None:
    """Have glibc keep freed memory for the next step instead of returning it to the system.

    Buffers of up to 32 MiB, the most that glibc allows, come from the heap, whose end is kept up to
    1 GiB. Other C libraries are left alone, and so is glibc if the user has set one of its own
    variables for this.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or any(name in os.environ for name in _MEMORY):
        return
    mallopt(_MMAP_THRESHOLD, 32 << 20)
    mallopt(_TRIM_THRESHOLD, 1 << 30)


def command(arguments: Sequence[str]) -> int:
    """Run a verb and return the exit code; errors of seqnets are printed without a traceback."""
    try:
        with stoppable():
            code = _run(arguments)
        sys.stdout.flush()
        return code
    except Stopped as stop:
        _complain(f"{stop}.")
        return stop.code
    except (BrokenPipeError, SystemExit) as end:
        if not is_unread(end):
            raise
        _discard(sys.stdout)
        return 0
    except OSError as error:
        if not is_full(error):
            raise
        _discard(sys.stdout)
        _complain(f"seqnets: the output cannot be written: {error.strerror}.")
        return 1
    except KeyboardInterrupt:
        return 130


def _run(arguments: Sequence[str]) -> int:
    """Run a verb; print an error of seqnets, or what the machine lacks; return the exit code."""
    try:
        return _dispatch(arguments)
    except SeqnetsError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        _complain(f"{type(error).__name__}: {error}")
        return 2 if isinstance(error, UsageError) else 1
    except (MemoryError, RuntimeError) as error:
        homeless = str(error) == _NO_HOME
        if os.environ.get("HYDRA_FULL_ERROR") == "1" or not (homeless or _lacks_memory(error)):
            raise
        if homeless:
            _complain(
                "seqnets: ~ stands for a home folder that is not there, expected one.\n"
                "  Give whole paths; XDG_CACHE_HOME=FOLDER says where prepared data are kept."
            )
            return 1
        said = str(error).partition("\n")[0] or "Python got none"
        cause = re.sub(r"^\[enforce fail at .*?\] .*?: ", "", said)  # where in torch's source
        _complain(
            f"seqnets: there is not enough memory: {cause}\n"
            "  A smaller model, batch or dataset needs less; HYDRA_FULL_ERROR=1 shows where it "
            "ran out."
        )
        return 1


def _lacks_memory(error: Exception) -> bool:
    """Whether Python, or torch on some device, got no memory."""
    said = re.search(r"(can't allocate|not enough|out of) memory", str(error))
    return isinstance(error, MemoryError) or said is not None


def _complain(message: str) -> None:
    """Print why a command fails, which has its exit code also where nobody can read this."""
    try:
        print(message, file=sys.stderr)
    except OSError:
        _discard(sys.stdout, sys.stderr)  # one may be the other's


def _discard(*streams: TextIO) -> None:
    """Discard what is left of an output, so that Python exits without another error."""
    for stream in streams:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _dispatch(arguments: Sequence[str]) -> int:
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("--help", ())
    if verb == "help" and rest:
        verb, rest = rest[0], ("--help",)
    if verb in ("--help", "-h", "help"):
        width = max(map(len, VERBS))
        rows = (f"  {name:{width}}  {what}" for name, what in VERBS.items())
        verbs = "\n".join(hanging(row, width + 4) for row in rows)
        print(HELP.format(verbs=verbs), end="")
        return 0
    if verb == "--version":
        print(f"seqnets {seqnets.__version__}")
        return 0
    if verb == "list":
        from seqnets.cli.listing import show

        show(rest)
        return 0
    if verb == "completion":
        from seqnets.cli.completion import complete

        complete(rest)
        return 0
    if verb in VERBS:
        from seqnets.cli.application import run

        return run(verb, rest)
    advice = _verb_meant(verb, rest) if verb in _MEANT else near(verb, VERBS)
    _complain(f"seqnets: there is no verb {verb!r}.\n  {advice}")
    return 2


def _verb_meant(verb: str, arguments: Sequence[str]) -> str:
    """What to write for a verb that is one elsewhere, with the run that it was given."""
    meant, key = _MEANT[verb]
    given = [argument for argument in arguments if argument[0:1] != "-" and "=" not in argument]
    run = shell(override(key, given[0])) if given else f"{key}=RUN"
    return f"Did you mean `seqnets {meant} {run}`?"
