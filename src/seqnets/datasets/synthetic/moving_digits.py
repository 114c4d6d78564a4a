"""Videos of moving handwritten digits."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from torch import Tensor

from seqnets.checks import check_count
from seqnets.datasets.baselines.counting import majority_baseline
from seqnets.datasets.examples import show_picture
from seqnets.datasets.published.digits import SIDE, pool_digits
from seqnets.datasets.sequences.base import SequenceData
from seqnets.datasets.sequences.sequences import NextSteps, Sequences, Splits
from seqnets.datasets.synthetic.base import random_parts
from seqnets.typing import Sizes

DIRECTIONS = {
    "north": (-1, 0),
    "north-east": (-1, 1),
    "east": (0, 1),
    "south-east": (1, 1),
    "south": (1, 0),
    "south-west": (1, -1),
    "west": (0, -1),
    "north-west": (-1, -1),
}
"""Rows (downwards) and columns that a digit moves per step, by direction."""


class DigitVideos(SequenceData):
    """Videos made of scikit-learn's handwritten digits (``pip install 'seqnets[digits]'``).

    Each frame is (1, side, side) float32 in 0..1. A digit's image is 8 by 8; where two overlap,
    the brighter pixel is visible. Of the images, 80 % are for training, 10 % for validation and
    10 % for the test, so no part shares an image with another.

    Args:
        length: Frames of a video.
        side: Height and width of the frames, at least 8.
        speed: Maximum speed of a digit along each axis, in pixels per step.
        train_size: Number of training videos; each epoch shuffles the same ones.
        test_size: Number of validation videos, and of test videos.
        batch_size: Videos in a batch of each process.
        seed: Determines the videos and their order.

    Raises:
        ConfigError: An option is out of range.

    References:
        Alpaydin and Kaynak, 1998, "Optical Recognition of Handwritten Digits", UCI Machine
        Learning Repository, doi:10.24432/C50P49.
    """

    unit = "videos"

    def __init__(
        self,
        length: int = 10,
        *,
        side: int = 24,
        speed: int = 2,
        train_size: int = 2_000,
        test_size: int = 400,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed)
        who = type(self).__name__
        check_count(who, least=2, length=length)
        check_count(who, least=SIDE, side=side)
        check_count(who, speed=speed, train_size=train_size, test_size=test_size)
        self.length, self.side, self.speed = length, side, speed
        self.train_size, self.test_size = train_size, test_size

    @abstractmethod
    def film(self, random: np.random.Generator, count: int, pictures: np.ndarray) -> Sequences:
        """``count`` random videos of some of these images, (N, 8, 8)."""

    @property
    def sizes(self) -> Sizes:
        """The number of channels, and the frames' height and width."""
        return {"channels": 1, "height": self.side, "width": self.side}

    def read_splits(self) -> Splits:
        """The videos of all parts.

        Raises:
            ConfigError: scikit-learn is not installed.
        """
        pools = pool_digits(self.seed)
        draws = random_parts(self.train_size, self.test_size, self.seed)
        return Splits(
            {part: self.film(random, count, pools[part].pixels) for part, random, count in draws}
        )

    def example(self, x: Tensor, y: Tensor) -> dict[str, str]:
        """First and last frame of a video, drawn in characters."""
        frames = {"first frame": x[0, 0], "last frame": x[-1, 0]}
        # Every other row, as characters are about twice as high as wide.
        return {name: show_picture(frame[::2].numpy()) for name, frame in frames.items()}


