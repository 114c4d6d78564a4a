"""Rules of learning in training: they act on gradients alone, and are no part of the model."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch import nn

from seqnets.cells import GRUCell, MinGRUCell, Zoneout, optioned
from seqnets.errors import ConfigError
from seqnets.layers import RTRL, EProp, Recurrent, SnAp1
from seqnets.models import LanguageModel, SequenceClassifier, SequenceToSequence
from seqnets.training import Classification, LanguageModelling, Regression, SequenceModule
from seqnets.training.learning import Rules
from seqnets.typing import Batch

from .runs import SignalAt, fit, parity_data, text_data

KNOWN = {"sizes": {"vocab_size": 5}, "unit": "characters"}


def module(rule, cell=GRUCell, layers=1):
    torch.manual_seed(0)
    model = LanguageModel(cell, 5, hidden_size=4, num_layers=layers, dropout=0.0)
    made = SequenceModule(
        model, LanguageModelling(), KNOWN, partial(torch.optim.SGD, lr=0.1), learning=rule
    )
    return made.double()


def batches(steps):
    """A stream of tokens, in batches of so many steps."""
    torch.manual_seed(1)
    tokens = torch.randint(0, 5, (3, 9))
    return [
        Batch(tokens[:, i : i + steps], tokens[:, i + 1 : i + 1 + steps], carry=i > 0)
        for i in range(0, 8, steps)
    ]


def gradients(learner, steps):
    """The gradients of the recurrent layers, summed over the batches."""
    for batch in batches(steps):
        (learner.training_step(batch, 0) * steps).backward()
    return torch.cat([p.grad.flatten() for p in learner.model.encoder.recurrent.parameters()])


def test_gradients_of_a_stream_are_those_of_one_long_batch():
    whole = gradients(module(None), 8)

    torch.testing.assert_close(gradients(module(RTRL), 2), whole, rtol=0, atol=1e-10)
    assert (gradients(module(None), 2) - whole).abs().max() > 1e-4


class Started(nn.Module):
    """A model that gives its layer a state of its own."""

    def __init__(self):
        super().__init__()
        self.layer = Recurrent(GRUCell(1, 2))

    def forward(self, x):
        return self.layer(x, (torch.zeros(len(x), 2),))


def test_a_new_stream_begins_without_an_influence():
    model = Started()
    rules, fresh = Rules(model, RTRL), Rules(model, RTRL)

    for rows in (3, 2):
        with rules.learning(carry=False):
            model(torch.ones(rows, 4, 1))

    with fresh.learning(carry=False):
        model(torch.ones(2, 4, 1))
    torch.testing.assert_close(rules.influences, fresh.influences)


@pytest.mark.parametrize("rule", [RTRL, SnAp1, EProp])
def test_the_model_itself_knows_nothing_of_the_rule(rule):
    learner, plain = module(rule, layers=2), module(None, layers=2)

    learner.training_step(batches(2)[0], 0).backward()
    learner.validation_step(batches(2)[0], 0)

    assert learner.state_dict().keys() == plain.state_dict().keys()
    assert str(learner.model) == str(plain.model)
    assert all(p.grad is not None for p in learner.model.parameters())


@pytest.mark.parametrize("rule", [RTRL, SnAp1])
def test_a_resumed_run_carries_its_influences_on(tmp_path, rule):
    def make(data):
        model = LanguageModel(MinGRUCell, data.sizes["vocab_size"], hidden_size=4, dropout=0.0)
        optimizer = partial(torch.optim.SGD, lr=0.1)
        return SequenceModule(model, LanguageModelling(), data.describe(), optimizer, learning=rule)

    def run(folder, *callbacks, **options):
        data = text_data(tmp_path, chunk_length=8)
        return fit(make, data, folder, *callbacks, max_steps=9, **options)

    _, through = run(tmp_path / "a")
    run(tmp_path / "b", SignalAt(5))
    (last,) = (tmp_path / "b").rglob("last.ckpt")
    _, resumed = run(tmp_path / "b", resume=last)

    pairs = zip(through.parameters(), resumed.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.load(last, weights_only=True)["seqnets"]["processes"][0]["influences"]


def test_layers_that_take_single_steps_are_refused():
    model = SequenceToSequence(GRUCell, 5, vocab_size=5, hidden_size=4, feed="output")
    rules = Rules(model, RTRL)

    with (
        pytest.raises(ConfigError, match=r"layer 'decoder[\s\S]*in single steps"),
        rules.learning(carry=False),
    ):
        model(torch.zeros(2, 3).long(), torch.zeros(2, 3).long())


def test_a_layer_that_draws_random_numbers_is_refused_before_the_first_batch():
    noisy = partial(optioned, cell=GRUCell, options=[Zoneout])

    with pytest.raises(ConfigError, match=r"layer 'encoder\S* draws random numbers"):
        module(RTRL, noisy)


def classifier(rule, data, bptt_steps=None):
    torch.manual_seed(0)
    model = SequenceClassifier(MinGRUCell, **data.sizes, hidden_size=4, bptt_steps=bptt_steps)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    return SequenceModule(model, Classification(), data.describe(), optimizer, learning=rule)


@pytest.mark.parametrize("rule", [RTRL, SnAp1])
def test_exact_gradients_are_refused_where_those_of_whole_sequences_are_exact_anyway(
    tmp_path, rule
):
    refused = pytest.raises(ConfigError, match="batches of Parity are whole sequences")
    with refused if rule is RTRL else nullcontext():
        fit(partial(classifier, rule), parity_data(), tmp_path, max_steps=2)


def test_a_layers_gradients_of_sequences_that_are_cut_are_those_of_whole_ones(tmp_path):
    data = parity_data()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    found = []
    for rule, steps in ((None, None), (RTRL, 2), (None, 2)):
        learner = classifier(rule, data, steps)
        learner.training_step(batch, 0).backward()
        layers = learner.model.encoder.recurrent
        found.append(torch.cat([p.grad.flatten() for p in layers.parameters()]))
    whole, exact, cut = found

    torch.testing.assert_close(exact, whole)
    assert (cut - whole).abs().max() > 1e-4
    fit(partial(classifier, RTRL, bptt_steps=2), data, tmp_path, max_steps=2)


def test_a_run_on_whole_sequences_that_was_not_refused_may_go_on(tmp_path, monkeypatch):
    data, make = parity_data(), partial(classifier, RTRL)
    with monkeypatch.context() as before:
        before.setattr(Rules, "check", lambda *_: None)
        fit(make, data, tmp_path, max_steps=2)
    last = tmp_path / "checkpoints" / "last.ckpt"

    resumed, _ = fit(make, data, tmp_path, resume=last, max_steps=3)

    assert resumed.global_step == 3


def test_other_data_modules_than_those_of_seqnets_are_left_alone():
    classifier(RTRL, parity_data()).rules.check(LightningDataModule.from_datasets(range(2)))


def test_a_model_without_recurrent_layers_is_refused():
    with pytest.raises(ConfigError, match="Linear has no Recurrent layer"):
        SequenceModule(nn.Linear(1, 1), Regression(), {}, torch.optim.SGD, learning=RTRL)
