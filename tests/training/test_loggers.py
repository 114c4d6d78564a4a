from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator as AsTensorBoard,
)

from seqnets.errors import ConfigError
from seqnets.training import loggers
from seqnets.training.callbacks import Monitor
from seqnets.training.event_files import files_in, forget_after
from seqnets.training.loggers import finish, mark_place, purge_after

from .runs import fit, parity_data, parity_module


class Run:
    """A run of W&B, which notes how it was ended."""

    code = None

    def finish(self, exit_code):
        self.code = exit_code


@pytest.mark.parametrize("failed", [False, True])
def test_a_run_of_wandb_that_began_is_ended_with_its_outcome(failed, tmp_path):
    logger = object.__new__(WandbLogger)
    logger._experiment = run = Run()

    finish(SimpleNamespace(loggers=[CSVLogger(tmp_path), logger]), failed)

    assert run.code == failed


def test_a_run_of_wandb_that_did_not_begin_is_not_begun_to_be_ended():
    logger = object.__new__(WandbLogger)
    logger._experiment = None  # reading ``experiment`` would begin one

    finish(SimpleNamespace(loggers=[logger]), failed=True)


def run_of(logger, step):
    """A trainer as loggers see it."""
    return SimpleNamespace(loggers=[logger], is_global_zero=True, global_step=step)


def killed_run(folder, marked=True):
    """The events of a run that was killed at step 4, and validated and saved at step 2."""
    logger = loggers.TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    for step in range(5):
        if step == 2:
            logger.log_metrics({"val/loss": 1.0}, step)
            if marked:
                mark_place(run_of(logger, step))
        logger.log_metrics({"train/loss": 1.0}, step)
    logger.save()
    # names made in one second sort as "10" and "9" do
    files_in(folder)[0].rename(folder / "events.out.tfevents.0000000001.killed")


def resumed_run(folder):
    """That run, from its checkpoint to step 3."""
    logger = loggers.TensorBoardLogger(folder, name="", version="", default_hp_metric=False)
    purge_after(run_of(logger, 2), 2, scored=True)
    for step in (2, 3):
        logger.log_metrics({"train/loss": 2.0}, step)
    logger.save()


def steps_of(events, tag):
    return [event.step for event in events.Reload().Scalars(tag)]


@pytest.mark.parametrize("size", [64, 2**62, 5], ids=["cut off", "of no size", "damaged"])
def test_events_after_a_checkpoint_are_dropped_up_to_those_of_its_own_step(size, tmp_path):
    killed_run(tmp_path)
    with files_in(tmp_path)[0].open("ab") as file:
        file.write(size.to_bytes(8, "little") + b"sum?" + b"\xff" * 5 + b"sum?")
    resumed_run(tmp_path)
    resumed_run(tmp_path)

    events = EventAccumulator(str(tmp_path))
    assert steps_of(events, "val/loss") == [2]
    assert steps_of(events, "train/loss") == [0, 1, 2, 3]
    assert len(files_in(tmp_path)) == 2


@pytest.mark.parametrize("rest", [b"\x40" + bytes(7) + b"cut off", b"\xff" * 20])
def test_what_is_no_whole_event_at_the_end_of_a_file_is_dropped(rest, tmp_path):
    killed_run(tmp_path)
    (file,) = files_in(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole + rest)

    forget_after(tmp_path, 4)

    assert file.read_bytes() == whole


def test_events_before_a_checkpoint_are_kept_though_clocks_have_changed(tmp_path):
    killed_run(tmp_path)
    resumed_run(tmp_path)
    later = files_in(tmp_path)[-1]
    later.rename(tmp_path / "events.out.tfevents.0000000001.earlier")

    forget_after(tmp_path, 3)
    both = len(files_in(tmp_path))
    forget_after(tmp_path, 2)

    assert (both, len(files_in(tmp_path))) == (2, 1)
    assert steps_of(EventAccumulator(str(tmp_path)), "train/loss") == [0, 1]


def test_what_a_run_told_of_the_step_in_which_it_failed_is_forgotten(tmp_path):
    class Fails(Callback):
        def on_before_optimizer_step(self, trainer, *_):
            if trainer.global_step == 4:
                raise RuntimeError("out of memory")

    logger = loggers.TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    callbacks = [Monitor(histograms_every_n_steps=2), Fails()]
    options = {"logger": logger, "max_epochs": 2, "val_check_interval": 4}
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(parity_module, parity_data(), tmp_path, *callbacks, **options)
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0})
    told = steps_of(events, "train/loss")
    forget_after(tmp_path, 4)

    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0})
    assert told == [*range(5)]
    assert steps_of(events, "train/loss") == [*range(4)]
    assert steps_of(events, "val/loss") == [4]
    assert [e.step for e in events.Histograms("parameters/output.bias")] == [0, 2]


def test_a_file_that_cannot_be_removed_since_it_is_read_has_no_events(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "it is being used by another process", str(path))

    killed_run(tmp_path)
    resumed_run(tmp_path)
    monkeypatch.setattr(Path, "unlink", refuse)

    forget_after(tmp_path, 2)

    assert len(files_in(tmp_path)) == 2
    assert steps_of(EventAccumulator(str(tmp_path)), "train/loss") == [0, 1]


def test_an_open_tensorboard_forgets_what_a_killed_run_told_of_later_steps(tmp_path):
    killed_run(tmp_path)
    # as its plugins read events where there is no data server
    events = AsTensorBoard(str(tmp_path), tensor_size_guidance={"scalars": 0}).Reload()
    resumed_run(tmp_path)

    told = [event.step for event in events.Reload().Tensors("train/loss")]
    assert told == [0, 1, 2, 2, 3]


def test_files_of_events_are_written_to_only_where_something_is_dropped(tmp_path, monkeypatch):
    def refuse(path, size):
        raise PermissionError(13, "Permission denied")

    killed_run(tmp_path)
    forget_after(tmp_path, 2)
    resumed_run(tmp_path)
    monkeypatch.setattr("os.truncate", refuse)

    forget_after(tmp_path, 3)
    assert len(files_in(tmp_path)) == 2
    with pytest.raises(ConfigError, match=r"resume: what follows .* be dropped, .*: Permission"):
        forget_after(tmp_path, 1)


def test_of_a_run_without_marks_later_steps_are_dropped(tmp_path):
    killed_run(tmp_path, marked=False)

    forget_after(tmp_path, 2)

    events = EventAccumulator(str(tmp_path))
    assert steps_of(events, "train/loss") == [0, 1, 2]
    assert steps_of(events, "val/loss") == [2]


def test_a_table_is_cut_when_a_resumed_run_begins_to_write_and_not_before(tmp_path):
    def table():
        return loggers.CSVLogger(tmp_path, name="", version="")

    before = table()
    for step in (1, 2):
        before.log_metrics({"train/loss": 1.0}, step)
    before.save()
    written = (tmp_path / "metrics.csv").read_text()
    after = table()
    purge_after(run_of(after, 1), 1, scored=False)
    kept = (tmp_path / "metrics.csv").read_text()
    after.log_metrics({"train/loss": 2.0}, 1)
    after.save()

    assert kept == written
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1:] == ["1,2.0"]
