"""SGD that averages its weights once the validation loss stops falling."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from seqnets.errors import CheckpointError, ConfigError
from seqnets.training import NonMonotonicASGD, load_checkpoint

from .runs import fit, language_module, text_data
from .test_resume import SignalAt, same


def one_weight(**options):
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    return weight, NonMonotonicASGD([weight], lr=0.5, **options)


def descend(weight, optimizer, steps=1):
    for _ in range(steps):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()


def begins_at(losses, patience):
    """The validation that starts the averages, read off the paper's Algorithm 1."""
    for t, loss in enumerate(losses):
        if t > patience and loss > min(losses[: t - patience]):
            return t
    return None


@pytest.mark.parametrize("patience", [1, 2, 5])
@pytest.mark.parametrize(
    "losses",
    [
        [5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.4],
        [5.0, 4.0, 4.5, 4.5, 4.5, 4.5, 4.5, 4.5],
        [5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0],
        [3.0, 4.0, 5.0, 2.0, 4.0, 1.0, 2.5, 2.5],
    ],
)
def test_it_averages_from_where_the_paper_does(losses, patience):
    _, optimizer = one_weight(patience=patience)
    found = None

    for validation, loss in enumerate(losses):
        optimizer.observe(loss)
        if optimizer.count and found is None:
            found = validation

    assert found == begins_at(losses, patience)


def test_it_is_sgd_and_the_average_is_the_plain_mean():
    weight, optimizer = one_weight(patience=1, weight_decay=0.1)
    w, weights = 1.0, []
    for step in range(6):
        if step == 2:
            for loss in (1.0, 2.0, 3.0):
                optimizer.observe(loss)
            weights.append(w)
        descend(weight, optimizer)
        w -= 0.5 * (2 * w + 0.1 * w)
        if step >= 2:
            weights.append(w)

    with optimizer.averaged():
        shown = weight.item()

    assert shown == pytest.approx(sum(weights) / len(weights), abs=1e-14)
    assert weight.item() == pytest.approx(w, abs=1e-14)
    assert optimizer.count == len(weights) == 5


def test_weights_come_back_bit_for_bit_from_within_and_from_two_depths():
    weight, optimizer = one_weight(patience=1)
    for loss in (1.0, 2.0, 3.0):
        optimizer.observe(loss)
    descend(weight, optimizer, 3)
    before = weight.detach().clone()

    with optimizer.averaged(), optimizer.averaged():
        within = weight.detach().clone()

    assert not torch.equal(within, before)
    assert torch.equal(weight.detach(), before)


def test_without_averages_nothing_is_logged():
    weight, optimizer = one_weight()
    descend(weight, optimizer)
    before = weight.item()

    with optimizer.averaged():
        assert weight.item() == before
    optimizer.finish()
    assert weight.item() == before


def test_patience_must_be_positive():
    with pytest.raises(ConfigError, match="NonMonotonicASGD: patience is 0"):
        one_weight(patience=0)


class Averages(Callback):
    """Writes down what is validated, and what is trained before and after."""

    def __init__(self):
        self.validated, self.raw, self.scores = {}, {}, {}

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.validated[trainer.global_step] = weights_of(pl_module)

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.scores[trainer.global_step] = float(trainer.callback_metrics["val/loss"])

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.raw[trainer.global_step] = weights_of(pl_module)

    def on_train_batch_start(self, trainer, pl_module, *_):
        before = self.raw.get(trainer.global_step)
        assert before is None or equal(before, weights_of(pl_module)), "weights were not put back"


def weights_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def averaging_module(data):
    """A rate at which the validation loss soon rises."""
    module = language_module(data, scheduler=None)
    module.optimizer_factory = partial(NonMonotonicASGD, lr=20.0, patience=1)
    return module


OPTIONS = {"max_steps": 30, "val_check_interval": 3}


def test_a_run_validates_keeps_and_ends_with_the_averages_and_trains_without(tmp_path):
    seen = Averages()
    trainer, module = fit(averaging_module, text_data(tmp_path), tmp_path, seen, **OPTIONS)

    began = 31 - trainer.optimizers[0].count
    assert 3 < began < 25
    assert all(equal(w, seen.raw[s]) == (s <= began) for s, w in seen.validated.items())
    best, last = (load_checkpoint(tmp_path / "checkpoints" / f"{n}.ckpt") for n in ("best", "last"))
    lowest = min(seen.scores, key=seen.scores.get)
    assert lowest > began
    assert equal(best["state_dict"], seen.validated[lowest])
    assert equal(last["state_dict"], weights_of(module))
    path = tmp_path / "checkpoints" / "last.ckpt"
    _, idle = fit(averaging_module, text_data(tmp_path), tmp_path, resume=path, **OPTIONS)
    assert equal(weights_of(idle), weights_of(module)), "with nothing left to train"
    for name, tensor in weights_of(module).items():
        mean = sum(seen.raw[s][name].double() for s in range(began, 31)) / (31 - began)
        torch.testing.assert_close(tensor.double(), mean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("step", [2, 8, 13, 14, 15, 22, 29])
def test_stopped_and_resumed_it_ends_with_the_same_weights(step, tmp_path):
    whole, a = fit(averaging_module, text_data(tmp_path), tmp_path / "a", **OPTIONS)
    fit(averaging_module, text_data(tmp_path), tmp_path / "b", SignalAt(step), **OPTIONS)
    last = tmp_path / "b" / "checkpoints" / "last.ckpt"
    resumed, b = fit(averaging_module, text_data(tmp_path), tmp_path / "b", resume=last, **OPTIONS)

    assert whole.optimizers[0].count == resumed.optimizers[0].count > 1
    assert whole.optimizers[0].losses == resumed.optimizers[0].losses
    assert same(a, b)


def test_another_optimizers_state_is_refused():
    model = nn.Linear(1, 1)

    with pytest.raises(CheckpointError, match="without 'averaging'"):
        NonMonotonicASGD(model.parameters(), lr=1.0).load_state_dict(
            torch.optim.SGD(model.parameters(), lr=1.0).state_dict()
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_in_which_a_mean_of_many_stands_still(dtype):
    with pytest.raises(ConfigError, match=f"weights are {str(dtype)[6:]}.*\n.*precision="):
        NonMonotonicASGD([nn.Parameter(torch.zeros(1, dtype=dtype))], lr=0.5)
