import os
import pickle
import re
import subprocess
import sys

import pytest
import torch

from seqnets.atomic import _machine
from seqnets.errors import CheckpointError
from seqnets.training import AtomicCheckpointIO, checkpoint, load_checkpoint, save_checkpoint
from seqnets.training.checkpoint import load_weights

CONTENT = {"state_dict": {"w": torch.arange(5000.0)}, "seqnets": {"format": 1}, "epoch": 3}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "runs" / "last.ckpt"
    save_checkpoint(CONTENT, path)
    return path


def test_what_was_saved_is_loaded(path):
    loaded = load_checkpoint(path)

    assert torch.equal(loaded["state_dict"]["w"], CONTENT["state_dict"]["w"])
    assert loaded["epoch"] == 3


def test_plain_torch_reads_a_sealed_file_with_weights_only(path):
    assert torch.load(path, weights_only=True)["epoch"] == 3


def test_every_flipped_byte_is_noticed(path):
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)

    for place in torch.randint(len(whole), (200,), generator=generator).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"damaged|truncated"):
            load_checkpoint(path)


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.999])
def test_a_file_cut_short_is_named(path, kept):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])

    with pytest.raises(CheckpointError, match=r"last\.ckpt: has no seal, so it is truncated"):
        load_checkpoint(path)


def test_a_file_without_a_seal_is_refused(path):
    torch.save(CONTENT, path)

    with pytest.raises(CheckpointError, match="has no seal"):
        load_checkpoint(path)


def test_pickled_code_is_refused_and_does_not_run(tmp_path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it ran"),)

    path = tmp_path / "code.ckpt"
    save_checkpoint({**CONTENT, "extra": Code()}, path)

    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        load_checkpoint(path)
    assert not (tmp_path / "it ran").exists()


def test_a_bare_pickle_is_refused(tmp_path):
    path = tmp_path / "bare.ckpt"
    path.write_bytes(pickle.dumps(CONTENT["epoch"]))

    with pytest.raises(CheckpointError, match="truncated or was not written by seqnets"):
        load_checkpoint(path)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.ckpt"
    save_checkpoint({"weights": 1}, path)

    with pytest.raises(CheckpointError, match="lacks the parts"):
        load_checkpoint(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        load_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="directory"):
        load_checkpoint(tmp_path)


def test_another_models_weights_are_refused_by_name_and_shape():
    module = torch.nn.Linear(2, 3)
    content = {"state_dict": {"weight": torch.zeros(3, 4), "extra": torch.zeros(1)}}

    with pytest.raises(CheckpointError) as error:
        load_weights(module, content, "x.ckpt")
    assert re.search(r"weight: \(3, 4\), expected \(3, 2\)", str(error.value))
    assert "bias: absent, expected (3,)" in str(error.value)
    assert "extra: (1,), expected none" in str(error.value)


@pytest.mark.parametrize("moment", ["write", "sync", "rename"])
def test_a_full_disk_keeps_the_old_file_and_leaves_no_partial_file(path, monkeypatch, moment):
    def full(*args):
        raise OSError(28, "No space left on device")

    target, name = {
        "write": (checkpoint.torch, "save"),
        "sync": (checkpoint.os, "fsync"),
        "rename": (checkpoint.os, "replace"),
    }[moment]
    monkeypatch.setattr(target, name, full)
    with pytest.raises(CheckpointError, match=r"No space left(.|\n)*The previous one is kept"):
        save_checkpoint({**CONTENT, "epoch": 4}, path)
    monkeypatch.undo()

    assert load_checkpoint(path)["epoch"] == 3
    assert os.listdir(path.parent) == ["last.ckpt"]


def test_a_file_that_grows_too_large_is_reported_with_the_systems_message(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "last.ckpt"
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(CheckpointError) as error:
            save_checkpoint({**CONTENT, "large": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert "could not be written: [Errno 27] File too large.\n" in str(error.value)
    assert "There was none before. Free some space or choose another folder" in str(error.value)
    assert "resume" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_umask_decides_who_may_read_a_checkpoint(tmp_path):
    before = os.umask(0o027)
    try:
        save_checkpoint(CONTENT, tmp_path / "last.ckpt")
    finally:
        os.umask(before)

    assert (tmp_path / "last.ckpt").stat().st_mode & 0o777 == 0o640


def test_partial_files_of_dead_processes_are_removed_and_those_of_living_ones_kept(path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = path.parent / f".{ended.pid}-{_machine()}-0123abcd.partial.ckpt"
    living = path.parent / f".{os.getppid()}-{_machine()}-0123abcd.partial.ckpt"
    dead.touch()
    living.touch()

    save_checkpoint(CONTENT, path)

    assert not dead.exists()
    assert living.exists()


def test_the_trainers_plugin_writes_and_reads_the_same_files(tmp_path):
    path = tmp_path / "last.ckpt"

    AtomicCheckpointIO().save_checkpoint(CONTENT, path)

    assert AtomicCheckpointIO().load_checkpoint(path)["epoch"] == 3
    assert load_checkpoint(path)["epoch"] == 3


def test_the_trainers_plugin_reads_the_checkpoints_of_other_modules_and_weights_alone(tmp_path):
    weights = torch.nn.Linear(2, 3).state_dict()
    for name, content in {"other": {"state_dict": weights}, "weights": weights}.items():
        AtomicCheckpointIO().save_checkpoint(content, tmp_path / name)

        assert AtomicCheckpointIO().load_checkpoint(tmp_path / name).keys() == content.keys()
