from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from seqnets.datasets import Adding, Copy, Dyck, Parity, Recall, SequenceData, Sequences, Splits
from seqnets.errors import ConfigError, DataError
from seqnets.typing import IGNORE

SMALL = {"train_size": 40, "test_size": 20, "batch_size": 8}
TASKS = [Adding, Copy, Dyck, Parity, Recall]


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_data_and_another_one_others(task):
    first, again, other = (task(length=10, seed=seed, **SMALL) for seed in (3, 3, 4))

    assert torch.equal(first.part("train").x, again.part("train").x)
    assert not torch.equal(first.part("train").x, other.part("train").x)


@pytest.mark.parametrize("task", TASKS)
def test_parts_differ_and_have_the_sizes_asked_for(task):
    data = task(length=10, **SMALL)
    data.setup()

    assert data.counts() == {"train": 40, "val": 20, "test": 20}
    assert not torch.equal(data.part("val").x, data.part("test").x)


@pytest.mark.parametrize("task", TASKS)
def test_epochs_hold_the_same_sequences(task):
    loader = task(length=10, **SMALL).train_dataloader()
    first, second = (
        sorted(row.flatten().tolist() for batch in loader for row in batch.x) for _ in range(2)
    )

    assert first == second


@pytest.mark.parametrize("length", [2, 3, 100])
def test_the_target_of_adding_is_the_sum_of_the_two_marked_numbers(length):
    data = Adding(length=length, train_size=500)
    values, markers = data.part("train").batch(torch.arange(500)).x.unbind(2)

    assert markers[:, : length // 2].sum(1).eq(1).all()
    assert markers[:, length // 2 :].sum(1).eq(1).all()
    assert values.min() >= 0
    assert values.max() < 1
    torch.testing.assert_close((values * markers).sum(1, keepdim=True), data.part("train").y)


def test_always_guessing_one_has_the_variance_of_a_sum_of_two_uniform_numbers():
    assert Adding(test_size=20_000).baselines()["always 1"] == pytest.approx(1 / 6, rel=0.03)


def test_copy_asks_for_the_first_symbols_in_the_last_steps_and_scores_nothing_else():
    data = Copy(length=5, symbols=4, copied=3, **SMALL)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    symbols, waiting, answer = batch.x[:, :3], batch.x[:, 3:8], batch.x[:, 8:]

    assert batch.x.shape == batch.y.shape == (8, 11)
    assert (symbols < 4).all()
    assert (waiting == torch.tensor([4, 4, 4, 4, 5])).all()
    assert (answer == 4).all()
    assert (batch.y[:, :8] == IGNORE).all()
    assert torch.equal(batch.y[:, 8:], symbols)
    assert data.sizes == {"vocab_size": 6, "num_classes": 4}
    assert data.baselines() == {"without memory": 0.25}


def test_parity_is_whether_the_number_of_ones_is_odd():
    (batch,) = Parity(length=9, shortest_length=2, test_size=200, batch_size=200).val_dataloader()

    assert torch.equal(batch.x.sum(1) % 2, batch.y)
    assert set(batch.lengths.tolist()) == set(range(2, 10))


def test_guessing_parity_is_about_as_good_as_a_coin():
    assert Parity().baselines()["majority class"] == pytest.approx(0.5, abs=0.05)


def test_parity_has_one_length_unless_told_otherwise():
    batch = next(iter(Parity(length=9, **SMALL).train_dataloader()))

    assert batch.x.shape == (8, 9)
    assert batch.lengths is None


@pytest.mark.parametrize(
    ("task", "options"),
    [
        (Adding, {"length": 1}),
        (Copy, {"length": 0}),
        (Copy, {"symbols": 0}),
        (Copy, {"copied": 0}),
        (Parity, {"length": 4, "shortest_length": 5}),
        (Parity, {"shortest_length": 0}),
        (Parity, {"train_size": 0}),
        (Parity, {"batch_size": 0}),
        (Parity, {"seed": -1}),
    ],
)
def test_invalid_options_are_refused(task, options):
    with pytest.raises(ConfigError, match=list(options)[-1]):
        task(**options)


class Given(SequenceData):
    """Two sequences of three tokens, given by the test."""

    def __init__(self, x=(0, 1, 1), lengths=(1, 2), y=(0, 1), **options):
        super().__init__()
        arrays = [torch.as_tensor(values) for values in (x, lengths, y)]
        self.given = Sequences(*arrays, **options)

    @property
    def sizes(self):
        return {"vocab_size": 2, "num_classes": 2}

    def read_splits(self):
        return Splits({"train": self.given, "val": self.given, "test": self.given})


def test_numbers_of_a_dataset_of_ones_own_become_float32_and_whole_ones_stay():
    doubles, tokens = Given(np.ones((3, 2)), y=np.ones(2)), Given()

    dtypes = {
        data: (data.part("val").x.dtype, data.part("val").y.dtype) for data in (doubles, tokens)
    }
    assert dtypes == {doubles: (torch.float32,) * 2, tokens: (torch.int64,) * 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": (0, 1, 2)}, "value of x in sequence 1 is 2, expected 0 to 1"),
        ({"x": (0, 2, 1)}, "value of x in sequence 1 is 2, expected 0 to 1"),
        ({"x": (-1, 1, 1)}, "value of x in sequence 0 is -1, expected 0 to 1"),
        ({"x": (0.0, 1.0, math.nan)}, "value of x in sequence 1 is nan, expected finite"),
        ({"y": (0, 2)}, "target in sequence 1 is 2, expected 0 to 1"),
        ({"y": (IGNORE, 1)}, "target in sequence 0 is -100, expected 0 to 1"),
        ({"y": (0, 1, 2), "stepwise": True}, "target in sequence 1 is 2"),
        ({"y": (0, 1), "stepwise": True}, "got 2 targets, expected one per step: 3"),
        ({"y": (0,)}, "got 1 target, expected one per sequence: 2"),
        ({"lengths": (0, 3)}, "expected lengths of at least 1"),
        ({"lengths": (1, 1)}, "expected lengths of at least 1 with that sum"),
    ],
)
def test_data_out_of_range_are_refused_in_setup(options, message):
    with pytest.raises(DataError, match=message):
        Given(**options).setup()


def test_steps_without_a_label_are_allowed_where_each_step_has_one():
    Given(y=(0, IGNORE, 1), stepwise=True).setup()


def test_a_dataset_is_printed_by_the_sizes_of_its_parts():
    data = Parity(train_size=1024, test_size=64)

    assert str(data) == "Parity: train 1,024, val 64, test 64 sequences"
