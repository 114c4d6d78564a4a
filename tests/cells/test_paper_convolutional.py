"""Convolutional cells against their papers in plain floats, for one pixel and for frames."""

import math
import random
from functools import partial

import pytest
import torch

import seqnets
from seqnets import Bidirectional, DeepRNN, Recurrent, Stream, unroll
from seqnets.cells import (
    ConvGRUCell,
    ConvLSTMCell,
    DeepTransition,
    GRUCell,
    LayerNorm,
    LSTMCell,
    PeepholeConvLSTMCell,
    chrono,
)
from seqnets.errors import ConfigError, DtypeError, ShapeError
from seqnets.testing import check_cell, check_layer, one_unit, step

from .plain import sigmoid

CELLS = [ConvLSTMCell, PeepholeConvLSTMCell, ConvGRUCell]
CHANNELS, FRAME = 2, (3, 4)


def near(numbers):
    return pytest.approx(numbers, abs=1e-12)


def kernels(*centres):
    """A 3 x 3 kernel for each number, which stands in its centre among others."""
    return [[[[9, -8, 7], [-6, centre, 5], [-4, 3, -2]]] for centre in centres]


def test_convolutional_lstm_of_one_pixel_follows_its_paper_without_peepholes():
    w, u = kernels(0.5, -0.3, 0.8, 0.9), kernels(0.7, 0.2, -0.6, 0.4)
    b, d = (0.1, -0.4, 0.3, 0.6), (0.05, 0.4, -0.2, -0.1)
    cell = one_unit(ConvLSTMCell, w=w, u=u, b=b, d=d)
    x, h, c = 2.0, -1.5, 0.9

    i = sigmoid(0.5 * x + 0.1 + 0.7 * h + 0.05)
    f = sigmoid(-0.3 * x - 0.4 + 0.2 * h + 0.4)
    c_after = f * c + i * math.tanh(0.8 * x + 0.3 - 0.6 * h - 0.2)
    o = sigmoid(0.9 * x + 0.6 + 0.4 * h - 0.1)

    assert step(cell, x, h, c) == near((o * math.tanh(c_after), c_after))


def test_convolutional_lstm_of_one_pixel_follows_its_paper():
    w, u = kernels(0.5, -0.3, 0.8, 0.9), kernels(0.7, 0.2, -0.6, 0.4)
    b, p = (0.1, -0.4, 0.3, 0.6), {"p_i": 0.35, "p_f": -0.25, "p_o": 0.65}
    cell = one_unit(PeepholeConvLSTMCell, w=w, u=u, b=b, **p)
    x, h, c = 2.0, -1.5, 0.9

    i = sigmoid(0.5 * x + 0.7 * h + 0.35 * c + 0.1)
    f = sigmoid(-0.3 * x + 0.2 * h - 0.25 * c - 0.4)
    c_after = f * c + i * math.tanh(0.8 * x - 0.6 * h + 0.3)
    o = sigmoid(0.9 * x + 0.4 * h + 0.65 * c_after + 0.6)

    assert step(cell, x, h, c) == near((o * math.tanh(c_after), c_after))


def test_convolutional_gru_of_one_pixel_follows_its_paper_up_to_a_sign():
    w, u = kernels(0.5, 0.3, 0.8), kernels(0.7, -0.2, -0.6)
    cell = one_unit(ConvGRUCell, w=w, u=u)
    x, h = 2.0, -1.5

    z = sigmoid(-0.3 * x + 0.2 * h)  # the paper's, which writes where it is open
    r = sigmoid(0.5 * x + 0.7 * h)
    n = math.tanh(0.8 * x - 0.6 * (r * h))

    assert step(cell, x, h) == near((1 - z) * h + z * n)


class Plain:
    """Frames as nested lists, and the papers' equations place by place."""

    def __init__(self, cell, gates):
        self.gates = gates
        self.numbers = {name: p.tolist() for name, p in cell.named_parameters()}

    def product(self, side, gate, channel, frames, y, x):
        """One number of ``W * x + b``, whose kernel does not reach beyond the border."""
        row = self.gates.index(gate) * CHANNELS + channel
        kernel = self.numbers[f"weight_{side}"][row]
        total = self.numbers[f"bias_{side}"][row]
        for source, frame in enumerate(frames):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < FRAME[0] and 0 <= x + dx < FRAME[1]:
                        weight = kernel[source][1 + dy][1 + dx]
                        total += weight * frame[y + dy][x + dx]
        return total

    def peephole(self, name, channel, y, x):
        return self.numbers[name][(channel * FRAME[0] + y) * FRAME[1] + x]


def frames(function):
    """A number for each channel and place."""
    places = [range(size) for size in (CHANNELS, *FRAME)]
    return [[[function(k, y, x) for x in places[2]] for y in places[1]] for k in places[0]]


def flat(part):
    return [number for frame in part for row in frame for number in row]


def random_cell(cell_cls):
    torch.manual_seed(0)
    cell = cell_cls.over(CHANNELS, CHANNELS, FRAME, dtype=torch.float64)
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return cell


