"""Stacks and directions of cells with times."""

import copy
import pickle
from functools import partial

import pytest
import torch

import seqnets
from seqnets import Bidirectional, DeepRNN, Recurrent, Stream, explain
from seqnets.cells import (
    CfCCell,
    Clockwork,
    Dilated,
    GRUCell,
    GRUDCell,
    LayerNorm,
    LSTMCell,
    LTCCell,
    NCPCell,
    PhasedLSTMCell,
    Zoneout,
    optioned,
)
from seqnets.conversion import to_onnx
from seqnets.errors import ConfigError, DtypeError
from seqnets.layers import RTRL, Truncated, watch_layers
from seqnets.models import SequenceClassifier, SequenceTagger
from seqnets.testing import check_layer

pytestmark = pytest.mark.usefixtures("plain_loop")

B, T, I, H = 3, 7, 4, 5
LENGTHS = torch.tensor([7, 0, 4])
BOTH_WAYS = ("chunks", "steps", "causality")
TIMED = [CfCCell, LTCCell, NCPCell, GRUDCell, PhasedLSTMCell]


@pytest.fixture
def x():
    return torch.cat([torch.randn(B, T, I - 1), 3 * torch.rand(B, T, 1)], -1).double()


def deep(cell=CfCCell, **options):
    return DeepRNN(cell, I, H, **{"num_layers": 3, **options}, timed=True).double()


@pytest.mark.parametrize("cell_cls", TIMED)
def test_every_layer_reads_the_time_beside_what_is_below_it(cell_cls, x):
    net = deep(cell_cls)

    below = x
    for layer in net.layers:
        y, _ = layer(below)
        below = torch.cat([y, x[..., -1:]], -1)

    assert net.output_size == H
    assert torch.equal(net(x)[0], y)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"connection": "dense"},
        {"connection": "highway", "norm": "layer", "feed_forward": 2},
        {"bidirectional": True, "connection": "residual"},
        {"alternating": True},
    ],
)
def test_a_stack_of_which_all_steps_take_one_is_one_without_times(options, x):
    net, plain = deep(**options), DeepRNN(CfCCell, I - 1, H, 3, **options).double()
    net.load_state_dict(plain.state_dict())
    x[..., -1] = 1

    torch.testing.assert_close(net(x, None, LENGTHS)[0], plain(x[..., :-1], None, LENGTHS)[0])


@pytest.mark.parametrize("options", [{}, {"connection": "dense", "norm": "rms"}])
@pytest.mark.parametrize("timed", [False, True])
def test_a_loop_over_the_layers_gives_the_outputs_of_each(timed, options, x):
    net = DeepRNN(CfCCell, I, H, 3, timed=timed, dropout=0.5, **options).double().eval()

    below = read = x
    for layer, above in zip(net.layers, net.above(), strict=True):
        y, _ = layer(read)
        below, read = above(below, y)

    assert torch.equal(read, net(x)[0])


class Forwards(CfCCell):
    """A cell for which random numbers are times that have elapsed."""

    def project(self, x):
        return super().project(torch.cat([x[..., :-1], x[..., -1:].abs()], -1))


LAYERS = {
    "plain": (partial(deep, Forwards, dropout=0.5), ()),
    "options": (partial(deep, partial(optioned, cell=Forwards, options=[LayerNorm, Zoneout])), ()),
    "blocks": (partial(deep, Forwards, connection="residual", norm="rms", feed_forward=2), ()),
    "dense": (partial(deep, Forwards, connection="dense", norm="layer"), ()),
    "in both directions": (partial(deep, Forwards, bidirectional=True), BOTH_WAYS),
    "alternating": (partial(deep, Forwards, alternating=True, norm="layer"), BOTH_WAYS),
    "time stamps": (partial(deep, PhasedLSTMCell, alternating=True), BOTH_WAYS),
    "cells": (lambda: Bidirectional(Forwards(I, H)), BOTH_WAYS),
    "two stacks": (lambda: Bidirectional(deep(Forwards), deep(Forwards)), BOTH_WAYS),
    "truncated": (lambda: Truncated(deep(Forwards), 2), ("gradients",)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_times_obey_the_laws_of_recurrence(name):
    make, skip = LAYERS[name]

    check_layer(make(), skip=skip)


def backwards(x, lengths):
    """The same events, from the last to the first, with the times between them."""
    rows = []
    for row, n in zip(x, lengths.tolist(), strict=True):
        times = torch.cat([row[:1, -1], row[1:n, -1].flip(0)])[:n]
        turned = torch.cat([row[:n, :-1].flip(0), times[:, None]], -1)
        rows.append(torch.cat([turned, torch.full_like(row[n:], torch.nan)]))
    return torch.stack(rows)


def flipped(y, lengths):
    rows = zip(y, lengths.tolist(), strict=True)
    return torch.stack([torch.cat([row[:n].flip(0), row[n:]]) for row, n in rows])


BOTH = {
    "cells": lambda make: Bidirectional(make(I, H, timed=True)),
    "options": lambda make: Bidirectional(Zoneout(make(I, H, timed=True))),
    "stacks": lambda make: Bidirectional(deep(make), deep(make)),
    "layers of a stack": lambda make: deep(make, bidirectional=True, num_layers=1),
    "the first layer": lambda make: DeepRNN([partial(make, timed=True)], I, H, bidirectional=True),
}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("cell_cls", [CfCCell, LTCCell, GRUDCell])
def test_backwards_a_sequence_has_the_times_between_the_same_events(cell_cls, name, x):
    net = BOTH[name](cell_cls).double().eval()

    y, _ = net(x, None, LENGTHS)
    pair = net.layers[0] if isinstance(net, DeepRNN) else net
    one, other = pair.forward_layer, pair.backward_layer
    other = getattr(other, "layer", other)  # of Reversed
    weights = copy.deepcopy((one.state_dict(), other.state_dict()))
    one.load_state_dict(weights[1])
    other.load_state_dict(weights[0])
    turned, _ = net(backwards(x, LENGTHS), None, LENGTHS)

    expected = flipped(torch.cat([turned[..., H:], turned[..., :H]], -1), LENGTHS)
    torch.testing.assert_close(y, expected)


def test_a_layer_that_alternates_reads_the_times_between_the_same_events(x):
    net = deep(num_layers=2, alternating=True)

    below, _ = net.layers[0](x, None, LENGTHS)
    read = torch.cat([below, x[..., -1:]], -1)
    above = Recurrent(net.layers[1].cell)
    y, _ = above(backwards(read, LENGTHS), None, LENGTHS)

    torch.testing.assert_close(net(x, None, LENGTHS)[0], flipped(y, LENGTHS))


def test_time_stamps_are_the_same_in_both_directions(x):
    layer = Bidirectional(PhasedLSTMCell(I, H, timed=True)).double()

    y, _ = layer(x)

    assert torch.equal(y[..., H:], layer.backward_layer(x)[0])


@pytest.mark.parametrize("turn", [{"bidirectional": True}, {"alternating": True}])
def test_sequences_in_a_row_have_the_times_of_rows_of_their_own(turn, x):
    net = deep(**turn)
    resets = torch.zeros(1, T, dtype=torch.bool)
    resets[0, [3, 4]] = True

    y, _ = net(x[:1], None, None, resets)

    for begin, end in ((0, 3), (3, 4), (4, 7)):
        torch.testing.assert_close(y[:, begin:end], net(x[:1, begin:end])[0])


@pytest.mark.parametrize("turn", [{}, {"bidirectional": True}, {"alternating": True}])
def test_a_call_with_times_may_have_no_steps(turn, x):
    assert deep(**turn)(x[:, :0])[0].shape[:2] == (B, 0)


@pytest.mark.parametrize("options", [{}, {"norm": "rms", "feed_forward": 1}])
def test_dropout_leaves_the_time_as_it_is(options, x):
    net, seen = deep(dropout=0.9, locked=True, **options).train(), []
    for layer in net.layers:
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))

    net(x)

    assert all(torch.equal(read[..., -1], x[..., -1]) for read in seen)
    assert (seen[1][..., :-1] == 0).any()


