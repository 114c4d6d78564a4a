"""A user's sequences with transcripts are read from every format, and errors are reported."""

from __future__ import annotations

import json
from pathlib import PurePath

import numpy as np
import pytest
import torch

from seqnets.datasets import TranscriptionFiles
from seqnets.errors import ConfigError, DataError
from seqnets.typing import IGNORE

TEXTS = ["ab", "b a", "", "aab", " b  a\n", "bb a"] * 3
SAID = [" ".join(text.split()) for text in TEXTS]
STEPS = [np.random.default_rng(n).normal(size=(5 + n % 3, 2)).round(3) for n in range(18)]


def write_steps(folder):
    path = folder / "lines.jsonl"
    rows = [
        {"sequence": n, "text": text, "u": u, "v": v}
        for n, (text, steps) in enumerate(zip(TEXTS, STEPS, strict=True))
        for u, v in steps.tolist()
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def write_rows(folder):
    path = folder / "lines.jsonl"
    rows = zip(TEXTS, STEPS, strict=True)
    path.write_text("\n".join(json.dumps({"text": t, "x": x.tolist()}) for t, x in rows))
    return path


def write_parquet(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"text": t, "x": x.tolist()} for t, x in zip(TEXTS, STEPS, strict=True)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "lines.parquet")
    return folder / "lines.parquet"


def write_archive(folder):
    lengths = [len(steps) for steps in STEPS]
    np.savez(folder / "lines.npz", x=np.concatenate(STEPS), lengths=lengths, y=TEXTS)
    return folder / "lines.npz"


def write_folder(folder):
    (folder / "lines").mkdir()
    for n, (text, steps) in enumerate(zip(TEXTS, STEPS, strict=True)):
        np.save(folder / "lines" / f"{n:02}.npy", steps)
        (folder / "lines" / f"{n:02}.txt").write_text(text)
    return folder / "lines"


def write_files(folder):
    write_folder(folder)
    rows = [json.dumps({"file": f"lines/{n:02}.npy", "text": t}) for n, t in enumerate(TEXTS)]
    (folder / "lines.jsonl").write_text("\n".join(rows))
    return folder / "lines.jsonl"


FORMATS = [write_steps, write_rows, write_parquet, write_archive, write_folder, write_files]


@pytest.fixture(params=FORMATS)
def path(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture
def table(tmp_path):
    """Make the dataset of a JSON Lines file with these rows besides a dozen good ones."""

    def make(*rows, **options):
        good = [{"text": "ab", "x": [1, 2, 3]}] * 12
        lines = map(json.dumps, [*good, *rows])
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        return TranscriptionFiles(str(tmp_path / "a.jsonl"), **options)

    return make


def spelled(batch, known):
    """The transcripts of a batch."""
    return [
        known["joiner"].join(known["labels"][n] for n in row if n != IGNORE)
        for row in batch.y.tolist()
    ]


def test_a_file_of_every_format_has_its_sequences_and_transcripts(path):
    data = TranscriptionFiles(str(path), standardise=False, batch_size=100)
    data.setup()
    known = data.describe()
    loader = data.new(path, known)
    (batch,) = loader

    assert known["labels"] == ["", " ", "a", "b"]
    assert known["sizes"] == {"input_size": 2, "num_classes": 4}
    assert data.counts() == {"train": 12, "val": 3, "test": 3}
    assert spelled(batch, known) == loader.texts["target"] == SAID
    for row, steps in zip(batch.x, STEPS, strict=True):
        assert torch.equal(row[: len(steps)], torch.from_numpy(steps).float())
    assert json.loads(json.dumps(known)) == known


def test_words_are_labels_if_asked_for(path):
    data = TranscriptionFiles(str(path), batch_size=100)
    data.label_unit = "words"
    known = data.describe()
    (batch,) = data.new(path, known)

    assert known["labels"] == ["", "a", "aab", "ab", "b", "bb"]
    assert known["joiner"] == " "
    assert spelled(batch, known) == SAID


def test_a_column_can_have_another_name_and_text_is_then_what_is_read(tmp_path):
    rows = [json.dumps({"text": "tough", "said": "t ʌ f"}) for _ in range(8)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    data = TranscriptionFiles(str(tmp_path / "a.jsonl"), "said", unit="words")
    (example,) = data.examples("train", 1)

    assert data.sizes == {"vocab_size": 6, "num_classes": 4}
    assert example == {"said": "t ʌ f", "steps": "5", "begins": "tough"}


def test_new_data_without_transcripts_have_no_targets(tmp_path):
    data = TranscriptionFiles(str(write_rows(tmp_path)), batch_size=100)
    np.savez(tmp_path / "new.npz", x=np.zeros((3, 4, 2)))
    np.save(tmp_path / "new.npy", np.zeros((4, 2)))

    for name, count in (("new.npz", 3), ("new.npy", 1)):
        loader = data.new(tmp_path / name, data.describe())
        (batch,) = loader
        assert batch.y.shape == (count, 0)
        assert loader.texts == {"target": [None] * count}


def test_new_transcripts_stay_as_they_are_even_with_labels_that_are_not_known(table, tmp_path):
    known = table().describe()
    rows = [{"text": t, "x": [1] * 4} for t in ("ab", "abc", "", None, 7)]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"x": [1]}])))
    loader = table().new(tmp_path / "new.jsonl", known)
    (batch,) = loader

    assert loader.texts == {"target": ["ab", "abc", "", None, None, None]}
    assert batch.y.tolist() == [[1, 2]] + [[IGNORE, IGNORE]] * 5


