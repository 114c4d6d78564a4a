from __future__ import annotations

import hashlib
import math
from http.client import BadStatusLine, IncompleteRead

import numpy as np
import pytest
import torch

from seqnets.datasets import LanguageData, PythonDocs, Shakespeare, Tokens, Vocabulary
from seqnets.datasets.baselines import counting
from seqnets.datasets.published.download import download
from seqnets.datasets.published.python_docs import distinct_paragraphs
from seqnets.errors import ConfigError, DataError


class Text(LanguageData):
    """A text given as a string."""

    def __init__(self, text, **stream):
        super().__init__(**stream)
        self.text = text

    def read_tokens(self):
        return self.tokens_of(self.text)


def decoded(data, part):
    return data.vocabulary.decode(data.tokens.part(part))


def test_parts_are_contiguous_and_complete():
    data = Text("0123456789" * 20, validation_fraction=0.1, test_fraction=0.2)

    assert data.counts() == {"train": 140, "val": 20, "test": 40}
    assert decoded(data, "train") + decoded(data, "val") + decoded(data, "test") == data.text


def test_the_vocabulary_is_that_of_the_training_part_only():
    data = Text("ab" * 45 + "z" * 10, validation_fraction=0.05, test_fraction=0.05)

    assert data.vocabulary.tokens == ["<unk>", "a", "b"]
    assert decoded(data, "test") == "\ufffd" * 5


def test_a_description_holds_plain_values_only():
    data = Text("ab " * 100, unit="words", batch_size=2, chunk_length=3)

    described = data.describe()

    assert described.pop("sample") == {
        "train": [1] * 32,
        "val": [1] * 5,
        "test": [1] * 5,
    }
    assert described == {
        "sizes": {"vocab_size": 2},
        "unit": "words",
        "counts": {"train": 90, "val": 5, "test": 5},
        "vocabulary": ["<unk>", "ab"],
        "labels": None,
        "class_counts": None,
    }


def test_a_vocabulary_is_restored_from_the_description():
    data = Text("to be or not to be " * 100, unit="words")
    about = data.describe()

    again = Vocabulary(about["vocabulary"], about["unit"])
    assert torch.equal(again.encode("not to be"), data.vocabulary.encode("not to be"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 50}, "Text, train part: got 90 tokens, expected at least 102"),
        ({"validation_fraction": 0.01}, "Text, val part: got 1 token, expected at least 3"),
        ({"test_fraction": 0.02}, "Text, test part: got 2 tokens, expected at least 3"),
    ],
    ids=["train", "val", "test"],
)
def test_a_part_that_is_too_short_is_refused_in_setup_with_the_numbers(options, message):
    data = Text("abcd" * 25, **{"batch_size": 2, "chunk_length": 2, **options})

    with pytest.raises(DataError, match=message):
        data.setup()


def test_ids_outside_the_vocabulary_are_refused_in_setup():
    class Broken(Text):
        def read_tokens(self):
            good = super().read_tokens()
            return Tokens(good.ids + 1, good.parts, good.vocabulary)

    with pytest.raises(DataError, match="got token id 2, expected ids below 2"):
        Broken("ab" * 200, batch_size=2, chunk_length=3).setup()


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": 2.0},
        {"batch_size": True},
        {"chunk_length": -1},
        {"chunk_spread": -0.5},
        {"chunk_spread": 129.0},
        {"seed": -1},
        {"max_vocabulary": 1},
        {"validation_fraction": 0},
        {"test_fraction": 1.5},
        {"validation_fraction": 0.5, "test_fraction": 0.5},
        {"unit": "letters"},
    ],
    ids=str,
)
def test_invalid_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Text("text", **options)


def test_python_docs_keep_each_paragraph_once_so_that_no_test_text_was_trained_on():
    data = PythonDocs()
    data.setup()
    train, test = (set(decoded(data, part).split("\n\n")) for part in ("train", "test"))

    assert 300_000 < sum(data.counts().values()) < 500_000  # 373,102 in 3.11, 475,227 in 3.14
    assert not {" ".join(p.split()) for p in train} & {" ".join(p.split()) for p in test}


