"""An exponential moving average of the weights."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import nn

from seqnets.errors import ConfigError
from seqnets.training import NonMonotonicASGD, load_checkpoint, load_weights
from seqnets.training.callbacks import MovingAverage

from .runs import SignalAt, fit, language_module, text_data, trainer

OPTIONS = {"max_steps": 12, "val_check_interval": 4}


def averaging():
    return MovingAverage(decay=0.9)


def test_the_averages_are_what_is_validated_and_kept_and_a_resumed_run_ends_with_the_same(tmp_path):
    data = text_data(tmp_path)
    whole, module = fit(language_module, data, tmp_path / "whole", averaging(), **OPTIONS)
    plain, _ = fit(language_module, data, tmp_path / "plain", **OPTIONS)
    signal = SignalAt(6)
    fit(language_module, data, tmp_path / "cut", averaging(), signal, **OPTIONS)
    path = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    _, again = fit(language_module, data, tmp_path / "cut", averaging(), resume=path, **OPTIONS)
    best = tmp_path / "whole" / "checkpoints" / "best.ckpt"
    kept = language_module(data)
    load_weights(kept, load_checkpoint(best), best)
    (scores,) = trainer(tmp_path).validate(kept, data, verbose=False)

    loss = float(whole.callback_metrics["val/loss"])
    assert loss != float(plain.callback_metrics["val/loss"])
    assert scores["val/loss"] == pytest.approx(loss, rel=1e-6)
    for mine, other in zip(module.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_training_goes_on_from_the_weights_and_not_from_their_averages(tmp_path):
    data = text_data(tmp_path)
    fit(language_module, data, tmp_path, averaging(), **OPTIONS)
    _, plain = fit(language_module, data, tmp_path / "plain", **OPTIONS)

    kept = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["current_model_state"]
    assert all(torch.equal(kept[name], weight) for name, weight in plain.state_dict().items())


@pytest.mark.parametrize("other", [WeightAveraging(), StochasticWeightAveraging(swa_lrs=0.1)])
def test_of_two_callbacks_that_average_one_is_too_many(other, tmp_path):
    said = f"got MovingAverage and {type(other).__name__}, expected one that averages the weights"
    with pytest.raises(ConfigError, match=said):
        fit(language_module, text_data(tmp_path), tmp_path, averaging(), other, max_epochs=1)


@pytest.mark.parametrize("other", [WeightAveraging(), StochasticWeightAveraging(swa_lrs=0.1)])
def test_of_a_callback_and_an_optimizer_that_average_one_is_too_many(other, tmp_path):
    def make(data):
        module = language_module(data, scheduler=None)
        module.optimizer_factory = partial(NonMonotonicASGD, lr=0.1)
        return module

    said = f"got {type(other).__name__} and NonMonotonicASGD, expected one that averages"
    with pytest.raises(ConfigError, match=said):
        fit(make, text_data(tmp_path), tmp_path, other, max_epochs=1)


@pytest.mark.parametrize("asgd", [False, True])
def test_a_run_with_nothing_left_to_train_has_the_averages(asgd, tmp_path):
    def make(data):
        module = language_module(data, scheduler=None)
        if asgd:
            module.optimizer_factory = partial(NonMonotonicASGD, lr=30.0, patience=1)
        return module

    data = text_data(tmp_path)
    ends, ended = fit(make, data, tmp_path, averaging(), max_steps=20, val_check_interval=4)
    path = tmp_path / "checkpoints" / "last.ckpt"
    _, idle = fit(make, data, tmp_path, averaging(), resume=path, max_steps=20)

    assert bool(getattr(ends.optimizers[0], "count", 0)) == asgd, "has averages of its own"
    for mine, other in zip(ended.parameters(), idle.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_the_first_weights_do_not_outweigh_all_others_for_long():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 8.0)
    average, counts = MovingAverage(decay=0.75), range(1, 40)
    average.setup(SimpleNamespace(precision="32-true"), module, "fit")
    for _ in (0, *counts):
        average._average_model.update_parameters(module)
        nn.init.zeros_(module.weight)

    kept = [min(0.75, (1 + count) / (10 + count)) for count in counts]
    assert kept[:2] == [2 / 11, 3 / 12]
    assert kept[-1] == 0.75
    mean = average._average_model.module.weight
    assert mean.item() == pytest.approx(8 * math.prod(kept))


def moved(average, module):
    """The averages of a module that is moved as a strategy does it, between two hooks."""
    average.setup(SimpleNamespace(precision="32-true"), module, "fit")
    module.to("meta")
    average.on_fit_start(None, module)
    return average._average_model


@pytest.mark.parametrize(("named", "kept"), [(None, "meta"), ("cpu", "cpu")])
def test_the_average_follows_its_model_to_a_device_unless_another_is_named(named, kept, tmp_path):
    averages = moved(MovingAverage(device=named), language_module(text_data(tmp_path)))

    assert {mean.device.type for mean in averages.module.parameters()} == {kept}


def test_no_step_waits_for_a_device(tmp_path):
    module = language_module(text_data(tmp_path))
    averages = moved(MovingAverage(), module)
    for _ in range(3):
        averages.update_parameters(module)  # nothing on this device can be read

    assert int(averages.n_averaged) == 3


def test_steps_are_averaged_from_a_given_one_and_at_intervals():
    often = MovingAverage(update_every_n_steps=2, update_starting_at_step=3)
    late = MovingAverage(update_starting_at_epoch=1)

    assert [step for step in range(9) if often.should_update(step_idx=step)] == [4, 6, 8]
    assert [epoch for epoch in range(4) if late.should_update(epoch_idx=epoch)] == [1, 2, 3]


def test_until_the_first_average_the_weights_themselves_are_validated_and_kept(tmp_path):
    data = text_data(tmp_path)
    late = MovingAverage(update_starting_at_step=100)
    whole, module = fit(language_module, data, tmp_path / "late", late, **OPTIONS)
    plain, without = fit(language_module, data, tmp_path / "plain", **OPTIONS)
    kept, expected = (
        load_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"]
        for name in ("late", "plain")
    )

    assert whole.callback_metrics["val/loss"] == plain.callback_metrics["val/loss"]
    for name, weight in without.state_dict().items():
        assert torch.equal(module.state_dict()[name], weight)
        assert torch.equal(kept[name], expected[name])


def module_of_bfloat16(data):
    return language_module(data).bfloat16()


@pytest.mark.parametrize(
    ("make", "precision"), [(language_module, "bf16-true"), (module_of_bfloat16, "32-true")]
)
def test_weights_of_half_precision_are_averaged_in_float32(make, precision, tmp_path):
    options = {"max_steps": 3, "precision": precision}
    _, module = fit(make, text_data(tmp_path), tmp_path, averaging(), **options)
    kept = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]

    assert {weight.dtype for weight in module.parameters()} == {torch.bfloat16}
    for name, weight in module.named_parameters():
        assert kept[name].dtype == torch.float32
        assert torch.equal(weight, kept[name].bfloat16())
        assert not torch.equal(weight.float(), kept[name]), "a validation has not rounded it"


def test_weights_of_double_precision_are_averaged_in_it(tmp_path):
    options = {"max_steps": 3, "precision": "64-true"}
    _, module = fit(language_module, text_data(tmp_path), tmp_path, averaging(), **options)
    kept = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]

    assert all(torch.equal(kept[name], weight) for name, weight in module.named_parameters())
    assert {weight.dtype for weight in kept.values()} == {torch.float64}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"decay": 1.0}, "decay is 1"),
        ({"update_every_n_steps": 0}, "update_every_n_steps is 0"),
        ({"update_starting_at_step": -1}, "update_starting_at_step is -1"),
    ],
)
def test_a_decay_that_keeps_all_and_steps_that_never_come_are_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        MovingAverage(**options)