def test_a_folder_of_new_files_may_have_some_transcripts(tmp_path):
    folder = write_folder(tmp_path)
    data = TranscriptionFiles(str(folder), batch_size=100)
    known = data.describe()
    for n in range(1, 18):
        (folder / f"{n:02}.txt").unlink()

    loader = data.new(folder, known)

    assert loader.texts["target"] == ["ab"] + [None] * 17
    assert loader.ids[0] == str(folder / "00.npy")


def test_an_image_is_read_along_its_width_and_all_are_of_one_height(tmp_path):
    images = pytest.importorskip("PIL.Image")
    pixels = np.arange(3 * 4 * 3, dtype=np.uint8).reshape(3, 4, 3)
    for n in range(8):
        wide = np.concatenate([pixels] * (1 + n % 2), axis=1)
        images.fromarray(wide).save(tmp_path / f"{n}.png")
        (tmp_path / f"{n}.txt").write_text("ab")
    data = TranscriptionFiles(str(tmp_path), standardise=False)
    data.setup()
    (batch,) = data.new(tmp_path / "0.png", data.describe())

    assert data.sizes["input_size"] == 9
    assert torch.equal(batch.x[0], torch.from_numpy(pixels.swapaxes(0, 1).reshape(4, 9)) / 255)
    images.fromarray(pixels[:2]).save(tmp_path / "5.png")
    with pytest.raises(DataError, match=r"5\.png: got height 2, expected 3 as in .*0\.png"):
        TranscriptionFiles(str(tmp_path)).setup()