def test_paragraphs_that_differ_in_white_space_only_are_the_same():
    texts = ["one\n\ntwo\nlines\n\n\n\n", "two  lines\n\nthree\n"]

    assert distinct_paragraphs(texts) == "one\n\ntwo\nlines\n\nthree"


def test_memoryless_baselines_are_those_computed_by_hand():
    vocabulary = Vocabulary(["a", "b"])
    ids = np.array([0, 0, 0, 1, 0, 1, 1, 1], np.uint8)
    tokens = Tokens(ids, {"train": (0, 4), "val": (4, 4), "test": (4, 8)}, vocabulary)
    baselines = counting.language_baselines(tokens)

    assert baselines["uniform"] == 1
    # With one added to each count, a has 4 of 6 and b has 2 of 6; the test part is a, b, b, b.
    assert baselines["unigram entropy"] == pytest.approx(
        -(math.log2(4 / 6) + 3 * math.log2(2 / 6)) / 4
    )


def test_xz_gains_from_a_training_text_that_holds_the_test_text():
    noise = "".join(chr(97 + n) for n in np.random.default_rng(0).integers(26, size=2000))
    data = Text(noise * 2, validation_fraction=0.05, test_fraction=0.45)
    baselines = data.baselines()

    assert baselines["xz -9 of the test text"] > math.log2(26)
    assert baselines["xz given the training text"] < 0.5


def test_xz_is_omitted_for_long_texts(monkeypatch):
    monkeypatch.setattr(counting, "XZ_LIMIT", 50)

    assert list(Text("ab" * 100).baselines()) == ["uniform", "unigram entropy"]


def test_the_baselines_of_the_manual_are_those_documented():
    baselines = PythonDocs().baselines()

    assert baselines["unigram entropy"] == pytest.approx(4.6, abs=0.2)
    assert baselines["xz -9 of the test text"] == pytest.approx(2.44, abs=0.2)
    assert baselines["xz given the training text"] == pytest.approx(1.8, abs=0.2)


def test_shakespeare_is_read_from_the_folder_named(shared_data):
    data = Shakespeare(str(shared_data))
    data.setup()

    assert sum(data.counts().values()) == 1_115_394
    assert data.sizes == {"vocab_size": 65}
    assert decoded(data, "train").startswith("First Citizen:\nBefore we proceed")


def test_shakespeare_in_a_folder_without_it_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"/shakespeare lacks input\.txt; .* lacks input\.txt"):
        Shakespeare(str(tmp_path)).setup()


def test_shakespeare_without_network_is_an_error_that_names_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "seqnets.datasets.published.shakespeare.URL", "http://127.0.0.1:9/input.txt"
    )

    with pytest.raises(DataError, match="as root"):
        Shakespeare(cache=str(tmp_path)).prepare_data()
    assert not list(tmp_path.rglob("*.txt"))


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "source.txt"
    file.write_bytes(b"to be")
    return file


def test_a_download_is_kept_once_its_content_is_the_one_known(tmp_path, source):
    target = tmp_path / "deep" / "target.txt"
    known = hashlib.sha256(b"to be").hexdigest()

    download(source.as_uri(), target, sha256=known, max_bytes=5)
    source.unlink()
    download(source.as_uri(), target, sha256=known, max_bytes=5)
    assert target.read_bytes() == b"to be"


@pytest.mark.parametrize("error", [BadStatusLine("x"), IncompleteRead(b"to"), TimeoutError()])
def test_a_server_that_answers_badly_is_named(tmp_path, monkeypatch, error):
    def urlopen(url, timeout):
        raise error

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    with pytest.raises(DataError, match="http://here/x: cannot be fetched"):
        download("http://here/x", tmp_path / "target", sha256="", max_bytes=5)


@pytest.mark.parametrize(("content", "max_bytes"), [(b"or not to be", 100), (b"to be", 4)])
def test_another_content_or_a_larger_one_is_not_kept(tmp_path, source, content, max_bytes):
    known = hashlib.sha256(content).hexdigest()

    with pytest.raises(DataError, match="nothing was kept"):
        download(source.as_uri(), tmp_path / "target", sha256=known, max_bytes=max_bytes)
    assert list(tmp_path.iterdir()) == [source]
