"""Combinations of layers: in depth, in both directions, hierarchical and in sequence."""

import copy
import pickle
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqnets import (
    Bidirectional,
    ConvFront1d,
    DeepOutput,
    DeepRNN,
    Fronted,
    Hierarchical,
    Recurrent,
    Reversed,
    Stream,
    Truncated,
)
from seqnets.cells import GRUCell, LSTMCell, RNNCell
from seqnets.errors import ConfigError, ShapeError
from seqnets.models import LanguageModel, SequenceClassifier, SequenceTagger
from seqnets.testing import check_layer

pytestmark = pytest.mark.usefixtures("plain_loop")

B, T, I, H = 3, 7, 4, 5
LENGTHS = torch.tensor([7, 0, 3])
BOTH_WAYS = ("chunks", "steps", "causality")  # the future is known
AGAINST_TIME = (*BOTH_WAYS, "resets")  # which are counted from behind


@pytest.fixture
def x():
    return torch.randn(B, T, I, dtype=torch.float64)


def resets():
    marks = torch.zeros(B, T, dtype=torch.bool)
    marks[:, 2] = marks[:, 3] = marks[0, 6] = True
    return marks


def deep(*args, **options):
    return DeepRNN(*args, **options).double()


LAYERS = {
    "dense": (lambda: DeepRNN(LSTMCell, 3, 2, 3, connection="dense", dropout=0.5), ()),
    "dense in both directions": (
        lambda: DeepRNN(GRUCell, 3, 2, 2, connection="dense", bidirectional=True),
        BOTH_WAYS,
    ),
    "alternating": (lambda: DeepRNN(GRUCell, 3, 2, 3, alternating=True), BOTH_WAYS),
    "alternating residual": (
        lambda: DeepRNN(LSTMCell, 3, 2, 2, alternating=True, connection="residual"),
        BOTH_WAYS,
    ),
    "tied": (lambda: DeepRNN(LSTMCell, 3, 3, 3, tied=True), ()),
    "tied alternating": (lambda: DeepRNN(GRUCell, 3, 3, 2, tied=True, alternating=True), BOTH_WAYS),
    "tied in both directions": (
        lambda: DeepRNN(GRUCell, 3, 3, 2, tied=True, bidirectional=True, merge="sum"),
        BOTH_WAYS,
    ),
    "independent stacks": (
        lambda: Bidirectional(DeepRNN(LSTMCell, 3, 2, 2), DeepRNN(GRUCell, 3, 4)),
        BOTH_WAYS,
    ),
    "independent stacks summed": (
        lambda: Bidirectional(
            DeepRNN(GRUCell, 3, 2, 2), DeepRNN(GRUCell, 3, 2, connection="dense"), merge="sum"
        ),
        BOTH_WAYS,
    ),
    "reversed": (lambda: Reversed(DeepRNN(LSTMCell, 3, 2, 2)), AGAINST_TIME),
    "deep output": (lambda: DeepOutput(DeepRNN(LSTMCell, 3, 2, 2), [4, 2]), ()),
    "deep output of tanh": (
        lambda: DeepOutput(Bidirectional(GRUCell(3, 2)), [4, 3], activation=nn.Tanh),
        BOTH_WAYS,
    ),
    "truncated deep output": (
        lambda: Truncated(DeepOutput(Recurrent(GRUCell(3, 2)), [3]), 4, 2),
        ("gradients",),
    ),
}
SEGMENTS = ("causality", "lengths", "resets", "chunks", "steps")  # are said of steps; see below
LAYERS |= {
    "hierarchical": (
        lambda: Hierarchical(Recurrent(LSTMCell(3, 2)), DeepRNN(GRUCell, 2, 4, 2), 2),
        SEGMENTS,
    ),
    "hierarchical of fresh segments": (
        lambda: Hierarchical(Recurrent(LSTMCell(3, 2)), Recurrent(GRUCell(2, 4)), 4, carry=False),
        (*SEGMENTS, "usefulness"),  # the lower state given is forgotten
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_it_obeys_the_laws_of_recurrence(name):
    make, skip = LAYERS[name]

    check_layer(make(), skip=skip)


@pytest.mark.parametrize("name", LAYERS)
def test_a_new_layer_with_the_old_state_dict_gives_the_same(name, x):
    make, _ = LAYERS[name]
    old, new = make().double().eval(), make().double().eval()

    new.load_state_dict(old.state_dict())

    torch.testing.assert_close(new(x[..., :3], None, LENGTHS), old(x[..., :3], None, LENGTHS))


def test_dense_layers_take_the_input_and_all_outputs_below(x):
    net = deep(GRUCell, I, [5, 2, 3], connection="dense")

    y0, _ = net.layers[0](x)
    y1, _ = net.layers[1](torch.cat([x, y0], -1))
    y2, _ = net.layers[2](torch.cat([x, y0, y1], -1))

    assert [layer.input_size for layer in net.layers] == [4, 9, 11]
    assert net.output_size == 3
    torch.testing.assert_close(net(x)[0], y2)


def test_alternating_layers_run_forwards_and_backwards_in_turn(x):
    net = deep(GRUCell, I, H, 3, alternating=True)

    y, state = net(x, lengths=LENGTHS)
    expected, finals = x, []
    for depth, layer in enumerate(net.layers):
        one = Recurrent(layer.cell, reverse=depth == 1)
        expected, final = one(expected, lengths=LENGTHS)
        finals.append(final)

    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(state, tuple(finals))


@pytest.mark.parametrize("lengths", [None, torch.tensor([7, 0, 4])])
@pytest.mark.parametrize("name", ["alternating", "tied alternating", "independent stacks"])
def test_documents_in_one_row_are_independent(name, lengths, x):
    layer = LAYERS[name][0]().double()
    x = x[..., :3]

    y, _ = layer(x, None, lengths, resets())

    for b in range(B):
        begins = [0, *resets()[b].nonzero().flatten().tolist(), T]
        for first, last in pairwise(begins):
            inside = (
                None if lengths is None else (lengths[b : b + 1] - first).clamp(0, last - first)
            )
            alone, _ = layer(x[b : b + 1, first:last], None, inside)
            torch.testing.assert_close(y[b : b + 1, first:last], alone)


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "merge": "mean"}])
def test_tied_layers_have_the_parameters_of_one(options):
    net, one = (DeepRNN(LSTMCell, H, H, n, tied=True, **options) for n in (3, 1))

    assert len(list(net.parameters())) == len(list(one.parameters()))
    if not options:
        first, *others = (list(layer.cell.parameters()) for layer in net.layers)
        assert all(p is q for other in others for p, q in zip(first, other, strict=True))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_stays_tied(copied):
    net = copied(DeepRNN(GRUCell, H, H, 2, tied=True))
    x = torch.randn(B, T, H)
    before = net(x)[0].detach()

    with torch.no_grad():
        net.layers[1].cell.weight_hh.add_(1)

    assert net.layers[0].cell.weight_hh is net.layers[1].cell.weight_hh
    assert not torch.equal(net.layers[0](x)[0], before)


