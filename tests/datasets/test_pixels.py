"""Images become sequences of pixels, and invalid files are refused."""

from __future__ import annotations

import builtins
import gzip
import struct
from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from seqnets.datasets import MNIST, Digits
from seqnets.datasets.readers.idx import read_idx
from seqnets.errors import ConfigError, DataError

needs_digits = pytest.mark.skipif(not find_spec("sklearn"), reason="needs the extra `digits`")


def idx(array):
    array = np.asarray(array, np.uint8)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


PIXELS = np.arange(40 * 6, dtype=np.uint8).reshape(40, 2, 3)
LABELS = np.arange(40) % 10
FILES = {
    "train-images-idx3-ubyte": idx(PIXELS),
    "train-labels-idx1-ubyte": idx(LABELS),
    "t10k-images-idx3-ubyte": idx(PIXELS[:10]),
    "t10k-labels-idx1-ubyte": idx(LABELS[:10]),
}


@pytest.fixture
def tiny(tmp_path):
    """Make the dataset of forty pictures of 2 by 3 pixels, some of whose files are replaced."""

    def make(files=None, folder="", zipped=False, **options):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name, data in {**FILES, **(files or {})}.items():
            if data is not None and zipped:
                (tmp_path / folder / f"{name}.gz").write_bytes(gzip.compress(data))
            elif data is not None:
                (tmp_path / folder / name).write_bytes(data)
        return MNIST(str(tmp_path), **options)

    return make


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
def test_pictures_are_read_row_by_row_with_pixels_in_0_to_1(tiny, folder, zipped):
    data = tiny(folder=folder, zipped=zipped)
    data.setup()

    batch = next(iter(data.test_dataloader()))
    expected = torch.from_numpy(PIXELS[:10].reshape(10, 6, 1) / 255).float()
    torch.testing.assert_close(batch.x, expected)
    assert batch.y.tolist() == LABELS[:10].tolist()
    assert batch.lengths is None
    assert data.sizes == {"input_size": 1, "num_classes": 10}
    assert data.labels == list("0123456789")


def test_validation_pictures_are_taken_from_the_training_files(tiny):
    data = tiny(validation_fraction=0.25)
    data.setup()

    assert data.counts() == {"train": 30, "val": 10, "test": 10}
    assert Counter(data.part("val").y.tolist()) == dict.fromkeys(range(10), 1)
    seen = torch.cat([data.part(part).x.view(-1, 6) for part in ("train", "val")])
    assert {*map(tuple, seen.tolist())} == {
        *map(tuple, torch.from_numpy(PIXELS.reshape(-1, 6) / 255).float().tolist())
    }


def test_permuted_pixels_are_the_same_in_another_order_whatever_the_seed(tiny):
    plain, first, other = (
        tiny(permuted=permuted, seed=seed).part("test").x.view(10, 6)
        for permuted, seed in ((False, 0), (True, 0), (True, 1))
    )

    assert torch.equal(first, other)
    assert not torch.equal(first, plain)
    order = [plain[0].tolist().index(pixel) for pixel in first[0].tolist()]
    assert torch.equal(first, plain[:, order])


