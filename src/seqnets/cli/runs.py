"""Run folders: how they are created, locked and found."""

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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_RUNS = "runs"
"""Default output folder of `seqnets train`."""

_CHECKPOINTS, _LAST, _RESULT, _LOCK = "checkpoints", "last.ckpt", "result.json", "run.lock"


def new_folder(output: Path | str, dataset: str) -> Path:
    """Create a unique run folder, ``OUTPUT/DATASET/DATE_TIME_UNIQUE``.

    Raises:
        ConfigError: It cannot be created or written to.
    """
    parent = Path(output).expanduser() / dataset
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(4)}"
    try:
        _make(parent / name / _CHECKPOINTS)
    except OSError as error:
        raise ConfigError(
            f"output: is {str(output)!r}, expected a folder that can be written to: "
            f"{error.strerror}: {error.filename}.\n"
            f"  Runs are kept there. Choose another with output=FOLDER."
        ) from error
    return parent / name


def _make(folder: Path) -> None:
    """Make a folder and its parents, which another run that fails may remove in between."""
    for _ in range(9):
        with contextlib.suppress(FileNotFoundError):
            return folder.mkdir(parents=True)
    return folder.mkdir(parents=True)


def absent_parents(output: Path | str, dataset: str) -> list[Path]:
    """The folders that a new run's folder will be in and that do not exist, inner ones first."""
    parent = Path(output).expanduser() / dataset
    return [folder for folder in (parent, *parent.parents) if not os.path.exists(folder)]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run's folder, so that no other process can resume the run meanwhile.

    The lock belongs to the operating system, which releases it when the process ends in any way.
    Systems and disks without file locks are left unlocked.

    Raises:
        ConfigError: Another process holds the lock.
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
                "that is not in use.\n  Wait until that process has ended, or stop it."
            ) from error
        except OSError:
            pass
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def folder_of(checkpoint: Path) -> Path | None:
    """The run folder that holds a checkpoint; None if it was moved out of one."""
    parent = checkpoint.absolute().parent
    inside = parent.name == _CHECKPOINTS and os.access(parent, os.W_OK)
    return parent.parent if inside else None


def checkpoint_at(path: object, name: str = _LAST) -> Path:
    """The checkpoint that a path refers to: a file, or a run's folder.

    Args:
        path: The user's argument; "last" is the newest run in ``runs``, "FOLDER/last" that in
            another folder of runs, or of those of one dataset.
        name: Which checkpoint of a run's folder to use.

    Raises:
        CheckpointError: There is no checkpoint.
        UsageError: The path is empty.
    """
    if path == "":
        raise UsageError("Checkpoint: the path is empty, expected a file or a run's folder.")
    place = Path(str(path)).expanduser()
    if place.name == "last" and not place.exists():
        folder = _RUNS if path == "last" else str(place.parent)
        if (last := newest_run(folder)) is None:
            raise CheckpointError(
                f"Checkpoint {path}: no run in {folder!r} has a checkpoint, expected one there.\n"
                "  FOLDER/last is the newest run elsewhere; or name the file, or the run's folder."
            )
        place = last
    if place.is_file():
        return place
    if (inside := _inside(place, name)) is not None:
        return inside
    found, advice = "a folder without a checkpoint" if place.is_dir() else "not there", ""
    if (newest := newest_run(place)) is not None:
        advice = f"\n  The newest run in it, {place / 'last'}, is {newest}."
    raise CheckpointError(
        f"Checkpoint {path}: is {found}, expected a file or a run's folder that `seqnets train` "
        f"wrote.{advice}"
    )


def place_of(checkpoint: Path) -> Path:
    """What a command names to use a checkpoint: its run's folder, if that leads to it."""
    folder = checkpoint.parent.parent
    leads = checkpoint.parent.name == _CHECKPOINTS and _inside(folder, "best.ckpt") == checkpoint
    return folder if leads else checkpoint


def _inside(folder: Path, name: str) -> Path | None:
    """The checkpoint that a folder stands for; None if there is none."""
    candidates = [folder / _CHECKPOINTS / name, folder / name, folder / _CHECKPOINTS / _LAST]
    return next(filter(Path.is_file, candidates), None)


def saved_config(checkpoint: Path) -> dict[str, Any]:
    """The configuration stored in a checkpoint, ready to be composed by Hydra.

    Interpolations are escaped, so that a checkpoint cannot read from this machine, and Hydra's own
    keys are dropped. An objective's metric that is the dataset's follows it if that is changed.

    Raises:
        CheckpointError: It has no configuration because it was written from Python.
    """
    from seqnets.training import load_checkpoint  # late: it brings torch

    config = config_in(load_checkpoint(checkpoint), checkpoint)
    saved = {key: _escaped(config[key]) for key in config if key not in ("defaults", "hydra")}
    metric = saved["dataset"].get("metric")
    if metric is not None and saved["objective"].get("metric") == metric:
        saved["objective"]["metric"] = "${dataset.metric}"
    return saved


def config_in(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """The configuration in a checkpoint that `seqnets train` wrote.

    Raises:
        CheckpointError: It has no configuration because it was written from Python.
    """
    config: dict[str, Any] = checkpoint["seqnets"]["config"]
    if not config:
        raise CheckpointError(
            f"Checkpoint {path}: does not say what its model is made of, expected one that "
            f"`seqnets train` wrote.\n"
            f"  Make the model as it was made, and fill it by seqnets.training.load_weights."
        )
    return config


def _escaped(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _escaped(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_escaped(value) for value in node]
    return node.replace("${", "\\${") if isinstance(node, str) else node


def find_resume(resume: str | None, output: Path | str) -> Path | None:
    """The checkpoint to resume from, or None to start a new run.

    Args:
        resume: A checkpoint, a run's folder, "last" (of all runs in ``output``), or "auto" (as
            "last", but None if there is no run or the last one is finished).
        output: The folder of all runs.

    Raises:
        CheckpointError: There is nothing to resume, and ``resume`` is not "auto".
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
            f"resume=last: no run in {str(output)!r} has a checkpoint, expected one to "
            f"continue.\n  Say where runs are with output=FOLDER, or start afresh without resume."
        )
    return last


def newest_run(folder: Path | str) -> Path | None:
    """The newest run in a folder of runs, or of those of one dataset."""
    newest = _newest(folder) or _newest(folder, "*")
    return None if newest is None else newest.parents[1]


def _newest(folder: Path | str, runs: str = "*/*") -> Path | None:
    """The most recently written last checkpoint of the runs in a folder."""
    found = Path(str(folder)).expanduser().glob(f"{runs}/{_CHECKPOINTS}/{_LAST}")
    written = filter(Path.is_file, found)  # a link may lead nowhere
    return max(written, key=lambda path: path.stat().st_mtime_ns, default=None)


def write_result(folder: Path, figures: dict[str, Any]) -> None:
    """Write a finished run's scores; the file's existence marks the run as finished."""
    with atomic(folder / _RESULT) as partial:
        partial.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def is_tested(folder: Path) -> bool:
    """Whether a run is finished, with figures of its test part."""
    result = folder / _RESULT
    return result.exists() and "test" in json.loads(result.read_text(encoding="utf-8"))


def mark_unfinished(folder: Path) -> None:
    """Remove the mark of a finished run, because it continues."""
    (folder / _RESULT).unlink(missing_ok=True)
