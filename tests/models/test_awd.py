"""The regularisation of the AWD-LSTM."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from seqnets.cells import LSTMCell, weight_drop
from seqnets.errors import ConfigError
from seqnets.models import DroppedEmbedding, LanguageModel
from seqnets.training import LanguageModelling, SequenceModule
from seqnets.typing import Batch

KNOWN = {"sizes": {"vocab_size": 7}, "unit": "words"}


def language_model(**options):
    torch.manual_seed(0)
    sizes = {"embedding_size": 4, "hidden_size": [6, 6, 4], "tie_weights": True}
    return LanguageModel(LSTMCell, 7, **{**sizes, **options})


def tokens(rows=3, steps=5):
    return torch.randint(7, (rows, steps))


def test_a_dropped_token_is_missing_at_all_of_its_places():
    torch.manual_seed(0)
    embedding = DroppedEmbedding(50, 3, p=0.4)
    ids = torch.randint(50, (20, 30))

    embedded = embedding(ids)

    missing = [(embedded[ids == token] == 0).unique().tolist() for token in ids.unique()]
    assert all(len(found) == 1 for found in missing)
    assert 0.2 < sum(map(sum, missing)) / len(missing) < 0.6
    there = embedded != 0
    torch.testing.assert_close(embedded[there], embedding.weight[ids][there] / 0.6)


def test_in_evaluation_no_token_is_dropped():
    embedding = DroppedEmbedding(7, 3, p=0.9).eval()
    ids = tokens()

    assert torch.equal(embedding(ids), embedding.weight[ids])


def test_an_invalid_dropout_of_tokens_is_refused():
    with pytest.raises(ConfigError, match="DroppedEmbedding: p is 1"):
        DroppedEmbedding(7, 3, p=1)


def masks_of(model, ids):
    """What each kind of dropout multiplies by, (B, T, features), by its name."""
    seen = {}

    def watch(name):
        def hook(module, args, out):
            seen.setdefault(name, []).append(out / args[0])

        return hook

    encoder = model.encoder
    encoder.input_dropout.register_forward_hook(watch("input"))
    encoder.recurrent.dropout.register_forward_hook(watch("between"))
    encoder.dropout.register_forward_hook(watch("output"))
    model(ids)
    return seen


@pytest.mark.parametrize("locked", [True, False])
def test_each_kind_of_dropout_has_its_rate_and_locked_one_mask_for_all_steps(locked):
    rates = {"input": 0.2, "between": 0.5, "output": 0.75}
    sizes = {"embedding_size": 16, "hidden_size": [16, 16, 16]}
    model = language_model(dropout=rates, locked=locked, **sizes).train()

    seen = masks_of(model, tokens(200, 5))

    assert [len(seen[name]) for name in rates] == [1, 2, 1]
    for name, masks in seen.items():
        for mask in masks:
            assert torch.equal(mask, mask[:, :1].expand_as(mask)) == locked
            scale = torch.full_like(mask[mask != 0], 1 / (1 - rates[name]))
            torch.testing.assert_close(mask[mask != 0], scale)
            assert abs((mask == 0).float().mean() - rates[name]) < 0.06
            assert not torch.equal(mask[0], mask[1])
    assert not torch.equal(*seen["between"])


def test_a_kind_of_dropout_that_is_left_out_drops_nothing():
    model = language_model(dropout={"output": 0.5}).train()

    seen = masks_of(model, tokens())

    assert not (seen["input"][0] == 0).any()
    assert not (seen["between"][0] == 0).any()


@pytest.mark.parametrize(
    ("dropout", "message"),
    [
        ({"hidden": 0.1}, "dropout has 'hidden', expected names from input, between, output"),
        ({"input": 1.0}, "dropout.input is 1.0, expected a probability"),
        (-0.1, "dropout.input is -0.1, expected a probability"),
        ("half", "dropout.input is 'half', expected a probability"),
    ],
)
def test_dropout_of_another_kind_or_rate_is_refused(dropout, message):
    with pytest.raises(ConfigError, match=f"Encoder: {message}"):
        language_model(dropout=dropout)


def test_weights_are_tied_to_an_embedding_narrower_than_the_layers():
    model = language_model(embedding=partial(DroppedEmbedding, p=0.1)).train()

    logits, _ = model(tokens())
    logits.sum().backward()

    assert model.output.weight is model.encoder.embedding.weight
    assert model.output.weight.shape == (7, 4)
    assert logits.shape == (3, 5, 7)
    with pytest.raises(ConfigError, match="embedding_size is 4 and the last layer is 6 wide"):
        language_model(hidden_size=[6, 6])


def test_activations_are_the_last_layers_and_what_dropout_leaves_of_them():
    model = language_model(dropout={"output": 0.5}, locked=True).train()

    y, dropped, _ = model.activations(tokens())
    model.eval()
    plain, _ = model.features(tokens())

    mask = dropped / y
    assert set(mask.unique().tolist()) == {0.0, 2.0}
    assert y.shape == plain.shape == (3, 5, 4)


class Activated(nn.Module):
    """Says and drops what it is told to."""

    def __init__(self, y, dropped):
        super().__init__()
        self.y, self.dropped = y, dropped
        self.output = nn.Linear(2, 3, dtype=torch.float64)

    def forward(self, tokens, state=None, lengths=None):
        return self.output(self.y), state

    def activations(self, tokens, state=None, lengths=None):
        return self.y, self.dropped, state


Y = [[[0.5, -1.0], [0.25, 2.0], [1.0, 0.0]], [[-0.5, 0.1], [0.3, -0.2], [0.0, 0.7]]]
MASK = [[2.0, 0.0], [0.0, 2.0]]


def activated():
    y = torch.tensor(Y, dtype=torch.float64)
    model = Activated(y, y * torch.tensor(MASK, dtype=torch.float64)[:, None])
    batch = Batch(torch.zeros(2, 3, dtype=torch.int64), torch.tensor([[0, 1, 2], [2, 1, 0]]))
    return model, batch


def test_the_penalty_follows_its_paper_and_stays_out_of_the_loss():
    model, batch = activated()
    alpha, beta = 2.0, 0.7
    small = [(m * v) ** 2 for row, ms in zip(Y, MASK, strict=True) for y in row
             for m, v in zip(ms, y, strict=True)]  # fmt: skip
    slow = [(row[t + 1][k] - row[t][k]) ** 2 for row in Y for t in range(2) for k in range(2)]

    outcome = LanguageModelling("words", alpha, beta)(model.train(), batch)

    expected = alpha * sum(small) / len(small) + beta * sum(slow) / len(slow)
    assert outcome.penalty.item() == pytest.approx(expected, abs=1e-12)
    logits = model.output(model.dropped).tolist()
    nats = [
        math.log(sum(math.exp(v) for v in step)) - step[target]
        for row, targets in zip(logits, batch.y.tolist(), strict=True)
        for step, target in zip(row, targets, strict=True)
    ]
    assert outcome.loss.item() == pytest.approx(sum(nats) / 6, abs=1e-12)


def test_in_evaluation_and_without_weights_there_is_no_penalty():
    model, batch = activated()

    assert LanguageModelling("words", 2.0, 1.0)(model.eval(), batch).penalty is None
    assert LanguageModelling("words")(model.train(), batch).penalty is None


def test_a_single_step_has_no_temporal_penalty():
    model = language_model().train()
    x = tokens(steps=1)

    penalty = LanguageModelling("words", 0.0, 1.0)(model, Batch(x, x)).penalty

    assert penalty.item() == 0


def test_training_minimises_loss_and_penalty_and_reports_the_loss():
    objective = LanguageModelling("words", alpha=2.0, beta=1.0)
    module = SequenceModule(language_model(), objective, KNOWN, torch.optim.SGD).train()
    batch = Batch(tokens(), tokens())

    followed = module.training_step(batch, 0)
    outcome = objective(module.model, batch)

    assert module.last_loss.item() == pytest.approx(outcome.loss.item(), rel=1e-6)
    assert followed.item() == pytest.approx((outcome.loss + outcome.penalty).item(), rel=1e-6)


@pytest.mark.parametrize(("alpha", "beta"), [(-1.0, 0.0), (0.0, -0.5)])
def test_a_negative_weight_is_refused(alpha, beta):
    with pytest.raises(ConfigError, match=r"LanguageModelling: .* is -.*, expected a number of at"):
        LanguageModelling("words", alpha, beta)


def test_all_regularisation_works_with_weight_drop():
    def cell(**sizes):
        return weight_drop(LSTMCell(**sizes), 0.5)

    torch.manual_seed(0)
    model = LanguageModel(
        cell,
        7,
        embedding_size=16,
        embedding=partial(DroppedEmbedding, p=0.1),
        hidden_size=[24, 24, 16],
        tie_weights=True,
        dropout={"input": 0.4, "between": 0.25, "output": 0.4},
        locked=True,
    ).train()
    x = tokens()
    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
    objective = LanguageModelling("words", 0.02, 0.01)
    before = objective(model.eval(), Batch(x, x)).loss.item()

    model.train()
    for _ in range(200):
        outcome = objective(model, Batch(x, x))
        optimizer.zero_grad()
        (outcome.loss + outcome.penalty).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()

    assert objective(model.eval(), Batch(x, x)).loss.item() < 0.6 * before
