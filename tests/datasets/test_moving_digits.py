from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from seqnets.datasets import (
    DigitVideos,
    MovingDigits,
    MovingDigitsNext,
    NextSteps,
    SequenceData,
    Sequences,
    Splits,
)
from seqnets.datasets.published.digits import read_digits
from seqnets.datasets.synthetic.moving_digits import DIRECTIONS, draw
from seqnets.errors import ConfigError, DataError
from seqnets.typing import IGNORE

pytest.importorskip("sklearn", reason="needs the extra `digits`")

SMALL = {"train_size": 40, "test_size": 20, "batch_size": 8}
BOTH = [MovingDigits, MovingDigitsNext]
WHITE = np.ones((1, 8, 8), np.float32)


class Written:
    """Draws the numbers that a test has written down, the same in every place."""

    def __init__(self, *draws):
        self.draws = iter(draws)

    def integers(self, *ends, size):
        return np.full(size, next(self.draws))


def top(frames):
    """The first row of each frame that is not black."""
    return frames.amax((1, 3)).gt(0).int().argmax(1).tolist()


@pytest.mark.parametrize("task", BOTH)
def test_frames_flow_in_batches_of_videos(task):
    data = task(6, side=12, **SMALL)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    frames = batch.x.shape[1]

    assert batch.x.shape == (8, frames, 1, 12, 12)
    assert batch.x.dtype == torch.float32
    assert 0 <= batch.x.min() < batch.x.max() <= 1
    assert data.counts() == {"train": 40, "val": 20, "test": 20}
    assert data.unit == "videos"
    assert data.describe()["sizes"].items() >= {"channels": 1, "height": 12, "width": 12}.items()


@pytest.mark.parametrize("task", BOTH)
def test_the_same_seed_gives_the_same_videos_and_another_one_others(task):
    first, again, other = (task(4, side=12, seed=seed, **SMALL) for seed in (3, 3, 4))

    assert torch.equal(first.part("train").x, again.part("train").x)
    assert not torch.equal(first.part("train").x, other.part("train").x)
    assert not torch.equal(first.part("val").x, first.part("test").x)


class Pools(DigitVideos):
    """Keeps what each part is to be made of."""

    def film(self, random, count, pictures):
        self.pools = [*getattr(self, "pools", []), pictures]
        return Sequences(torch.zeros(1, 1, 8, 8), torch.ones(1, dtype=torch.int64), torch.zeros(1))


def test_no_part_has_a_picture_of_another_and_none_is_lost():
    data = Pools()
    data.read_splits()
    pools = [{picture.tobytes() for picture in pool} for pool in data.pools]

    assert [len(pool) for pool in data.pools] == [1437, 180, 180]
    assert set.union(*pools) == {
        picture.tobytes() for picture in (read_digits().pixels / 16).astype(np.float32)
    }
    assert sum(map(len, pools)) == len(set.union(*pools))


def test_a_digit_moves_in_the_direction_that_is_its_label():
    data = MovingDigits(5, side=16, speed=3, **SMALL)
    videos = data.part("train").x.unflatten(0, (40, 5))[:, :, 0]
    speeds = set()

    for video, label in zip(videos, data.part("train").y.tolist(), strict=True):
        down, right = DIRECTIONS[data.labels[label]]
        fits = [
            speed
            for speed in (1, 2, 3)
            if torch.equal(video[:-1].roll((speed * down, speed * right), (1, 2)), video[1:])
        ]
        assert len(fits) == 1
        speeds |= set(fits)

    assert speeds == {1, 2, 3}


def test_directions_are_those_of_a_compass():
    opposite = {name: DIRECTIONS[name] for name in ("north", "east", "south", "west")}

    assert opposite == {"north": (-1, 0), "east": (0, 1), "south": (1, 0), "west": (0, -1)}
    assert DIRECTIONS["south-west"] == (1, -1)
    assert len(set(DIRECTIONS.values())) == 8


def test_a_single_frame_does_not_show_the_direction():
    data = MovingDigits(4, side=10, train_size=8_000)
    x, y = data.part("train").x.unflatten(0, (-1, 4)), data.part("train").y

    for frame in (0, 3):
        means = torch.stack([x[y == label, frame].mean(0) for label in range(8)])
        torch.testing.assert_close(
            means, x[:, frame].mean((0, 1, 2, 3)).expand_as(means), atol=0.06, rtol=0
        )


def test_guessing_a_direction_is_right_one_time_in_eight():
    baselines = MovingDigits(2, test_size=3_000).baselines()

    assert baselines == {"majority class": pytest.approx(1 / 8, abs=0.02)}


def test_digits_bounce_off_the_sides_checked_by_hand():
    data = MovingDigitsNext(6, side=12, digits=1, speed=2)
    # speed 2 from phase 3, in a circle of 8 for the 4 rows there are: 3 5 7 1 3 5 is 3 3 1 1 3 3
    videos = data.film(Written(2, 3, 0), 1, WHITE)

    assert top(videos.x) == [3, 3, 1, 1, 3, 3]
    assert videos.x.sum((1, 2, 3)).tolist() == [64] * 6


