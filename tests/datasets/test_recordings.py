"""Tables that are one sequence each, named by another table or in a folder."""

from __future__ import annotations

import json
import math

import pytest
import torch

from seqnets.datasets import ClassificationFiles, RegressionFiles, TranscriptionFiles
from seqnets.errors import DataError

STEPS = [[[n + t / 8, t - n] for t in range(2 + n % 3)] for n in range(12)]


def recording(steps, columns=("height", "speed"), delimiter=","):
    """The text of a recording, with the columns in this order."""
    places = [("height", "speed").index(column) for column in columns]
    lines = [columns, *([str(step[place]) for place in places] for step in steps)]
    return "\n".join(delimiter.join(line) for line in lines) + "\n"


@pytest.fixture
def table(tmp_path):
    """Twelve recordings of two classes, in a folder beside the table that names them."""
    (tmp_path / "walks").mkdir()
    for n, steps in enumerate(STEPS):
        (tmp_path / "walks" / f"{n}.csv").write_text(recording(steps))
    rows = [f"walks/{n}.csv,{'up' if n % 2 else 'down'},{n}" for n in range(len(STEPS))]
    (tmp_path / "mine.csv").write_text("\n".join(["file,label,target", *rows]) + "\n")
    return tmp_path / "mine.csv"


@pytest.fixture
def walk(table):
    """The fourth recording: line 5 of the table."""
    return table.parent / "walks" / "3.csv"


def error_of(path, **options):
    with pytest.raises(DataError) as caught:
        ClassificationFiles(str(path), **options).setup()
    return str(caught.value)


def test_each_row_of_a_recording_is_a_step_and_its_columns_are_features(table, monkeypatch):
    monkeypatch.chdir("/")  # names are relative to the table's folder
    data = ClassificationFiles(str(table), standardise=False, batch_size=100)
    data.setup()

    loader = data.new(table, data.describe())
    (batch,) = loader

    assert [row[""] for row in data.features()] == ["height", "speed"]
    assert batch.y.tolist() == [0, 1] * 6
    assert loader.ids == [f"walks/{n}.csv" for n in range(len(STEPS))]
    for row, steps in zip(batch.x, STEPS, strict=True):
        assert row[: len(steps)].tolist() == steps


def test_recordings_may_be_of_any_format_with_their_columns_in_any_order(table, walk):
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    known = ClassificationFiles(str(table))
    known.setup()
    lines = [json.dumps({"speed": s, "height": h}) for h, s in STEPS[3]]
    walk.with_suffix(".jsonl").write_text("\n".join(lines))
    tabs = recording(STEPS[4], ("speed", "height"), delimiter="\t")
    walk.with_name("4.tsv").write_text(tabs)
    heights, speeds = zip(*STEPS[5], strict=True)
    columns = pyarrow.table({"speed": speeds, "height": heights})
    parquet.write_table(columns, walk.with_name("5.parquet"))
    names = {"3.csv": "3.jsonl", "4.csv": "4.tsv", "5.csv": "5.parquet"}
    for name, other in names.items():
        table.write_text(table.read_text().replace(name, other))

    data = ClassificationFiles(str(table))
    data.setup()

    assert torch.equal(data.part("train").x, known.part("train").x)
    assert data.contents.facts == {"features": ["height", "speed"]}


def test_columns_that_are_left_out_may_be_of_any_kind_and_new_recordings_lack_them(table, walk):
    for file in walk.parent.iterdir():
        head, *lines = file.read_text().splitlines()
        file.write_text("\n".join([f"time,{head}", *(f"10:0{n},{s}" for n, s in enumerate(lines))]))
    error = error_of(table)
    data = ClassificationFiles(str(table), leave_out=["time"])
    data.setup()
    with_times = next(iter(data.new(walk, data.describe())))
    walk.write_text(recording(STEPS[3]))

    assert f"{table}, line 2: {walk.with_name('0.csv')}, line 2: column time is '10:00'" in error
    assert "'dataset.leave_out=[time]'" in error
    assert torch.equal(next(iter(data.new(walk, data.describe()))).x, with_times.x)


