"""A layer fed step by step."""

import copy
import pickle

import numpy as np
import pytest
import torch

import seqnets
from seqnets import Bidirectional, DeepRNN, GatedCell, Hierarchical, Recurrent, Reversed, Stream
from seqnets.cells import GRUCell, LSTMCell, OriginalGRUCell, PeepholeLSTMCell
from seqnets.errors import ConfigError, DtypeError, ShapeError
from seqnets.models import Transcriber
from tests.cells.final import FINAL_CELLS, ONE_OF_EACH_KIND, sized
from tests.engine.user_cells import USER_CELLS, BareCell
from tests.slow import mostly_slow

B, T, I, H = 3, 9, 5, 20


class Drawing(GatedCell):
    """A step that cannot be traced, and has no effect on what is drawn."""

    gates = ("h",)

    def update(self, wx, uh, state):
        return (torch.tanh(wx.h + uh.h) + 0 * torch.rand_like(wx.h),)


LAYERS = {
    "two layers": lambda: DeepRNN(PeepholeLSTMCell, I, H, 2),
    "layers of several sizes": lambda: DeepRNN([GRUCell, LSTMCell], I, [H, 7]),
    "residual": lambda: DeepRNN(GRUCell, I, H, 3, connection="residual"),
    "highway": lambda: DeepRNN(GRUCell, I, H, 3, connection="highway"),
    "as torch.nn": lambda: seqnets.LSTM(I, H, num_layers=2, batch_first=True),
    "projected": lambda: Recurrent(LSTMCell(I, H, proj_size=3)),
    "without bias": lambda: Recurrent(GRUCell(I, H, bias=False)),
    "in double precision": lambda: Recurrent(GRUCell(I, H)).double(),
    "untraceable": lambda: Recurrent(Drawing(I, H)),
}
QUICK = (*LAYERS, *(cell.__name__ for cell in ONE_OF_EACH_KIND))
_BARE = [cell for cell in USER_CELLS if issubclass(cell, BareCell)]
LAYERS |= {
    cell.__name__: lambda cell=cell: Recurrent(sized(cell, I, H)) for cell in (*FINAL_CELLS, *_BARE)
}


def test_some_rows_begin_again():
    layer = DeepRNN([GRUCell, LSTMCell], I, [H, 7])
    x, again = torch.randn(B, T, I), torch.tensor([True, False, True])
    stream = Stream(layer, B)

    fed(stream, x)
    stream.reset(again)

    whole = layer(x.repeat(1, 2, 1))[0][:, T:]
    expected = torch.where(again[:, None, None], layer(x)[0], whole)
    torch.testing.assert_close(fed(stream, x), expected.detach(), rtol=1e-5, atol=1e-6)


def fed(stream, x):
    return torch.stack([stream(x[:, t]).clone() for t in range(x.shape[1])], 1)


@pytest.mark.parametrize("name", mostly_slow(LAYERS, quick=QUICK))
def test_steps_give_what_the_sequence_gives_at_once_and_a_reset_begins_again(name):
    layer = LAYERS[name]()
    x = torch.randn(B, T, layer.input_size, dtype=next(layer.parameters()).dtype)
    stream = Stream(layer, B)

    expected = layer(x)[0].detach()

    for _ in range(2):
        torch.testing.assert_close(fed(stream, x), expected, rtol=1e-5, atol=1e-6)
        stream.reset()


def test_dropout_in_front_of_layers_is_not_applied_in_training_either():
    layer = DeepRNN(GRUCell, I, H, 2, norm="rms", feed_forward=1, dropout=0.5)
    x = torch.randn(B, T, I)

    y = fed(Stream(layer, B), x)

    torch.testing.assert_close(y, layer.eval()(x)[0].detach(), rtol=1e-5, atol=1e-6)


def test_explain_says_what_runs_and_why():
    assert Stream(Recurrent(GRUCell(I, H))).backend == "c"
    assert Stream(Recurrent(GRUCell(I, H)).double()).backend == "c"

    plain = Stream(Recurrent(Drawing(I, H)))

    assert plain.backend == "reference"
    assert "aten.rand_like" in plain.reason