def test_bouncing_digits_reach_both_sides_and_never_leave():
    data = MovingDigitsNext(12, side=11, digits=1, train_size=200)
    data.splits.parts["train"] = data.film(np.random.default_rng(0), 200, WHITE)
    tops = torch.tensor(top(data.part("train").x)).view(200, 12)

    assert set(tops.flatten().tolist()) == {0, 1, 2, 3}
    assert tops.diff(dim=1).abs().max() == 2


def test_a_digit_as_large_as_its_frame_stays():
    data = MovingDigitsNext(4, side=8, digits=1, **SMALL)
    videos = data.part("train").x.unflatten(0, (40, 4))

    assert torch.equal(videos[:, :1].expand_as(videos), videos)


def test_where_digits_overlap_the_brighter_one_is_seen():
    frames = np.zeros((1, 1, 9, 9), np.float32)
    for value, place in ((0.5, 0), (0.25, 1)):
        draw(frames, np.full((1, 8, 8), value, np.float32), np.full((1, 1, 2), place))

    assert frames[0, 0, 1:8, 1:8].tolist() == [[0.5] * 7] * 7
    assert frames[0, 0, 8].tolist() == [0] + [0.25] * 8


def test_the_next_frame_is_the_target_and_nothing_is_held_twice():
    data = MovingDigitsNext(5, side=12, **SMALL)
    videos = data.part("val")
    batch = videos.batch(torch.tensor([3, 1]))
    whole = videos.x.unflatten(0, (20, 5))[[3, 1]]

    assert videos.y.data_ptr() == videos.x.data_ptr()
    assert torch.equal(batch.x, whole[:, :4])
    assert torch.equal(batch.y, whole[:, 1:])
    assert batch.lengths is None


def test_next_steps_of_sequences_of_different_lengths_end_where_they_do():
    x = torch.arange(1.0, 8.0)[:, None]
    batch = NextSteps(x, torch.tensor([2, 4, 1]), x, stepwise=True).batch(torch.arange(3))

    assert batch.x[..., 0].tolist() == [[1, 2, 0], [3, 4, 5], [7, 0, 0]]
    assert batch.y[..., 0].tolist() == [
        [2, IGNORE, IGNORE],
        [4, 5, 6],
        [IGNORE, IGNORE, IGNORE],
    ]
    assert batch.lengths.tolist() == [1, 3, 0]


def test_baselines_of_the_next_frame_checked_by_hand():
    data = MovingDigitsNext(2, side=8, **SMALL)
    halves, whole = torch.full((2, 1, 8, 8), 0.5), torch.ones(2, 1, 8, 8)
    length = torch.tensor([2])
    test = torch.cat([halves[:1], whole[:1]])
    for part, x in (("train", halves), ("test", test)):
        data.splits.parts[part] = NextSteps(x, length, x, stepwise=True)

    assert data.baselines() == {"black": 1.0, "mean frame": 0.25, "last frame": 0.25}


def test_frames_are_drawn_in_characters_every_other_row():
    data = MovingDigits(2, side=10, **SMALL)
    # east by 1, from row and column 3: what leaves on the right comes in on the left
    data.splits.parts["val"] = data.film(Written(2, 1, 3, 0), 1, WHITE)
    first, last = "@  @@@@@@@", "@@  @@@@@@"

    assert data.examples("val", 3) == [
        {
            "first frame": "\n".join([first, " " * 10, first, first, first]),
            "last frame": "\n".join([last, " " * 10, last, last, last]),
            "direction": "east",
        }
    ]


class Given(SequenceData):
    """Frames that the test gives."""

    def __init__(self, x):
        super().__init__()
        self.given = NextSteps(x, torch.tensor([1, 2]), x, stepwise=True)

    @property
    def sizes(self):
        return {"channels": 1, "height": 2, "width": 2}

    def read_splits(self):
        return Splits({"train": self.given, "val": self.given, "test": self.given})


def test_a_pixel_that_is_not_a_number_is_reported_by_its_position():
    x = torch.zeros(3, 1, 2, 2)
    Given(x).setup()
    x[2, 0, 1, 0] = torch.inf

    with pytest.raises(DataError, match="a value of x in sequence 1 is inf, expected finite"):
        Given(x).setup()


@pytest.mark.parametrize(
    ("task", "options"),
    [
        (MovingDigits, {"length": 1}),
        (MovingDigits, {"side": 7}),
        (MovingDigits, {"speed": 0}),
        (MovingDigits, {"train_size": 0}),
        (MovingDigitsNext, {"digits": 0}),
        (MovingDigitsNext, {"batch_size": 0}),
    ],
)
def test_invalid_options_are_refused(task, options):
    (name,) = options

    with pytest.raises(ConfigError, match=f"{name} is {options[name]}"):
        task(**options)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)

    with pytest.raises(ConfigError, match=r"pip install 'seqnets\[digits\]'"):
        MovingDigits(**SMALL).setup()
