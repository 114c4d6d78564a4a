"""When a training step reads values from the device."""

import math
import os
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._python_dispatch import TorchDispatchMode

from seqnets.errors import ConfigError, DivergenceError
from seqnets.training.callbacks import DivergenceGuard, Monitor, Progress
from seqnets.training.callbacks.deferred import Deferred

from .runs import fit, language_module, text_data

CHECKS_ON_A_CPU = {"_check_tokens", "check_targets"}
"""What looks at the values of tokens and targets, where that costs nothing."""


class Reads(TorchDispatchMode):
    """Note who asks for the value of a tensor."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            frame, callers = sys._getframe(1), set()
            while frame is not None:
                callers.add(frame.f_code.co_name)
                frame = frame.f_back
            if not callers & CHECKS_ON_A_CPU:
                self.found.append(callers)
        return func(*args, **(kwargs or {}))


class Watch(Callback):
    """Watch over the steps between two of the run."""

    def __init__(self, first, last):
        self.first, self.last, self.reads = first, last, Reads()

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.first:
            self.reads.__enter__()
        if trainer.global_step == self.last:
            self.reads.__exit__(None, None, None)


def test_a_step_reads_no_value_of_a_tensor(tmp_path):
    def make(data):
        module = language_module(data)
        module.optimizer_factory = partial(torch.optim.SGD, lr=0.1)  # AdamW counts in tensors
        return module

    watch = Watch(3, 9)
    with open(os.devnull, "w") as nowhere:
        bar = Progress(Console(file=nowhere, force_terminal=True))
        logger = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
        callbacks = [bar, Monitor(), watch]
        fit(
            make, text_data(tmp_path), tmp_path, *callbacks,
            logger=logger, max_steps=10, val_check_interval=10,
        )  # fmt: skip

    assert watch.reads.found == []


def test_deferred_values_are_those_sent():
    values = torch.tensor([1.5, -2.0], requires_grad=True)

    assert Deferred(values * 2).read() == [3.0, -4.0]


def test_the_loss_is_logged_under_the_step_that_it_belongs_to(tmp_path):
    losses = []

    class Note(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            losses.append(float(pl_module.last_loss))

    logger = TensorBoardLogger(tmp_path / "run", name="", version="", default_hp_metric=False)
    data = text_data(tmp_path)
    fit(
        language_module, data, tmp_path, Monitor(), Note(),
        logger=logger, max_steps=8, log_every_n_steps=3,
    )  # fmt: skip

    found = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0}).Reload()
    logged = {point.step: point.value for point in found.Scalars("train/loss")}
    assert logged == pytest.approx({step: losses[step] for step in (0, 3, 6)})


def test_callbacks_see_the_loss_of_training(tmp_path):
    running, _ = fit(language_module, text_data(tmp_path), tmp_path, max_steps=2)

    assert math.isfinite(running.callback_metrics["train/loss"])


def test_histograms_count_every_number_and_none_that_is_not_finite(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    from seqnets.training.callbacks.monitor import _add_histogram

    writer = SummaryWriter(tmp_path)
    _add_histogram(writer, "spread", torch.tensor([[-1.0, 0.0], [0.2, 3.0]]), 0)
    _add_histogram(writer, "alike", torch.full((5,), 2.0), 0)
    _add_histogram(writer, "broken", torch.tensor([0.0, torch.nan]), 0)
    writer.close()

    found = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0}).Reload()
    (spread,), (alike,) = found.Histograms("spread"), found.Histograms("alike")
    value = spread.histogram_value
    assert (value.min, value.max, value.num, value.sum) == pytest.approx((-1, 3, 4, 2.2))
    assert value.sum_squares == pytest.approx(10.04)
    assert sum(value.bucket) == 4
    assert value.bucket_limit[-1] == pytest.approx(3)
    width = 4 / len(value.bucket)
    limits = [limit for limit, n in zip(value.bucket_limit, value.bucket, strict=True) if n]
    below = [limit - number for limit, number in zip(limits, (-1, 0, 0.2, 3), strict=True)]
    assert all(-1e-6 < rest <= width + 1e-6 for rest in below), "each number is in its own bin"
    assert sum(alike.histogram_value.bucket) == 5
    assert "broken" not in found.Tags()["histograms"]


class Elsewhere:
    """As much of a run on another device as a guard sees."""

    def __init__(self):
        self.parameter = torch.nn.Parameter(torch.zeros(2))
        self.optimizer = torch.optim.SGD([self.parameter], 1.0)
        self.module = SimpleNamespace(device=torch.device("cuda"), last_loss=torch.tensor(1.0))
        self.trainer = SimpleNamespace(
            global_step=0,
            current_epoch=0,
            precision="32-true",
            default_root_dir="nowhere",
            datamodule=None,
            world_size=1,
        )

    def step(self, guard, number, loss=1.0, gradient=1.0):
        self.trainer.global_step = number
        self.module.last_loss = torch.tensor(loss)
        self.parameter.grad = torch.full((2,), gradient)
        guard.on_train_batch_start(self.trainer, self.module, None, number)
        guard.on_before_optimizer_step(self.trainer, self.module, self.optimizer)


@pytest.mark.parametrize("every", [0, 1.5, True])
def test_a_guard_checks_at_its_interval(every):
    with pytest.raises(ConfigError, match=f"DivergenceGuard: every_n_steps is {every}, expected"):
        DivergenceGuard(every_n_steps=every)


@pytest.mark.parametrize("bad", [{"loss": math.nan}, {"gradient": math.inf}])
def test_on_a_device_the_guard_reports_one_step_later(bad):
    run, guard = Elsewhere(), DivergenceGuard(every_n_steps=4)
    run.step(guard, 4, **bad)

    with pytest.raises(DivergenceError, match=r"at step 4(.|\n)*perhaps changed by it"):
        run.step(guard, 5)
    run.step(guard, 6, **bad)  # not looked at
    run.step(guard, 7)


@pytest.mark.parametrize("end", ["on_save_checkpoint", "on_train_end"])
def test_the_guard_reports_before_a_checkpoint_and_at_the_end(end):
    run, guard = Elsewhere(), DivergenceGuard(every_n_steps=4)
    run.step(guard, 4, loss=math.nan)

    more = [{}] if end == "on_save_checkpoint" else []
    with pytest.raises(DivergenceError, match="the loss is nan at step 4"):
        getattr(guard, end)(run.trainer, run.module, *more)
