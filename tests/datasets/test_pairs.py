from dataclasses import replace

import numpy as np
import pytest
import torch

from seqnets.datasets import PairLoader, Pairs, Repeat, Sort, Splits
from seqnets.errors import ConfigError, DataError
from seqnets.typing import END, IGNORE

SOURCES = [[5, 6], [7], [8, 9, 4, 3]]
TARGETS = [[2, 3, 4], [5], [6, 7]]


def some():
    return Pairs.of_ids([np.array(s) for s in SOURCES], [np.array(t) for t in TARGETS])


def test_a_batch_has_sources_padded_and_targets_that_end():
    x, y, lengths, carry, *_ = some().batch(torch.tensor([0, 1, 2]))

    assert x.tolist() == [[5, 6, 0, 0], [7, 0, 0, 0], [8, 9, 4, 3]]
    assert y.tolist() == [
        [2, 3, 4, END],
        [5, END, IGNORE, IGNORE],
        [6, 7, END, IGNORE],
    ]
    assert (lengths.tolist(), carry) == ([2, 1, 4], False)


def test_a_batch_is_as_long_as_its_own_longest_sides():
    x, y, lengths, *_ = some().batch(torch.tensor([1]))

    assert (x.tolist(), y.tolist(), lengths.tolist()) == ([[7]], [[5, END]], [1])


def test_pairs_can_be_selected():
    chosen = replace(some(), ids=["a", "b", "c"], texts={"source": ["A", "B", "C"]}).select(
        torch.tensor([2, 0])
    )

    assert (chosen.ids, chosen.texts) == (["c", "a"], {"source": ["C", "A"]})
    assert chosen.batch(torch.tensor([0])).x.tolist() == [[8, 9, 4, 3]]
    assert chosen.batch(torch.tensor([1])).y.tolist() == [[2, 3, 4, END]]


def test_sources_without_targets_are_not_scored():
    pairs = Pairs.unanswered([np.array(s) for s in SOURCES])

    assert pairs.batch(torch.arange(3)).y.tolist() == [[IGNORE]] * 3


def test_pairs_of_similar_lengths_come_together_and_all_of_them():
    data = Sort(30, train_size=600, test_size=10, batch_size=20)
    sorted_loader = data.loader("train")
    loose = PairLoader(data.pairs("train"), 20, shuffle=True)

    seen = torch.cat([batch.lengths for batch in sorted_loader])

    assert seen.sort().values.tolist() == data.pairs("train").lengths.sort().values.tolist()
    assert sorted_loader.padding < 0.3 * loose.padding


def test_the_share_of_padding_is_that_of_the_batches():
    data = Repeat(9, train_size=50, test_size=10, batch_size=8, times=3)
    loader = data.loader("train")
    expected = loader.padding
    filled = whole = 0
    for x, y, lengths, *_ in loader:
        filled += int(lengths.sum()) + int((y != IGNORE).sum())
        whole += x.numel() + y.numel()

    assert expected == pytest.approx(1 - filled / whole)


def test_a_loader_resumes_its_position():
    data = Sort(6, train_size=40, test_size=10, batch_size=8)
    loader = data.loader("train")
    batches = iter(loader)
    for _ in range(2):
        next(batches)
    again = data.loader("train")
    again.load_state_dict(loader.state_dict())

    for ours, theirs in zip(batches, again, strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.y, theirs.y)


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (Sort(7, train_size=40, test_size=10), sorted),
        (Repeat(7, times=3, train_size=40, test_size=10), lambda symbols: symbols * 3),
    ],
    ids=["sort", "repeat"],
)
def test_targets_follow_from_their_sources(data, rule):
    data.setup()
    rows = data.examples("train", 40)

    for row in rows:
        symbols = [int(symbol) for symbol in row["source"].split()]
        assert [int(symbol) for symbol in row["target"].split()] == rule(symbols)
    assert {len(row["source"].split()) for row in rows} == set(range(1, 8))
    assert data.counts() == {"train": 40, "val": 10, "test": 10}
    assert data.unit == "pairs"


def test_baselines_are_counted_on_the_test_part():
    data = Sort(3, symbols=2, train_size=4, test_size=400)
    rows = data.examples("test", 400)

    found = data.baselines()

    copied = np.mean([row["source"] == row["target"] for row in rows])
    guessed = np.mean([0.5 ** len(row["source"].split()) for row in rows])
    assert found["copying the source"] == pytest.approx(copied)
    assert found["guessing, told how many"] == pytest.approx(guessed)


def test_the_chance_of_guessing_a_long_sequence_is_next_to_nothing():
    for data in (Sort(100, train_size=1, test_size=99), Repeat(40, symbols=2, test_size=99)):
        shortest = int(data.pairs("test").target_lengths.min()) - 1

        assert 0 < data.baselines()["guessing, told how many"] <= data.symbols**-shortest


def test_the_same_seed_draws_the_same():
    one, other, third = (Sort(5, train_size=9, test_size=9, seed=seed) for seed in (0, 0, 1))

    assert torch.equal(one.pairs("train").x, other.pairs("train").x)
    assert not torch.equal(one.pairs("train").x, third.pairs("train").x)
    assert one.examples("val", 9) != one.examples("test", 9)


class Broken(Sort):
    """Pairs that break a rule in one place."""

    def __init__(self, side, value):
        super().__init__(4, train_size=5, test_size=5)
        self.broken = side, value

    def read_splits(self):
        splits = super().read_splits()
        side, value = self.broken
        tokens = getattr(splits.parts["val"], side).clone()
        tokens[-1] = value
        pairs = replace(splits.parts["val"], **{side: tokens})
        return Splits({**splits.parts, "val": pairs})


@pytest.mark.parametrize(
    ("side", "value", "message"),
    [
        ("x", 12, "Broken, val part, source: a value of x in sequence 4 is 12, expected 0 to 11"),
        ("y", 12, "Broken, val part, target: a value of x in sequence 4 is 12, expected 0 to 11"),
        ("y", 3, "Broken, val part: a target does not end with its only token 0"),
    ],
)
def test_invalid_tokens_are_found_before_training(side, value, message):
    with pytest.raises(DataError, match=message):
        Broken(side, value).setup()


@pytest.mark.parametrize("options", [{"symbols": 1}, {"length": 0}])
def test_invalid_options_are_refused(options):
    with pytest.raises(ConfigError, match="Sort"):
        Sort(**options)
