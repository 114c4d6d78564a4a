from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from seqnets.datasets import LabelledData, Sequences, Splits, TimeSeriesFiles
from seqnets.datasets.scaling import Scaling
from seqnets.errors import CheckpointError, ConfigError, DataError
from seqnets.training.checkpoint import check_data

HEADER = """#A comment: with a colon
@problemName Tiny
@timeStamps false
@univariate false
@dimensions 2
@equalLength false
@classLabel true up down
@data
"""
LINES = ["1,2,3:4,5,6:up", "7,8:9,10:down", "1.5,2:0,-3E-1:up", "0,0,0,0:1,1,1,1:down"]


@pytest.fixture
def tiny(tmp_path):
    """Make the dataset of a small problem, some of whose text is replaced."""

    def make(old="", new="", part="TRAIN", **options):
        for name in ("TRAIN", "TEST"):
            text = HEADER + "\n".join(LINES) + "\n"
            (tmp_path / f"Tiny_{name}.ts").write_text(
                text.replace(old, new, 1) if old and name == part else text
            )
        return TimeSeriesFiles(str(tmp_path), "Tiny", **options)

    return make


def test_features_with_a_large_offset_are_standardised_before_they_are_rounded(tiny, tmp_path):
    data = tiny()
    for name in ("TRAIN", "TEST"):
        lines = [
            f"{','.join(str(1_700_000_000 + n + t) for t in range(3))}:1,2,3" for n in range(4)
        ]
        labelled = [
            f"{line}:{label}" for line, label in zip(lines, 2 * ["up", "down"], strict=True)
        ]
        (tmp_path / f"Tiny_{name}.ts").write_text(HEADER + "\n".join(labelled))
    x = data.part("train").x

    assert x.dtype == torch.float32
    assert (x[:, 0].view(-1, 3).diff() > 0).all()


class Offset(LabelledData):
    """Two sequences far from 0, as a user's own data."""

    def read_splits(self):
        x = np.array([[[1e9], [1e9 + 1]], [[1e9 + 2], [1e9 + 3]]])
        part = Sequences.stacked(x, torch.tensor([0, 1]))
        return Splits({"train": part, "val": part, "test": part}, ["low", "high"])


def test_a_dataset_of_ones_own_is_standardised_unless_it_is_not_asked_for():
    data, plain = Offset(), Offset(standardise=False)
    data.setup()
    x, scaling = data.part("train").x, data.describe()["scaling"]["x"]

    assert x.dtype == plain.part("train").x.dtype == torch.float32
    assert x.flatten().tolist() == pytest.approx([-1.34164, -0.44721, 0.44721, 1.34164], abs=1e-5)
    assert scaling["mean"] == [1e9 + 1.5]
    assert plain.part("train").x[0].item() == 1e9
    assert plain.describe()["scaling"]["x"] is None


class Bytes(Offset):
    """The same as whole numbers, whose scaling is known."""

    def read_splits(self):
        part = Sequences.stacked(np.array([[[1], [2]], [[3], [4]]], np.uint8), torch.tensor([0, 1]))
        scaling = Scaling(torch.zeros(1), torch.full((1,), 9.0))
        return Splits({"train": part, "val": part, "test": part}, ["low", "high"], scaling)


def test_features_may_be_whole_numbers_and_a_scaling_that_was_read_is_kept():
    data, plain = Bytes(), Bytes(standardise=False)
    data.setup()

    x, scaling = data.part("train").x, data.describe()["scaling"]["x"]
    assert x.flatten().tolist() == pytest.approx([-1.34164, -0.44721, 0.44721, 1.34164], abs=1e-5)
    assert scaling["mean"] == [2.5]
    assert plain.part("train").x.flatten().tolist() == [1.0, 2.0, 3.0, 4.0]
    assert plain.describe()["scaling"]["x"] == {"mean": [0.0], "deviation": [9.0]}


@pytest.mark.parametrize("other", [{"standardise": False}, {"seed": 1}])
def test_series_of_other_scales_are_not_those_that_a_model_knows(tiny, other):
    known = tiny().describe()

    check_data(known, tiny().describe(), "best.ckpt", but=["sample"])
    with pytest.raises(CheckpointError, match="dataset's scaling differs from the model's"):
        check_data(known, tiny(**other).describe(), "best.ckpt", but=["sample"])