def test_tied_layers_add_up_their_gradients(x):
    x = F.pad(x, (0, 1))
    tied, free = deep(GRUCell, H, H, 2, tied=True), deep(GRUCell, H, H, 2)
    free.load_state_dict(tied.state_dict())

    for net in (tied, free):
        net(x)[0].sum().backward()

    parts = [layer.cell.weight_hh.grad for layer in free.layers]
    torch.testing.assert_close(tied.layers[0].cell.weight_hh.grad, sum(parts))


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_independent_stacks_see_nothing_of_each_other_below_the_merge(lengths, x):
    ahead, back = deep(LSTMCell, I, H, 2), deep(GRUCell, I, 3, 2)
    downwards = Recurrent(back.layers[0].cell, reverse=True)
    above = Recurrent(back.layers[1].cell, reverse=True)

    y, states = Bidirectional(ahead, back)(x, None, lengths)

    y_ahead, forward_state = ahead(x, None, lengths)
    below, first = downwards(x, None, lengths)
    y_back, second = above(below, None, lengths)
    torch.testing.assert_close(y, torch.cat([y_ahead, y_back], -1))
    torch.testing.assert_close(states, (forward_state, (first, second)))


def test_a_cell_and_a_layer_go_together(x):
    layer = Bidirectional(GRUCell(I, H), DeepRNN(GRUCell, I, H, 2), merge="none").double()

    ahead, back = layer(x, None, LENGTHS)[0]

    assert ahead.shape == back.shape == (B, T, H)


