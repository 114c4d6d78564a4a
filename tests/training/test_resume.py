"""A stopped and resumed run is, bit for bit, the run that never stopped."""

import os
import random
import signal
import sys
from contextlib import nullcontext
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler

from seqnets.errors import CheckpointError
from seqnets.signals import heeded
from seqnets.training import callbacks, random_state
from seqnets.training.callbacks import StopOnSignal
from seqnets.training.retuning import retune_schedule
from tests.slow import mostly_slow

from .runs import (
    SignalAt,
    augmented_data,
    fit,
    language_module,
    parity_data,
    parity_module,
    series_data,
    series_module,
    text_data,
    weighted_data,
)


class Figures(Callback):
    """Writes down every validation loss and learning rate."""

    def __init__(self):
        self.losses, self.rates = {}, {}

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.losses[trainer.global_step] = float(trainer.callback_metrics["val/loss"])

    def on_train_batch_start(self, trainer, *_):
        self.rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]


class SignalAtBatch(Callback):
    """Sends this process a signal in a batch of the first epoch."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.batch - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


TASKS = {
    "text": (text_data, language_module, {"max_steps": 30}),
    "text, validated within the epoch": (
        text_data,
        language_module,
        {"max_steps": 30, "val_check_interval": 4},
    ),
    "text, gradients accumulated": (
        text_data,
        language_module,
        {"max_steps": 14, "accumulate_grad_batches": 2},
    ),
    "text in double precision": (
        text_data,
        language_module,
        {"max_steps": 14, "precision": "64-true"},
    ),
    "text by epochs": (text_data, partial(language_module, scheduler=None), {"max_epochs": 2}),
    "text by epochs, with a schedule over them": (text_data, language_module, {"max_epochs": 2}),
    "text by epochs, cut short": (text_data, language_module, {"max_epochs": 3, "max_steps": 25}),
    "parity with a plateau schedule": (
        lambda folder: parity_data(),
        parity_module,
        {"max_epochs": 5},
    ),
    "weighted sequences, gradients accumulated": (
        weighted_data,
        parity_module,
        {"max_epochs": 5, "accumulate_grad_batches": 2},
    ),
    "augmented sequences": (augmented_data, parity_module, {"max_epochs": 3}),
    "forecasts of what is known ahead": (series_data, series_module, {"max_steps": 15}),
}


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """The module and the figures of a task's run that never stopped; once for all of its stops."""

    @cache
    def run(task):
        make_data, make_module, options = TASKS[task]
        folder, figures = tmp_path_factory.mktemp("whole"), Figures()
        return fit(make_module, make_data(folder), folder, figures, **options)[1], figures

    return run


@pytest.mark.parametrize("step", mostly_slow([1, 4, 7, 10, 13], quick=[1, 7, 13]))
@pytest.mark.parametrize("task", TASKS)
def test_stopped_by_a_signal_and_resumed_ends_with_the_same_weights(
    task, step, never_stopped, tmp_path
):
    make_data, make_module, options = TASKS[task]
    resumed_figures = Figures()

    whole, whole_figures = never_stopped(task)
    stopped, _ = fit(make_module, make_data(tmp_path), tmp_path / "b", SignalAt(step), **options)
    last = tmp_path / "b" / "checkpoints" / "last.ckpt"
    _, resumed = fit(
        make_module, make_data(tmp_path), tmp_path / "b", resumed_figures, resume=last, **options
    )

    assert step - 1 <= stopped.global_step <= step
    assert same(whole, resumed)
    later = {k: v for k, v in whole_figures.losses.items() if k > stopped.global_step}
    assert later.items() <= resumed_figures.losses.items() <= whole_figures.losses.items()
    assert resumed_figures.rates.items() <= whole_figures.rates.items()


def test_the_loss_of_a_step_is_the_mean_of_its_batches_also_if_it_was_stopped_between_them(
    tmp_path,
):
    class Losses(Callback):
        def __init__(self):
            self.batches, self.steps = [], []

        def on_train_batch_end(self, trainer, pl_module, outputs, *_):
            self.batches.append(float(outputs["loss"]) * 4)  # Lightning has divided it

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.steps.append(float(pl_module.last_loss))

    options = {"max_epochs": 1, "accumulate_grad_batches": 4}
    whole, before, after = Losses(), Losses(), Losses()
    fit(language_module, text_data(tmp_path), tmp_path / "whole", whole, **options)
    stop = SignalAtBatch(6)
    stopped, _ = fit(language_module, text_data(tmp_path), tmp_path, before, stop, **options)
    path = tmp_path / "checkpoints" / "last.ckpt"
    fit(language_module, text_data(tmp_path), tmp_path, after, resume=path, **options)

    means = [sum(whole.batches[i : i + 4]) / 4 for i in (0, 4)]
    assert stopped.global_step == 1
    assert whole.steps[:2] == pytest.approx(means, rel=1e-5)
    assert before.steps + after.steps == whole.steps