def test_a_dash_in_a_recording_is_told_how_a_missing_value_is_written(table, walk):
    walk.write_text("height,speed\n1,-\n")

    assert "column speed is '-', expected" in error_of(table)
    assert "A missing value is an empty cell" in error_of(table)


@pytest.mark.parametrize("place", [0, 3])
def test_a_column_that_only_some_recordings_have_can_be_left_out(table, walk, place):
    known = ClassificationFiles(str(table))
    known.setup()
    file = walk.with_name(f"{place}.csv")
    head, *lines = file.read_text().splitlines()
    file.write_text("\n".join([f"{head},error", *(f"{line},none" for line in lines)]))
    data = ClassificationFiles(str(table), leave_out=["error"])
    data.setup()

    assert "If it is not a feature: 'dataset.leave_out=[error]'." in error_of(table)
    assert torch.equal(data.part("train").x, known.part("train").x)
    assert data.describe() == known.describe()
    assert "no recording has a column eror, expected" in error_of(
        table, leave_out=["error", "eror"]
    )


def test_missing_values_of_recordings_are_filled_as_elsewhere(table, walk):
    walk.write_text("height,speed\n3,\nNA,1\n")

    assert f"{table}, line 5: {walk}, line 2: column speed is missing" in error_of(table)
    data = ClassificationFiles(str(table), standardise=False, missing="forward")
    data.setup()
    (alone,) = data.new(walk, data.describe())
    assert alone.x.tolist() == [[[3, 0], [3, 1]]]
    kept = ClassificationFiles(str(table), standardise=False, missing="keep")
    kept.setup()
    (alone,) = kept.new(walk, kept.describe())
    assert math.isnan(alone.x[0, 0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("height,speed\n1,2\n3\n", ", line 3: got 1 cell, expected 2: height, speed."),
        ("height,speed\n1,fast\n", ", line 2: column speed is 'fast', expected a finite"),
        ("height,speed\n", ": got no row, expected at least one."),
        ("sequence,height,speed\na,1,2\n", ", header: got column sequence, expected only features"),
        ("height,speed,label\n1,2,3\n", "leave it out: 'dataset.leave_out=[label]'."),
        ("height,sped\n1,2\n", "got features ['height', 'sped'], expected ['height', 'speed'] as"),
    ],
)
def test_what_is_wrong_with_a_recording_is_reported_with_both_lines(table, walk, text, message):
    walk.write_text(text)

    found = error_of(table)

    assert found.startswith(f"{table}, line 5")
    assert message in found


def test_a_column_named_as_the_target_is_no_feature_unasked(table, walk):
    for file in walk.parent.iterdir():
        file.write_text(file.read_text().replace("speed", "target"))

    with pytest.raises(DataError, match="got column target, expected only features"):
        RegressionFiles(str(table)).setup()
    data = RegressionFiles(str(table), leave_out=["target"])
    data.setup()

    assert data.sizes == {"input_size": 1, "output_size": 1}


@pytest.mark.parametrize("counter", ["sequence", "file", "id"])
def test_a_column_of_recordings_that_is_left_out_does_not_decide_what_new_data_are(
    table, walk, counter
):
    for file in walk.parent.iterdir():
        head, *lines = file.read_text().splitlines()
        lines = [f"{n},{line}" for n, line in enumerate(lines)]
        file.write_text("\n".join([f"{counter},{head}", *lines]) + "\n")
    error = error_of(table)
    data = ClassificationFiles(str(table), leave_out=[counter], batch_size=100)
    data.setup()

    (alone,) = data.new(walk, data.describe())
    (named,) = data.new(table, data.describe())

    assert f"header: got column {counter}, expected only features" in error
    assert len(alone.x) == 1
    assert len(named.x) == len(STEPS)
    assert torch.equal(alone.x[0], named.x[3][: len(STEPS[3])])


