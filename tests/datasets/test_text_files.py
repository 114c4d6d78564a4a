from __future__ import annotations

import errno
import json
import os
import tracemalloc

import numpy as np
import pytest
import torch

from seqnets.datasets import TextFiles
from seqnets.datasets.files import text
from seqnets.datasets.readers import files
from seqnets.datasets.text.tokens import build_tokens
from seqnets.errors import DataError


@pytest.fixture
def open_text(tmp_path):
    """Make the dataset of a path, with a cache of the test's own."""

    def make(path, **options):
        options = {"batch_size": 2, "chunk_length": 4, "cache": str(tmp_path / "cache")} | options
        return TextFiles(str(path), **options)

    return make


def whole(data):
    return data.vocabulary.decode(data.tokens.ids)


def entries(tmp_path):
    return sorted((tmp_path / "cache" / "text").iterdir())


def test_a_file_is_read_to_memory_mapped_ids_of_the_smallest_type(tmp_path, open_text):
    (tmp_path / "a.txt").write_text("naïve text, 語\n" * 50, "utf-8")
    data = open_text(tmp_path / "a.txt")
    data.setup()

    assert isinstance(data.tokens.ids, np.memmap)
    assert data.tokens.ids.dtype == np.uint8
    assert whole(data) == "naïve text, 語\n" * 50


@pytest.mark.parametrize("block", [1, 2, 3, 5, 64])
@pytest.mark.parametrize("unit", ["characters", "words"])
def test_the_size_of_the_blocks_makes_no_difference(tmp_path, open_text, monkeypatch, block, unit):
    content = "der Fluß — 語 𝄞\nzwei\n" * 20
    (tmp_path / "a.txt").write_text("\ufeff" + content, "utf-8")
    expected = open_text(tmp_path / "a.txt", unit=unit)
    expected.setup()

    monkeypatch.setattr(files, "BLOCK", block if unit == "characters" else block + 8)
    data = open_text(tmp_path / "a.txt", unit=unit, cache=str(tmp_path / "other"))
    assert data.vocabulary.tokens == expected.vocabulary.tokens
    assert (data.tokens.ids == expected.tokens.ids).all()
    assert whole(data) == content


@pytest.mark.parametrize("block", [1, 2, 3, 1 << 20])
def test_line_ends_of_windows_are_read_as_newlines(tmp_path, open_text, monkeypatch, block):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\rthree\r\n\r\nfour\r" * 20)
    monkeypatch.setattr(files, "BLOCK", block)

    assert whole(open_text(tmp_path / "a.txt")) == "one\ntwo\rthree\n\nfour\r" * 20