@pytest.mark.parametrize("marks", [None, resets()])
def test_reversed_equals_a_cell_run_backwards(marks, x):
    cell = LSTMCell(I, H).double()
    state = tuple(torch.randn(B, H, dtype=torch.float64) for _ in range(2))

    got = Reversed(Recurrent(cell))(x, state, LENGTHS, marks)

    torch.testing.assert_close(got, Recurrent(cell, reverse=True)(x, state, LENGTHS, marks))


def test_a_deep_output_is_a_perceptron_over_every_valid_step(x):
    layer = DeepOutput(Recurrent(GRUCell(I, H)), [6, 2]).double()
    first, _, last = layer.perceptron

    y, _ = layer(x, None, LENGTHS)

    hidden = (layer.layer(x)[0] @ first.weight.T + first.bias).relu()
    expected = hidden @ last.weight.T + last.bias
    for b, n in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(y[b, :n], expected[b, :n])
        assert not y[b, n:].any()


@pytest.mark.parametrize("shorter", ["a front", "segments", "segments of a front"])
def test_a_deep_output_over_fewer_steps_than_there_were_is_zero_past_their_ends(shorter, x):
    front, stride = ConvFront1d(I, H, 3, stride=2), 1 + ("segments" in shorter)
    lower, upper = cells((H if "front" in shorter else I, H), (H, H))
    layer = Hierarchical(lower, upper, stride)
    if "front" in shorter:
        layer = Fronted(front, layer)
    net = DeepOutput(layer, [2]).double()

    y, _ = net(x, None, LENGTHS)

    after = net.lengths_after(LENGTHS).tolist()
    assert after == ([2, 0, 1] if shorter == "segments of a front" else [4, 0, 2])
    for b, n in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(y[b : b + 1, : after[b]], net(x[b : b + 1, :n])[0])
        assert not y[b, after[b] :].any()


def test_segments_of_segments_say_how_many_there_are(x):
    net = Hierarchical(*cells((I, H), (H, H)), 2)
    net = Hierarchical(Recurrent(GRUCell(I, I)), net, 2).double()

    y, _ = net(x, None, LENGTHS)

    assert y.shape[1] == 2
    assert net.lengths_after(LENGTHS).tolist() == [2, 0, 1]


def test_a_deep_output_begins_with_the_dtype_and_the_device_of_its_layer(x):
    layer = Recurrent(GRUCell(I, H, dtype=x.dtype))

    assert DeepOutput(layer, [6, 2], activation=nn.PReLU)(x)[0].dtype == x.dtype
    elsewhere = DeepOutput(DeepRNN(partial(GRUCell, device="meta"), I, H), [6, 2])
    assert all(parameter.is_meta for parameter in elsewhere.parameters())


def test_a_deep_output_is_as_wide_as_what_was_appended_to_it(x):
    layer = DeepOutput(Recurrent(GRUCell(I, H)), [6, 2]).double()

    for part, size in (nn.Softmax(-1), 2), (nn.Linear(2, 7).double(), 7), (nn.ReLU(), 7):
        layer.perceptron.append(part)
        assert layer.output_size == layer(x)[0].shape[-1] == size


