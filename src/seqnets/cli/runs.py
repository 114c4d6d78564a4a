"""Where runs live: a folder of its own for each, and how to find one again."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from seqnets.atomic import atomic
from seqnets.cli.names import UsageError
from seqnets.errors import CheckpointError, ConfigError
from seqnets.training import load_checkpoint

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_RUNS = "runs"
"""Where `seqnets train` makes runs if it is not told otherwise."""

_CHECKPOINTS, _LAST, _RESULT, _LOCK = "checkpoints", "last.ckpt", "result.json", "run.lock"


def new_folder(output: Path | str, dataset: str) -> Path:
    """Make a run's folder, ``OUTPUT/DATASET/DATE_TIME_UNIQUE``, which no other run has.

    Raises:
        ConfigError: It cannot be made or written to.
    """
    parent = Path(output).expanduser() / dataset
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(4)}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        (parent / name).mkdir()
        (parent / name / _CHECKPOINTS).mkdir()
    except OSError as error:
        raise ConfigError(
            f"output: is {str(output)!r}, expected a folder that can be written to: "
            f"{error.strerror}: {error.filename}.\n"
            f"  Runs are kept there. Choose another with output=FOLDER."
        ) from error
    return parent / name


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run's folder: no other process can go on with the run meanwhile.

    The lock is the system's, which ends with the process, however that ends; on a system or disk
    without locks there is none.

    Raises:
        ConfigError: Another process holds it.
    """
    if fcntl is None:
        yield
        return
    with (folder / _LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ConfigError(
                f"Run {folder}: is in use by process {file.read() or 'unknown'}, expected a run "
                "that nobody trains.\n  Wait until it has ended, or stop it."
            ) from error
        except OSError:
            pass
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def folder_of(checkpoint: Path) -> Path | None:
    """The folder of the run that wrote a checkpoint; None if it lies elsewhere now."""
    parent = checkpoint.absolute().parent
    inside = parent.name == _CHECKPOINTS and os.access(parent, os.W_OK)
    return parent.parent if inside else None


def checkpoint_at(path: object, name: str = _LAST) -> Path:
    """The checkpoint that a path means: a file, or a run's folder.

    Args:
        path: What the user gave; "last" is the newest run in ``runs``.
        name: Which checkpoint of a run's folder to take.

    Raises:
        CheckpointError: There is none.
        UsageError: The path is empty.
    """
    if path == "":
        raise UsageError("Checkpoint: the path is empty, expected a file or a run's folder.")
    place = Path(str(path)).expanduser()
    if path == "last" and not place.exists():
        if (last := _newest(_RUNS)) is None:
            raise CheckpointError(
                f"Checkpoint last: no run in {_RUNS!r} has a checkpoint, expected one there.\n"
                "  Elsewhere name the file, or the run's folder."
            )
        place = last.parents[1]
    if place.is_file():
        return place
    candidates = [place / _CHECKPOINTS / name, place / name, place / _CHECKPOINTS / _LAST]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    found = "a folder without a checkpoint" if place.is_dir() else "not there"
    raise CheckpointError(
        f"Checkpoint {path}: is {found}, expected a file or a run's folder that `seqnets train` "
        f"wrote."
    )


def saved_config(checkpoint: Path) -> dict[str, Any]:
    """The configuration that a checkpoint holds, to be composed with: its text stays text.

    What would be an interpolation is escaped, for a checkpoint asks nothing of this machine; and
    what Hydra itself would read is left out.

    Raises:
        CheckpointError: There is none: the checkpoint was written from Python.
    """
    config = config_in(load_checkpoint(checkpoint), checkpoint)
    return {key: _literal(config[key]) for key in config if key not in ("defaults", "hydra")}


def config_in(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The configuration of what `seqnets train` wrote.

    Raises:
        CheckpointError: There is none: the checkpoint was written from Python.
    """
    config: dict[str, Any] = checkpoint["seqnets"]["config"]
    if not config:
        raise CheckpointError(
            f"Checkpoint {path}: does not say what its model is made of, expected one that "
            f"`seqnets train` wrote.\n"
            f"  Make the model as it was made, and fill it by seqnets.training.load_weights."
        )
    return config


def _literal(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_literal(value) for value in node]
    return node.replace("${", "\\${") if isinstance(node, str) else node


def find_resume(resume: str | None, output: Path | str) -> Path | None:
    """The checkpoint to go on from, or None to start afresh.

    Args:
        resume: A checkpoint, a run's folder, "last" (of all runs in ``output``), or "auto" (as
            "last", but None if there is no run or the last one is finished).
        output: The folder of all runs.

    Raises:
        CheckpointError: There is nothing to go on from, and ``resume`` is not "auto".
    """
    if resume is None:
        return None
    if resume not in ("last", "auto"):
        return checkpoint_at(resume)
    last = _newest(output)
    if resume == "auto":
        return None if last is None or (last.parents[1] / _RESULT).exists() else last
    if last is None:
        raise CheckpointError(
            f"resume=last: no run in {str(output)!r} has a checkpoint, expected one to go on "
            f"from.\n  Say where runs are with output=FOLDER, or start afresh without resume."
        )
    return last


def _newest(output: Path | str) -> Path | None:
    """The last checkpoint of the run that wrote one last, of all runs in a folder."""
    written = Path(str(output)).expanduser().glob(f"*/*/{_CHECKPOINTS}/{_LAST}")
    return max(written, key=lambda path: path.stat().st_mtime_ns, default=None)


def write_result(folder: Path, figures: dict[str, Any]) -> None:
    """Write a finished run's figures; that the file is there says that the run is finished."""
    with atomic(folder / _RESULT) as partial:
        partial.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def unmark(folder: Path) -> None:
    """Take a finished run's mark away: it goes on."""
    (folder / _RESULT).unlink(missing_ok=True)