def test_the_nearest_mean_picture_is_checked_by_hand(tiny):
    pixels = np.array([0, 20, 100, 200], np.uint8).repeat(2).reshape(8, 1, 1)
    y = np.array([3, 3, 3, 3, 7, 7, 7, 7])
    data = tiny(
        {
            "train-images-idx3-ubyte": idx(pixels),
            "train-labels-idx1-ubyte": idx(y),
            # Means are near 10 and 150.
            "t10k-images-idx3-ubyte": idx(np.array([70, 90, 60, 255]).reshape(4, 1, 1)),
            "t10k-labels-idx1-ubyte": idx([3, 7, 7, 7]),
        }
    )

    assert data.baselines() == {"majority class": 0.25, "nearest mean picture": 0.75}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train-images-idx3-ubyte", None, r"no train-images-idx3-ubyte or .*\.gz in .*mnist"),
        ("train-images-idx3-ubyte", b"", "got 0 bytes that begin with nothing, expected 16"),
        ("train-images-idx3-ubyte", FILES["train-labels-idx1-ubyte"],
         "begin with 00 00 08 01, expected 16 or more that begin with 00 00 08 03"),
        ("train-images-idx3-ubyte", FILES["train-images-idx3-ubyte"][:12], "12 bytes that begin"),
        ("train-images-idx3-ubyte", b"\0\0\x0d\x03" + bytes(12), "begin with 00 00 0d 03"),
        ("train-images-idx3-ubyte", FILES["train-images-idx3-ubyte"][:-1],
         "got 255 bytes, expected 256: 40 × 2 × 3 values"),
        ("train-labels-idx1-ubyte", FILES["train-labels-idx1-ubyte"] + b"\0", "got 49 bytes"),
        ("train-labels-idx1-ubyte", idx(LABELS[:-1]), "got 39 labels, expected .* of the 40"),
        ("t10k-labels-idx1-ubyte", idx([0, 1, 10, *LABELS[3:10]]), "label 3 is 10, expected 0"),
        ("t10k-images-idx3-ubyte", idx(PIXELS[:10].reshape(10, 3, 2)), "of 3 by 2 .* 2 by 3"),
    ],
)  # fmt: skip
def test_files_that_are_not_as_published_are_refused(tiny, name, data, message):
    with pytest.raises(DataError, match=message):
        tiny({name: data}).setup()


def test_files_without_a_picture_are_refused(tiny):
    empty = {
        "t10k-images-idx3-ubyte": idx(PIXELS[:0]),
        "t10k-labels-idx1-ubyte": idx(LABELS[:0]),
    }

    with pytest.raises(DataError, match="at least one"):
        tiny(empty).setup()


@pytest.mark.parametrize(
    "damaged",
    [b"no gzip", gzip.compress(FILES["t10k-labels-idx1-ubyte"])[:-9]],
    ids=["not gzip", "cut off"],
)
def test_a_damaged_gz_is_refused(tmp_path, damaged):
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(damaged)

    with pytest.raises(DataError, match="cannot be read"):
        read_idx(path, 1)


@needs_digits
def test_digits_are_split_by_the_seed_with_a_share_of_each():
    first, again, other = (Digits(seed=seed) for seed in (0, 0, 1))
    first.setup()

    assert sum(first.counts().values()) == 1_797
    assert first.sizes == {"input_size": 1, "num_classes": 10}
    assert {*Counter(first.part("test").y.tolist()).values()} <= {34, 35, 36, 37}
    assert torch.equal(first.part("test").x, again.part("test").x)
    assert not torch.equal(first.part("test").x, other.part("test").x)
    assert first.part("train").x.max() <= 1
    assert int(first.part("train").lengths[0]) == 64


@needs_digits
def test_examples_show_a_picture_even_when_its_pixels_come_in_another_order():
    plain, permuted = (Digits(permuted=permuted).examples("train", 1) for permuted in (False, True))

    assert plain == permuted
    lines = plain[0]["picture"].splitlines()
    assert [len(line) for line in lines] == [16] * 8
    assert "%" in plain[0]["picture"]


@needs_digits
def test_the_nearest_mean_image_classifies_most_digits():
    assert Digits().baselines()["nearest mean picture"] > 0.8


def test_a_fraction_that_leaves_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"validation_fraction \+ test_fraction is 1.2"):
        Digits(validation_fraction=0.6, test_fraction=0.6)


def test_without_scikit_learn_the_error_says_how_to_install_it(monkeypatch):
    load = builtins.__import__

    def missing(name, *rest):
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)

    with pytest.raises(ConfigError, match=r"pip install 'seqnets\[digits\]'"):
        Digits().setup()