def test_a_picture_narrower_than_it_is_sampled_is_drawn_in_its_colours_alone(tmp_path):
    images = pytest.importorskip("PIL.Image")
    for n in range(8):
        pixels = np.zeros((64, 3, 2), np.uint8)
        pixels[:3, :, 0] = pixels[..., 1] = 255
        images.fromarray(pixels, "LA").save(tmp_path / f"{n}.png")
        (tmp_path / f"{n}.txt").write_text("ab")
    (example,) = TranscriptionFiles(str(tmp_path)).examples("train", 1)

    assert example["begins"].splitlines() == ["@"] + [" "] * 20


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255)])
def test_the_left_of_an_image_is_drawn_whatever_the_colour_of_its_paper(
    tmp_path, paper, ink, standardise
):
    images = pytest.importorskip("PIL.Image")
    for n in range(8):
        pixels = np.full((40, 150 + n, 3), paper, np.uint8)
        pixels[2:4, :30] = ink
        images.fromarray(pixels).save(tmp_path / f"{n}.png")
        (tmp_path / f"{n}.txt").write_text("ab")
    data = TranscriptionFiles(str(tmp_path), standardise=standardise)
    (example,) = data.examples("train", 1)
    rows = example["begins"].splitlines()

    assert example["text"] == "ab"
    assert rows[1] == "@" * 15 + " " * 45
    assert rows[:1] + rows[2:] == [" " * 60] * 19


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "aba", "x": [1, 2]}, "13: got 2 steps for 3 labels, expected at least 3: one"),
        ({"text": "aab", "x": [1, 2, 3]}, "13: got 3 steps for 3 labels, expected at least 4: one"),
        ({"text": None, "x": [1]}, "13: column text is missing, expected text.\n  A transcript w"),
        ({"x": [1]}, "13: got the columns x, expected text too.\n  dataset.text=COLUMN names an"),
        ({"text": 12, "x": [1]}, "13: column text is 12, expected text."),
        ({"text": ["a"], "x": [1]}, "13: column text is ['a'], expected text."),
        ({"text": "a\x00b", "x": [1]}, "13: character 2 of column text is '\\x00', a control char"),
        ({"text": "\ud800", "x": [1]}, "13: column text has a lone surrogate"),
        (
            {"text": "ac", "x": [1, 2], "split": "test"},
            "13: got 'c' in a transcript of the test part, expected characters of the training "
            "part.\n  1 character that it lacks in 1 transcript: 'c'\n  Leave these transcripts ",
        ),
        ({"text": "aa", "x": [1, 2], "split": "val"}, "13: got 2 steps for 2 labels, expected at"),
    ],
)
def test_a_faulty_transcript_is_reported_with_its_line(table, row, message):
    with pytest.raises(DataError) as caught:
        table(row).setup()

    assert f"a.jsonl, line {message}" in str(caught.value)


def test_labels_that_training_lacks_are_counted_over_all_parts(table):
    rows = [("val", "c"), ("test", "cde"), ("test", "ab"), ("val", "")]
    data = table(*({"text": text, "x": [1] * 3, "split": part} for part, text in rows))

    with pytest.raises(
        DataError,
        match=r"13: got 'c' .* of the val part(.|\n)*3 characters that it"
        " lacks in 2 transcripts: 'c', 'd', 'e'",
    ):
        data.setup()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("unit", ["characters", "words"])
