"""Norms and feed-forward layers between the layers of a stack."""

from functools import partial
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from seqnets import Bidirectional, DeepRNN, Stream
from seqnets.cells import GRUCell, LSTMCell, RetentionCell, RWKV7Cell
from seqnets.errors import ConfigError
from seqnets.layers import RTRL, detach
from seqnets.layers.lengths import without_padding
from seqnets.models import Forecaster, LanguageModel, SequenceTagger, SequenceToSequence
from seqnets.testing import check_layer

pytestmark = pytest.mark.usefixtures("plain_loop")

B, T, I, H = 3, 6, 4, 5
LENGTHS = torch.tensor([6, 0, 4])
BOTH_WAYS = ("chunks", "steps", "causality")
BLOCK = {"connection": "residual", "norm": "rms", "feed_forward": 2}


@pytest.fixture
def x():
    return torch.randn(B, T, I, dtype=torch.float64)


def deep(cell=GRUCell, L=3, **options):
    """A stack whose norms are not as they start."""
    net = DeepRNN(cell, I, H, L, **options).double()
    for norm in net.modules():
        if isinstance(norm, (nn.LayerNorm, nn.RMSNorm)):
            nn.init.normal_(norm.weight)
    return net


LAYERS = {
    "layer norm": (lambda: DeepRNN(LSTMCell, 3, 2, 2, norm="layer"), ()),
    "rms norm": (lambda: DeepRNN(LSTMCell, 3, 3, 2, norm="rms", tied=True, dropout=0.5), ()),
    "blocks": (lambda: DeepRNN(GRUCell, 3, 2, 2, **BLOCK), ()),
    "blocks of layer norm": (lambda: DeepRNN(GRUCell, 3, 2, 2, **{**BLOCK, "norm": "layer"}), ()),
    "a feed-forward layer alone": (lambda: DeepRNN(GRUCell, 3, 2, feed_forward=0.1), ()),
    "highway": (lambda: DeepRNN(GRUCell, 3, 2, 2, connection="highway", norm="layer"), ()),
    "dense": (
        lambda: DeepRNN(GRUCell, 3, 2, 2, connection="dense", norm="layer", feed_forward=1),
        (),
    ),
    "in both directions": (
        lambda: DeepRNN(GRUCell, 3, 2, 2, **BLOCK, bidirectional=True),
        BOTH_WAYS,
    ),
    "alternating": (lambda: DeepRNN(GRUCell, 3, 2, 2, **BLOCK, alternating=True), BOTH_WAYS),
    "two stacks": (
        lambda: Bidirectional(*(DeepRNN(GRUCell, 3, 2, norm="layer") for _ in "12")),
        BOTH_WAYS,
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_blocks_obey_the_laws_of_recurrence(name):
    make, skip = LAYERS[name]

    check_layer(make(), skip=skip)


def rms(x, norm):
    return norm.weight * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def layer(x, norm):
    x = x - x.mean(-1, keepdim=True)
    return norm.weight * x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() + norm.bias


@pytest.mark.parametrize("connection", ["none", "residual"])
@pytest.mark.parametrize("normed", [rms, layer])
def test_a_norm_is_in_front_of_every_layer_but_the_first_and_behind_the_last(normed, connection, x):
    net = deep(norm=normed.__name__, connection=connection)

    above, _ = net.layers[0](x)
    for recurrent, norm in zip(net.layers[1:], net.norms[:-1], strict=True):
        y, _ = recurrent(normed(above, norm))
        above = above + y if connection == "residual" else y

    torch.testing.assert_close(net(x)[0], normed(above, net.norms[-1]))


@pytest.mark.parametrize("norm", ["none", "rms"])
def test_a_feed_forward_layer_adds_what_swiglu_makes_of_each_step(norm, x):
    net = deep(L=2, norm=norm, feed_forward=3)

    above = x
    for depth, recurrent in enumerate(net.layers):
        above, _ = recurrent(rms(above, net.norms[0]) if depth and norm == "rms" else above)
        feed = net.feed_forwards[depth]
        inside = (rms(above, feed.norm) if norm == "rms" else above) @ feed.enter.weight.T
        value, gate = inside[..., : 3 * H], inside[..., 3 * H :]
        above = above + (gate * torch.sigmoid(gate) * value) @ feed.leave.weight.T

    torch.testing.assert_close(net(x)[0], rms(above, net.norms[-1]) if norm == "rms" else above)


@pytest.mark.parametrize("cell_cls", [RetentionCell, RWKV7Cell])
def test_a_norm_keeps_a_stack_of_matrix_memories_in_scale(cell_cls):
    torch.manual_seed(0)
    x = torch.randn(4, 50, 64)

    def change(norm):
        first, *_, last = (h.std() for h, _ in DeepRNN(cell_cls, 64, 64, 3, norm=norm)(x)[1])
        return (last / first).log10().abs()

    assert change("rms") < 1 < 6 < change("none")


def test_without_them_a_stack_has_the_parameters_that_it_had():
    net = DeepRNN(GRUCell, I, H, 2, connection="highway")

    assert all(name.startswith(("layers.", "connections.1.gate.")) for name in net.state_dict())


@pytest.mark.parametrize(
    "options", [{"norm": "layer"}, {"norm": "rms", "feed_forward": 2}, {"connection": "highway"}]
)
def test_what_is_between_layers_is_of_the_dtype_and_on_the_device_of_their_cells(options, x):
    DeepRNN(partial(GRUCell, dtype=x.dtype), I, H, 2, **options)(x)
    elsewhere = DeepRNN(partial(GRUCell, device="meta"), I, H, 2, **options)

    assert all(parameter.is_meta for parameter in elsewhere.parameters())


@pytest.mark.parametrize(("connection", "times"), [("residual", 1), ("dense", 2)])
def test_padding_is_masked_where_something_reads_it(connection, times, monkeypatch, x):
    masked = Mock(wraps=without_padding)
    monkeypatch.setattr("seqnets.layers.deep.without_padding", masked)

    deep(norm="rms", connection=connection)(x, lengths=LENGTHS)

    assert masked.call_count == times


def test_norms_and_feed_forward_layers_are_apart_where_cells_are_tied():
    net = DeepRNN(GRUCell, H, H, 2, tied=True, norm="rms", feed_forward=1)

    assert net.norms[0].weight is not net.norms[1].weight
    assert net.feed_forwards[0].enter.weight is not net.feed_forwards[1].enter.weight


def test_a_feed_forward_layer_drops_what_it_reads_in_training_only(x):
    net = deep(L=1, feed_forward=1, dropout=0.5)

    assert not torch.equal(net(x)[0], net(x)[0])
    net.eval()
    assert torch.equal(net(x)[0], net(x)[0])


@pytest.mark.parametrize("norm", ["none", "layer", "rms"])
@pytest.mark.parametrize("connection", ["none", "residual", "dense"])
@pytest.mark.parametrize("feed_forward", [0, 2])
def test_a_stream_serves_blocks(norm, connection, feed_forward):
    net = deep(connection=connection, norm=norm, feed_forward=feed_forward).float()
    x = torch.randn(B, T, I)
    stream = Stream(net, B)

    for _ in range(2):
        y = torch.stack([stream(x[:, t]).clone() for t in range(T)], 1)
        torch.testing.assert_close(y, net(x)[0], rtol=1e-4, atol=1e-5)
        stream.reset()

    assert stream.backend == "c"


def test_gradients_reach_back_beyond_the_call_through_norms(x):
    net = deep(LSTMCell, 2, **BLOCK)
    names = [name for name, _ in net.named_parameters()]
    net(x)[0][:, -1].sum().backward()
    expected = {name: net.get_parameter(name).grad for name in names}
    net.zero_grad()

    rule, state = RTRL(net), None
    for piece in x.split(2, 1):
        y, state = rule(piece, detach(state))
    y[:, -1].sum().backward()

    torch.testing.assert_close({name: net.get_parameter(name).grad for name in names}, expected)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_blocks_run_in_half_precision(norm):
    net, x = DeepRNN(GRUCell, I, H, 2, **{**BLOCK, "norm": norm}), torch.randn(B, T, I)
    expected, _ = net(x)

    with torch.autocast("cpu", torch.bfloat16):
        y, _ = net(x)
        y.float().sum().backward()

    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.1)
    assert net.bfloat16()(x.bfloat16())[0].dtype == torch.bfloat16


MODELS = {
    "language": lambda **o: LanguageModel(GRUCell, 9, hidden_size=H, **o),
    "tagger": lambda **o: SequenceTagger(GRUCell, 3, input_size=I, hidden_size=H, **o),
    "forecaster": lambda **o: Forecaster(GRUCell, I, I, 2, hidden_size=H, **o),
    "translator": lambda **o: SequenceToSequence(GRUCell, 9, vocab_size=9, hidden_size=H, **o),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_have_blocks_in_all_their_stacks(name):
    model = MODELS[name](num_layers=2, **BLOCK)

    stacks = [part for part in model.modules() if isinstance(part, DeepRNN)]
    assert all(len(stack.norms) == len(stack.feed_forwards) == 2 for stack in stacks)
    assert len(stacks) == 1 + (name == "translator")


def test_norms_start_at_one_where_a_range_is_given_for_all_other_parameters():
    model = LanguageModel(GRUCell, 9, hidden_size=H, num_layers=2, init_range=0.01, **BLOCK)

    stack = model.encoder.recurrent
    assert all(torch.equal(norm.weight, torch.ones(H)) for norm in stack.norms)
    assert 0 < stack.feed_forwards[0].enter.weight.abs().max() <= 0.01


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"norm": "batch"}, "norm is 'batch', expected one of none, layer, rms"),
        ({"norm": None}, "norm is None"),
        ({"feed_forward": -1}, "feed_forward is -1, expected a number of at least 0"),
        ({"feed_forward": True}, "feed_forward is True"),
        ({"feed_forward": "4"}, "feed_forward is '4'"),
        ({"feed_forward": float("inf")}, "feed_forward is inf"),
    ],
)
def test_invalid_options_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        DeepRNN(GRUCell, I, H, 2, **options)