def test_a_file_larger_than_the_memory_allowed_is_read_and_trains(tmp_path, open_text, monkeypatch):
    size = 4 << 20
    (tmp_path / "large.txt").write_bytes(b"all work and no play\n" * (size // 21))
    monkeypatch.setattr(files, "BLOCK", 1 << 15)
    tracemalloc.start()
    data = open_text(tmp_path / "large.txt")
    data.prepare_data()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert torch.equal(batch.x[:, 1:], batch.y[:, :-1])
    assert peak < size // 4


def test_a_folder_stands_for_the_text_files_in_it_and_below_in_order(tmp_path, open_text):
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    for name, content in {"b.txt": "B" * 40, "a.txt": "A" * 40, "sub/c.txt": "C" * 40}.items():
        (tmp_path / "folder" / name).write_text(content)
    (tmp_path / "folder" / "d.md").write_text("not this one")

    data = open_text(tmp_path / "folder")
    assert whole(data) == "\n".join(["A" * 40, "B" * 40, "C" * 40])


def test_a_pattern_stands_for_the_files_that_match(tmp_path, open_text):
    for name in ("a.md", "b.md", "c.txt"):
        (tmp_path / name).write_text(name[0] * 50 + "\n")

    assert whole(open_text(tmp_path / "*.md")) == "a" * 50 + "\n" + "b" * 50 + "\n"


def test_texts_of_their_own_replace_the_fractions(tmp_path, open_text):
    for name in ("train", "valid", "test"):
        (tmp_path / name).write_text(name[0] * 50)
    own = {"validation_path": str(tmp_path / "valid"), "test_path": str(tmp_path / "test")}

    data = open_text(tmp_path / "train", **own)
    assert data.counts() == {"train": 50, "val": 50, "test": 50}
    assert data.vocabulary.tokens == ["<unk>", "t"]

    data = open_text(tmp_path / "train", test_path=own["test_path"], validation_fraction=0.2)
    assert data.counts() == {"train": 40, "val": 10, "test": 50}

    data = open_text(tmp_path / "train", validation_path=own["validation_path"], test_fraction=0.2)
    assert data.counts() == {"train": 40, "test": 10, "val": 50}
    assert data.vocabulary.decode(data.tokens.part("val")) == "\ufffd" * 50


def test_words_of_the_penn_treebank_are_counted_as_published(shared_data, open_text):
    folder = shared_data / "ptb"
    data = open_text(
        folder / "ptb.train.txt",
        validation_path=str(folder / "ptb.valid.txt"),
        test_path=str(folder / "ptb.test.txt"),
        unit="words",
    )
    data.setup()

    assert data.counts() == {"train": 929_589, "val": 73_760, "test": 82_430}
    assert data.sizes == {"vocab_size": 10_000}
    assert data.tokens.ids.dtype == np.uint16


def test_bytes_that_are_not_utf8_are_refused_with_byte_and_line(tmp_path, open_text, monkeypatch):
    (tmp_path / "latin.txt").write_bytes(b"one\ntwo\nthr\xe9e\n")

    for block in (1, 4, 1 << 20):
        monkeypatch.setattr(files, "BLOCK", block)
        with pytest.raises(DataError, match=r"latin.txt: byte 11 \(line 3\) is 0xe9"):
            open_text(tmp_path / "latin.txt").setup()


@pytest.mark.parametrize("block", [1, 2, 5, 7, 1 << 20])
def test_a_file_that_ends_within_a_character_is_refused(tmp_path, open_text, monkeypatch, block):
    (tmp_path / "cut.txt").write_bytes("one\n語".encode()[:-1])
    monkeypatch.setattr(files, "BLOCK", block)

    with pytest.raises(DataError, match=r"byte 4 \(line 2\) is 0xe8"):
        open_text(tmp_path / "cut.txt").setup()


def test_nothing_stays_in_the_cache_of_a_text_that_was_refused(tmp_path, open_text):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")

    with pytest.raises(DataError):
        open_text(tmp_path / "latin.txt").setup()
    assert entries(tmp_path) == []


@pytest.mark.parametrize("name", ["missing.txt", "empty_folder", "*.none"])
def test_a_path_without_text_is_refused(tmp_path, open_text, name):
    (tmp_path / "empty_folder").mkdir()

    with pytest.raises(DataError, match="got no text"):
        open_text(tmp_path / name).prepare_data()


def test_an_empty_file_is_refused(tmp_path, open_text):
    (tmp_path / "empty.txt").touch()

    with pytest.raises(DataError, match=r"empty.txt is empty"):
        open_text(tmp_path / "empty.txt").prepare_data()


@pytest.mark.parametrize(
    ("unit", "content", "told"), [("characters", "a", "'a'"), ("words", "yes ", "'yes'")]
)
def test_a_text_of_one_token_is_refused(tmp_path, open_text, unit, content, told):
    (tmp_path / "a.txt").write_text(content * 200)

    with pytest.raises(DataError, match=f"is {told} again and again, 180 times"):
        open_text(tmp_path / "a.txt", unit=unit).setup()


def test_a_text_shorter_than_one_chunk_for_each_row_is_refused_with_the_numbers(
    tmp_path, open_text
):
    (tmp_path / "short.txt").write_text("x" * 60)

    with pytest.raises(DataError, match="train part: got 54 tokens, expected at least 330"):
        open_text(tmp_path / "short.txt", batch_size=32, chunk_length=10).setup()


def test_words_without_end_are_refused_before_they_fill_the_memory(
    tmp_path, open_text, monkeypatch
):
    (tmp_path / "a.txt").write_text("x" * 100)
    monkeypatch.setattr(files, "BLOCK", 16)

    with pytest.raises(DataError, match="unit=characters"):
        open_text(tmp_path / "a.txt", unit="words").setup()


def test_the_cache_is_used_until_the_files_or_the_options_change(tmp_path, open_text, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text("abc" * 100)
    open_text(file).setup()
    (first,) = entries(tmp_path)

    with monkeypatch.context() as context:
        context.setattr("seqnets.datasets.files.text.read_texts", None)  # reading again would fail
        open_text(file).setup()
    open_text(file, unit="words", batch_size=1, chunk_length=1).tokens  # noqa: B018
    assert len(entries(tmp_path)) == 2

    file.write_text("abd" * 100)
    os.utime(file, ns=(1, 1))
    assert whole(open_text(file)) == "abd" * 100
    assert len(entries(tmp_path)) == 3
    assert first.is_dir()


def test_an_entry_that_another_process_finished_meanwhile_is_used(tmp_path, open_text, monkeypatch):
    (tmp_path / "a.txt").write_text("to be or not to be\n" * 20)

    def slow(*arguments):
        monkeypatch.setattr(text, "build_tokens", build_tokens)
        open_text(tmp_path / "a.txt").prepare_data()
        return build_tokens(*arguments)

    monkeypatch.setattr(text, "build_tokens", slow)
    assert whole(open_text(tmp_path / "a.txt")) == "to be or not to be\n" * 20
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("name", ["ids.npy", "about.json"])
def test_a_damaged_cache_is_an_error_that_says_what_to_delete(tmp_path, open_text, name):
    (tmp_path / "a.txt").write_text("abc" * 1000)
    open_text(tmp_path / "a.txt").setup()
    (entry,) = entries(tmp_path)
    content = (entry / name).read_bytes()
    (entry / name).write_bytes(content[: len(content) // 2])

    with pytest.raises(DataError, match="Delete this folder"):
        open_text(tmp_path / "a.txt").setup()


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path, open_text, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.txt").write_text("abc" * 100)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)

    with pytest.raises(DataError, match="No space left on device"):
        open_text(tmp_path / "a.txt").setup()
    assert entries(tmp_path) == []


@pytest.mark.parametrize("then", ["abc" * 90, "abc" * 110], ids=["shrinks", "grows"])
def test_a_text_that_changes_while_it_is_read_is_refused(then):
    readings = iter([["abc" * 100], ["abc", then[3:150], then[150:]]])
    parts = {"train": (0, 250), "val": (250, 275), "test": (275, 300)}

    with pytest.raises(DataError, match=f"changed while it was read: got {len(then)} characters"):
        build_tokens(lambda: next(readings), parts, "characters")


def test_a_cache_that_cannot_be_written_is_an_error_that_names_the_option(tmp_path, open_text):
    (tmp_path / "a.txt").write_text("abc" * 100)
    (tmp_path / "file").touch()

    with pytest.raises(DataError, match=r"dataset.cache=FOLDER"):
        open_text(tmp_path / "a.txt", cache=str(tmp_path / "file" / "cache")).setup()


def test_the_cache_lies_in_the_users_cache_folder(tmp_path, open_text, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (tmp_path / "a.txt").write_text("abc" * 100)
    open_text(tmp_path / "a.txt", cache=None).setup()

    (about,) = (tmp_path / "home" / "seqnets" / "text").glob("*/about.json")
    assert json.loads(about.read_text())["vocabulary"] == ["a", "b", "c"]
