"""Sequences whose targets are transcripts: labels in order, without their places."""

from __future__ import annotations

import pytest
import torch

from seqnets.datasets import SequenceData, Sequences, Splits
from seqnets.errors import DataError
from seqnets.typing import IGNORE

I = IGNORE


class Given(SequenceData):
    """Three sequences of one to three steps, with transcripts that the test gives."""

    def __init__(self, y):
        super().__init__(batch_size=3)
        x, lengths = torch.arange(6.0)[:, None], torch.tensor([1, 3, 2])
        self.given = Sequences(x, lengths, torch.tensor(y))

    @property
    def sizes(self):
        return {"input_size": 1, "num_classes": 3}

    @property
    def labels(self):
        return ["", "a", "b"]

    def read_splits(self):
        return Splits({"train": self.given, "val": self.given, "test": self.given})


ROWS = [[I, I, I, I], [2, 1, 2, I], [1, I, I, I]]


def test_a_batch_is_padded_to_its_longest_transcript():
    data = Given(ROWS)
    data.setup()

    def labels(*rows):
        return data.given.batch(torch.tensor(rows)).y.tolist()

    assert labels(0, 1, 2) == [[I, I, I], [2, 1, 2], [1, I, I]]
    assert labels(2) == [[1]]
    assert labels(0) == [[I]]  # a target without labels, not an unknown one
    assert Given([[], [], []]).given.batch(torch.tensor([0, 1])).y.shape == (2, 0)


def test_labels_are_counted_without_the_padding():
    data = Given(ROWS)

    assert data.class_counts("train").tolist() == [0, 2, 2]
    assert data.target_lengths("train").tolist() == [0, 3, 1]
    assert data.describe()["class_counts"] == [0, 2, 2]


def test_only_transcripts_have_lengths_of_targets():
    assert Given([1, 2, 0]).target_lengths("train") is None
    assert Given([[0.5, 1], [2, 3], [4, 5]]).target_lengths("train") is None


def test_examples_show_the_labels_of_a_transcript():
    targets = [example["target"] for example in Given(ROWS).examples("train", 3)]

    assert targets == ["", "b a b", "a"]


def test_selected_sequences_keep_their_transcripts():
    chosen = Given(ROWS).given.select(torch.tensor([2, 1]))

    assert chosen.y.tolist() == [ROWS[2], ROWS[1]]
    assert chosen.target_lengths.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1, 3, I, I], "a target in sequence 1 is 3, expected 1 to 2"),
        ([1, 0, I, I], "a target in sequence 1 is 0, expected 1 to 2"),
        ([1, -1, I, I], "a target in sequence 1 is -1, expected 1 to 2"),
        ([I, 1, I, I], "a target in sequence 1 is -100, expected 1 to 2"),
    ],
)
def test_labels_out_of_range_or_after_a_gap_are_refused(row, message):
    with pytest.raises(DataError, match=message):
        Given([ROWS[0], row, ROWS[2]]).setup()
