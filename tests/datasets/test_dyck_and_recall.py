"""Brackets and recall, with labels checked by independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqnets.datasets import Dyck, Recall, Sequences
from seqnets.errors import ConfigError
from seqnets.typing import IGNORE

SMALL = {"train_size": 40, "test_size": 20, "batch_size": 8}


def innermost(word, kinds):
    """The kind that is open innermost after each bracket, None where none is, by rewriting.

    Neighbours that close each other are taken out until there are none: no stack.
    """
    found = []
    for end in range(1, len(word) + 1):
        rest = list(word[:end])
        place = 0
        while place < len(rest) - 1:
            if rest[place] < kinds and rest[place + 1] == rest[place] + kinds:
                del rest[place : place + 2]
                place = 0
            else:
                place += 1
        assert all(token < kinds for token in rest), "a bracket closes another one"
        found.append((rest[-1] if rest else None, len(rest)))
    return found


@pytest.mark.parametrize(("kinds", "depth", "length"), [(2, 2, 12), (4, 3, 20), (3, 9, 8)])
def test_words_are_balanced_and_labels_are_the_innermost_open_bracket(kinds, depth, length):
    data = Dyck(length, kinds=kinds, depth=depth, **SMALL)
    data.setup()
    batch = data.part("train").batch(torch.arange(40))
    depths = set()

    for word, labels in zip(batch.x.tolist(), batch.y.tolist(), strict=True):
        found = innermost(word, kinds)
        depths |= {open_ for _, open_ in found}
        assert found[-1] == (None, 0)
        for token, label, (kind, _) in zip(word, labels, found, strict=True):
            asked = token >= kinds and kind is not None
            assert label == (kind if asked else IGNORE)

    assert depths == set(range(min(depth, length // 2) + 1))


class Written:
    """Draws what a test has written down, the same for every row."""

    def __init__(self, *draws):
        self.draws = iter(draws)

    def random(self, size):
        return np.full(size, next(self.draws))

    def integers(self, end, size):
        return np.full(size, next(self.draws))


def test_a_word_of_brackets_checked_by_hand():
    data = Dyck(8, kinds=2, depth=3, **SMALL)
    # chance to open and kind, step by step: open (, open [, close, open (, and all the rest closes
    written = Written(0.1, 0, 0.1, 1, 0.9, 0, 0.1, 1, 0.1, 0, *[0.9, 0] * 3)
    data.splits.parts["train"] = data.draw(written, 1)

    assert data.examples("train", 1) == [{"word": "([][()])", "open": "..(..[(."}]


def test_kinds_of_brackets_beyond_the_usual_four_have_numbers():
    data = Dyck(4, kinds=5, depth=2, **SMALL)
    data.splits.parts["train"] = data.draw(Written(0.1, 4, 0.1, 0, 0.9, 0, 0.9, 0), 1)

    assert data.examples("train", 1) == [{"word": "(4()4)", "open": "..(4."}]


def test_the_last_bracket_says_nothing_about_the_one_that_is_open():
    data = Dyck(32, kinds=3, depth=4, train_size=5_000)
    batch = data.part("train").batch(torch.arange(5_000))
    scored = batch.y != IGNORE
    last, asked = batch.x[scored] - 3, batch.y[scored]
    table = torch.stack([asked[last == kind].bincount(minlength=3) for kind in range(3)])

    torch.testing.assert_close(
        table / table.sum(1, keepdim=True), torch.full((3, 3), 1 / 3), atol=0.02, rtol=0
    )
    assert data.baselines() == {"without memory": pytest.approx(1 / 3)}
    assert data.sizes == {"vocab_size": 6, "num_classes": 3}


def test_recall_asks_for_a_key_that_came_and_its_value_is_the_label():
    data = Recall(5, keys=7, values=3, train_size=300, test_size=50)
    data.setup()
    batch = data.part("train").batch(torch.arange(300))

    for tokens, label in zip(batch.x.tolist(), batch.y.tolist(), strict=True):
        *pairs, mark, asked = tokens
        book = dict(zip(pairs[::2], pairs[1::2], strict=True))
        assert len(book) == 5
        assert all(0 <= key < 7 for key in book)
        assert all(7 <= value < 10 for value in book.values())
        assert mark == 10
        assert label == book[asked] - 7
    assert batch.lengths is None
    assert data.sizes == {"vocab_size": 11, "num_classes": 3}


def test_recall_asks_for_every_pair_alike():
    data = Recall(4, train_size=4_000)
    x = data.part("train").batch(torch.arange(4_000)).x
    place = (x[:, :-2:2] == x[:, -1:]).int().argmax(1)

    torch.testing.assert_close(place.bincount() / 4_000, torch.full((4,), 0.25), atol=0.03, rtol=0)


def test_a_sequence_of_recall_is_shown_to_be_read():
    data = Recall(2, keys=3, values=10, **SMALL)
    data.splits.parts["test"] = Sequences(
        torch.tensor([2, 3 + 7, 0, 3 + 4, 13, 2]), torch.tensor([6]), torch.tensor([7])
    )

    assert data.examples("test", 5) == [{"sequence": "k2 7 k0 4 ? k2", "value": "7"}]
    assert data.baselines() == {"without memory": 0.1, "the last value": 0.0}


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (Dyck, {"length": 2}, "length is 2"),
        (Dyck, {"length": 7}, "length is 7, expected an even number"),
        (Dyck, {"kinds": 1}, "kinds is 1"),
        (Dyck, {"depth": 1}, "depth is 1"),
        (Recall, {"length": 5, "keys": 4}, "keys is 4, expected at least length, which is 5"),
        (Recall, {"values": 1}, "values is 1"),
        (Recall, {"length": 0}, "length is 0"),
    ],
)
def test_invalid_options_are_refused(task, options, message):
    with pytest.raises(ConfigError, match=message):
        task(**options)