def test_what_is_held_out_has_no_label_that_training_lacks(tmp_path, unit, seed):
    texts = ["a b", "c", "a c", "d", "b d", "c e", "e"] + ["b", "a", "c", "d", "e"] * 4
    rows = [json.dumps({"text": text, "x": [1] * 3}) for text in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    data = TranscriptionFiles(str(tmp_path / "a.jsonl"), unit=unit, seed=seed)

    assert len(data.describe()["labels"]) == (7 if unit == "characters" else 6)
    assert data.counts() == {"train": 18, "val": 4, "test": 5}


def test_a_transcript_as_long_as_its_sequence_fits(table):
    table({"text": "aba", "x": [1, 2, 3]}, {"text": "aa", "x": [1, 2, 3]}).setup()


def test_an_empty_cell_is_a_missing_transcript_not_one_without_labels(tmp_path):
    (tmp_path / "a.csv").write_text("sequence,text,u\n1,ab,0.5\n1,,0.5\n")

    with pytest.raises(DataError, match="line 3: column text is missing, expected text"):
        TranscriptionFiles(str(tmp_path / "a.csv")).setup()


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_part_without_any_label_is_refused(tmp_path, part):
    rows = [
        json.dumps({"text": " " if split == part else "a", "x": [1], "split": split})
        for split in ("train", "val", "test")
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))

    with pytest.raises(DataError, match=rf"a\.jsonl: no transcript of the {part} part has a label"):
        TranscriptionFiles(str(tmp_path / "a.jsonl")).setup()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "03.txt").unlink(), "03.npy: got no transcript of it, expected 03.txt bes"),
        (lambda f: (f / "03.npy").unlink(), "03.txt: is a transcript of nothing, expected 03.wav "),
        (lambda f: (f / "03.txt").write_bytes(b"\xff"), "03.txt: byte 0 (line 1) is 0xff, expecte"),
        (lambda f: (f / "03.txt").write_bytes(b"a\0"), "03.txt: character 2 of column text is"),
        (lambda f: (f / "notes.md").touch(), "notes.md: cannot be read, expected a name that ends"),
        (lambda f: (f / "03.wav").touch(), "03.wav: has the same name as 03.npy, expected one fi"),
        (lambda f: (f / "03.TXT").touch(), "03.txt: has the same name as 03.TXT, expected one fi"),
        (lambda f: (f / "test").mkdir(), "test: got a folder, expected files there.\n  If each p"),
    ],
)
def test_a_faulty_folder_is_reported_with_the_file(tmp_path, spoil, message):
    folder = write_folder(tmp_path)
    spoil(folder)

    with pytest.raises(DataError) as caught:
        TranscriptionFiles(str(folder)).setup()

    assert f"{folder}/{message}" in str(caught.value)


def test_new_files_of_one_name_are_read_while_they_have_no_transcript(tmp_path):
    folder = write_folder(tmp_path)
    data = TranscriptionFiles(str(folder))
    known = data.describe()
    (folder / "03.npy").rename(folder / "03.NPY")
    np.save(folder / "03.npy", STEPS[3])

    with pytest.raises(DataError, match=r"03\.npy: has the same name as 03\.NPY"):
        data.new(folder, known)
    (folder / "03.txt").unlink()
    assert len(data.new(folder, known).ids) == 19


def test_files_of_a_folder_are_not_compared_with_each_other(tmp_path, monkeypatch):
    folder, compared = write_folder(tmp_path), []
    equals = PurePath.__eq__
    monkeypatch.setattr(PurePath, "__eq__", lambda *two: compared.append(two) or equals(*two))

    TranscriptionFiles(str(folder)).setup()

    assert len(compared) < len(STEPS)


@pytest.mark.parametrize("name", ["a.ts", "a.wav", "none"])
def test_a_path_of_no_kind_that_holds_transcripts_is_refused(tmp_path, name):
    if name != "none":
        (tmp_path / name).write_text("@data")

    with pytest.raises(DataError, match=r"folder with NAME.txt beside each file, or a .* or \.npz"):
        TranscriptionFiles(str(tmp_path / name)).setup()


def test_a_table_without_input_says_which_columns_hold_it(table):
    data = table()
    data.text = "x"

    with pytest.raises(DataError, match=r"line 1: column x is \[1, 2, 3\], expected text"):
        data.setup()
    data = table()
    data.text = "said"
    with pytest.raises(DataError, match="got the columns text, x, expected one of sequence"):
        data.setup()


def test_invalid_units_are_refused():
    with pytest.raises(ConfigError, match="unit is 'bpe', expected one of characters, words"):
        TranscriptionFiles("a.csv", unit="bpe")


def test_the_best_constant_transcript_checked_by_hand(tmp_path):
    texts = {"train": ["aab", "aa", "ba"], "val": ["a"], "test": ["aab", "b", ""]}
    rows = [
        json.dumps({"text": text, "x": [0] * 5, "split": part})
        for part, of_part in texts.items()
        for text in of_part
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))

    # "aa" is best in training: edits 1, 0 and 1; in the test 1, 2 and 2, of 4 labels
    assert TranscriptionFiles(str(tmp_path / "a.jsonl")).baselines() == {
        "commonest label repeated": 5 / 4
    }
