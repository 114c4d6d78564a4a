"""A language model's text as byte pairs."""

import json
import math

import numpy as np
import pytest
import torch

from seqnets.datasets import PieceVocabulary, TextFiles, read_vocabulary
from seqnets.datasets.readers import files
from seqnets.datasets.text.pieces import split_between_words
from seqnets.errors import ConfigError, DataError

TEXT = "the größe of 漢字 is what it is, that is: the size\n\n    of the words 🙂.\n" * 40


@pytest.fixture
def open_text(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")

    def make(**options):
        options = {
            "batch_size": 2,
            "chunk_length": 8,
            "unit": "bpe",
            "max_vocabulary": 300,
            "validation_fraction": 0.1,
            "test_fraction": 0.1,
            "cache": str(tmp_path / "cache"),
        } | options
        return TextFiles(str(tmp_path / "a.txt"), **options)

    return make


def test_the_parts_decode_to_the_exact_text(open_text):
    data = open_text()
    data.setup()

    assert data.sizes == {"vocab_size": 300}
    assert "".join(data.vocabulary.decode(data.tokens.part(p)) for p in data.tokens.parts) == TEXT
    assert sum(data.counts().values()) < len(TEXT) / 2


@pytest.mark.parametrize("block", [4, 24, 64])
def test_the_size_of_the_blocks_makes_no_difference(open_text, monkeypatch, tmp_path, block):
    whole = open_text().tokens
    monkeypatch.setattr(files, "BLOCK", block)
    found = open_text(cache=str(tmp_path / "other")).tokens

    assert found.vocabulary.tokens == whole.vocabulary.tokens
    assert found.parts == whole.parts
    assert np.array_equal(found.ids, whole.ids)


@pytest.mark.parametrize(
    "blocks", [["ab c", "d  ", " e\n", "\nf"], ["abc"], [" a", " "], [], [" "]]
)
def test_a_text_is_cut_before_the_white_space_in_front_of_a_word(blocks):
    found = list(split_between_words(blocks))

    assert "".join(found) == "".join(blocks)
    assert all(text[0].isspace() for text in found[1:])


def test_very_long_text_without_white_space_is_cut_anywhere():
    found = list(split_between_words([" ", *["語" * 10_000] * 20]))

    assert "".join(found) == " " + "語" * 200_000
    assert 2 < len(found) < 20


def test_the_cache_is_kept_for_each_size_and_unit(open_text, tmp_path):
    for options in ({}, {"max_vocabulary": 290}, {"unit": "characters"}, {}):
        open_text(**options).read_tokens()

    assert len(list((tmp_path / "cache" / "text").iterdir())) == 3


def test_a_vocabulary_is_restored_from_a_checkpoints_metadata(open_text):
    data = open_text()
    known = json.loads(json.dumps(data.describe()))
    again = read_vocabulary(known)

    assert (known["unit"], again.unit) == ("bpe", "bpe")
    assert again.tokens == data.vocabulary.tokens
    assert torch.equal(again.encode(TEXT), data.vocabulary.encode(TEXT))
    assert again.decode(again.encode("völlig neu")) == "völlig neu"


def test_the_characters_of_its_pieces_are_those_of_a_text(open_text):
    vocabulary = open_text().vocabulary

    assert isinstance(vocabulary, PieceVocabulary)
    assert vocabulary.characters[vocabulary.encode(TEXT)].sum() == len(TEXT)


def test_a_new_text_needs_no_training_text_and_has_nothing_unknown(open_text, tmp_path):
    known = open_text().describe()
    (tmp_path / "new.txt").write_text("Ένα νέο κείμενο\n", "utf-8")

    batch = next(iter(open_text(chunk_length=99).new(tmp_path / "new.txt", known)))

    assert read_vocabulary(known).decode([*batch.x[0, :1], *batch.y[0]]) == "Ένα νέο κείμενο\n"


def test_baselines_are_in_bits_per_character(open_text):
    data = open_text()
    test = data.tokens.part("test")
    text = data.vocabulary.decode(test)

    uniform = data.baselines()["uniform"]

    assert uniform == pytest.approx(math.log2(300) * len(test) / len(text))
    characters = open_text(unit="characters", max_vocabulary=None).baselines()
    name = "xz -9 of the test text"
    assert data.baselines()[name] == pytest.approx(characters[name], rel=0.2)


def test_pieces_need_a_size(open_text):
    with pytest.raises(ConfigError, match="max_vocabulary is None"):
        open_text(max_vocabulary=None)
    with pytest.raises(ConfigError, match="at least 256"):
        open_text(max_vocabulary=200).setup()


def test_an_invalid_tokenizer_is_refused(open_text):
    with pytest.raises(DataError, match="expected a tokenizer as JSON"):
        read_vocabulary({**open_text().describe(), "tokenizer": "{}"})
