"""Replayed batches; on a CPU, a stand-in for CUDA graphs calls the recorded functions."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from seqnets.errors import ConfigError
from seqnets.training import graphs
from seqnets.training.callbacks import CUDAGraphs

from .runs import (
    fit,
    language_module,
    parity_data,
    parity_module,
    series_data,
    series_module,
    text_data,
    weighted_data,
)


class Notes(Callback):
    """Note the losses, and how many batches were replayed."""

    def __init__(self):
        self.losses, self.replays, self.refusal = [], 0, None

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.losses.append(pl_module.last_loss.item())

    def on_train_end(self, trainer, pl_module):
        self.replays, self.refusal = pl_module.graphs.replays, pl_module.graphs.refusal


@pytest.fixture
def recording(monkeypatch):
    """As on a GPU: nothing is done while it is recorded, and results keep their places."""

    def recorded(function, pool):
        random = torch.get_rng_state()
        places = function()
        torch.set_rng_state(random)
        here = tensors(places)
        for place in here:
            place.fill_(torch.nan)  # nothing is there yet

        def replay():
            for place, new in zip(here, tensors(function()), strict=True):
                place.copy_(new)

        return replay, places

    monkeypatch.setattr(graphs, "_refusal", lambda module: None)
    monkeypatch.setattr(graphs, "recorded", recorded)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: 0)


def tensors(places):
    if isinstance(places, torch.Tensor):
        return [places]
    return [] if places is None else [tensor for part in places for tensor in tensors(part)]


def trained(make, data, folder, *callbacks, **options):
    notes = Notes()
    callbacks = [CUDAGraphs(), notes, *callbacks]
    _, module = fit(make, data, folder, *callbacks, **{"max_epochs": 3, **options})
    return notes, module


def agree(one, other):
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def both(make, data, folder, monkeypatch, **options):
    """The same run with replayed batches, and without."""
    found = [trained(make, data, folder / "replayed", **options)]
    monkeypatch.setattr(graphs.BatchGraphs, "run", lambda *_: None)
    return *found, trained(make, data, folder / "usual", **options)


def test_replayed_batches_train_bit_for_bit_like_others(tmp_path, recording, monkeypatch):
    data = text_data(tmp_path)

    (notes, module), (expected, usual) = both(language_module, data, tmp_path, monkeypatch)

    assert notes.replays > 20  # dropout drew for each, and each carried a state on
    assert notes.losses == expected.losses
    agree(module, usual)


def test_batches_of_few_kinds_are_replayed_where_lengths_differ(tmp_path, recording, monkeypatch):
    data = parity_data()

    (notes, module), (expected, usual) = both(
        parity_module, data, tmp_path, monkeypatch, max_epochs=6
    )

    assert notes.replays > 10
    assert notes.losses == expected.losses
    agree(module, usual)


def test_replayed_batches_have_their_own_values_of_what_is_known_ahead(
    tmp_path, recording, monkeypatch
):
    data = series_data(tmp_path)

    (notes, module), (expected, usual) = both(series_module, data, tmp_path, monkeypatch)

    assert notes.replays > 10
    assert notes.losses == expected.losses
    agree(module, usual)


def test_replayed_batches_have_their_own_weights(tmp_path, recording, monkeypatch):
    data = weighted_data(tmp_path)

    (notes, module), (expected, usual) = both(parity_module, data, tmp_path, monkeypatch)

    assert notes.replays > 10
    assert notes.losses == expected.losses
    agree(module, usual)


def test_a_parameter_that_is_frozen_makes_batches_of_another_kind(tmp_path, recording):
    class Freeze(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            self.frozen = next(pl_module.model.parameters())
            self.frozen.requires_grad_(trainer.current_epoch == 0)
            self.before = self.frozen.detach().clone()

    freeze = Freeze()
    notes, _ = trained(language_module, text_data(tmp_path), tmp_path, freeze, max_epochs=2)

    assert notes.replays
    assert torch.equal(freeze.frozen, freeze.before)


def test_a_resumed_run_continues_bit_for_bit(tmp_path, recording):
    data, make = text_data(tmp_path), partial(language_module, scheduler=None)
    _, whole = trained(make, data, tmp_path / "whole", max_epochs=4)
    trained(make, data, tmp_path / "half", max_epochs=2)
    last = next((tmp_path / "half").rglob("last.ckpt"))

    _, resumed = trained(make, data, tmp_path / "half", max_epochs=4, resume=last)

    agree(whole, resumed)


def test_no_more_kinds_are_recorded_than_there_is_memory_for(tmp_path, recording, monkeypatch):
    monkeypatch.setattr(graphs, "_MAX_GRAPHS", 1)
    data = text_data(tmp_path)

    notes, module = trained(language_module, data, tmp_path, max_epochs=8)

    assert 0 < notes.replays < len(notes.losses) - 8  # the first of an epoch carries nothing
    assert module.graphs is None  # whose memory is free again


def test_a_model_that_cannot_be_recorded_ends_the_run_at_its_fourth_batch(
    tmp_path, recording, monkeypatch
):
    def fails(function, pool):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graphs, "recorded", fails)
    notes = Notes()

    with pytest.raises(ConfigError, match="cannot be recorded: operation not permitted when"):
        fit(language_module, text_data(tmp_path), tmp_path, CUDAGraphs(), notes, max_epochs=1)

    assert len(notes.losses) == 4  # the first carries no state, and is of another kind


def test_on_a_cpu_nothing_is_recorded(tmp_path):
    notes, _ = trained(language_module, text_data(tmp_path), tmp_path, max_epochs=1)

    assert notes.replays == 0
    assert notes.refusal == "it trains on cpu, and graphs are CUDA's"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"world_size": 2}, "several processes"),
        ({"accumulate_grad_batches": 4}, "added up"),
        ({"precision_plugin": SimpleNamespace(scaler=object())}, "bf16-mixed"),
        ({"rules": object()}, "influences in Python"),
    ],
)
def test_runs_that_cannot_be_recorded_are_detected(change, reason):
    usual = {"world_size": 1, "accumulate_grad_batches": 1, "precision_plugin": None, "rules": None}
    trainer = SimpleNamespace(**{**usual, **change})
    module = SimpleNamespace(
        trainer=trainer,
        device=torch.device("cuda"),
        model=nn.Linear(2, 2),
        rules=trainer.rules,
    )

    assert reason in graphs._refusal(module)


def test_on_a_gpu_a_warning_says_why_nothing_is_recorded(monkeypatch):
    module = SimpleNamespace(device=torch.device("cuda"))
    monkeypatch.setattr(graphs, "_refusal", lambda _: "the model has hooks")

    with pytest.warns(UserWarning, match="batches run as usual: the model has hooks"):
        CUDAGraphs().on_train_start(None, module)


def test_a_model_with_hooks_is_not_recorded():
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_forward_hook(lambda *_: None)
    trainer = SimpleNamespace(world_size=1, accumulate_grad_batches=1, precision_plugin=None)
    module = SimpleNamespace(trainer=trainer, device=torch.device("cuda"), model=model, rules=None)

    assert graphs._refusal(module) == "0 has hooks, which Python would have to call"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_on_a_gpu_replayed_batches_train_like_others(tmp_path, monkeypatch, precision):
    data, options = text_data(tmp_path), {"accelerator": "gpu", "precision": precision}

    (notes, module), (expected, usual) = both(
        language_module, data, tmp_path, monkeypatch, **options
    )

    assert notes.replays > 20
    torch.testing.assert_close(notes.losses, expected.losses, rtol=1e-4, atol=0)
    for ours, theirs in zip(module.parameters(), usual.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_on_a_gpu_a_resumed_run_goes_on_with_the_same_random_numbers(tmp_path):
    data, make = text_data(tmp_path), partial(language_module, scheduler=None)
    gpu = {"accelerator": "gpu"}
    _, whole = trained(make, data, tmp_path / "whole", max_epochs=4, **gpu)
    trained(make, data, tmp_path / "half", max_epochs=2, **gpu)
    last = next((tmp_path / "half").rglob("last.ckpt"))

    _, resumed = trained(make, data, tmp_path / "half", max_epochs=4, resume=last, **gpu)

    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_model_that_waits_for_the_gpu_ends_the_run(tmp_path):
    class Waiting(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if x.sum().item() < 1e9 else x

    def make(data):
        module = language_module(data)
        module.model.register_module("output", Waiting(module.model.output))
        return module

    with pytest.raises(ConfigError, match="cannot be recorded"):
        trained(make, text_data(tmp_path), tmp_path, accelerator="gpu")
