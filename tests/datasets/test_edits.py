"""Edit distance, against the definition and torchmetrics'."""

import math
from functools import cache

import numpy as np
import pytest
from torchmetrics.functional.text import edit_distance, word_error_rate

from seqnets.datasets.scores.edits import edit_distances, edit_rate


def by_definition(a, b):
    @cache
    def distance(n, m):
        if not n or not m:
            return n + m
        return min(
            distance(n - 1, m) + 1,
            distance(n, m - 1) + 1,
            distance(n - 1, m - 1) + (a[n - 1] != b[m - 1]),
        )

    return distance(len(a), len(b))


def drawn(count, longest=9, seed=0):
    random = np.random.default_rng(seed)
    return ["".join(random.choice(list("abc"), random.integers(longest))) for _ in range(count)]


def test_a_distance_is_the_fewest_edits_by_definition():
    a, b = drawn(80), drawn(80, seed=1)

    assert edit_distances(a, b).tolist() == list(map(by_definition, a, b))


def test_distances_of_many_pairs_are_those_of_torchmetrics():
    a, b = drawn(600, seed=2), drawn(600, seed=3)

    assert edit_distances(a, b).tolist() == edit_distance(a, b, reduction="none").tolist()


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("abc", "abc", 0)],
)
def test_edits_are_insertions_deletions_and_substitutions(a, b, edits):
    assert edit_distances([a], [b]).tolist() == edit_distances([b], [a]).tolist() == [edits]


def test_the_rate_of_words_is_that_of_torchmetrics():
    a, b = (["a b b", "", "c"], ["a c b b", "a", "c d"])

    found = edit_rate([text.split() for text in a], [text.split() for text in b])

    assert found == pytest.approx(word_error_rate(a, b).item())


def test_the_rate_is_one_of_all_items_however_long_each_sequence():
    assert edit_rate([[1], [1, 2, 3, 4]], [[2], [1, 2, 3, 5, 6]]) == pytest.approx(3 / 6)


def test_without_items_there_is_no_rate():
    assert math.isnan(edit_rate([], []))
    assert math.isnan(edit_rate(["a"], [""]))
