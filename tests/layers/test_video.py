"""Convolutional cells over videos."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from seqnets import Bidirectional, DeepRNN, Recurrent, Video
from seqnets.cells import (
    ConvGRUCell,
    ConvLSTMCell,
    GRUCell,
    PeepholeConvLSTMCell,
    Zoneout,
    optioned,
)
from seqnets.errors import ConfigError, ShapeError
from seqnets.layers import map_state

B, T, C, FRAME = 3, 6, 2, (4, 5)
LENGTHS = torch.tensor([6, 0, 4])
CELLS = [ConvLSTMCell, PeepholeConvLSTMCell, ConvGRUCell]


@pytest.fixture
def x():
    return torch.randn(B, T, C, *FRAME, dtype=torch.float64)


def video(cell_cls=ConvLSTMCell, channels=(3,), **options):
    return Video.deep(cell_cls, C, channels, FRAME, **options).double()


def test_one_cell_over_frames_is_the_cell_over_frames_laid_flat(x):
    cell = ConvGRUCell.over(C, 3, FRAME, dtype=torch.float64)

    y, state = Video(cell)(x)
    expected, expected_state = Recurrent(cell)(x.flatten(2))

    assert y.shape == (B, T, 3, *FRAME)
    torch.testing.assert_close(y.flatten(2), expected)
    torch.testing.assert_close(state, expected_state)


@pytest.mark.parametrize("cell_cls", CELLS)
def test_frames_may_come_in_chunks_or_one_by_one(cell_cls, x):
    net = video(cell_cls, (3, 1))
    whole, final = net(x)

    first, state = net(x[:, :2])
    rest, carried = net(x[:, 2:], state)
    state, outputs = None, []
    for t in range(T):
        y, state = net.step(x[:, t], state)
        outputs.append(y)

    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    torch.testing.assert_close(torch.stack(outputs, 1), whole)
    torch.testing.assert_close((carried, state), (final, final))


@pytest.mark.parametrize("cell_cls", CELLS)
def test_frames_after_a_rows_end_change_nothing(cell_cls, x):
    net = video(cell_cls)
    other = x.clone()
    other[2, 4:] = 1e6

    y, state = net(x, lengths=LENGTHS)
    again, same = net(other, lengths=LENGTHS)
    alone, last = net(x[2:, :4])

    assert not y[1].any()
    assert not y[2, 4:].any()
    torch.testing.assert_close((y, state), (again, same))
    torch.testing.assert_close((y[2:, :4], map_state(lambda s: s[2:], state)), (alone, last))


def test_a_reset_begins_a_new_video(x):
    net = video()
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[:, 3] = True

    y, _ = net(x, resets=resets)

    torch.testing.assert_close(y[:, 3:], net(x[:, 3:])[0])


def test_both_directions_are_channels_side_by_side(x):
    ahead, back = (ConvGRUCell.over(C, 3, FRAME, dtype=torch.float64) for _ in range(2))

    y, _ = Video(Bidirectional(ahead, back))(x)
    forward, _ = Video(ahead)(x)
    backward, _ = Video(Recurrent(back, reverse=True))(x)
    pair, _ = Video(Bidirectional(ahead, back, merge="none"))(x)

    torch.testing.assert_close(y, torch.cat([forward, backward], 2))
    torch.testing.assert_close(pair, (forward, backward))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True}])
def test_a_highway_of_frames_is_a_gate_of_the_channels_at_each_place(options, x):
    net = video(ConvGRUCell, (3, 3), connection="highway", **options)
    lower, upper = net.layer.layers
    gate = net.layer.connections[1].gate
    nn.init.normal_(gate.weight)

    below, _ = Video(lower)(x)
    above, _ = Video(upper)(below)
    channels = below.shape[2]
    convolved = F.conv2d(below.flatten(0, 1), gate.weight[..., None, None], gate.bias)
    opened = torch.sigmoid(convolved).unflatten(0, (B, T))

    assert gate.weight.shape == (channels, channels)
    torch.testing.assert_close(net(x)[0], opened * above + (1 - opened) * below)
    if not options:
        first, _ = net.step(x[:, 0])
        torch.testing.assert_close(first, net(x)[0][:, 0])


def test_options_around_the_cells_leave_a_highway_of_frames_as_it_is():
    cell = partial(optioned, cell=ConvGRUCell, options=[partial(Zoneout, p=0.1)])

    net = video(cell, (3, 3), connection="highway")

    assert net.layer.connections[1].gate.weight.shape == (3, 3)


def test_a_stack_has_the_channels_asked_for():
    net = Video.deep(partial(ConvLSTMCell, kernel_size=5), 3, [8, 4], (6, 7), bidirectional=True)

    assert (net.channels_in, net.channels_out, net.frame) == (3, 8, (6, 7))
    assert [layer.forward_layer.cell.channels_hidden for layer in net.layer.layers] == [8, 4]
    assert net.layer.layers[1].forward_layer.cell.channels_in == 16
    assert len(Video.deep(ConvGRUCell, 1, 2, (3, 3), num_layers=3).layer.layers) == 3


@pytest.mark.parametrize("shape", [(B, T, 40), (B, T, C, 5, 4), (B, T, 1, 4, 5), (T, C, 4, 5)])
def test_videos_of_another_shape_are_refused(shape):
    with pytest.raises(ShapeError, match=r"Video: input has shape .* \(2, 4, 5\) last"):
        video()(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize(("frame", "sides"), [((5,), "width"), ((2, 3, 4), "depth, height, width")])
def test_frames_may_be_rows_or_volumes(frame, sides):
    net = Video.deep(ConvLSTMCell, 2, 3, frame, num_layers=2, bidirectional=True)
    x = torch.randn(B, T, 2, *frame)

    y, _ = net(x, lengths=torch.tensor([T, 2, 0]))

    flat, _ = net.layer(x.flatten(2), None, torch.tensor([T, 2, 0]))
    assert torch.equal(y, flat.unflatten(2, (6, *frame)))
    with pytest.raises(ShapeError, match=rf"expected \(B, T, C, {sides}\) with \(2, .*\) last"):
        net(x.flatten(2))


def test_layers_without_one_frame_for_all_are_refused():
    with pytest.raises(ConfigError, match=r"cells of GRUCell have the frames \[\], expected one"):
        Video(GRUCell(20, 20))
    mixed = DeepRNN(
        [partial(ConvGRUCell, frame=(4, 5)), partial(ConvGRUCell, frame=(5, 4))], 20, 20
    )
    with pytest.raises(ConfigError, match=r"have the frames \[\(4, 5\), \(5, 4\)\], expected one"):
        Video(mixed)
    with pytest.raises(ConfigError, match="Video: frame is 4, expected height and width"):
        Video.deep(ConvGRUCell, 1, 1, 4)


@pytest.mark.parametrize("options", [{"norm": "layer"}, {"feed_forward": 1}])
def test_norms_and_feed_forward_layers_are_refused_before_they_are_made(options, monkeypatch):
    cell = partial(ConvGRUCell, frame=(4, 5))
    with pytest.raises(ConfigError, match="Video: the stack has norms or feed-forward layers"):
        Video(DeepRNN(cell, 20, 20, **options))

    made = partial(pytest.fail, "it was made")
    monkeypatch.setattr("seqnets.layers.video.DeepRNN", lambda *given, **options: made())
    with pytest.raises(ConfigError, match="expected norm='none' and feed_forward=0"):
        video(**options)


class Forecaster(nn.Module):
    """The next frame, read off the state by a convolution of one place."""

    def __init__(self, cell):
        super().__init__()
        self.video = Video(cell)
        self.head = nn.Conv2d(self.video.channels_out, 1, 1)

    def forward(self, x):
        y, _ = self.video(x)
        return self.head(y.flatten(0, 1)).unflatten(0, x.shape[:2])


def moving_squares(rows, steps, size):
    """Videos of a 2 x 2 square that goes one place a step, each row its own way, and around."""
    x = torch.zeros(rows, steps, 1, size, size)
    ways = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    for row, (top, left) in enumerate(torch.randint(size, (rows, 2)).tolist()):
        down, right = ways[row % 4]
        for t in range(steps):
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                place = (top + down * t + dy) % size, (left + right * t + dx) % size
                x[row, t, 0, place[0], place[1]] = 1
    return x


@pytest.mark.parametrize("cell_cls", [ConvLSTMCell, ConvGRUCell])
def test_it_learns_where_a_moving_square_goes_next(cell_cls):
    torch.manual_seed(0)
    model = Forecaster(cell_cls.over(1, 8, (8, 8)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        x = moving_squares(16, 6, 8)
        loss = (model(x[:, :-1]) - x[:, 1:])[:, 1:].square().mean()  # two frames tell the direction
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    x = moving_squares(64, 6, 8)
    learned = (model(x[:, :-1]) - x[:, 1:])[:, 1:].square().mean()
    unmoved = (x[:, 1:-1] - x[:, 2:]).square().mean()

    assert learned < 0.5 * unmoved
