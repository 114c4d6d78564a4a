"""Tables whose rows name a file each: sound, images, arrays or text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from seqnets.datasets import ClassificationFiles, RegressionFiles
from seqnets.errors import DataError

STEPS = [np.random.default_rng(n).normal(size=(2 + n % 3, 2)) for n in range(12)]


@pytest.fixture
def table(tmp_path):
    """Twelve arrays of two classes, in a folder beside the table that names them."""
    (tmp_path / "walks").mkdir()
    for n, steps in enumerate(STEPS):
        np.save(tmp_path / "walks" / f"{n}.npy", steps)
    rows = [f"walks/{n}.npy,{'up' if n % 2 else 'down'},{n}" for n in range(len(STEPS))]
    (tmp_path / "mine.csv").write_text("\n".join(["file,label,target", *rows]) + "\n")
    return tmp_path / "mine.csv"


def error_of(path, **options):
    with pytest.raises(DataError) as caught:
        ClassificationFiles(str(path), **options).setup()
    return str(caught.value)


def test_a_table_of_files_has_the_sequences_in_them(table, monkeypatch, tmp_path):
    monkeypatch.chdir("/")  # names are relative to the table's folder
    data = ClassificationFiles(str(table), standardise=False, batch_size=100)
    data.setup()

    loader = data.new(table, data.describe())
    (batch,) = loader

    assert data.labels == ["down", "up"]
    assert batch.y.tolist() == [0, 1] * 6
    assert loader.ids == [f"walks/{n}.npy" for n in range(len(STEPS))]
    for row, steps in zip(batch.x, STEPS, strict=True):
        assert torch.equal(row[: len(steps)], torch.from_numpy(steps).float())


def test_names_in_new_data_may_lead_from_another_folder(table, monkeypatch, tmp_path):
    data = ClassificationFiles(str(table))
    data.setup()
    (tmp_path / "elsewhere").mkdir()
    new = tmp_path / "elsewhere" / "new.jsonl"
    new.write_text('{"file": "walks/3.npy"}\n')

    with pytest.raises(DataError, match=r"elsewhere/walks/3\.npy: no such file"):
        data.new(new, data.describe())
    monkeypatch.chdir(tmp_path)
    data.folder_of_new = Path()

    assert data.new(new, data.describe()).ids == ["walks/3.npy"]


def test_numbers_of_sequences_in_files_can_be_predicted(table):
    data = RegressionFiles(str(table))
    data.setup()

    assert data.sizes == {"input_size": 2, "output_size": 1}


def test_a_file_beside_a_text_is_no_input(tmp_path):
    rows = [json.dumps({"text": "ab", "file": "none.wav", "label": n % 2}) for n in range(8)]
    (tmp_path / "mine.jsonl").write_text("\n".join(rows) + "\n")
    data = ClassificationFiles(str(tmp_path / "mine.jsonl"))
    data.setup()

    assert set(data.sizes) == {"vocab_size", "num_classes"}


def test_new_files_and_folders_of_arrays_are_read_alike(table, tmp_path):
    data = ClassificationFiles(str(table), batch_size=100)
    data.setup()

    (alone,) = data.new(tmp_path / "walks" / "3.npy", data.describe())
    (all_of_them,) = data.new(tmp_path / "walks", data.describe())

    assert len(all_of_them.x) == len(STEPS)
    assert alone.x.shape == (1, *STEPS[3].shape)
    scaled = data.contents.inputs.scaling(torch.from_numpy(STEPS[3]))
    assert torch.equal(alone.x[0], scaled)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("walks/99.npy", "99.npy: no such file."),
        ("walks/3.xyz", "3.xyz: cannot be read, expected a name that ends with .wav,"),
        ("", "column file is missing, expected text."),
    ],
)
def test_a_file_that_cannot_be_read_is_reported_with_its_line(table, name, message):
    table.write_text(table.read_text().replace("walks/3.npy", name))

    found = error_of(table)

    assert found.startswith(f"{table}, line 5: ")
    assert message in found


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3)), "line 5: got 3 features a step, expected 2 as at "),
        (np.zeros((0, 2)), "3.npy: is float64 of shape (0, 2), expected numbers, (T, I) or (T,)."),
        (np.zeros((2, 2, 2)), "3.npy: is float64 of shape (2, 2, 2), expected numbers"),
        (np.array(["a"]), "3.npy: is <U1 of shape (1,), expected numbers"),
        (np.array([[1, np.nan]]), "3.npy: column x, step 1, feature 2 is nan, expected a finite"),
        (np.array([{}]), "cannot be read as a NumPy array without pickled objects: Object arrays"),
    ],
)
def test_an_array_that_is_no_sequence_is_reported_with_its_line(table, array, message):
    np.save(table.parent / "walks" / "3.npy", array)

    found = error_of(table)

    assert f"{table}, line 5: " in found
    assert message in found


def test_an_archive_is_no_array(table):
    np.savez(table.parent / "walks" / "3.npz", x=STEPS[3])
    (table.parent / "walks" / "3.npz").replace(table.parent / "walks" / "3.npy")

    assert "as a NumPy array without pickled objects: it is an archive" in error_of(table)


def test_files_of_a_table_are_of_one_kind(table):
    images = pytest.importorskip("PIL.Image")
    images.new("L", (2, 3)).save(table.parent / "walks" / "3.png")
    table.write_text(table.read_text().replace("walks/3.npy", "walks/3.png"))

    found = error_of(table)

    assert f"{table}, line 5, walks/3.png: got kind image, expected array as in {table}" in found


def test_sounds_of_a_table_share_a_sample_rate(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    names = []
    for n in range(8):
        names.append(f"{n}.wav")
        soundfile.write(tmp_path / names[-1], np.full(400, 0.1), 16_000 if n == 5 else 8_000)
    rows = [f"{name},{'ab'[n % 2]}" for n, name in enumerate(names)]
    (tmp_path / "mine.csv").write_text("\n".join(["file,label", *rows]) + "\n")

    found = error_of(tmp_path / "mine.csv")

    assert "line 7, 5.wav: got sample rate 16000, expected 8000 as in " in found
