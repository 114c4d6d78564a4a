"""Byte pair encoding can encode any text, without loss."""

import pytest

from seqnets.datasets.text.bpe import BytePairEncoding
from seqnets.errors import ConfigError, DataError

TEXTS = ["low low low lower lowest", "new newer newest", "wide wider widest"] * 5
ODD = ["", " two  spaces ", "größe — 漢字 🙂", "line\nend\ttab", "</s> is text"]


@pytest.fixture(scope="module")
def pieces():
    return BytePairEncoding.train(TEXTS, 280, specials=["<pad>", "</s>"])


@pytest.mark.parametrize("text", [*TEXTS[:3], *ODD])
def test_decoding_restores_the_text_exactly(pieces, text):
    assert pieces.decode(pieces.encode(text)) == text


def test_a_frequent_word_is_fewer_tokens_than_its_bytes(pieces):
    assert len(pieces.encode("lowest")) < len(b"lowest")


def test_special_tokens_have_the_first_ids_and_no_text_contains_them(pieces):
    assert (pieces.specials, pieces.tokens[:2]) == (["<pad>", "</s>"], ["<pad>", "</s>"])
    assert min(pieces.encode("</s><pad>")) >= 2


def test_decoding_skips_special_tokens(pieces):
    assert pieces.decode([0, *pieces.encode("newer"), 1]) == "newer"


def test_many_texts_are_encoded_as_each_alone(pieces):
    assert pieces.encode_all(ODD) == [pieces.encode(text) for text in ODD]


def test_an_encoding_is_restored_from_json(pieces):
    again = BytePairEncoding.from_json(pieces.to_json())

    assert again.tokens == pieces.tokens
    assert [again.encode(text) for text in ODD] == [pieces.encode(text) for text in ODD]


def test_the_same_texts_give_the_same_encoding(pieces):
    assert BytePairEncoding.train(TEXTS, 280, specials=["<pad>", "</s>"]).tokens == pieces.tokens


def test_it_has_no_more_tokens_than_asked_for(pieces):
    assert len(pieces) <= 280


def test_a_size_without_room_for_bytes_is_refused():
    with pytest.raises(ConfigError, match=r"is 257, expected at least 258.*\n.*max_vocabulary"):
        BytePairEncoding.train(TEXTS, 257, specials=["<pad>", "</s>"])


def test_json_of_something_else_is_refused():
    with pytest.raises(DataError, match="expected a tokenizer as JSON"):
        BytePairEncoding.from_json("{}")