@pytest.mark.parametrize("cell_cls", TIMED)
@pytest.mark.parametrize("options", [{}, {"connection": "dense", "norm": "rms"}])
def test_a_stack_with_times_is_served_step_by_step(options, cell_cls, x):
    net = deep(cell_cls, **options).eval()
    stream = Stream(net, B)

    y = torch.stack([stream(x[:, t]).clone() for t in range(T)], 1)

    assert stream.backend == "c"
    torch.testing.assert_close(y, net(x)[0])


def test_a_stack_with_times_goes_where_others_go(x):
    net = deep(num_layers=2, connection="residual").eval()
    y, _ = net(x)

    exported = torch.export.export(net, (x,)).module()
    again = pickle.loads(pickle.dumps(net))
    online, _ = RTRL(net)(x)
    seen = watch_layers(net, lambda: net(x))

    assert torch.equal(again(x)[0], y)
    torch.testing.assert_close(exported(x)[0], y)
    torch.testing.assert_close(online, y)
    assert torch.equal(seen["layers.1"].x[..., -1], x[..., -1])
    assert "layers.1" in str(explain(net, x))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (partial(SequenceClassifier, num_classes=2, pooling="mean"), (B, 2)),
        (partial(SequenceTagger, num_classes=2), (B, T, 2)),
    ],
)
def test_models_of_features_take_times(make, told, x):
    model = make(CfCCell, input_size=I, hidden_size=H, num_layers=2, timed=True, bidirectional=True)

    assert model(x.float(), None, LENGTHS)[0].shape == told


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: deep(GRUCell), ConfigError, "called with input_size= and hidden_size= and timed="),
        (
            lambda: deep([CfCCell, lambda timed=None, **sizes: CfCCell(**sizes)], num_layers=2),
            ConfigError,
            "DeepRNN: got timed=True, and CfCCell takes no times",
        ),
        (
            lambda: deep([CfCCell, partial(LSTMCell, bias=False)], num_layers=2),
            ConfigError,
            "DeepRNN: got timed=True, and LSTMCell takes no times, expected a cell that does",
        ),
        (lambda: DeepRNN(CfCCell, 4, 5, timed=1), DtypeError, "timed is 1"),
        (lambda: DeepRNN(CfCCell, 1, 5, timed=True), ConfigError, "CfCCell: input_size is 1 with"),
        (
            lambda: seqnets.CfC(4, 5, bidirectional=True, timed=True),
            ConfigError,
            "CfC: got bidirectional and timed=True, expected one of the two",
        ),
        (lambda: to_onnx(deep()), ConfigError, "convert: the network has .* times"),
        (
            lambda: to_onnx(Bidirectional(CfCCell(4, 5, timed=True))),
            ConfigError,
            "convert: the directions take times elapsed",
        ),
    ],
)
def test_what_has_no_times_is_told_so(make, error, told):
    with pytest.raises(error, match=told):
        make()


@pytest.mark.parametrize("wrap", [partial(Dilated, dilation=2), Clockwork])
def test_what_goes_on_from_older_states_refuses_the_time_since_the_step_before(wrap):
    for suits in (CfCCell(I, H), PhasedLSTMCell(I, H, timed=True)):
        wrap(suits)

    with pytest.raises(ConfigError, match="CfCCell has timed=True, expected False"):
        wrap(Zoneout(CfCCell(I, H, timed=True)))
