from functools import partial

import pytest
import torch

from seqnets.cells import GRUCell, LSTMCell, Zoneout
from seqnets.errors import ConfigError
from seqnets.models import BahdanauAttention, LuongAttention, SequenceToSequence
from seqnets.typing import END, IGNORE
from tests.cells.final import ONE_OF_EACH_KIND, TRACED_CELLS
from tests.slow import mostly_slow

pytestmark = pytest.mark.usefixtures("plain_loop")

X = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 0, 0], [3, 0, 0, 0, 0]])
LENGTHS = torch.tensor([5, 3, 1])
Y = torch.tensor([[2, 3, 1, END], [5, END, IGNORE, IGNORE], [1, 1, END, IGNORE]])
ATTENTIONS = {"none": None, "luong": LuongAttention, "bahdanau": BahdanauAttention}
FEEDS = [
    ("none", "nothing"),
    ("none", "output"),
    *((name, feed) for name in ("luong", "bahdanau") for feed in ("nothing", "output", "context")),
]


def small(cell=GRUCell, attention="luong", **options):
    torch.manual_seed(0)
    options = {"hidden_size": 5, "embedding_size": 5, "bidirectional": True, **options}
    return SequenceToSequence(
        cell, 6, vocab_size=7, attention=ATTENTIONS[attention], **options
    ).double()


def stepwise(model):
    """Logits and weights of the targets, one step after the other."""
    memory, state = model.read(X, LENGTHS)
    tokens, said, looked = torch.full((len(X),), END), [], []
    for step in range(Y.shape[1]):
        logits, weights, state = model.write(tokens, memory, state)
        said.append(logits)
        looked.append(weights)
        tokens = Y[:, step].masked_fill(Y[:, step] == IGNORE, END)
    return torch.stack(said, 1), looked


@pytest.mark.parametrize(("attention", "feed"), FEEDS)
def test_a_known_target_is_read_at_once_as_it_is_step_by_step(attention, feed):
    model = small(LSTMCell, attention, feed=feed, num_layers=2)

    _, weights = model.features(X, Y, LENGTHS)
    logits, looked = stepwise(model)

    torch.testing.assert_close(model(X, Y, LENGTHS), logits)
    if attention != "none":
        torch.testing.assert_close(weights, torch.stack(looked, 1))


@pytest.mark.parametrize("cell", mostly_slow(TRACED_CELLS, ONE_OF_EACH_KIND))
def test_any_cell_reads_and_writes(cell):
    model = small(cell).eval()

    torch.testing.assert_close(model(X, Y, LENGTHS), stepwise(model)[0])


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "bidirectional": False},
        {"num_layers": 2, "bidirectional": False, "alternating": True},
        {"num_layers": 3, "connection": "dense"},
        {"hidden_size": [4, 6]},
        {"bidirectional": False, "bptt_steps": 2},
        {"cell_options": {"zoneout": partial(Zoneout, p=0.1)}},
        {"cell": partial(LSTMCell, proj_size=2), "hidden_size": 6},  # 6 is context and query
    ],
    ids=lambda options: " ".join(options),
)
def test_stacks_of_any_shape_read_and_write(options):
    model = small(**options).eval()

    torch.testing.assert_close(model(X, Y, LENGTHS), stepwise(model)[0])


@pytest.mark.parametrize(("attention", "feed"), FEEDS)
def test_a_padded_row_is_read_as_alone(attention, feed):
    model = small(LSTMCell, attention, feed=feed)

    together = model(X, Y, LENGTHS)

    for row, length in enumerate(LENGTHS):
        alone = model(X[row, None, :length], Y[row, None])
        torch.testing.assert_close(together[row, None], alone)


@pytest.mark.parametrize(("attention", "feed"), FEEDS)
def test_a_token_changes_nothing_before_it(attention, feed):
    model = small(attention=attention, feed=feed)
    changed = Y.clone()
    changed[:, 2:] = 4

    before, after = model(X, Y, LENGTHS)[:, :3], model(X, changed, LENGTHS)[:, :3]

    assert torch.equal(before, after)


def test_the_first_query_is_read_through_the_norm_like_those_after_it():
    model = small(feed="context", norm="layer", num_layers=2)

    _, (_, query) = model.read(X, LENGTHS)

    normed = torch.nn.functional.layer_norm(query, (5,))
    torch.testing.assert_close(query, normed, rtol=0, atol=0.01)


def test_the_decoder_begins_where_the_backward_encoder_ended():
    model = small(attention="none")

    _, states = model.encoder(X, None, LENGTHS)
    _, (state, _) = model.read(X, LENGTHS)

    ((_, backward),) = states
    assert torch.equal(state[0][0], backward[0])


def test_tied_weights_are_one_parameter_as_wide_as_the_embedding():
    model = small(tie_weights=True)

    assert model.output.weight is model.decoder.embedding.weight
    assert model(X, Y, LENGTHS).shape == (3, 4, 6)


def test_both_stacks_have_each_kind_of_dropout_at_its_rate():
    model = small(num_layers=2, dropout={"input": 0.1, "between": 0.2, "output": 0.3})

    for stack in (model.encoder, model.decoder):
        found = stack.input_dropout.p, stack.recurrent.dropout.p, stack.dropout.p
        assert found == (0.1, 0.2, 0.3)


def test_features_are_read_as_tokens_are():
    model = SequenceToSequence(
        GRUCell, 6, input_size=3, attention=LuongAttention, hidden_size=5, embedding_size=4
    )

    assert model(torch.randn(2, 7, 3), Y[:2], torch.tensor([7, 4])).shape == (2, 4, 6)


def test_a_whole_target_is_one_call_of_the_stack_where_nothing_is_fed(monkeypatch):
    model = small()

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(model.decoder.recurrent, "step", refuse)

    assert model(X, Y, LENGTHS).isfinite().all()


def test_without_sampling_the_decoder_is_fed_the_targets():
    model = small(LSTMCell)

    assert torch.equal(model(X, Y, LENGTHS), model.eval()(X, Y, LENGTHS))


def test_sampled_tokens_are_the_models_predictions():
    model = small(sampling=0.999999)
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.copy_(torch.tensor([0, 0, 0, 0, 100.0, 0]))  # always says 4
    own = Y.clone()
    own[:] = 4

    sampled, told = model(X, Y, LENGTHS), model.features(X, own, LENGTHS)[0]
    features = model.features(X, Y, LENGTHS)[0]
    right = model.eval().features(X, Y, LENGTHS)[0]

    assert sampled.shape == (3, 4, 6)
    torch.testing.assert_close(features, told)
    assert not torch.allclose(features, right)


def test_the_share_of_sampled_tokens_rises_linearly():
    model = small(sampling=0.4, sampling_steps=4)
    shares = []
    for _ in range(6):
        shares.append(model.sampled_share)
        model(X, Y, LENGTHS)
    model.eval()(X, Y, LENGTHS)

    assert shares == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.4])
    assert int(model.state_dict()["seen"]) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feed": "context", "attention": "none"}, "feed is 'context' and attention None"),
        ({"feed": "everything"}, "feed is 'everything', expected one of nothing, output, context"),
        ({"sampling": 1.5}, "sampling is 1.5"),
        ({"sampling_steps": -1}, "sampling_steps is -1, expected a whole number"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options)
