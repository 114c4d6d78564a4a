from functools import partial

import pytest
import torch

from seqnets.cells import ConvGRUCell, ConvLSTMCell, GRUCell, LSTMCell, Zoneout
from seqnets.errors import ConfigError, ShapeError
from seqnets.models import FramePredictor, VideoClassifier

B, T, C, HEIGHT, WIDTH = 3, 6, 2, 5, 4
LENGTHS = torch.tensor([6, 2, 4])


@pytest.fixture
def videos():
    torch.manual_seed(0)
    return torch.rand(B, T, C, HEIGHT, WIDTH, dtype=torch.float64)


def classifier(**options):
    return VideoClassifier(GRUCell, 7, C, HEIGHT, WIDTH, hidden_size=5, **options).double()


def predictor(cell=ConvLSTMCell, **options):
    return FramePredictor(cell, C, HEIGHT, WIDTH, hidden_channels=3, **options).double()


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_a_video_is_classified_as_it_is_alone_whatever_its_padding(videos, pooling):
    model = classifier(pooling=pooling)
    padded = videos.clone()
    for row, length in enumerate(LENGTHS):
        padded[row, length:] = torch.nan

    together, _ = model(padded, lengths=LENGTHS)
    alone = torch.cat([model(videos[r : r + 1, :n])[0] for r, n in enumerate(LENGTHS)])

    assert together.shape == (B, 7)
    torch.testing.assert_close(together, alone)


def test_the_classifier_sees_where_in_the_frame_something_is():
    torch.manual_seed(0)
    model = classifier()
    left = torch.zeros(1, 1, C, HEIGHT, WIDTH, dtype=torch.float64)
    right = left.clone()
    left[..., 2, 1], right[..., 2, 3] = 1, 1  # no nearer to a side than a stride

    assert not torch.allclose(model(left)[0], model(right)[0])


def test_the_classifiers_front_can_be_of_any_depth(videos):
    model = classifier(filters=[4, 6, 8], stride=[2, 2, 1], kernel_size=[5, 3, 3])

    assert model.front.output_size == 8 * 2 * 1
    assert model(videos)[0].shape == (B, 7)


def test_frames_of_another_size_are_refused(videos):
    with pytest.raises(ShapeError, match=r"frames are \(4, 4\), expected \(5, 4\)"):
        classifier()(videos[..., 1:, :])
    with pytest.raises(ShapeError, match=r"input has shape .* \(2, 5, 4\) last"):
        predictor()(videos[..., 1:, :])


@pytest.mark.parametrize("cell", [ConvLSTMCell, ConvGRUCell])
def test_frames_are_predicted_in_chunks_as_at_once(videos, cell):
    model = predictor(cell, num_layers=2)

    whole, final = model(videos)
    first, state = model(videos[:, :2])
    second, end = model(videos[:, 2:], state)

    assert whole.shape == videos.shape
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end, final)


def test_frames_are_predicted_from_those_before_them_alone(videos):
    model = predictor(num_layers=2)
    changed = videos.clone()
    changed[:, 4:] += 1

    before, after = model(videos)[0], model(changed)[0]

    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


def test_padding_changes_no_prediction(videos):
    model = predictor()
    padded = videos.clone()
    padded[1, 2:] = torch.nan

    torch.testing.assert_close(
        model(padded, lengths=LENGTHS)[0][1, :2], model(videos[1:2, :2])[0][0]
    )


def test_layers_of_a_predictor_may_have_channels_and_options_of_their_own(videos):
    model = FramePredictor(
        partial(ConvLSTMCell, kernel_size=5),
        C,
        HEIGHT,
        WIDTH,
        hidden_channels=[4, 3],
        cell_options={"zoneout": partial(Zoneout, p=0.5)},
    ).double()

    assert len(model.video.layer.layers) == 2
    assert model.video.channels_out == 3
    assert model(videos)[0].shape == videos.shape


@pytest.mark.parametrize("cell", [LSTMCell, partial(LSTMCell, bias=False)])
def test_a_predictor_of_frames_needs_a_cell_over_frames(cell):
    with pytest.raises(ConfigError, match="the cell is LSTMCell, expected a convolutional one"):
        predictor(cell)