def test_the_last_step_of_an_epoch_has_the_mean_gradient_of_the_batches_left_also_if_stopped(
    tmp_path,
):
    def run(name, count, *callbacks, resume=None):
        return fit(
            parity_module, parity_data(), tmp_path / name, *callbacks, resume=resume, max_epochs=1,
            limit_train_batches=5, accumulate_grad_batches=count, gradient_clip_val=None,
        )  # fmt: skip

    _, mean = run("mean", 5)
    _, fewer = run("fewer", 7)
    stopped, _ = run("cut", 7, SignalAtBatch(3))
    _, resumed = run("cut", 7, resume=tmp_path / "cut" / "checkpoints" / "last.ckpt")

    assert stopped.global_step == 0
    for weight, expected in zip(fewer.parameters(), mean.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, rtol=1e-6, atol=1e-7)
    assert same(fewer, resumed)


@pytest.mark.filterwarnings("ignore:When using .* and overriding `LightningModule.optimizer_")
@pytest.mark.parametrize("batch", [2, 3])
def test_batches_of_a_step_that_change_by_epochs_are_as_many_in_an_epoch_that_goes_on(
    batch, tmp_path
):
    def run(name, *callbacks, resume=None):
        changes = GradientAccumulationScheduler({0: 3, 1: 2})
        options = {"resume": resume, "max_epochs": 2}
        return fit(parity_module, parity_data(), tmp_path / name, changes, *callbacks, **options)

    whole, expected = run("whole")
    run("cut", SignalAtBatch(batch))
    resumed, found = run("cut", resume=tmp_path / "cut" / "checkpoints" / "last.ckpt")

    assert resumed.global_step == whole.global_step == 2 + 3
    assert same(expected, found)


@pytest.mark.parametrize("interval", [2, 3])
def test_an_epoch_with_a_limit_is_over_at_it_also_for_a_run_that_goes_on(interval, tmp_path):
    def run(name, epochs, resume=None):
        options = {"limit_train_batches": 4, "val_check_interval": interval, "max_epochs": epochs}
        make = partial(language_module, scheduler=None)
        return fit(make, text_data(tmp_path), tmp_path / name, resume=resume, **options)

    whole, expected = run("whole", 2)
    run("first", 1)
    longer, found = run("first", 2, tmp_path / "first" / "checkpoints" / "last.ckpt")

    assert longer.global_step == whole.global_step == 8
    assert same(expected, found)


