"""Learning rates proportional to the length of a batch."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback

from seqnets.errors import ConfigError
from seqnets.training import NonMonotonicASGD
from seqnets.training.callbacks import RateByLength

from .runs import fit, language_module, parity_data, parity_module, text_data


class Rates(Callback):
    """Notes each batch's length and rate, and the rate that is left after the step."""

    def __init__(self):
        self.lengths, self.used, self.left = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.lengths.append(batch.x.shape[1])

    def on_train_start(self, trainer, pl_module):
        (optimizer,) = trainer.optimizers
        optimizer.register_step_post_hook(
            lambda stepping, *_: self.used.append(stepping.param_groups[0]["lr"])
        )

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        (optimizer,) = trainer.optimizers
        self.left.append(optimizer.param_groups[0]["lr"])


def module_with(optimizer):
    def make(data):
        module = language_module(data, scheduler=None)
        module.optimizer_factory = optimizer
        return module

    return make


SGD = partial(torch.optim.SGD, lr=0.5)


def run(folder, optimizer=SGD, **options):
    data, rates = text_data(folder, chunk_spread=6.0), Rates()
    fit(module_with(optimizer), data, folder, rates, RateByLength(), max_epochs=2, **options)
    return data, rates


def test_a_steps_rate_is_in_proportion_to_its_length_and_the_optimizer_keeps_its_own(tmp_path):
    data, rates = run(tmp_path)

    assert len(set(rates.lengths)) > 3
    expected = [0.5 * length / data.chunk_length for length in rates.lengths]
    assert rates.used == pytest.approx(expected)
    assert set(rates.left) == {0.5}


def test_an_optimizer_whose_step_calls_another_ones_is_scaled_once(tmp_path):
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])  # from then on its step calls hooks

    data, rates = run(tmp_path, partial(NonMonotonicASGD, lr=0.5))

    expected = [0.5 * length / data.chunk_length for length in rates.lengths]
    assert rates.used[-1] in (0.5, pytest.approx(expected[-1]))
    assert set(rates.left) == {0.5}


def test_accumulated_gradients_use_their_mean_length(tmp_path):
    data, rates = run(tmp_path, accumulate_grad_batches=2)

    pairs = zip(rates.lengths[::2], rates.lengths[1::2], strict=False)
    expected = [0.5 * sum(pair) / 2 / data.chunk_length for pair in pairs]
    assert rates.used[: len(expected) // 2] == pytest.approx(expected[: len(expected) // 2])


def test_a_schedule_moves_the_rate_between_the_steps(tmp_path):
    data, rates = text_data(tmp_path, chunk_spread=6.0), Rates()
    fit(language_module, data, tmp_path, rates, RateByLength(), max_epochs=1)

    before = [0.01, *rates.left[:-1]]
    factors = [length / data.chunk_length for length in rates.lengths]
    assert rates.used == pytest.approx([b * f for b, f in zip(before, factors, strict=True)])
    assert rates.left[-1] < rates.left[0]


def test_a_step_that_fails_leaves_the_optimizer_its_rate(tmp_path):
    class Failing(Callback):
        def on_after_backward(self, trainer, pl_module):
            (self.optimizer,) = trainer.optimizers
            self.used = self.optimizer.param_groups[0]["lr"]
            raise RuntimeError("it fails")

    failing, data = Failing(), text_data(tmp_path, chunk_spread=6.0)
    with pytest.raises(RuntimeError, match="it fails"):
        fit(module_with(SGD), data, tmp_path, RateByLength(), failing, max_epochs=1)

    assert failing.used != 0.5
    assert failing.optimizer.param_groups[0]["lr"] == 0.5


def test_data_without_chunks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="RateByLength: got Parity"):
        fit(parity_module, parity_data(), tmp_path, RateByLength(), max_epochs=1)
