from __future__ import annotations

import numpy as np
import pytest

from seqnets.datasets import PennTreebank
from seqnets.errors import DataError

TEXTS = {
    "ptb.train.txt": " the cat saw <unk> \n the dog ran \n" * 20,
    "ptb.valid.txt": " the bird ran \n" * 6,
    "ptb.test.txt": " the cat ran \n" * 7,
}


@pytest.fixture
def ptb(tmp_path):
    """A folder with files as those of the treebank, and small."""
    folder = tmp_path / "ptb"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / name).write_text(text, "utf-8")
    return folder


def small(folder, **options):
    return PennTreebank(str(folder), **{"batch_size": 2, "chunk_length": 4, **options})


def test_each_file_is_a_part_with_its_line_ends_as_words(ptb):
    data = small(ptb)
    data.setup()

    assert data.counts() == {"train": 180, "val": 24, "test": 28}
    assert set(data.vocabulary.tokens) == {"<unk>", "<eos>", "the", "cat", "saw", "dog", "ran"}
    assert data.vocabulary.decode(data.tokens.part("test")[:8]) == "the cat ran\nthe cat ran\n"


def test_a_word_that_training_lacks_is_the_files_own_unknown_word(ptb):
    data = small(ptb)
    unknown = data.vocabulary.unknown

    assert (data.tokens.part("train") == unknown).sum() == 20
    assert (data.tokens.part("val") == unknown).sum() == 6


def test_the_folder_above_is_found_too(ptb):
    assert small(ptb.parent).counts() == small(ptb).counts()


def test_the_blank_at_the_start_of_each_line_is_dropped(ptb):
    data = small(ptb, unit="characters")
    data.setup()

    text = data.vocabulary.decode(data.tokens.part("train"))
    assert text == "the cat saw <unk> \nthe dog ran \n" * 20


def test_a_folder_without_the_files_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"/ptb lacks ptb\.train\.txt, .*; .* lacks ptb"):
        small(tmp_path).setup()


@pytest.mark.parametrize("name", ["ptb.valid.txt", "ptb.test.txt"])
def test_a_file_that_is_missing_or_empty_is_named(ptb, name):
    (ptb / name).write_text("\n \n")
    with pytest.raises(DataError, match=f"{name}: the file is empty"):
        small(ptb).setup()

    (ptb / name).unlink()
    with pytest.raises(DataError, match=rf"; {ptb} lacks {name}\."):
        small(ptb).setup()


def test_bytes_that_are_not_utf8_are_named_with_their_line(ptb):
    (ptb / "ptb.valid.txt").write_bytes(b"one\ntwo\nthr\xe9e\n")

    with pytest.raises(DataError, match=r"ptb.valid.txt: byte 11 \(line 3\) is 0xe9"):
        small(ptb).setup()


def test_the_treebank_itself_has_the_counts_that_were_published(shared_data):
    data = PennTreebank(str(shared_data))
    data.setup()

    assert data.counts() == {"train": 929_589, "val": 73_760, "test": 82_430}
    assert data.sizes == {"vocab_size": 10_000}
    assert data.tokens.ids.dtype == np.uint16
    assert len(data.train_dataloader()) == 1_327


def test_its_characters_are_as_many_as_were_published(shared_data):
    data = PennTreebank(str(shared_data), unit="characters")
    data.setup()

    assert data.counts() == {"train": 5_059_550, "val": 396_412, "test": 446_184}
    assert data.sizes == {"vocab_size": 50}
