"""Output layers with their own loss agree with a linear layer, softmax and cross entropy."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqnets.cells import LSTMCell
from seqnets.errors import ConfigError
from seqnets.models import AdaptiveSoftmax, DroppedEmbedding, FusedSoftmax, LanguageModel
from seqnets.typing import IGNORE

B, T, H, V = 3, 7, 5, 11


@pytest.fixture
def steps():
    """Features, and targets of which a few are not scored."""
    torch.manual_seed(0)
    targets = torch.randint(V, (B, T))
    targets[0, 4:] = targets[2, 0] = IGNORE
    return torch.randn(B, T, H, dtype=torch.float64, requires_grad=True), targets


def reference(head, y, targets):
    logits = F.linear(y, head.weight, head.bias).flatten(0, 1)
    return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE, reduction="sum")


@pytest.fixture(params=["torch's", "ours", "all at once"])
def way(request, monkeypatch):
    """How the loss is computed; gives the chunk with which it is, and a list of who was called."""
    called = []
    if request.param == "ours":
        monkeypatch.delattr(F, "linear_cross_entropy", raising=False)
    elif hasattr(F, "linear_cross_entropy"):
        theirs = F.linear_cross_entropy
        monkeypatch.setattr(
            F,
            "linear_cross_entropy",
            lambda *args, **options: called.append("torch's") or theirs(*args, **options),
        )
    elif request.param == "torch's":
        pytest.skip("this torch has no linear_cross_entropy")
    expected = ["torch's"] if request.param == "torch's" else []
    yield 100 if request.param == "all at once" else 4
    assert called == expected


@pytest.mark.parametrize("bias", [True, False])
def test_the_fused_loss_and_its_gradients_are_those_of_a_matrix_and_cross_entropy(steps, bias, way):
    y, targets = steps
    head = FusedSoftmax(H, V, bias=bias, chunk=way).double()
    wanted = [y, *head.parameters()]

    right = reference(head, y, targets)
    found = head.loss(y, targets)

    torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(found, wanted),
        torch.autograd.grad(right, wanted),
        rtol=1e-12,
        atol=1e-12,
    )


def test_with_fewer_classes_than_features_all_logits_are_made_at_once(monkeypatch):
    monkeypatch.delattr(F, "linear_cross_entropy", raising=False)
    head, y = FusedSoftmax(8, 4, chunk=1).double(), torch.randn(2, 3, 8, dtype=torch.float64)
    targets = torch.randint(4, (2, 3))

    torch.testing.assert_close(head.loss(y, targets), reference(head, y, targets))


def test_a_fused_softmax_without_targets_costs_nothing(way):
    y = torch.randn(2, 5, H, dtype=torch.float64, requires_grad=True)
    head = FusedSoftmax(H, V, chunk=way).double()

    loss = head.loss(y, torch.full((2, 5), IGNORE))
    loss.backward()

    assert loss == 0
    assert not y.grad.any()


@pytest.mark.parametrize("head", [FusedSoftmax(H, V, chunk=4), AdaptiveSoftmax(H, V, [3, 6], 2.0)])
def test_scores_are_the_parts_of_the_loss_and_the_likeliest_have_the_highest_output(head, steps):
    y, targets = steps
    head = head.double()

    nats, likeliest = head.score(y, targets)
    said = head(y)

    torch.testing.assert_close(nats.sum(), head.loss(y, targets))
    assert (nats[targets == IGNORE] == 0).all()
    assert (nats[targets != IGNORE] > 0).all()
    own = -said.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(nats, own.masked_fill(targets == IGNORE, 0.0))
    assert torch.equal(likeliest, said.argmax(-1))
    assert torch.equal(head.predict(y), likeliest)


def test_an_adaptive_softmaxs_probabilities_sum_to_one():
    said = AdaptiveSoftmax(16, 50).double()(torch.randn(2, 3, 16, dtype=torch.float64))

    assert said.shape == (2, 3, 50)
    torch.testing.assert_close(said.exp().sum(-1), torch.ones(2, 3, dtype=torch.float64))


def test_an_adaptive_softmax_without_targets_costs_nothing():
    y = torch.randn(2, 5, 16, requires_grad=True)
    head, nothing = AdaptiveSoftmax(16, 50), torch.full((2, 5), IGNORE)

    assert head.loss(y, nothing) == 0
    assert not head.score(y, nothing)[0].any()


def test_rare_classes_have_fewer_features():
    head = AdaptiveSoftmax(64, 100, cutoffs=[10, 50])

    narrow = [cluster[0].out_features for cluster in head.softmax.tail]
    assert narrow == [16, 4]


@pytest.mark.parametrize(
    ("classes", "cutoffs"), [(100, [50, 10]), (100, [10, 10]), (100, [0]), (100, [100]), (5, None)]
)
def test_cutoffs_that_are_no_clusters_are_refused(classes, cutoffs):
    with pytest.raises(ConfigError, match="expected ascending numbers between 0 and"):
        AdaptiveSoftmax(64, classes, cutoffs)


def test_more_clusters_than_there_are_features_for_are_refused():
    with pytest.raises(ConfigError, match="it would get 0 of 8"):
        AdaptiveSoftmax(8, 100, [10, 50])


@pytest.mark.parametrize("chunk", [0, 1.5, True])
def test_a_chunk_of_nothing_or_of_parts_of_steps_is_refused(chunk):
    with pytest.raises(ConfigError, match=f"chunk is {chunk}, expected a whole number"):
        FusedSoftmax(H, V, chunk=chunk)


def test_a_fused_softmax_has_the_weights_of_a_matrix_by_the_same_names():
    linear = LanguageModel(LSTMCell, V, hidden_size=H)
    fused = LanguageModel(LSTMCell, V, hidden_size=H, output=FusedSoftmax)

    fused.load_state_dict(linear.state_dict())

    assert isinstance(linear.output, nn.Linear)
    tokens = torch.randint(V, (B, T))
    assert torch.equal(fused(tokens)[0], linear(tokens)[0])


def test_a_fused_softmax_can_be_tied_and_an_adaptive_one_cannot():
    options = {"hidden_size": 16, "embedding_size": 16, "tie_weights": True}
    model = LanguageModel(LSTMCell, 50, output=FusedSoftmax, **options)

    assert model.output.weight is model.encoder.embedding.weight
    with pytest.raises(ConfigError, match="AdaptiveSoftmax, expected one matrix"):
        LanguageModel(LSTMCell, 50, output=AdaptiveSoftmax, **options)


def test_an_embedding_loses_all_places_of_a_token_at_once_and_scales_the_others():
    torch.manual_seed(0)
    embedding = DroppedEmbedding(40, 6, p=0.3)
    tokens = torch.arange(40).repeat(5)[None]

    found, whole = embedding(tokens), F.embedding(tokens, embedding.weight)
    factor = (found / whole)[0]

    assert torch.equal(factor > 0, (factor[:40, :1] > 0).repeat(5, 6))
    kept = factor[factor > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.7))
    assert 0 < (factor[:40, 0] == 0).sum() < 40


def test_an_embedding_loses_nothing_in_evaluation():
    embedding, tokens = DroppedEmbedding(40, 6, p=0.9).eval(), torch.arange(40)[None]

    assert torch.equal(embedding(tokens), F.embedding(tokens, embedding.weight))


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_the_probability_of_dropping_must_be_valid(p):
    with pytest.raises(ConfigError, match=r"DroppedEmbedding: p is"):
        DroppedEmbedding(4, 3, p=p)