def test_a_new_recording_alone_is_one_sequence_and_a_folder_has_one_a_file(table, walk):
    data = ClassificationFiles(str(table), batch_size=100)
    data.setup()
    (of_table,) = data.new(table, data.describe())
    walk.write_text(recording(STEPS[3], ("speed", "height")))

    alone = data.new(walk, data.describe())
    (of_folder,) = data.new(walk.parent, data.describe())

    (batch,) = alone
    assert alone.ids == [str(walk)]
    assert torch.equal(batch.x[0], of_table.x[3, : len(STEPS[3])])
    assert len(of_folder.x) == len(STEPS)


def test_columns_of_new_data_say_whether_they_are_files_or_steps_or_one_recording(table, tmp_path):
    data = ClassificationFiles(str(table))
    data.setup()
    tables = {
        "file,speed\nwalks/3.csv,9\nwalks/4.csv,9\n": ["walks/3.csv", "walks/4.csv"],
        "sequence,height,speed\na,1,2\na,1,2\nb,1,2\n": ["a", "b"],
        "height,speed\n1,2\n1,2\n": [str(tmp_path / "new.csv")],
    }

    for text, ids in tables.items():
        (tmp_path / "new.csv").write_text(text)
        assert data.new(tmp_path / "new.csv", data.describe()).ids == ids


def test_a_recording_whose_column_file_is_left_out_is_no_table_of_files(table, walk):
    for file in walk.parent.iterdir():
        head, *lines = file.read_text().splitlines()
        file.write_text("\n".join([f"file,{head}", *(f"day 1,{line}" for line in lines)]))
    data = ClassificationFiles(str(table), leave_out=["file"])
    data.setup()

    assert data.new(walk, data.describe()).ids == [str(walk)]


def test_a_feature_may_be_named_as_a_column_of_sequences_is(table, walk):
    for file in walk.parent.iterdir():
        file.write_text(file.read_text().replace("height", "x").replace("speed", "text"))
    data = ClassificationFiles(str(table))
    data.setup()

    (alone,) = data.new(walk, data.describe())

    assert alone.x.shape == (1, len(STEPS[3]), 2)


def test_a_new_recording_without_a_feature_is_refused(table, walk):
    data = ClassificationFiles(str(table))
    data.setup()
    walk.write_text("speed\n1\n")

    with pytest.raises(DataError, match=r"got features \['speed'\], expected \['height', 'speed'"):
        data.new(walk, data.describe())


def test_new_data_with_more_features_are_told_how_to_leave_them_out(table, walk):
    data = ClassificationFiles(str(table), leave_out=["speed"])
    data.setup()
    walk.write_text("speed,room,height\n1,3,2\n")

    with pytest.raises(DataError, match=r"others out: 'dataset.leave_out=\[speed,room\]'\."):
        data.new(walk, data.describe())


def test_a_model_of_a_table_of_steps_takes_a_recording(table, walk, tmp_path):
    steps = tmp_path / "steps.csv"
    rows = [f"{n},{'ab'[n % 2]},{h},{s}" for n, steps in enumerate(STEPS) for h, s in steps]
    steps.write_text("\n".join(["sequence,label,height,speed", *rows]))
    data = ClassificationFiles(str(steps), standardise=False)
    data.setup()

    (alone,) = data.new(walk, data.describe())

    assert alone.x[0].tolist() == STEPS[3]


def test_folders_of_recordings_have_classes_or_transcripts(table, tmp_path):
    for n, steps in enumerate(STEPS):
        (tmp_path / "classes" / "ab"[n % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "classes" / "ab"[n % 2] / f"{n}.csv").write_text(recording(steps))
        (tmp_path / "walks" / f"{n}.txt").write_text("ab"[n % 2])
    classes = ClassificationFiles(str(tmp_path / "classes"))
    texts = TranscriptionFiles(str(tmp_path / "walks"))
    classes.setup()
    texts.setup()

    assert classes.sizes == {"input_size": 2, "num_classes": 2}
    assert texts.labels == ["", "a", "b"]