@pytest.mark.parametrize("every", [1, 3, 5])
def test_killed_without_warning_and_resumed_ends_with_the_same_weights(every, tmp_path):
    class Killed(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 11:
                raise RuntimeError("killed")

    options = {"max_steps": 20, "val_check_interval": 5}
    _, whole = fit(language_module, text_data(tmp_path), tmp_path / "a", **options)
    with pytest.raises(RuntimeError, match="killed"):
        fit(
            language_module,
            text_data(tmp_path),
            tmp_path / "b",
            Killed(),
            every_n_steps=every,
            **options,
        )
    last = tmp_path / "b" / "checkpoints" / "last.ckpt"
    _, resumed = fit(language_module, text_data(tmp_path), tmp_path / "b", resume=last, **options)

    assert same(whole, resumed)


def test_a_run_that_ends_within_an_epoch_is_validated_at_its_end(tmp_path):
    figures = Figures()

    ended, _ = fit(language_module, text_data(tmp_path), tmp_path, figures, max_steps=7)

    assert not ended.is_last_batch
    assert list(figures.losses) == [7]
    assert torch.load(tmp_path / "checkpoints" / "best.ckpt")["global_step"] == 7


@pytest.mark.parametrize("seldom", [{"check_val_every_n_epoch": 2}, {"val_check_interval": 4}])
@pytest.mark.parametrize(
    "end", [{"max_epochs": 3}, {"max_epochs": 3, "min_epochs": 3}, {"max_steps": 7}]
)
def test_a_run_is_validated_at_its_end_however_seldom_it_was_before(seldom, end, tmp_path):
    figures = Figures()

    ended, _ = fit(parity_module, parity_data(), tmp_path, figures, **end, **seldom)

    assert [*figures.losses][-1] == ended.global_step
    assert ended.check_val_every_n_epoch == seldom.get("check_val_every_n_epoch", 1)
    assert ended.min_epochs == end.get("min_epochs", ended.min_epochs)


def test_a_run_that_a_callback_ends_is_validated_at_its_end(tmp_path):
    class Enough(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 7

    figures, seldom = Figures(), {"check_val_every_n_epoch": 4}

    fit(parity_module, parity_data(), tmp_path, figures, Enough(), max_epochs=9, **seldom)

    assert [*figures.losses] == [7]


class Saves(Callback):
    """At which steps checkpoints were written."""

    def __init__(self):
        self.steps = []

    def on_save_checkpoint(self, trainer, *_):
        self.steps.append(trainer.global_step)


LEAST = [{"min_epochs": 3}, {"min_steps": 13}]


@pytest.mark.parametrize("least", LEAST)
def test_a_signal_ends_a_run_before_its_minimum_steps(least, tmp_path):
    figures, saves, seen = Figures(), Saves(), {"max_epochs": 4, **least}

    ended, _ = fit(parity_module, parity_data(), tmp_path, figures, saves, SignalAt(2), **seen)

    assert ended.global_step == 2
    assert saves.steps == [2]
    assert not figures.losses
    assert (ended.limit_val_batches, ended.min_epochs, ended.min_steps) == (
        1.0,
        least.get("min_epochs", 1),
        least.get("min_steps"),
    )


@pytest.mark.parametrize("least", LEAST)
def test_an_early_request_to_stop_changes_nothing_before_the_end(least, tmp_path):
    class Enough(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.should_stop or trainer.global_step == 2

    figures, saves, seldom = Figures(), Saves(), {"check_val_every_n_epoch": 4, "max_epochs": 9}

    ended, _ = fit(
        parity_module, parity_data(), tmp_path, figures, saves, Enough(), **seldom, **least
    )

    assert ended.global_step in (13, 15)  # of five steps an epoch
    assert [*figures.losses] == [ended.global_step]
    assert {*saves.steps} == {ended.global_step}


def test_a_signal_in_the_last_step_leaves_the_last_weights_validated(tmp_path):
    figures = Figures()

    fit(language_module, text_data(tmp_path), tmp_path, figures, SignalAt(7), max_steps=7)

    assert list(figures.losses) == [7]
    assert torch.load(tmp_path / "checkpoints" / "best.ckpt")["global_step"] == 7


def test_a_signal_to_one_of_several_processes_is_one_to_all():
    two = SimpleNamespace(
        reduce_boolean_decision=lambda mine, all: True,
        reduce=lambda mine, reduce_op: max(mine, torch.tensor(signal.SIGTERM)),
        root_device=torch.device("cpu"),
    )
    unaware = StopOnSignal()

    unaware.on_train_end(SimpleNamespace(strategy=two), None)

    assert unaware.received == signal.SIGTERM


def test_a_trainer_that_a_signal_has_stopped_trains_again(tmp_path):
    last = tmp_path / "checkpoints" / "last.ckpt"
    running, module = fit(parity_module, parity_data(), tmp_path, SignalAt(3), max_epochs=2)
    stopped_at = running.global_step

    running.fit(module, parity_data(), ckpt_path=last, weights_only=True)

    assert (stopped_at, running.global_step) == (3, 10)


def test_random_numbers_go_on_from_where_they_were():
    def draw():
        return torch.rand(()).item(), np.random.standard_normal(), random.gauss(0, 1)

    draw()  # NumPy's and Python's are drawn in pairs
    state = random_state.capture()
    ahead = [draw() for _ in range(3)]

    random_state.restore(state)
    assert [draw() for _ in range(3)] == ahead


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_leaves_the_signal_handlers_as_they_were(fails, tmp_path):
    class Ending(Callback):
        def on_train_batch_start(self, trainer, *_):
            if fails:
                raise RuntimeError("it fails")

    before = {number: signal.getsignal(number) for number in heeded()}
    with pytest.raises(RuntimeError, match="it fails") if fails else nullcontext():
        fit(parity_module, parity_data(), tmp_path, Ending(), max_steps=1)

    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("stopped", [(), (SignalAt(3),)])
def test_a_trainer_whose_run_fails_at_its_end_has_the_limits_that_it_was_given(stopped, tmp_path):
    class Failing(Callback):
        def on_train_batch_end(self, trainer, *_):
            self.trainer = trainer

        def on_save_checkpoint(self, *_):
            raise RuntimeError("it fails")

    failing, limits = Failing(), {"check_val_every_n_epoch": 2, "min_epochs": 2, "max_epochs": 2}
    with pytest.raises(RuntimeError, match="it fails"):
        fit(parity_module, parity_data(), tmp_path, *stopped, failing, **limits)

    ended = failing.trainer
    assert (ended.check_val_every_n_epoch, ended.min_epochs, ended.limit_val_batches) == (2, 2, 1)


def test_a_signal_that_the_process_was_started_to_ignore_does_not_stop_training():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    callback = StopOnSignal()
    try:
        callback.on_train_start(None, None)
        signal.raise_signal(signal.SIGINT)
        callback.on_exception(None, None, None)
    finally:
        signal.signal(signal.SIGINT, before)

    assert callback.received is None


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are others there")
@pytest.mark.parametrize("first", ["SIGTERM", "SIGHUP"])
def test_both_signals_at_the_end_of_a_session_stop_a_run_once(first, monkeypatch):
    def kill(number, frame):
        raise KeyboardInterrupt

    numbers = {name: signal.Signals[name] for name in (first, "SIGTERM", "SIGHUP")}
    before = {number: signal.signal(number, kill) for number in numbers.values()}
    monkeypatch.setattr("seqnets.training.callbacks.signals.outlive_terminal", lambda: None)
    callback = StopOnSignal()
    try:
        callback.on_train_start(None, None)
        for number in numbers.values():
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert callback.received == numbers[first]


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are others there")
def test_a_terminal_that_was_closed_in_training_is_outlived_after_it(monkeypatch, tmp_path):
    monkeypatch.setattr("seqnets.training.callbacks.signals.outlive_terminal", lambda: None)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        fit(parity_module, parity_data(), tmp_path, SignalAt(2, signal.SIGHUP), max_epochs=1)
        after = signal.getsignal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert after is signal.SIG_IGN


@pytest.mark.parametrize("changed", [{"batch_size": 5}, {"seed": 3}, {"chunk_length": 20}])
def test_an_epoch_is_not_resumed_in_another_order(changed, tmp_path):
    data, make = parity_data, parity_module
    if "batch_size" not in changed:  # the others decide on parity's numbers, or are a text's
        data, make = partial(text_data, tmp_path), language_module
    fit(make, data(), tmp_path, SignalAt(3), max_epochs=2)

    other = data()
    for name, value in changed.items():
        setattr(other, name, value)
    last = tmp_path / "checkpoints" / "last.ckpt"
    (name, value) = next(iter(changed.items()))
    with pytest.raises(CheckpointError, match=f"{name} was .* and is {value}"):
        fit(make, other, tmp_path, resume=last, max_epochs=2)


@pytest.mark.parametrize("size", [4, 10])
def test_a_run_continues_from_the_end_of_an_epoch_with_another_batch_size(size, tmp_path):
    fit(parity_module, parity_data(), tmp_path, max_epochs=1)

    other = parity_data()
    other.batch_size = size
    last = tmp_path / "checkpoints" / "last.ckpt"
    ended, _ = fit(parity_module, other, tmp_path, resume=last, max_epochs=3)
    assert ended.global_step == 5 + 2 * 40 // size


def test_early_stopping_resumes_its_settings(tmp_path):
    def patience():
        return callbacks.EarlyStopping("val/loss", patience=9)

    fit(parity_module, parity_data(), tmp_path, patience(), max_epochs=2)
    last = tmp_path / "checkpoints" / "last.ckpt"
    ended, _ = fit(parity_module, parity_data(), tmp_path, patience(), resume=last, max_epochs=3)

    assert ended.global_step == 15


def test_early_stopping_resumes_its_count(tmp_path):
    def patience():
        return EarlyStopping("val/loss", patience=3, min_delta=10.0)

    options = {"max_epochs": 10}
    whole, a = fit(parity_module, parity_data(), tmp_path / "a", patience(), **options)
    fit(parity_module, parity_data(), tmp_path / "b", patience(), SignalAt(7), **options)
    last = tmp_path / "b" / "checkpoints" / "last.ckpt"
    resumed, b = fit(
        parity_module, parity_data(), tmp_path / "b", patience(), resume=last, **options
    )

    assert whole.global_step == resumed.global_step < 50
    assert same(a, b)


def test_a_run_stopped_with_the_validation_that_ends_it_early_goes_no_further(tmp_path):
    def patience():
        return callbacks.EarlyStopping("val/loss", patience=3, min_delta=10.0)

    fit(parity_module, parity_data(), tmp_path, patience(), SignalAt(20), max_epochs=10)
    last = tmp_path / "checkpoints" / "last.ckpt"
    early = patience()
    ended, _ = fit(parity_module, parity_data(), tmp_path, early, resume=last, max_epochs=10)

    assert ended.global_step == 20
    assert early.reason == "val/loss has not fallen for 3 validations"


def test_a_run_that_would_stop_early_but_for_its_minimum_is_validated_no_more_often_if_stopped(
    tmp_path,
):
    def run(name, *others, resume=None):
        early, figures = callbacks.EarlyStopping("val/loss", patience=1, min_delta=10.0), Figures()
        seldom = {"val_check_interval": 2, "min_epochs": 3, "max_epochs": 9, "resume": resume}
        folder, seen = tmp_path / name, (early, figures, *others)
        return fit(parity_module, parity_data(), folder, *seen, **seldom)[1], figures.losses

    whole, expected = run("whole")
    _, before = run("cut", SignalAt(6))
    resumed, after = run("cut", resume=tmp_path / "cut" / "checkpoints" / "last.ckpt")

    assert list(expected) == [2, 4, 7, 9, 12, 14, 15]
    assert {**before, **after} == expected
    assert same(whole, resumed)


def test_a_run_without_patience_begins(tmp_path):
    hasty = callbacks.EarlyStopping("val/loss", patience=0)

    ended, _ = fit(parity_module, parity_data(), tmp_path, hasty, max_epochs=1)
    assert ended.global_step == 5


def test_a_finished_run_resumed_with_more_steps_goes_on(tmp_path):
    make = partial(language_module, scheduler=None)
    _, whole = fit(make, text_data(tmp_path), tmp_path / "a", max_steps=20)
    fit(make, text_data(tmp_path), tmp_path / "b", max_steps=12)
    last = tmp_path / "b" / "checkpoints" / "last.ckpt"
    _, resumed = fit(make, text_data(tmp_path), tmp_path / "b", resume=last, max_steps=20)

    assert same(whole, resumed)


def test_a_schedule_that_holds_the_number_of_steps_goes_on_for_more(tmp_path):
    schedule = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1)
    make = partial(language_module, scheduler=schedule)
    data = text_data(tmp_path)
    fit(make, data, tmp_path, max_steps=6)

    running, _ = fit(
        make, data, tmp_path, resume=tmp_path / "checkpoints" / "last.ckpt", max_steps=10
    )

    (config,) = running.lr_scheduler_configs
    assert running.global_step == config.scheduler.total_steps == 10
    assert config.scheduler.get_last_lr()[0] < 0.01  # the end of its cycle


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_epochs": 1, "limit_train_batches": 7, "accumulate_grad_batches": 3}, 3),
        ({"max_epochs": 2, "limit_train_batches": 3}, 6),
        ({"max_epochs": 1, "limit_train_batches": 0.5}, 10),
        ({"max_epochs": 2, "limit_train_batches": 3, "max_steps": 4}, 4),
    ],
)
def test_a_schedule_is_told_how_many_steps_the_run_takes(limits, steps, tmp_path):
    schedule = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1)
    make = partial(language_module, scheduler=schedule)

    running, _ = fit(make, text_data(tmp_path), tmp_path, **limits)

    (config,) = running.lr_scheduler_configs
    assert running.global_step == config.scheduler.total_steps == steps


def test_another_highest_rate_of_a_cycle_takes_effect_when_a_run_is_resumed(tmp_path):
    before, now = ({"_target_": "OneCycleLR", "max_lr": rate} for rate in (0.1, 0.2))
    optimizer = torch.optim.Adam([torch.zeros(1)])
    make = partial(torch.optim.lr_scheduler.OneCycleLR, total_steps=10)
    schedule = make(optimizer, max_lr=0.1)

    retune_schedule(schedule, make, before, now)

    assert optimizer.param_groups[0]["max_lr"] == 0.2


def test_the_seed_decides_the_run(tmp_path):
    runs = [
        fit(language_module, text_data(tmp_path), tmp_path / name, seed=seed, max_steps=5)[1]
        for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    ]

    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])