@pytest.mark.parametrize("carry", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 3, 9])
def test_the_upper_layer_reads_the_lower_ones_last_output_of_each_segment(stride, carry, x):
    lower, upper = Recurrent(LSTMCell(I, H)).double(), Recurrent(GRUCell(H, 2)).double()
    net = Hierarchical(lower, upper, stride, carry=carry)

    y, (low, high) = net(x, None, LENGTHS)

    segments = -(-T // stride)
    assert y.shape == (B, segments, 2)
    assert net.lengths_after(LENGTHS).tolist() == [-(-n // stride) for n in LENGTHS.tolist()]
    for b, n in enumerate(LENGTHS.tolist()):
        state, told = None, []
        for first in range(0, n, stride):
            part = x[b : b + 1, first : min(first + stride, n)]
            out, state = lower(part, state if carry else None)
            told.append(out[:, -1])
        if not n:
            assert not y[b].any()
            continue
        expected, after = upper(torch.stack(told, 1))
        torch.testing.assert_close(y[b : b + 1, : len(told)], expected)
        torch.testing.assert_close([p[b : b + 1] for p in (*low, *high)], [*state, *after])
        assert not y[b, len(told) :].any()


@pytest.mark.parametrize("carry", [True, False])
def test_segments_may_come_in_calls_of_their_own(carry, x):
    net = Hierarchical(Recurrent(GRUCell(I, H)), Recurrent(GRUCell(H, 2)), 2, carry=carry).double()

    whole, final = net(x)
    first, state = net(x[:, :4])
    second, end = net(x[:, 4:], state)

    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end, final)


def test_a_reset_begins_anew_in_both_layers(x):
    net = Hierarchical(Recurrent(GRUCell(I, H)), Recurrent(GRUCell(H, 2)), 2).double()
    marks = torch.zeros(B, T, dtype=torch.bool)
    marks[:, 4] = True
    inside, beyond = marks.roll(1, 1), torch.arange(T) >= LENGTHS[:, None]

    alone = net(x[:, 4:])[0]

    torch.testing.assert_close(net(x, None, None, marks)[0][:, 2:], alone)
    told = net.lower(x, None, None, inside)[0][:, [1, 3, 5, 6]]
    expected = torch.cat([net.upper(told[:, :2])[0], net.upper(told[:, 2:])[0]], 1)
    torch.testing.assert_close(net(x, None, None, inside)[0], expected)
    torch.testing.assert_close(net(x, None, LENGTHS, beyond), net(x, None, LENGTHS))


@pytest.mark.parametrize("connection", ["dense", "none"])
def test_a_stream_serves_dense_and_tied_layers(connection):
    options = {"connection": connection, "tied": connection == "none"}
    net, x = DeepRNN(GRUCell, H, H, 3, **options), torch.randn(B, T, H)
    stream = Stream(net, B)

    y = torch.stack([stream(x[:, t]).clone() for t in range(T)], 1)

    assert stream.backend == "c"
    torch.testing.assert_close(y, net(x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_classifier_takes_the_top_layers_last_output(num_layers):
    options = {"hidden_size": H, "num_layers": num_layers, "alternating": True}
    model = SequenceClassifier(GRUCell, 3, input_size=I, **options)
    x = torch.randn(B, T, I)

    logits, state = model(x, None, LENGTHS)

    torch.testing.assert_close(logits[0], model.output(state[-1][0])[0])
    torch.testing.assert_close(logits[2], model.output(state[-1][0])[2])


def test_models_take_what_a_stack_takes():
    tagger = SequenceTagger(
        GRUCell, 3, input_size=I, hidden_size=I, num_layers=3, tied=True, connection="residual"
    )
    dense = LanguageModel(GRUCell, 9, hidden_size=H, num_layers=3, connection="dense")

    assert tagger(torch.randn(B, T, I))[0].shape == (B, T, 3)
    assert dense(torch.zeros(B, T, dtype=torch.int64))[0].shape == (B, T, 9)


def cells(*depths):
    return [Recurrent(GRUCell(*sizes)) for sizes in depths]


WRONG = {
    "a turn for both": (
        lambda: DeepRNN(GRUCell, I, H, 2, alternating=True, bidirectional=True),
        "got alternating and bidirectional",
    ),
    "tied over widths": (
        lambda: DeepRNN(GRUCell, I, H, 2, tied=True),
        "layer 1 takes 5 features and has 5 units, expected 4 and 5",
    ),
    "tied and dense": (
        lambda: DeepRNN(GRUCell, H, H, 2, tied=True, connection="dense"),
        "layer 1 takes 10 features",
    ),
    "tied and of several kinds": (
        lambda: DeepRNN([GRUCell, RNNCell], H, H, tied=True),
        "and the same kind",
    ),
    "tied in one direction": (
        lambda: DeepRNN(GRUCell, H, H, 2, tied=True, bidirectional=[False, True]),
        "and the same kind",
    ),
    "a step against time": (
        lambda: DeepRNN(GRUCell, I, H, 2, alternating=True).step(torch.zeros(B, I)),
        "layer 1 runs backwards",
    ),
    "a window against time": (
        lambda: Truncated(DeepRNN(GRUCell, I, H, 2, alternating=True), 4),
        "runs backwards or in both directions",
    ),
    "a window of one against time": (
        lambda: Truncated(Recurrent(GRUCell(I, H), reverse=True), 4),
        "runs backwards or in both directions",
    ),
    "a window through a segment": (
        lambda: Truncated(DeepOutput(Hierarchical(*cells((I, H), (H, H)), 3), [2]), 4),
        "Truncated: Hierarchical mixes several steps[\\s\\S]*around the recurrent layer",
    ),
    "a window through what a convolution sees": (
        lambda: Truncated(Fronted(ConvFront1d(I, I), Recurrent(GRUCell(I, H))), 4),
        "Truncated: Fronted mixes several steps",
    ),
    "a stream against time": (
        lambda: Stream(DeepRNN(GRUCell, I, H, 2, alternating=True)),
        "runs backwards",
    ),
    "a layer alone": (
        lambda: Bidirectional(DeepRNN(GRUCell, I, H)),
        "got DeepRNN alone, expected two layers",
    ),
    "twice reversed": (
        lambda: Bidirectional(GRUCell(I, H), Recurrent(GRUCell(I, H), reverse=True)),
        "Recurrent runs backwards or in both directions, expected a forward layer",
    ),
    "a backend for layers": (
        lambda: Bidirectional(*cells((I, H), (I, H)), backend="c"),
        "got backend='c' with Recurrent",
    ),
    "fewer steps": (
        lambda: Reversed(Hierarchical(*cells((I, H), (H, H)), 2))(torch.zeros(B, T, I)),
        "Hierarchical returned 4 steps for 7",
    ),
    "fewer steps than backwards": (
        lambda: Bidirectional(
            Fronted(ConvFront1d(I, I, 3, stride=2), Recurrent(GRUCell(I, H))), GRUCell(I, H)
        )(torch.zeros(B, T, I)),
        "Bidirectional: Fronted returned 4 steps for 7",
    ),
    "fewer steps below": (
        lambda: Hierarchical(Hierarchical(*cells((I, H), (H, H)), 2), Recurrent(GRUCell(H, H)), 2)(
            torch.zeros(B, T, I), None, LENGTHS // 2
        ),
        "Hierarchical: Hierarchical returned 4 steps for 7",
    ),
    "no output": (lambda: DeepOutput(Recurrent(GRUCell(I, H)), []), "sizes are"),
    "an output of nothing": (lambda: DeepOutput(Recurrent(GRUCell(I, H)), [3, 0]), r"\[3, 0\]"),
    "an output that is not a list": (
        lambda: DeepOutput(Recurrent(GRUCell(I, H)), 3),
        "sizes are 3, expected a list",
    ),
    "stride": (lambda: Hierarchical(*cells((I, H), (H, H)), 0), "stride is 0"),
    "widths": (lambda: Hierarchical(*cells((I, H), (I, H)), 2), "gives 5 features and the upper"),
    "a step of a segment": (
        lambda: Hierarchical(*cells((I, H), (H, H)), 2).step(torch.zeros(B, I)),
        "expected whole segments",
    ),
    "the token to be predicted": (
        lambda: LanguageModel(GRUCell, 9, num_layers=2, alternating=True),
        "alternating is True",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_invalid_options_are_refused(case):
    make, said = WRONG[case]

    with pytest.raises((ConfigError, ShapeError), match=said):
        make()