class Weighing(GatedCell):
    gates = ("n",)

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.scales = torch.rand(self.hidden_size)

    def update(self, wx, uh, state):
        return (torch.tanh(wx.n + self.scales * uh.n),)


def test_a_cell_with_a_tensor_that_is_a_plain_attribute_is_served_in_c():
    layer, x = Recurrent(Weighing(I, H)), torch.randn(B, T, I)
    stream = Stream(layer, B)

    assert stream.backend == "c"
    torch.testing.assert_close(fed(stream, x), layer(x)[0].detach())


def test_half_precision_is_by_the_plain_loop():
    layer, x = Recurrent(GRUCell(I, H)).bfloat16(), torch.randn(B, T, I).bfloat16()
    stream = Stream(layer, B)

    torch.testing.assert_close(fed(stream, x), layer(x)[0].detach(), rtol=0, atol=0.02)
    assert stream.reason == "the loops in C do not compute in torch.bfloat16"


def test_the_output_stays_in_one_place_and_input_is_not_kept():
    stream, x = Stream(Recurrent(OriginalGRUCell(I, H)), B), torch.randn(B, I)

    first = stream(x)
    copy = first.clone()
    x.zero_()

    assert stream(x).data_ptr() == first.data_ptr()
    assert not torch.equal(first, copy)


def test_a_stream_can_continue_from_a_saved_state():
    stream, x = Stream(DeepRNN(LSTMCell, I, H, 2), B), torch.randn(B, T, I)
    fed(stream, x[:, :4])
    kept = stream.state

    rest = fed(stream, x[:, 4:])
    stream.state = kept

    torch.testing.assert_close(fed(stream, x[:, 4:]), rest, rtol=0, atol=0)


@pytest.mark.parametrize("cell", [GRUCell, LSTMCell, Drawing])
def test_a_stream_can_continue_from_a_copy_of_a_layers_state(cell):
    layer, x = Recurrent(cell(I, H)), torch.randn(B, T, I)
    stream = Stream(layer, B)
    expected, _ = layer(x)

    with torch.no_grad():
        _, state = layer(x[:, :4])
    stream.state = (state,)
    for part in state:
        part.zero_()

    torch.testing.assert_close(fed(stream, x[:, 4:]), expected[:, 4:].detach())


def test_weights_are_those_of_the_moment_it_was_made():
    layer, x = Recurrent(GRUCell(I, H)), torch.randn(B, T, I)
    expected = layer(x)[0].detach()
    stream = Stream(layer, B)

    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(1)

    torch.testing.assert_close(fed(stream, x), expected, rtol=1e-5, atol=1e-6)


def test_an_input_that_needs_a_gradient_gives_an_output_that_does_not():
    stream = Stream(Recurrent(GRUCell(I, H)), B)

    assert not stream(torch.randn(B, I, requires_grad=True)).requires_grad


@pytest.mark.parametrize("name", ["two layers", "untraceable"])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_that_is_copied_or_pickled_says_what_to_copy(name, duplicate):
    stream = Stream(LAYERS[name]())

    with pytest.raises(ConfigError, match="Copy or pickle the layer"):
        duplicate(stream)


class ReadOut(Recurrent):
    def forward(self, x, state=None, lengths=None, resets=None):
        y, state = super().forward(x, state, lengths, resets)
        return y.sum(-1), state


