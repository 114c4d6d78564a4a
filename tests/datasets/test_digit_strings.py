from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from seqnets.datasets import DigitStrings, Pictures, Sequences
from seqnets.datasets.baselines.transcripts import nearest_pictures
from seqnets.datasets.published.digits import pool_digits, read_digits
from seqnets.errors import ConfigError
from seqnets.typing import IGNORE

pytest.importorskip("sklearn", reason="needs the extra `digits`")

SMALL = {"train_size": 60, "test_size": 20, "batch_size": 8}


class Written:
    """Draws the numbers that a test has written down."""

    def __init__(self, *draws):
        self.draws = iter(draws)

    def integers(self, *ends, size):
        return np.broadcast_to(next(self.draws), size)


def strings_of(part):
    return part.x.split(part.lengths.tolist())


def test_batches_hold_columns_of_pixels_and_the_digits_in_their_order():
    data = DigitStrings(4, shortest=2, height=10, **SMALL)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    counts = (batch.y != IGNORE).sum(1)

    assert batch.x.shape == (8, int(batch.lengths.max()), 10)
    assert batch.x.dtype == torch.float32
    assert 0 <= batch.x.min() < batch.x.max() <= 1
    assert batch.y.shape == (8, int(counts.max()))
    assert 2 <= counts.min() <= counts.max() <= 4
    assert data.counts() == {"train": 60, "val": 20, "test": 20}
    assert data.unit == "strings"


def test_the_description_names_the_blank_the_digits_and_what_joins_them():
    known = DigitStrings(**SMALL).describe()

    assert known["sizes"] == {"input_size": 12, "num_classes": 11}
    assert known["labels"] == ["", *"0123456789"]
    assert known["joiner"] == ""
    assert json.loads(json.dumps(known)) == known


def test_all_lengths_between_the_shortest_and_the_longest_occur():
    data = DigitStrings(5, shortest=3, **{**SMALL, "train_size": 200})

    assert np.unique(data.target_lengths("train")).tolist() == [3, 4, 5]


def test_a_string_checked_by_hand():
    data = DigitStrings(2, height=9, overlap=2, gap=3)
    pixels = np.stack([np.full((8, 8), 0.5), np.full((8, 8), 0.25)]).astype(np.float32)
    draws = ([2], [0, 1], [0, 1], [1, 2], [-2])  # digits, images, tops, margins, overlap
    strings = data.write(Written(*draws), 1, Pictures(pixels, np.array([7, 0])))

    assert strings.y.tolist() == [[8, 1]]
    assert strings.lengths.tolist() == [1 + 8 + 6 + 2]
    top, bottom, middle = strings.x[:, 0], strings.x[:, 8], strings.x[:, 1:8]
    assert top.tolist() == [0] + [0.5] * 8 + [0] * 8
    assert bottom.tolist() == [0] * 7 + [0.25] * 8 + [0] * 2
    assert middle.tolist() == [[v] * 7 for v in [0] + [0.5] * 8 + [0.25] * 6 + [0] * 2]


def test_every_digit_is_where_its_image_is_whole():
    data = DigitStrings(1, height=8, gap=0, **SMALL)
    pool = pool_digits(data.seed)["val"]
    known = {picture.tobytes(): digit for picture, digit in zip(*pool, strict=True)}
    part = data.part("val")

    for string, (label,) in zip(strings_of(part), part.y.tolist(), strict=True):
        assert known[string.T.contiguous().numpy().tobytes()] == label - 1


def test_no_part_has_an_image_of_another_and_none_is_lost():
    pools = [{picture.tobytes() for picture in pool.pixels} for pool in pool_digits(3).values()]

    assert [len(pool) for pool in pools] == [1437, 180, 180]
    assert set.union(*pools) == {
        picture.tobytes() for picture in (read_digits().pixels / 16).astype(np.float32)
    }
    assert sum(map(len, pools)) == len(set.union(*pools))


def test_the_same_seed_gives_the_same_strings_and_another_one_others():
    first, again, other = (DigitStrings(seed=seed, **SMALL) for seed in (3, 3, 4))

    assert torch.equal(first.part("train").x, again.part("train").x)
    assert torch.equal(first.part("train").y, again.part("train").y)
    counts = [data.target_lengths("train").tolist() for data in (first, again, other)]
    assert counts[0] == counts[1] != counts[2]
    assert first.target_lengths("val").tolist() != first.target_lengths("test").tolist()


def test_examples_show_the_digits_and_draw_how_the_string_begins():
    data = DigitStrings(9, shortest=9, height=8, overlap=0, gap=0, **SMALL)
    pixels = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (1, 8, 1))
    data.splits.parts["val"] = data.write(
        np.random.default_rng(0), 2, Pictures(pixels, np.array([4]))
    )
    (example,) = data.examples("val", 1)

    assert example["digits"] == "444444444"
    assert example["begins"].splitlines() == [" .-=+*%@" * 7 + " .-="] * 8


def test_pieces_of_even_strings_are_read_by_their_mean_pictures():
    shapes = np.zeros((2, 8, 8), np.float32)
    shapes[0, :, ::7] = 1  # two upright lines
    shapes[1, ::7] = 1  # two level ones
    data = DigitStrings(4, overlap=0, gap=0, **SMALL)
    for part in ("train", "test"):
        random = np.random.default_rng(len(part))
        data.splits.parts[part] = data.write(random, 20, Pictures(shapes, np.array([3, 7])))

    assert data.baselines()["nearest mean picture"] == 0


def test_a_string_cut_too_often_and_one_without_ink_checked_by_hand():
    train = Sequences(torch.ones(4, 1), torch.tensor([2, 2]), torch.tensor([[3, IGNORE], [3, 3]]))
    test = Sequences(
        torch.tensor([[0.0], [1], [1], [1], [1], [0], [0]]),
        torch.tensor([6, 1]),
        torch.tensor([[3, 4], [3, IGNORE]]),
    )

    # A training piece is 4/3 columns wide, so that four columns are cut into three 3s
    assert nearest_pictures(train, test) == {"nearest mean picture": (2 + 1) / 3}


def test_baselines_of_strings_are_worse_than_no_error():
    data = DigitStrings(3, **SMALL)

    assert all(0 < error < 1.2 for error in data.baselines().values())
    assert len(data.baselines()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"longest": 0}, "longest is 0"),
        ({"shortest": 0}, "shortest is 0"),
        ({"longest": 3, "shortest": 4}, "shortest is 4, expected at most longest, which is 3"),
        ({"height": 7}, "height is 7, expected a whole number of at least 8"),
        ({"overlap": 8}, "overlap is 8, expected less than the 8 columns"),
        ({"overlap": -1}, "overlap is -1"),
        ({"gap": -1}, "gap is -1"),
        ({"train_size": 0}, "train_size is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DigitStrings(**options)
