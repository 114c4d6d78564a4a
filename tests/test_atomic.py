"""Files are written whole or not at all."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seqnets.atomic import _STALE, _machine, atomic, named_by
from seqnets.errors import ConfigError


@pytest.fixture
def gone():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_file_takes_its_place_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "said.jsonl"

    with atomic(path) as partial:
        partial.write_text("whole")
        assert not path.exists()

    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    def write():
        with atomic(path) as partial:
            partial.write_text("half")
            raise ValueError("halfway")

    path = tmp_path / "said.jsonl"
    path.write_text("before")
    with pytest.raises(ValueError, match="halfway"):
        write()

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_partial_file_is_hidden_and_has_the_same_suffix(tmp_path):
    with atomic(tmp_path / "net.keras") as partial:
        partial.touch()

        assert partial.name.startswith(".")
        assert partial.suffix == ".keras"


def test_partial_files_of_dead_processes_are_removed_and_other_files_kept(tmp_path, gone):
    left = tmp_path / f".{gone}-{_machine()}-0123abcd.partial.csv"
    others = [
        tmp_path / name
        for name in (
            f"{gone}-01.partial.csv",
            f".{gone}-{_machine()}-notes.partial.csv",
            f"{gone}-{_machine()}-0123abcd.partial.csv",
            f".{os.getpid()}-{_machine()}-0123abcd.partial.csv",
        )
    ]
    for path in (left, *others):
        path.touch()

    with atomic(tmp_path / "said.csv") as partial:
        partial.touch()

    assert {*tmp_path.iterdir()} == {tmp_path / "said.csv", *others}


def test_partial_files_that_are_not_ours_to_remove_hinder_nobody(tmp_path, gone, monkeypatch):
    def refused(path, missing_ok=False):
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))  # as in /tmp

    (tmp_path / f".{gone}-{_machine()}-0123abcd.partial.csv").touch()
    monkeypatch.setattr(Path, "unlink", refused)

    with atomic(tmp_path / "said.csv") as partial:
        partial.touch()

    assert (tmp_path / "said.csv").exists()


def test_partial_files_of_other_machines_are_kept_for_a_day(tmp_path, gone):
    recent = tmp_path / f".{gone}-89abcdef-0123abcd.partial.csv"
    old = tmp_path / f".{os.getpid()}-89abcdef-4567abcd.partial.csv"
    for path in (recent, old):
        path.touch()
    before = time.time() - 2 * _STALE
    os.utime(old, (before, before))

    with atomic(tmp_path / "said.csv") as partial:
        partial.touch()

    assert {*tmp_path.iterdir()} == {tmp_path / "said.csv", recent}


def test_a_system_that_does_not_show_who_sees_whom_hinders_nobody(monkeypatch):
    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "readlink", refused)

    assert len(_machine.__wrapped__()) == 8


def test_no_process_is_signalled_where_that_would_interrupt_it(tmp_path, gone, monkeypatch):
    left = tmp_path / f".{gone}-{_machine()}-0123abcd.partial.csv"
    left.touch()
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("Ctrl-C on Windows"))

    with atomic(tmp_path / "said.csv") as partial:
        partial.touch()

    assert {*tmp_path.iterdir()} == {tmp_path / "said.csv", left}


def test_a_librarys_own_error_about_a_file_is_told_in_its_words():
    with (
        pytest.raises(ConfigError, match=r"target: is 'a\.keras', .*: Can't write data\.$"),
        named_by("target", Path("a.keras")),
    ):
        raise OSError("Can't write data")  # as h5py raises it: without a number
