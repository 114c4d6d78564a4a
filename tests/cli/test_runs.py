"""Run folders are never shared, and are found again."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from seqnets.cli import runs
from seqnets.cli.meant import trained_at
from seqnets.cli.trained import load_module
from seqnets.errors import CheckpointError, ConfigError
from seqnets.training import save_checkpoint


def checkpoint(folder, age=0):
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_runs_started_in_the_same_second_have_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: runs.new_folder(tmp_path, "text"), range(200)))

    assert len(set(folders)) == 200
    assert all(folder.parent == tmp_path / "text" for folder in folders)


def test_a_folder_that_another_run_removes_in_between_is_made_again(tmp_path, monkeypatch):
    mkdir, removed = Path.mkdir, []

    def after_another(folder, *options, **named):
        if folder.parent.name == "text" and folder.parent.exists() and len(removed) < 3:
            removed.append(folder.parent.rmdir())
        mkdir(folder, *options, **named)

    monkeypatch.setattr(Path, "mkdir", after_another)

    assert (runs.new_folder(tmp_path, "text") / "checkpoints").is_dir()
    assert len(removed) == 3


def test_an_output_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="output=FOLDER"):
        runs.new_folder(tmp_path / "file", "text")


def test_runs_lie_in_the_home_folder_where_output_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = runs.new_folder("~/runs", "text")
    last = checkpoint(folder)

    assert folder.parent == tmp_path / "runs" / "text"
    assert runs.find_resume("last", "~/runs") == last


def test_the_last_run_is_that_whose_checkpoint_is_newest(tmp_path):
    newer, older = (runs.new_folder(tmp_path, name) for name in ("a", "b"))
    runs.new_folder(tmp_path, "without a checkpoint")
    checkpoint(older, age=10)
    last = checkpoint(newer)

    assert runs.find_resume("last", tmp_path) == last


def test_last_is_a_checkpoint_of_the_newest_run_as_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no run in 'runs' has a checkpoint"):
        runs.checkpoint_at("last", "best.ckpt")
    folder = runs.new_folder("runs", "text")
    for name in ("last.ckpt", "best.ckpt"):
        (folder / "checkpoints" / name).touch()

    assert runs.checkpoint_at("last", "best.ckpt") == folder / "checkpoints" / "best.ckpt"


def test_last_in_a_folder_is_the_newest_run_there(tmp_path):
    older, newer = (runs.new_folder(tmp_path, name) for name in ("text", "parity"))
    text, parity = checkpoint(older, age=10), checkpoint(newer)

    assert runs.checkpoint_at(tmp_path / "last") == parity
    assert runs.checkpoint_at(tmp_path / "text" / "last") == text
    with pytest.raises(CheckpointError, match=r"Checkpoint .*/no/last: no run in '.*/no' has a"):
        runs.checkpoint_at(tmp_path / "no" / "last")


def test_last_without_a_run_is_an_error(tmp_path):
    runs.new_folder(tmp_path, "a")

    with pytest.raises(CheckpointError, match="no run in"):
        runs.find_resume("last", tmp_path)


def test_auto_starts_afresh_without_a_run_and_after_a_finished_one(tmp_path):
    assert runs.find_resume("auto", tmp_path) is None

    folder = runs.new_folder(tmp_path, "a")
    last = checkpoint(folder)
    assert runs.find_resume("auto", tmp_path) == last

    runs.write_result(folder, {"test": {"loss": 1.0}})
    assert runs.find_resume("auto", tmp_path) is None


def test_a_result_is_whole_or_what_it_was(tmp_path):
    resource = pytest.importorskip("resource")
    folder = runs.new_folder(tmp_path, "a")
    runs.write_result(folder, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            runs.write_result(folder, {"step": 2, "test": dict.fromkeys(range(100), 1.0)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert json.loads((folder / "result.json").read_text()) == {"step": 1}


def test_a_checkpoint_is_named_by_file_or_by_run_folder(tmp_path):
    folder = runs.new_folder(tmp_path, "a")
    last = checkpoint(folder)

    assert runs.find_resume(str(folder), tmp_path) == last
    assert runs.find_resume(str(last), tmp_path) == last
    assert runs.folder_of(last) == folder


def test_a_run_is_gone_on_with_by_one_process_at_a_time(tmp_path):
    pytest.importorskip("fcntl")
    used = pytest.raises(ConfigError, match=f"in use by process {os.getpid()}, expected")
    with runs.locked(tmp_path), used, runs.locked(tmp_path):
        pass

    with runs.locked(tmp_path):
        pass


def test_a_process_that_was_killed_holds_no_run(tmp_path):
    pytest.importorskip("fcntl")
    hold = "import pathlib, sys, time; from seqnets.cli import runs\n"
    hold += "with runs.locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", hold, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    used = pytest.raises(ConfigError, match=f"in use by process {process.pid}, expected")
    with used, runs.locked(tmp_path):
        pass
    process.kill()
    process.communicate()

    with runs.locked(tmp_path):
        pass


def test_best_is_taken_where_there_is_one(tmp_path):
    folder = runs.new_folder(tmp_path, "a")
    last = checkpoint(folder)
    assert runs.checkpoint_at(str(folder), "best.ckpt") == last

    best = last.with_name("best.ckpt")
    best.touch()
    assert runs.checkpoint_at(str(folder), "best.ckpt") == best


@pytest.mark.parametrize("named", [".", "a"])
def test_a_folder_of_runs_is_told_its_newest(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, lost = runs.new_folder(".", "a"), runs.new_folder(".", "a")
    checkpoint(folder)
    (lost / "checkpoints" / "last.ckpt").symlink_to("nowhere")

    assert trained_at(named) == str(folder)
    assert not trained_at(str(lost))
    with pytest.raises(CheckpointError, match=f"newest run in it, .*last, is {folder}"):
        runs.checkpoint_at(named)


@pytest.mark.parametrize("make", [False, True])
def test_a_path_without_a_checkpoint_is_an_error(make, tmp_path):
    if make:
        (tmp_path / "x").mkdir()

    with pytest.raises(CheckpointError, match="a folder without" if make else "not there"):
        runs.find_resume(str(tmp_path / "x"), tmp_path)


def test_commands_name_a_runs_folder_where_it_leads_to_the_checkpoint(tmp_path):
    last, best = (tmp_path / "run" / "checkpoints" / name for name in ("last.ckpt", "best.ckpt"))
    last.parent.mkdir(parents=True)
    moved, renamed = tmp_path / "best.ckpt", last.with_name("mine.ckpt")
    renamed.touch()

    assert runs.place_of(renamed) == renamed
    last.touch()
    assert runs.place_of(last) == tmp_path / "run"
    best.touch()
    assert [runs.place_of(path) for path in (best, last, moved)] == [tmp_path / "run", last, moved]


def test_a_checkpoint_that_was_moved_belongs_to_no_run(tmp_path):
    assert runs.folder_of(tmp_path / "best.ckpt") is None


@pytest.mark.parametrize("read", [runs.saved_config, partial(load_module, allow=[])])
def test_a_checkpoint_written_from_python_says_that_it_does_not_know_its_model(read, tmp_path):
    path = tmp_path / "best.ckpt"
    save_checkpoint({"state_dict": {}, "seqnets": {"config": {}, "data": {}}}, path)

    with pytest.raises(CheckpointError, match=r"does not say what its model is made of[\s\S]*fill"):
        read(path)