def test_a_file_is_read_to_steps_by_features(tiny):
    data = tiny(standardise=False)
    data.setup()
    (batch,) = data.test_dataloader()

    assert batch.x[0].tolist() == [[1, 4], [2, 5], [3, 6], [0, 0]]
    assert batch.x[2].tolist() == [[1.5, 0], [2, pytest.approx(-0.3)], [0, 0], [0, 0]]
    assert batch.lengths.tolist() == [3, 2, 2, 4]
    assert batch.y.tolist() == [0, 1, 0, 1]
    assert data.labels == ["up", "down"]
    assert data.sizes == {"input_size": 2, "num_classes": 2}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("7,8:9,10", "7,8:9,?", r"line 10: step 2 of dimension 2 is '\?'"),
        ("7,8:9,10", "7,8:9,x", r"line 10: step 2 of dimension 2 is 'x'"),
        ("7,8:9,10", "7,8:9,NaN", r"line 10: step 2 of dimension 2 is 'NaN'"),
        ("7,8:9,10", "7,8:", r"line 10: step 1 of dimension 2 is ''"),
        ("7,8:9,10", "7,8", r"line 10: got 1 dimension, expected 2"),
        ("7,8:9,10", "7,8:9", r"line 10: got dimensions of \[2, 1\] steps"),
        ("9,10:down", "9,10:left", r"line 10: got label 'left', expected one of up, down"),
        ("@equalLength false", "@equalLength true\n@seriesLength 3", r"line 11: got 2 steps"),
        ("@dimensions 2", "@dimensions two", r"@dimensions or @seriesLength"),
        ("@dimensions 2", "dimensions 2", r"line 5: got 'dimensions 2', expected a header line"),
        ("@classLabel true up down", "@classLabel false", r"@classLabel is 'false'"),
        ("@classLabel true up down", "", r"@classLabel is None"),
        ("@timeStamps false", "@timeStamps true", r"@timeStamps is true"),
        ("@data\n", "@date\n", r"line 9: .* expected a header line"),
        ("\n".join(LINES), "", r"got no sequence after @data"),
        (HEADER + "\n".join(LINES), "", r"the file is empty"),
        (HEADER.partition("@data")[1] + "\n" + "\n".join(LINES), "", r"no line @data"),
    ],
)
def test_a_malformed_file_is_refused_with_the_line(tiny, old, new, message):
    with pytest.raises(DataError, match=message) as caught:
        tiny(old, new).setup()
    assert "Tiny_TRAIN.ts" in str(caught.value)


def test_bytes_that_are_not_utf8_are_refused_with_byte_and_line(tiny, tmp_path):
    data = tiny()
    (tmp_path / "Tiny_TEST.ts").write_bytes(b"#\n\xff")

    with pytest.raises(DataError, match=r"Tiny_TEST.ts: byte 2 \(line 2\)"):
        data.setup()


@pytest.mark.parametrize(
    ("old", "new"), [("true up down", "true down up"), ("@dimensions 2", "@dimensions 3")]
)
def test_a_test_file_of_another_problem_is_refused(tiny, old, new):
    data = tiny(old, new, part="TEST")

    with pytest.raises(DataError, match=r"Tiny_TEST.ts"):
        data.setup()


def test_a_missing_file_is_an_error_that_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path} lacks Nothing_TRAIN.ts, .*; .*ucr lacks"):
        TimeSeriesFiles(str(tmp_path), "Nothing").setup()


def test_an_invalid_fraction_is_refused(tiny):
    with pytest.raises(ConfigError, match="validation_fraction"):
        tiny(validation_fraction=1)


@pytest.fixture
def japanese_vowels(shared_data):
    data = TimeSeriesFiles(str(shared_data), "JapaneseVowels")
    data.setup()
    return data


def test_japanese_vowels_have_the_published_sizes(japanese_vowels):
    data = japanese_vowels
    lengths = torch.cat([data.part(part).lengths for part in ("train", "val", "test")])

    assert data.counts() == {"train": 216, "val": 54, "test": 370}
    assert data.sizes == {"input_size": 12, "num_classes": 9}
    assert (lengths.min(), lengths.max()) == (7, 29)


def test_validation_takes_the_same_share_of_each_class(japanese_vowels):
    assert Counter(japanese_vowels.part("val").y.tolist()) == dict.fromkeys(range(9), 6)
    assert Counter(japanese_vowels.part("train").y.tolist()) == dict.fromkeys(range(9), 24)


def test_features_are_standardised_by_the_training_part(japanese_vowels):
    train, test = japanese_vowels.part("train").x, japanese_vowels.part("test").x

    torch.testing.assert_close(train.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(12), atol=1e-5, rtol=0)
    assert (test.mean(0).abs() > 1e-3).any()


def test_the_seed_determines_which_sequences_are_held_out(shared_data):
    first, again, other = (TimeSeriesFiles(str(shared_data), seed=seed) for seed in (0, 0, 1))

    assert torch.equal(first.part("val").x, again.part("val").x)
    assert not torch.equal(first.part("val").lengths, other.part("val").lengths)


def test_the_commonest_label_is_the_baseline(japanese_vowels):
    test = japanese_vowels.part("test").y

    assert japanese_vowels.baselines() == {
        "majority class": pytest.approx((test == 0).double().mean().item())
    }


def test_basic_motions_have_sequences_of_one_length(shared_data):
    data = TimeSeriesFiles(str(shared_data), "BasicMotions")
    data.setup()
    batch = next(iter(data.train_dataloader()))

    assert data.counts() == {"train": 32, "val": 8, "test": 40}
    assert data.labels == ["Standing", "Running", "Walking", "Badminton"]
    assert batch.x.shape == (32, 100, 6)
    assert batch.lengths is None