class MovingDigits(DigitVideos):
    """The direction, one of eight, in which a digit moves; classification.

    A digit that leaves the frame on one side enters on the other. In a single frame, all positions
    are equally likely for every direction, so a model that does not compare frames must guess.
    The arguments are those of :class:`DigitVideos`.
    """

    @property
    def sizes(self) -> Sizes:
        """Those of the frames, and ``num_classes``."""
        return {**super().sizes, "num_classes": len(DIRECTIONS)}

    @property
    def labels(self) -> list[str]:
        """The directions, clockwise from north."""
        return list(DIRECTIONS)

    def film(self, random: np.random.Generator, count: int, pictures: np.ndarray) -> Sequences:
        """``count`` videos of one digit each, with their directions."""
        labels = random.integers(len(DIRECTIONS), size=count)
        speeds = random.integers(1, self.speed + 1, size=(count, 1))
        velocities = speeds * np.array(list(DIRECTIONS.values()))[labels]
        starts = random.integers(self.side, size=(count, 2))
        places = starts[:, None] + np.arange(self.length)[:, None] * velocities[:, None]
        frames = np.zeros((count, self.length, self.side, self.side), np.float32)
        draw(frames, pictures[random.integers(len(pictures), size=count)], places)
        return Sequences.stacked(frames[:, :, None], labels)

    def example(self, x: Tensor, y: Tensor) -> dict[str, str]:
        """Two frames of a video, and its direction."""
        return {**super().example(x, y), "direction": self.labels[int(y)]}

    def baselines(self) -> dict[str, float]:
        """The test accuracy of the most frequent direction."""
        return majority_baseline(self.part("train").y, self.part("test").y)


class MovingDigitsNext(DigitVideos):
    """The next frame of a video in which digits bounce off the sides; frame prediction.

    The model sees all frames but the last, and predicts all but the first.

    Args:
        length: Frames of a video.
        digits: Number of digits in a video.
        **data: The other arguments of :class:`DigitVideos`.

    References:
        Srivastava, Mansimov and Salakhutdinov, 2015, "Unsupervised Learning of Video
        Representations using LSTMs", arXiv:1502.04681 (the same task with larger digits).
    """

    def __init__(self, length: int = 10, *, digits: int = 2, **data: Any) -> None:
        super().__init__(length, **data)
        check_count("MovingDigitsNext", digits=digits)
        self.digits = digits

    def film(self, random: np.random.Generator, count: int, pictures: np.ndarray) -> Sequences:
        """``count`` videos, each its own target."""
        frames = np.zeros((count, self.length, self.side, self.side), np.float32)
        room = self.side - SIDE
        for _ in range(self.digits):
            speeds = random.integers(1, self.speed + 1, size=(count, 1, 2))
            starts = random.integers(max(1, 2 * room), size=(count, 1, 2))
            travelled = starts + np.arange(self.length)[:, None] * speeds
            # Back and forth: positions on a circle of twice the room, folded in half.
            places = room - abs(room - travelled % max(1, 2 * room))
            draw(frames, pictures[random.integers(len(pictures), size=count)], places)
        videos = frames[:, :, None]  # one channel
        return NextSteps.stacked(videos, videos, stepwise=True)

    def baselines(self) -> dict[str, float]:
        """The mean squared test errors of three constant predictions.

        - ``black``: an empty frame.
        - ``mean frame``: the mean of the training part.
        - ``last frame``: the frame before.
        """
        train, test = self.part("train").x, self.part("test").x
        videos = test.unflatten(0, (-1, self.length))
        frames, next_frames = videos[:, :-1], videos[:, 1:]
        baselines = {"black": 0 * frames, "mean frame": train.mean(0), "last frame": frames}
        return {
            name: float((next_frames - predicted).square().mean())
            for name, predicted in baselines.items()
        }


def draw(frames: np.ndarray, pictures: np.ndarray, places: np.ndarray) -> None:
    """Draw an image into the frames of each video, keeping the brighter pixels.

    Args:
        frames: (N, T, height, width), changed in place.
        pictures: One image per video, (N, h, w).
        places: Row and column of the image's upper left pixel, (N, T, 2) integers. Parts outside
            of the frame wrap around.
    """
    N, T, *frame = frames.shape
    here = [np.arange(size) for size in pictures.shape[1:]]
    rows = (places[..., 0, None, None] + here[0][:, None]) % frame[0]
    columns = (places[..., 1, None, None] + here[1]) % frame[1]
    where = np.arange(N)[:, None, None, None], np.arange(T)[:, None, None], rows, columns
    frames[where] = np.maximum(frames[where], pictures[:, None])
