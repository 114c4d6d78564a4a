"""Videos of handwritten digits that move."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqnets.checks import check_count
from seqnets.datasets.base import PARTS, Part
from seqnets.datasets.digits import read_digits
from seqnets.datasets.examples import show_picture
from seqnets.datasets.rivals.counting import majority_baseline
from seqnets.datasets.sequences import NextSteps, SequenceData, Sequences, Splits
from seqnets.typing import Sizes

SIDE = 8
"""Height and width of a digit's picture."""

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
"""Rows, which count downwards, and columns of a step, by direction."""


class DigitVideos(SequenceData):
    """Videos made of scikit-learn's handwritten digits (``pip install 'seqnets[digits]'``).

    Each frame is (1, side, side) float32 in 0..1. A digit's picture is 8 by 8; where two overlap,
    the brighter pixel is seen. Of ten pictures eight are for training, one is for validation and
    one for the test: no part has a picture of another's.

    Args:
        length: Frames of a video.
        side: Height and width of the frames, at least 8.
        speed: The most pixels that a digit moves in a step, along each side.
        train_size: Training videos; each epoch sees the same ones in another order.
        test_size: Validation videos, and as many test videos.
        batch_size: Videos of a batch for each process.
        seed: Decides the videos and their order.

    Raises:
        ConfigError: An option is out of range.

    References:
        Alpaydin and Kaynak, 1998, "Optical Recognition of Handwritten Digits", UCI Machine
        Learning Repository, doi:10.24432/C50P49.
    """

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
        """Return ``count`` random videos of some of these pictures, (N, 8, 8)."""

    @property
    def sizes(self) -> Sizes:
        """One channel, and the frame."""
        return {"channels": 1, "height": self.side, "width": self.side}

    @property
    def unit(self) -> str:
        """What the parts are counted in."""
        return "videos"

    def read_splits(self) -> Splits:
        """Film the videos of all parts.

        Raises:
            ConfigError: scikit-learn is not installed.
        """
        shades = (read_digits().pixels / 16).astype(np.float32)
        pictures = np.random.default_rng((self.seed, 0, 3)).permutation(shades)
        pools = np.split(pictures, [share * len(pictures) // 10 for share in (8, 9)])
        parts: dict[Part, Sequences] = {}
        for number, (part, pool) in enumerate(zip(PARTS, pools, strict=True)):
            count = self.train_size if part == "train" else self.test_size
            # The last number keeps these apart from the shuffling, which draws from (seed, epoch).
            parts[part] = self.film(np.random.default_rng((self.seed, number, 1)), count, pool)
        return Splits(parts)

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """Return the first and the last frame of the first few videos, in letters for shades."""
        videos = self.part(part)
        x = videos.batch(torch.arange(min(count, len(videos)))).x.numpy()
        frames = {"first frame": 0, "last frame": -1}
        # Every other row, for letters are twice as high as wide.
        return [
            {name: show_picture(video[frame, 0, ::2]) for name, frame in frames.items()}
            for video in x
        ]


class MovingDigits(DigitVideos):
    """In which of eight directions a digit moves; classification.

    What leaves the frame on one side comes in on the other. In any one frame every place is equally
    likely, whatever the direction: a model that does not compare frames guesses.

    Args:
        length: Frames of a video.
        **data: The other arguments of :class:`DigitVideos`.
    """

    @property
    def sizes(self) -> Sizes:
        """One channel, the frame, and eight classes."""
        return {**super().sizes, "num_classes": len(DIRECTIONS)}

    @property
    def labels(self) -> list[str]:
        """The directions, clockwise from north."""
        return list(DIRECTIONS)

    def film(self, random: np.random.Generator, count: int, pictures: np.ndarray) -> Sequences:
        """Return ``count`` videos of one digit each, with their directions."""
        labels = random.integers(len(DIRECTIONS), size=count)
        speeds = random.integers(1, self.speed + 1, size=(count, 1))
        velocities = speeds * np.array(list(DIRECTIONS.values()))[labels]
        starts = random.integers(self.side, size=(count, 2))
        places = starts[:, None] + np.arange(self.length)[:, None] * velocities[:, None]
        frames = np.zeros((count, self.length, self.side, self.side), np.float32)
        draw(frames, pictures[random.integers(len(pictures), size=count)], places)
        return Sequences(*_videos(frames), torch.from_numpy(labels))

    def examples(self, part: Part, count: int) -> list[dict[str, str]]:
        """Return two frames of the first few videos, and their directions."""
        shown = super().examples(part, count)
        return [
            {**example, "direction": self.labels[label]}
            for example, label in zip(shown, self.part(part).y.tolist(), strict=False)
        ]

    def baselines(self) -> dict[str, float]:
        """Return the test accuracy of the commonest direction."""
        return majority_baseline(self.part("train").y, self.part("test").y)


class MovingDigitsNext(DigitVideos):
    """What the next frame of a video will be, where digits bounce off the sides.

    The model sees all frames but the last, and is to predict all but the first.

    Args:
        length: Frames of a video.
        digits: How many digits a video has.
        **data: The other arguments of :class:`DigitVideos`.

    References:
        Srivastava, Mansimov and Salakhutdinov, 2015, "Unsupervised Learning of Video
        Representations using LSTMs", arXiv:1502.04681: the same of larger digits.
    """

    def __init__(self, length: int = 10, *, digits: int = 2, **data: Any) -> None:
        super().__init__(length, **data)
        check_count("MovingDigitsNext", digits=digits)
        self.digits = digits

    def film(self, random: np.random.Generator, count: int, pictures: np.ndarray) -> Sequences:
        """Return ``count`` videos, each its own target."""
        frames = np.zeros((count, self.length, self.side, self.side), np.float32)
        room = self.side - SIDE
        for _ in range(self.digits):
            speeds = random.integers(1, self.speed + 1, size=(count, 1, 2))
            starts = random.integers(max(1, 2 * room), size=(count, 1, 2))
            gone = starts + np.arange(self.length)[:, None] * speeds
            # There and back again: a place in a circle of twice the room, folded.
            places = room - abs(room - gone % max(1, 2 * room))
            draw(frames, pictures[random.integers(len(pictures), size=count)], places)
        x, lengths = _videos(frames)
        return NextSteps(x, lengths, x, stepwise=True)

    def baselines(self) -> dict[str, float]:
        """Return the squared error, on the test part, of three that do not look ahead.

        - ``black``: nothing is ever seen.
        - ``mean frame``: that of the training part.
        - ``last frame``: nothing moves.
        """
        train, test = self.part("train").x, self.part("test").x
        videos = test.unflatten(0, (-1, self.length))
        seen, to_come = videos[:, :-1], videos[:, 1:]
        rivals = {"black": 0 * to_come, "mean frame": train.mean(0), "last frame": seen}
        return {name: float((to_come - said).square().mean()) for name, said in rivals.items()}


def draw(frames: np.ndarray, pictures: np.ndarray, places: np.ndarray) -> None:
    """Put a picture into each video where it is brighter than what is there.

    Args:
        frames: (N, T, height, width), changed in place.
        pictures: One a video, (N, h, w).
        places: Row and column of a picture's upper left pixel, (N, T, 2) integers. What lies
            outside comes in on the other side.
    """
    N, T, *frame = frames.shape
    here = [np.arange(size) for size in pictures.shape[1:]]
    rows = (places[..., 0, None, None] + here[0][:, None]) % frame[0]
    columns = (places[..., 1, None, None] + here[1]) % frame[1]
    where = np.arange(N)[:, None, None, None], np.arange(T)[:, None, None], rows, columns
    frames[where] = np.maximum(frames[where], pictures[:, None])


def _videos(frames: np.ndarray) -> tuple[Tensor, Tensor]:
    """Frames (N, T, height, width), with one channel behind each other, and the lengths."""
    N, T = frames.shape[:2]
    return torch.from_numpy(frames).flatten(0, 1)[:, None], torch.full((N,), T)
