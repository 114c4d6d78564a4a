"""Runs of the command, in this process where that is enough."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra._internal.hydra import Hydra

from seqnets.cli.main import command

SMALL = [
    "trainer=debug",
    "trainer.limit_train_batches=2",
    "model.hidden_size=4",
    "callbacks.checkpoints.every_n_steps=1",
]
"""What makes a run of two steps."""


def only_run(tmp_path):
    """The folder of the one run there is."""
    (folder,) = (tmp_path / "runs").glob("*/*")
    return folder


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Write a module of the user's, line by line, where it can be imported."""

    def write(name, *lines):
        (tmp_path / f"{name}.py").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, name, raising=False)  # an earlier test's

    return write


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _composed_once(monkeypatch):
    """Hydra composes all of a configuration for ``hydra.mode`` alone, and then once more."""
    whole = Hydra.get_mode

    def get_mode(self, config_name, overrides):
        given = any(override.lstrip("+").startswith("hydra.mode") for override in overrides)
        return whole(self, config_name, overrides) if given else None

    monkeypatch.setattr(Hydra, "get_mode", get_mode)


@pytest.fixture
def seqnets(tmp_path, monkeypatch, capsys):
    """Call the command with arguments, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["seqnets", *map(str, arguments)])
        handlers, level = logging.root.handlers[:], logging.root.level
        try:
            code = command([str(argument) for argument in arguments])
        except SystemExit as ended:  # argparse's and Hydra's own
            code = ended.code or 0
        finally:  # Hydra sets up logging for a process, to streams that are this test's alone
            logging.root.handlers[:] = handlers
            logging.root.setLevel(level)
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def started(tmp_path):
    """Start the command as a process of its own; it is ended with the test."""
    running = []

    def start(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "seqnets", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
        process.communicate()


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("What was learned stays; what was lost is gone.\n" * 60, encoding="utf-8")
    return path


@pytest.fixture
def small_text(text_file, tmp_path):
    """A tiny language model's run, as overrides."""
    return [
        *SMALL,
        "dataset=text",
        f"dataset.path={text_file}",
        f"dataset.cache={tmp_path / 'cache'}",
        "dataset.batch_size=2",
        "dataset.chunk_length=16",
        "+callbacks.samples.length=20",
    ]