def random_frames():
    return frames(lambda *_: random.uniform(-1, 1))


def stepped(cell, x, *state):
    rows = [torch.tensor([flat(part)], dtype=torch.float64) for part in (x, *state)]
    return [part[0].tolist() for part in cell(rows[0], tuple(rows[1:]))[1]]


def test_convolutional_lstm_over_frames_follows_its_paper():
    random.seed(0)
    cell = random_cell(PeepholeConvLSTMCell)
    plain = Plain(cell, "ifgo")
    X, H, C = (random_frames() for _ in range(3))

    def inner(gate, *place):
        return plain.product("ih", gate, place[0], X, *place[1:]) + plain.product(
            "hh", gate, place[0], H, *place[1:]
        )

    def memory(*place):
        k, y, x = place
        i = sigmoid(inner("i", *place) + plain.peephole("p_i", *place) * C[k][y][x])
        f = sigmoid(inner("f", *place) + plain.peephole("p_f", *place) * C[k][y][x])
        return f * C[k][y][x] + i * math.tanh(inner("g", *place))

    def output(*place):
        c = memory(*place)
        return sigmoid(inner("o", *place) + plain.peephole("p_o", *place) * c) * math.tanh(c)

    h, c = stepped(cell, X, H, C)

    assert h == near(flat(frames(output)))
    assert c == near(flat(frames(memory)))


def test_convolutional_gru_over_frames_resets_before_it_convolves():
    random.seed(0)
    cell = random_cell(ConvGRUCell)
    plain = Plain(cell, "rzn")
    X, H = random_frames(), random_frames()

    def gate(name):
        def number(k, y, x):
            return sigmoid(
                plain.product("ih", name, k, X, y, x) + plain.product("hh", name, k, H, y, x)
            )

        return frames(number)

    r, z = gate("r"), gate("z")
    passed = frames(lambda k, y, x: r[k][y][x] * H[k][y][x])

    def after(k, y, x):
        n = plain.product("ih", "n", k, X, y, x) + plain.product("hh", "n", k, passed, y, x)
        return (1 - z[k][y][x]) * math.tanh(n) + z[k][y][x] * H[k][y][x]

    assert stepped(cell, X, H)[0] == near(flat(frames(after)))


@pytest.mark.parametrize("cell_cls", CELLS)
def test_a_cell_over_frames_obeys_the_laws_of_recurrence(cell_cls):
    check_cell(partial(cell_cls, hidden_size=12, frame=(2, 3)), input_size=6)
    check_cell(
        partial(cell_cls, hidden_size=6, frame=(2, 3), kernel_size=1, bias=False), input_size=12
    )


@pytest.mark.parametrize("cell_cls", CELLS)
@pytest.mark.parametrize("frame", [(6,), (1, 3, 2)])
def test_a_cell_over_rows_or_volumes_obeys_the_laws_of_recurrence(cell_cls, frame):
    check_cell(partial(cell_cls, hidden_size=12, frame=frame), input_size=6)


@pytest.mark.parametrize("cell_cls", CELLS)
@pytest.mark.parametrize(
    ("fewer", "more", "middle"),
    [((5,), (1, 5), (..., 1, slice(None))), ((3, 4), (1, 3, 4), (slice(None), slice(None), 1))],
)
def test_a_row_is_a_frame_of_one_row_and_a_frame_a_volume_of_one_frame(
    cell_cls, fewer, more, middle
):
    cell, larger = (cell_cls.over(2, 3, frame, dtype=torch.float64) for frame in (fewer, more))
    with torch.no_grad():
        for name, own in cell.named_parameters():
            own.copy_(getattr(larger, name)[middle if "weight" in name else ...])
    x = torch.randn(2, 4, cell.input_size, dtype=torch.float64)

    torch.testing.assert_close(unroll(cell, x), unroll(larger, x))


@pytest.mark.parametrize("cell_cls", CELLS)
def test_layers_over_frames_obey_the_laws_of_recurrence(cell_cls):
    make = partial(cell_cls, frame=(2, 2))

    check_layer(DeepRNN(make, 4, 4, num_layers=2))
    check_layer(Bidirectional(make(4, 8)), skip=("chunks", "steps", "causality"))


@pytest.mark.parametrize("cell_cls", [ConvLSTMCell, ConvGRUCell])
def test_shifting_the_input_shifts_the_output_away_from_the_borders(cell_cls):
    # A border is felt 2 places further in at every step but the first.
    cell = cell_cls.over(1, 3, (17, 17), dtype=torch.float64)
    with torch.no_grad():
        cell.bias_ih.normal_()
    x = torch.zeros(1, 3, 17, 17, dtype=torch.float64)
    x[:, :, 7:9, 7:9] = torch.randn(1, 3, 2, 2, dtype=torch.float64)

    y, moved = (
        unroll(cell, frames.flatten(2))[0].unflatten(2, (3, 17, 17))[..., 4:13, 4:13]
        for frames in (x, x.roll((1, 2), (2, 3)))
    )

    torch.testing.assert_close(moved[..., 1:, 2:], y[..., :-1, :-2])
    assert not torch.allclose(moved, y)


