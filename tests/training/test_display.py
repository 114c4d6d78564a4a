"""What is shown after validations takes little of a run's time."""

from functools import partial

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from seqnets.training import NonMonotonicASGD
from seqnets.training.callbacks import (
    Dynamics,
    GradientFlow,
    MovingAverage,
    Pictures,
    display,
)
from tests.training.runs import SignalAt, fit, language_module, text_data


class Shown(display.Display):
    def __init__(self):
        self.steps = []

    def show(self, trainer, pl_module, writer):
        self.steps.append(trainer.global_step)


@pytest.mark.parametrize(("share", "shown"), [(1e-9, [4, 12]), (1e9, [4, 8, 12])])
def test_the_first_and_the_last_are_shown_and_those_between_if_there_is_time(
    share, shown, tmp_path, monkeypatch
):
    monkeypatch.setattr(display, "SHARE", share)
    callback = Shown()
    logger = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    fit(
        language_module, text_data(tmp_path), tmp_path, callback,
        logger=logger, max_steps=12, val_check_interval=4, check_val_every_n_epoch=None,
    )  # fmt: skip

    assert callback.steps == shown


def test_a_run_that_is_never_validated_shows_nothing(tmp_path):
    callback = Shown()
    logger = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    options = {"max_steps": 2, "limit_val_batches": 0}
    fit(language_module, text_data(tmp_path), tmp_path, callback, logger=logger, **options)

    assert callback.steps == []


class Weights(Shown):
    def show(self, trainer, pl_module, writer):
        self.steps.append(total(pl_module))


def total(module):
    return sum(float(p.detach().double().sum()) for p in module.parameters())


def test_the_last_values_shown_are_the_saved_ones(tmp_path):
    def make(data):
        module = language_module(data, scheduler=None)
        module.optimizer_factory = partial(NonMonotonicASGD, lr=10.0, patience=1)
        return module

    shown = Weights()
    logger = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    options = {"max_steps": 40, "val_check_interval": 4, "check_val_every_n_epoch": None}
    stopped = SignalAt(35)  # between two validations
    _, module = fit(make, text_data(tmp_path), tmp_path, shown, stopped, logger=logger, **options)

    assert shown.steps[-1] == pytest.approx(total(module), rel=1e-12)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_averages_are_shown_that_are_validated_wherever_their_callback_stands(
    precision, tmp_path, monkeypatch
):
    class Validated(Callback):
        def on_validation_batch_end(self, trainer, pl_module, *_):
            totals[trainer.global_step] = total(pl_module)

    totals, before, after = {}, Weights(), Weights()
    monkeypatch.setattr(display, "SHARE", 1e9)
    logger = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    options = {"max_steps": 20, "val_check_interval": 4, "num_sanity_val_steps": 0}

    def run(*callbacks, **more):
        return fit(
            language_module, text_data(tmp_path), tmp_path, *callbacks, SignalAt(10),
            precision=precision, **options, **more,
        )[1]  # fmt: skip

    module = run(before, MovingAverage(decay=0.9), after, Validated(), logger=logger)
    unshown = run(MovingAverage(decay=0.9))

    assert before.steps == after.steps == [*totals.values(), total(module)]
    assert list(totals) == [4, 8]
    assert total(module) == total(unshown), "training went on with the weights"


@pytest.mark.parametrize("callback_cls", [Dynamics, GradientFlow, Pictures])
def test_nothing_is_dropped_out_of_what_is_shown_after_training(callback_cls, tmp_path):
    running, module = fit(language_module, text_data(tmp_path), tmp_path, max_steps=1)
    modes = []
    module.model.register_forward_pre_hook(lambda model, _: modes.append(model.training))
    module.train()

    with SummaryWriter(tmp_path) as writer:
        callback_cls().show(running, module, writer)

    assert modes == [False]
    assert module.model.training


def test_without_matplotlib_nothing_is_drawn_and_training_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("seqnets.training.callbacks.display.find_spec", lambda name: None)
    logger = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    callbacks = [Pictures(), Dynamics(), GradientFlow()]
    fit(language_module, text_data(tmp_path), tmp_path, *callbacks, logger=logger, max_steps=1)

    tags = EventAccumulator(str(tmp_path)).Reload().Tags()
    assert tags["images"] == []
    assert any(tag.startswith("gradient_flow/reach") for tag in tags["scalars"])
    assert caplog.text.count("No pictures: matplotlib is missing") == 1


def test_nothing_is_shown_without_tensorboard(tmp_path):
    callback = Shown()
    fit(language_module, text_data(tmp_path), tmp_path, callback, logger=False, max_steps=4)

    assert callback.steps == []