REFUSED = {
    "a forward of one's own": (
        lambda: Stream(ReadOut(GRUCell(I, H))),
        ConfigError,
        "ReadOut defines forward, expected that of Recurrent",
    ),
    "both directions": (
        lambda: Stream(Bidirectional(GRUCell(I, H))),
        ConfigError,
        "both directions, expected a forward layer",
    ),
    "the reverse": (
        lambda: Stream(Reversed(Recurrent(GRUCell(I, H)))),
        ConfigError,
        "backwards or in both directions, expected a forward layer",
    ),
    "backwards": (lambda: Stream(Recurrent(GRUCell(I, H), reverse=True)), ConfigError, "backwards"),
    "torch's both directions": (
        lambda: Stream(seqnets.GRU(I, H, bidirectional=True)),
        ConfigError,
        "both directions",
    ),
    "another module": (lambda: Stream(torch.nn.Linear(I, H)), ConfigError, "layer is Linear"),
    "a model": (
        lambda: Stream(Transcriber(GRUCell, 4, input_size=I, hidden_size=H)),
        ConfigError,
        r"layer is Transcriber, .*\n.*has a layer inside: its attribute encoder\.recurrent\.",
    ),
    "a layer around two": (
        lambda: Stream(Hierarchical(Recurrent(GRUCell(I, H)), Recurrent(GRUCell(H, H)), stride=2)),
        ConfigError,
        r"layer is Hierarchical, .*\n.*has 2 layers inside, the first one is lower\.",
    ),
    "no rows": (lambda: Stream(Recurrent(GRUCell(I, H)), 0), ConfigError, "batch_size is 0"),
    "another batch": (
        lambda: Stream(Recurrent(GRUCell(I, H)), B)(torch.randn(B + 1, I)),
        ShapeError,
        r"shape \(4, 5\), expected \(B, I\) = \(3, 5\)",
    ),
    "a sequence": (
        lambda: Stream(Recurrent(GRUCell(I, H)), B)(torch.randn(B, T, I)),
        ShapeError,
        r"expected \(B, I\)",
    ),
    "another dtype": (
        lambda: Stream(Recurrent(GRUCell(I, H)), B)(torch.randn(B, I).double()),
        DtypeError,
        "float64, expected torch.float32",
    ),
    "the state of a layer": (
        lambda: setattr(Stream(Recurrent(GRUCell(I, H)), B), "state", (torch.zeros(B, H),)),
        ShapeError,
        r"shapes \(\(3, 20\),\), expected.*\n.*as \(state,\)",
    ),
    "no state": (
        lambda: setattr(Stream(Recurrent(GRUCell(I, H)), B), "state", None),
        ShapeError,
        r"shapes None, expected .*\n.*reset\(\) for the initial",
    ),
    "a state of other rows": (
        lambda: setattr(Stream(Recurrent(GRUCell(I, H)), B), "state", ((torch.zeros(1, H),),)),
        ShapeError,
        r"shapes \(\(\(1, 20\),\),\), expected \(\(\(3, 20\),\),\)",
    ),
    "a state of fewer layers": (
        lambda: setattr(Stream(DeepRNN(GRUCell, I, H, 2), B), "state", ((torch.zeros(B, H),),)),
        ShapeError,
        r"shapes \(\(\(3, 20\),\),\), expected \(\(\(3, 20\),\), \(\(3, 20\),\)\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_layers_are_refused_by_name(case):
    make, error, said = REFUSED[case]

    with pytest.raises(error, match=said):
        make()


def test_a_stream_that_was_made_in_inference_mode_serves_outside_of_it():
    torch.manual_seed(0)
    layer, x = Recurrent(GRUCell(3, 4)).eval(), torch.randn(2, 3)
    with torch.inference_mode():
        stream = Stream(layer, batch_size=2)

    torch.testing.assert_close(stream(x), layer(x[:, None])[0][:, 0])
    stream.reset()
    stream.reset(torch.tensor([True, False]))


def test_a_stream_shows_its_shapes_and_what_runs_it():
    assert repr(Stream(Recurrent(GRUCell(3, 4)), 2)) == "Stream(x=(2, 3), y=(2, 4), backend='c')"


def test_a_stream_refuses_inputs_that_are_not_tensors():
    stream = Stream(Recurrent(GRUCell(3, 4)))
    with pytest.raises(DtypeError, match="input is ndarray, expected a tensor"):
        stream(np.zeros((1, 3), np.float32))