@pytest.mark.parametrize("cell_cls", [ConvLSTMCell, ConvGRUCell])
def test_the_number_of_parameters_does_not_depend_on_the_frame(cell_cls):
    small, large = (cell_cls.over(3, 5, (size, size), kernel_size=5) for size in (4, 32))

    assert small.parameter_shapes == large.parameter_shapes
    assert small.weight_ih.shape[1:] == (3, 5, 5)
    assert (large.input_size, large.hidden_size) == (3 * 32 * 32, 5 * 32 * 32)
    assert (large.channels_in, large.channels_hidden) == (3, 5)


def test_peepholes_have_a_weight_per_channel_and_pixel_and_start_at_zero():
    cell = PeepholeConvLSTMCell.over(1, 2, (3, 4))

    assert cell.p_o.shape == (24,)
    assert not cell.p_i.any()


def test_kernels_are_initialised_like_weights_with_their_fan_in():
    cell = ConvLSTMCell.over(3, 4, (2, 2), dtype=torch.float64)
    bound = (6 / ((3 + 4) * 9)) ** 0.5

    assert 0.9 * bound < cell.weight_ih.abs().max() <= bound
    for block in cell.weight_hh.flatten(1).chunk(4):
        torch.testing.assert_close(block @ block.T, torch.eye(4).double())
    assert torch.equal(cell.split(cell.bias_ih).f, torch.ones(4).double())


def test_a_parameter_of_the_wrong_shape_is_refused():
    cell = ConvGRUCell.over(1, 2, (3, 3))
    cell.weight_hh = torch.nn.Parameter(torch.zeros(6, 2, 5, 5))

    with pytest.raises(ShapeError, match=r"weight_hh has shape \(6, 2, 5, 5\), expected"):
        unroll(cell, torch.zeros(1, 1, 9))


@pytest.mark.parametrize("cell_cls", CELLS)
def test_the_plain_loop_runs_and_explain_says_why(cell_cls):
    explained = seqnets.explain(cell_cls(2, 3), torch.zeros(2, 5, 2))

    assert explained.chosen == "reference"
    assert "aten.convolution of frames" in explained.refusals["c"]


def test_a_stream_over_frames_is_the_sequence():
    layer = Recurrent(ConvLSTMCell.over(1, 2, (3, 4)))
    x = torch.randn(2, 5, 12)
    stream = Stream(layer, 2)

    y = torch.stack([stream(x[:, t]).clone() for t in range(5)], 1)

    torch.testing.assert_close(y, layer(x)[0].detach())


def test_chrono_spreads_the_time_scales_of_channels():
    cell = chrono(ConvLSTMCell.over(1, 6, (3, 4)), max_steps=20)
    bias = cell.split(cell.bias_ih)

    assert torch.equal(bias.f, -bias.i)
    assert len(bias.f.unique()) == 6


def test_layer_norm_refuses_convolutions():
    with pytest.raises(ConfigError, match=r"weight_hh of ConvLSTMCell has 8 rows, expected .* 96"):
        LayerNorm(ConvLSTMCell.over(1, 2, (3, 4)))


def test_a_convolution_needs_its_input():
    with pytest.raises(ConfigError, match="cell 1 is ConvLSTMCell, expected a GatedCell that"):
        DeepTransition(ConvLSTMCell.over(1, 2, (3, 4)))


def test_a_convolution_does_not_run_on_torchs_kernels():
    assert "native" not in seqnets.explain(LSTMCell(4, 4), torch.zeros(1, 2, 4)).refusals
    assert "native" in seqnets.explain(ConvLSTMCell(4, 4), torch.zeros(1, 2, 4)).refusals
    assert "native" not in seqnets.explain(GRUCell(4, 4), torch.zeros(1, 2, 4)).refusals


@pytest.mark.parametrize("cell_cls", CELLS)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"frame": (3, 4)}, ConfigError, r"input_size is 10, expected a multiple of 12.*\(3, 4\)"),
        ({"frame": (5, 2)}, ConfigError, "hidden_size is 12, expected a multiple of 10"),
        ({"frame": (2, 0)}, ConfigError, r"frame is \(2, 0\), expected height and width"),
        ({"frame": (1, 2, 1, 1)}, ConfigError, "frame is .*, expected height and width, .* a row"),
        ({"frame": ()}, ConfigError, r"frame is \(\), expected height and width"),
        ({"frame": 2}, ConfigError, "frame is 2, expected height and width"),
        ({"frame": "ab"}, ConfigError, "frame is 'ab', expected height and width"),
        ({"kernel_size": 4}, ConfigError, "kernel_size is 4, expected an odd number"),
        ({"kernel_size": 0}, ConfigError, "kernel_size is 0, expected at least 1"),
        ({"kernel_size": (3, 3)}, DtypeError, "kernel_size is .*, expected a positive integer"),
    ],
)
def test_frames_and_kernels_that_do_not_fit_are_refused(cell_cls, options, error, message):
    with pytest.raises(error, match=f"{cell_cls.__name__}: {message}"):
        cell_cls(10, 12, **options)
