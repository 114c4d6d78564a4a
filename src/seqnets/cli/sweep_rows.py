"""The rows of a sweep's table, as files: jobs may run in other processes, or on other machines."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from seqnets.atomic import atomic
from seqnets.cli.sweep import UNFINISHED, Failed, Job, Trained
from seqnets.quoting import override

FOLDER_VARIABLE = "SEQNETS_SWEEP_ROWS"
"""Environment variable that names the folder of the rows, to the sweep and to its jobs."""

NUMBER_VARIABLE = "SEQNETS_SWEEP_JOB"
"""Environment variable that tells what a job runs what the job's number is."""


class Rows(Callback):
    """Make a folder for the rows beside the runs, a place that all jobs can write to."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Make the folder and name it to the jobs, whatever launches them."""
        runs = Path(config.hydra.sweep.dir).absolute()
        try:
            runs.mkdir(parents=True, exist_ok=True)
            folder = tempfile.mkdtemp(prefix=".sweep_", dir=runs)
        except OSError:  # of which Hydra would only warn; its sweeper fails likewise
            return
        os.environ[FOLDER_VARIABLE] = folder
        with read_write(config):
            # each job composes it anew
            named = override(f"+hydra.job.env_set.{FOLDER_VARIABLE}", folder)
            config.hydra.overrides.hydra.append(named)


def write(number: int, job: Job) -> None:
    """Write what is known of a job, in place of what was."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:  # another verb than train
        return
    path = Path(folder) / f"{number}.json"
    partial = path.with_suffix(".partial")
    with suppress(OSError):  # the table may have been printed
        partial.write_text(json.dumps(job), encoding="utf-8")
        partial.replace(path)


def write_folder(run: str) -> None:
    """Write the folder of the run of the job that runs, if one does: the job may be killed."""
    folder, number = os.environ.get(FOLDER_VARIABLE), os.environ.get(NUMBER_VARIABLE)
    if folder is None or number is None:
        return
    with suppress(OSError):  # the table may have been printed
        job = _read(Path(folder) / f"{number}.json")
        write(int(number), job._replace(failed=UNFINISHED._replace(folder=run)))


def take() -> dict[int, Job]:
    """The jobs that have begun, by number, of the sweep that is over; their files are removed."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named is None:
        return {}
    folder = Path(named)
    rows = {int(path.stem): _read(path) for path in folder.glob("*.json")}
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError, YAMLError, OmegaConfBaseException):  # another sweep may be writing it
        _forget_folder(folder.with_name("multirun.yaml"))
    return dict(sorted(rows.items()))


def _forget_folder(record: Path) -> None:
    """Remove the folder of the rows, which is no more, from what Hydra records of a sweep."""
    config = OmegaConf.load(record)
    given = config.hydra.overrides.hydra
    config.hydra.overrides.hydra = [option for option in given if FOLDER_VARIABLE not in option]
    with atomic(record) as partial:
        OmegaConf.save(config, partial)


def _read(path: Path) -> Job:
    swept, trained, failed = json.loads(path.read_text(encoding="utf-8"))
    return Job(swept, trained and Trained(*trained), failed and Failed(*failed))
