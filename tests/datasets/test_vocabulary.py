from __future__ import annotations

from collections import Counter

import pytest
import torch

from seqnets.datasets import Vocabulary
from seqnets.datasets.text.vocabulary import split
from seqnets.errors import ConfigError, DataError


@pytest.mark.parametrize("text", ["", "ban ana\n", "naïve 𝄞 語\n\n"])
def test_decoding_characters_gives_back_the_text(text):
    vocabulary = Vocabulary(sorted(set("ban ana\nnaïve 𝄞 語")))

    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_ids_are_places_in_the_list_of_tokens():
    ids = Vocabulary(["b", "a", "é"]).encode("aéb")

    assert ids.dtype == torch.int64
    assert ids.tolist() == [1, 2, 0]


def test_characters_stand_in_the_order_of_their_code_points():
    assert Vocabulary.build(Counter("cab"), "characters").tokens == ["a", "b", "c"]


def test_words_stand_in_the_order_of_their_frequency_after_the_unknown_word():
    counts = Counter(split("b a a\n c b a\n", "words"))

    assert Vocabulary.build(counts, "words").tokens == ["<unk>", "a", "<eos>", "b", "c"]


def test_characters_have_an_unknown_token_only_where_something_is_left_out():
    counts = Counter("aab")

    assert Vocabulary.build(counts, "characters", unknown=False).tokens == ["a", "b"]
    assert Vocabulary.build(counts, "characters", unknown=True).tokens == ["<unk>", "a", "b"]
    assert Vocabulary.build(counts, "characters", max_size=2).tokens == ["a", "b"]
    assert Vocabulary.build(Counter("aabc"), "characters", max_size=2).tokens == ["<unk>", "a"]


def test_a_cap_keeps_the_most_frequent_words():
    counts = Counter(split("a a a b b c <unk>", "words"))

    assert Vocabulary.build(counts, "words", max_size=3).tokens == ["<unk>", "a", "b"]


@pytest.mark.parametrize("unknown", ["z", "~", "語", "𝄞"])
def test_unknown_characters_become_the_unknown_token(unknown):
    vocabulary = Vocabulary(["<unk>", "a", "}"])

    assert vocabulary.encode(f"a{unknown}}}").tolist() == [1, 0, 2]
    assert vocabulary.decode([1, 0]) == "a\ufffd"


@pytest.mark.parametrize("unknown", ["z", "語"])
def test_unknown_characters_are_an_error_where_there_is_no_unknown_token(unknown):
    with pytest.raises(DataError, match=rf"'{unknown}' at position 1"):
        Vocabulary(["a", "b"]).encode(f"a{unknown}b")


def test_unknown_words_become_the_unknown_token():
    vocabulary = Vocabulary(["<unk>", "to", "be"], "words")

    assert vocabulary.encode("to see or").tolist() == [1, 0, 0]
    assert vocabulary.decode([1, 0]) == "to <unk>"


def test_line_ends_are_words_and_become_line_ends_again():
    vocabulary = Vocabulary(["<unk>", "<eos>", "to", "be"], "words")
    ids = vocabulary.encode("to  be\nbe\t\n\nto")

    assert ids.tolist() == [2, 3, 1, 3, 1, 1, 2]
    assert vocabulary.decode(ids) == "to be\nbe\n\nto"


@pytest.mark.parametrize("tokens", [[], ["a", "a"], ["a", "bc"]])
def test_an_invalid_list_of_characters_is_refused(tokens):
    with pytest.raises(DataError):
        Vocabulary(tokens)


def test_an_unknown_unit_is_refused():
    with pytest.raises(ConfigError, match="characters, words"):
        Vocabulary(["a"], "letters")  # type: ignore[arg-type]
