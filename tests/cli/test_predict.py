"""What a model says is written down, and what was written is scored as the model is."""

import csv
import errno
import io
import json
import math
import os
import re
import shlex
import sys
from textwrap import dedent

import numpy as np
import pytest

from seqnets.cli.main import command
from seqnets.cli.prediction_table import write_table
from seqnets.cli.predictions import _write, score_file, write_rows
from seqnets.cli.standard_input import spooled
from seqnets.cli.trained import load_module, new_data
from seqnets.datasets import Parity
from seqnets.errors import ConfigError, DataError
from seqnets.training import Classification
from seqnets.training.predict import as_in_file, predict

from .conftest import SMALL, only_run


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def figures_of(out):
    """The figure that counts, and what stands beneath the table."""
    shown = [line for line in out.splitlines() if line.strip()]
    row = next(line for line in shown if "this model" in line)
    return row.replace("│", " ").split()[2], shown[-1].strip()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with labelled sequences of several lengths, and a run that has learned of them."""
    folder = tmp_path_factory.mktemp("trained")
    rows = [
        f"{n},{'abc'[n % 3]},{n % 3 + step / 10},{math.sin(n * step)}"
        for n in range(60)
        for step in range(2 + n % 5)
    ]
    lines = ["sequence,label,first,second", *rows]
    (folder / "mine.csv").write_text("".join(f"{line}\n" for line in lines))
    run = [*SMALL, "dataset=classification", f"dataset.path={folder / 'mine.csv'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["seqnets"])
        assert command(["train", *run, "trainer.max_epochs=3"]) == 0
    return folder


@pytest.fixture
def classifier(trained):
    """The run's folder."""
    return only_run(trained)


@pytest.mark.parametrize("part", ["test", "val", "train"])
def test_a_part_is_written_a_row_a_sequence_and_scores_as_the_part_does(
    part, seqnets, classifier, tmp_path
):
    done = seqnets("predict", f"checkpoint={classifier}", f"part={part}")

    rows = rows_of(tmp_path / "predictions.jsonl")
    assert done.code == 0, done.err
    assert f"{len(rows)} rows of the {part} part written to predictions.jsonl" in done.out
    assert {row["target"] for row in rows} == {"a", "b", "c"}
    assert all(row["target"] == "abc"[int(row["id"]) % 3] for row in rows)
    for row in rows:
        assert row["probability"] == max(row["probabilities"].values())
        assert row["probabilities"][row["prediction"]] == row["probability"]
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    line = next(line for line in done.out.splitlines() if line.startswith("seqnets evaluate"))
    scored = seqnets(*shlex.split(line)[1:])
    tested = seqnets("evaluate", f"checkpoint={classifier}", f"part={part}")
    assert scored.code == tested.code == 0, scored.err
    assert f"Results on {len(rows)} rows" in scored.out
    ours, others = figures_of(scored.out)
    assert ours == figures_of(tested.out)[0]
    assert others in figures_of(tested.out)[1]


def test_numbers_are_written_in_their_own_units_and_score_alike(seqnets, tmp_path):
    rows = [f"{n},{100 + n},{step},{n % 7}" for n in range(50) for step in range(3)]
    (tmp_path / "mine.csv").write_text("\n".join(["sequence,target,first,second", *rows]) + "\n")
    seqnets("train", *SMALL, "dataset=regression", "dataset.path=mine.csv")
    run = f"checkpoint={only_run(tmp_path)}"

    done = seqnets("predict", run, "part=val", "to=said.jsonl")

    written = rows_of(tmp_path / "said.jsonl")
    assert done.code == 0, done.err
    assert all(100 <= row["target"] < 150 for row in written)
    assert all(90 <= row["prediction"] < 160 for row in written)
    scored = seqnets("evaluate", run, "predictions=said.jsonl")
    tested = seqnets("evaluate", run, "part=val")
    assert figures_of(scored.out)[0] == figures_of(tested.out)[0]


def test_values_that_are_kept_missing_are_told_as_a_reason_for_nan(seqnets, tmp_path):
    rows = [f"{n},{n},{n % 7}" for n in range(50)]
    (tmp_path / "mine.csv").write_text("\n".join(["sequence,target,first", *rows]) + "\n")
    (tmp_path / "new.csv").write_text("sequence,first\n1,\n")
    seqnets("train", *SMALL, "dataset=regression", "dataset.path=mine.csv")
    run = f"checkpoint={only_run(tmp_path)}"

    done = seqnets("predict", run, "input=new.csv", "to=-", "dataset.missing=keep")

    assert done.code == 1
    assert "Row 1: a number is infinite or NaN" in done.err
    assert "dataset.missing=keep gave it missing values" in done.err


def test_numbers_far_from_zero_keep_their_digits(seqnets, tmp_path):
    rows = [f"{n},{1_700_000_000 + n},{n % 7}" for n in range(50)]
    (tmp_path / "mine.csv").write_text("\n".join(["sequence,target,first", *rows]) + "\n")
    seqnets("train", *SMALL, "dataset=regression", "dataset.path=mine.csv")

    seqnets("predict", f"checkpoint={only_run(tmp_path)}", "part=train", "to=said.jsonl")

    written = rows_of(tmp_path / "said.jsonl")
    assert [row["target"] for row in written] == [1_700_000_000 + int(row["id"]) for row in written]


def test_forecasts_name_their_series_and_the_step_that_they_follow(seqnets, tmp_path):
    rows = [f"{name},{1e9 + n % 5}" for name in ("north", "south") for n in range(80)]
    (tmp_path / "mine.csv").write_text("\n".join(["series,sales", *rows]) + "\n")
    sizes = ["dataset.lookback=6", "dataset.horizon=2", "model.segment=2"]
    trained = seqnets("train", *SMALL, "dataset=forecasting", "dataset.path=mine.csv", *sizes)
    run = f"checkpoint={only_run(tmp_path)}"
    assert trained.code == 0, trained.err

    seqnets("predict", run, "input=mine.csv", "to=new.jsonl")
    seqnets("predict", run, "to=test.jsonl")

    assert [row["id"] for row in rows_of(tmp_path / "new.jsonl")] == ["north", "south"]
    first, *_, last = rows_of(tmp_path / "test.jsonl")
    assert (first["id"], first["after"]) == ("north", "step 63")
    assert (last["id"], last["after"]) == ("south", "step 77")
    told = [row["target"]["sales"] for row in rows_of(tmp_path / "test.jsonl")]
    assert {value for values in told for value in values} == {1e9 + n for n in range(5)}


def test_errors_of_forecasts_are_scaled_by_series_in_a_file_of_them_too(seqnets, tmp_path):
    rows = [f"{name},{size * (n % 5)}" for name, size in (("a", 1), ("b", 99)) for n in range(80)]
    (tmp_path / "mine.csv").write_text("\n".join(["series,sales", *rows]) + "\n")
    sizes = ["dataset.lookback=6", "dataset.horizon=2", "model.segment=2"]
    seqnets("train", *SMALL, "dataset=forecasting", "dataset.path=mine.csv", *sizes)
    run = f"checkpoint={only_run(tmp_path)}"
    seqnets("predict", run, "to=said.jsonl")

    scored = seqnets("evaluate", run, "predictions=said.jsonl")
    tested = seqnets("evaluate", run)
    more = ["trainer.max_epochs=2", "dataset.season=3"]
    longer = seqnets("train", f"resume={only_run(tmp_path)}", *more)

    rows, missed = rows_of(tmp_path / "said.jsonl"), []
    for row in rows:
        naive = (4 * 1 + 4) / 5 * {"a": 1, "b": 99}[row["id"]]  # of 4 steps up, and one down
        pairs = zip(row["prediction"]["sales"], row["target"]["sales"], strict=True)
        missed += [abs(said - true) / naive for said, true in pairs]
    found = [float(re.search(r"mase=([\d.]+)", done.out)[1]) for done in (scored, tested)]
    assert found == pytest.approx([sum(missed) / len(missed)] * 2, rel=0.02)
    assert found[0] == found[1]
    assert longer.code == 0, longer.err


def test_a_forecast_takes_what_is_known_ahead_from_the_last_rows_of_the_file(seqnets, tmp_path):
    rows = [
        f"{name},2026-01-{1 + n // 24:02}T{n % 24:02}:00,{n % 5 if n < 80 else ''},{n % 2}"
        for name in ("north", "south")
        for n in range(83)
    ]
    (tmp_path / "mine.csv").write_text("\n".join(["series,time,sales,event", *rows]) + "\n")
    sizes = ["dataset.lookback=6", "dataset.horizon=3", "model.segment=2"]
    ahead = ["dataset=forecasting", "dataset.path=mine.csv", "dataset.known_ahead=[event]"]
    trained = seqnets("train", *SMALL, *ahead, *sizes)
    assert trained.code == 0, trained.err
    run = f"checkpoint={only_run(tmp_path)}"
    (tmp_path / "short.csv").write_text("\n".join(["series,time,sales,event", *rows[:-1]]) + "\n")

    done = seqnets("predict", run, "input=mine.csv", "to=said.csv")
    short = seqnets("predict", run, "input=short.csv", "to=short.jsonl")
    part = seqnets("evaluate", run)

    assert (done.code, part.code) == (0, 0), done.err + part.err
    with (tmp_path / "said.csv").open(newline="", encoding="utf-8") as file:
        said = [*csv.DictReader(file)]
    assert [(row["id"], row["time"]) for row in said] == [
        (name, f"2026-01-04T{hour:02}:00") for name in ("north", "south") for hour in (8, 9, 10)
    ]
    assert {row["after"] for row in said} == {"2026-01-04T07:00"}
    assert short.code == 1
    assert "short.csv: got 2 steps of south after 2026-01-04T07:00, expected 3" in short.err
    assert not (tmp_path / "short.jsonl").exists()


def test_a_forecast_takes_the_calendar_from_times_that_go_on(seqnets, tmp_path):
    rows = [f"2026-01-{1 + n // 24:02}T{n % 24:02}:00,{n % 24 // 8}" for n in range(200)]
    (tmp_path / "mine.csv").write_text("\n".join(["time,sales", *rows]) + "\n")
    sizes = ["dataset.lookback=6", "dataset.horizon=3", "model.segment=2"]
    hours = ["dataset=forecasting", "dataset.path=mine.csv", "dataset.calendar=[hour]"]
    trained = seqnets("train", *SMALL, *hours, *sizes)
    assert trained.code == 0, trained.err
    run = f"checkpoint={only_run(tmp_path)}"
    numbered = [f"{n},{n % 3}" for n in range(9)]
    (tmp_path / "numbered.csv").write_text("\n".join(["time,sales", *numbered]) + "\n")

    done = seqnets("predict", run, "input=mine.csv", "to=said.jsonl")
    refused = seqnets("predict", run, "input=numbered.csv", "to=numbered.jsonl")
    part = seqnets("evaluate", run)

    assert (done.code, part.code) == (0, 0), done.err + part.err
    (row,) = rows_of(tmp_path / "said.jsonl")
    assert row["time"] == ["2026-01-09T08:00", "2026-01-09T09:00", "2026-01-09T10:00"]
    assert len(row["prediction"]["sales"]) == 3
    assert refused.code == 1
    assert "numbered.csv: got times such as 0, expected dates" in refused.err


def test_counts_are_forecast_with_quantiles_and_refused_where_they_are_none(seqnets, tmp_path):
    rows = [f"{n % 7 // 5 * (n % 3)}" for n in range(200)]
    (tmp_path / "mine.csv").write_text("\n".join(["sales", *rows]) + "\n")
    data = ["dataset=forecasting", "dataset.path=mine.csv", "dataset.lookback=14"]
    head = ["model/head=negative_binomial", "model.normalization=mean", "model.segment=7"]
    run = ["train", *SMALL, *data, *head, "dataset.horizon=7"]

    refused = seqnets(*run)
    trained = seqnets(*run, "dataset.counts=true")
    assert (refused.code, trained.code) == (1, 0), trained.err
    done = seqnets("predict", f"checkpoint={only_run(tmp_path)}", "input=mine.csv", "to=said.jsonl")

    assert "expected counts for NegativeBinomialHead.\n  dataset.counts=true" in refused.err
    assert done.code == 0, done.err
    (row,) = rows_of(tmp_path / "said.jsonl")
    levels = [row["quantiles"][level]["sales"] for level in ("0.05", "0.5", "0.95")]
    assert levels == np.sort(levels, 0).round().tolist()


def test_predictions_may_be_a_table(seqnets, classifier, tmp_path):
    seqnets("predict", f"checkpoint={classifier}", "to=said.jsonl")
    done = seqnets("predict", f"checkpoint={classifier}", "to=said.csv")

    with (tmp_path / "said.csv").open(newline="", encoding="utf-8") as file:
        table = [*csv.DictReader(file)]
    first, *_ = rows = rows_of(tmp_path / "said.jsonl")
    assert "to score them" not in done.out.lower()
    assert len(table) == len(rows)
    assert table[0]["prediction"] == first["prediction"]
    assert float(table[0]["probabilities.a"]) == first["probabilities"]["a"]
    shares = [column for column in table[0] if column.startswith("probabilities.")]
    assert shares == [f"probabilities.{label}" for label in "abc"]


def test_json_lines_are_ascii_where_the_output_is_not_utf_8():
    row = {"prediction": "größer"}
    files = [io.TextIOWrapper(io.BytesIO(), encoding=name) for name in ("utf-8", "latin1")]

    for file in files:
        assert _write([row], file) == (1, 0)
        file.flush()

    written = [file.buffer.getvalue().decode(file.encoding) for file in files]
    assert [json.loads(text) for text in written] == [row, row]
    assert ["größer" in text for text in written] == [True, False]
    assert written[1].isascii()


def test_a_table_has_a_line_for_each_step_that_is_predicted():
    rows = [
        {
            "id": "x",
            "prediction": {"a": [1.5, 2.5], "b": [3, 4]},
            "target": None,
            "after": "noon",
            "time": ["one", "two"],
        },
        {"id": "y", "prediction": {"a": [0, 0], "b": [0, 0]}, "target": {"a": [7, None]}},
        {"prediction": ["O", "B"], "entities": [{"at": 1}, {"at": 0}]},
    ]
    file = io.StringIO()

    write_table(rows, file, ",")

    assert file.getvalue() == dedent(
        """\
        row,id,step,prediction.a,prediction.b,after,time,target.a,prediction,entities
        1,x,1,1.5,3,noon,one,,,
        1,x,2,2.5,4,noon,two,,,
        2,y,1,0,0,,,7,,
        2,y,2,0,0,,,,,
        3,,1,,,,,,O,"[{""at"": 1}, {""at"": 0}]"
        3,,2,,,,,,B,
        """
    )


def test_cells_of_a_table_are_read_back_as_they_are():
    odd = ["a,b", 'say "hi"', "new\nline", "a\rb", "a\r\nb", " ", "tab\tbed", "\u2028"]
    for delimiter in ",\t":
        file = io.StringIO(newline="")

        write_table([{"tokens": odd, "prediction": ["O"] * len(odd)}], file, delimiter)

        file.seek(0)
        assert [line["tokens"] for line in csv.DictReader(file, delimiter=delimiter)] == odd


def test_a_tables_probabilities_stand_in_the_order_of_the_classes():
    rows = [
        {"prediction": "10", "probabilities": {"10": 0.7, "2": 0.3}, "target": None},
        {"prediction": "9", "probabilities": {"9": 0.6, "2": 0.4}, "note": "new"},
    ]
    file = io.StringIO()

    write_table(rows, file, ",", classes=[2, 9, 10])

    head, *lines = file.getvalue().splitlines()
    assert head == "prediction,probabilities.2,probabilities.9,probabilities.10,note"
    assert lines == ["10,0.3,,0.7,", "9,0.4,0.6,,new"]


def test_a_program_predicts_new_data_as_the_command_does_without_those_of_training(
    seqnets, tmp_path
):
    rows = [f"{name},{n % 5}" for name in ("north", "south") for n in range(80)]
    (tmp_path / "mine.csv").write_text("\n".join(["place,sales", *rows]) + "\n")
    sizes = ["dataset.lookback=6", "dataset.horizon=2", "model.segment=2", "dataset.series=place"]
    seqnets("train", *SMALL, "dataset=forecasting", "dataset.path=mine.csv", *sizes)
    new = (tmp_path / "mine.csv").rename(tmp_path / "new.csv")
    path = only_run(tmp_path) / "checkpoints" / "best.ckpt"

    module = load_module(path, allow=[])
    batches = new_data(module, new)
    said = predict(module.model, module.objective, batches, module.card["data"])
    seqnets("predict", f"checkpoint={path}", f"input={new}", "to=new.jsonl")

    assert [*as_in_file(said, batches)] == rows_of(tmp_path / "new.jsonl")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8 there")
def test_names_of_files_that_are_not_utf_8_are_escaped_wherever_they_are_written(seqnets, tmp_path):
    name = os.fsdecode(b"caf\xe9")  # as archives of older systems leave them
    for folder in (f"{name}/a", f"{name}/b", "new"):
        (tmp_path / folder).mkdir(parents=True)
        for n in range(10):
            (tmp_path / folder / f"{name}{n}.txt").write_text(f"{folder[-1]}{n}")

    run = seqnets("train", "dataset=classification", f"dataset.path={name}", *SMALL)
    checkpoint = f"checkpoint={only_run(tmp_path)}"
    lines, table = (
        seqnets("predict", checkpoint, "input=new", f"to=said{suffix}")
        for suffix in (".jsonl", ".csv")
    )

    assert run.code == lines.code == table.code == 0, run.err + lines.err + table.err
    assert r"caf\udce9" in (only_run(tmp_path) / "run.log").read_text()
    assert rows_of(tmp_path / "said.jsonl")[0]["id"] == f"new/{name}0.txt"
    assert r"new/caf\udce90.txt" in (tmp_path / "said.csv").read_text()


def test_the_training_part_is_written_in_the_order_it_has(seqnets, tmp_path):
    run = ["dataset=parity", "dataset.train_size=70", "dataset.test_size=16", "dataset.length=5"]
    seqnets("train", *SMALL, *run)
    checkpoint = f"checkpoint={only_run(tmp_path)}"

    seqnets("predict", checkpoint, "part=train", "to=a.jsonl")
    seqnets("predict", checkpoint, "part=train", "to=b.jsonl", "dataset.batch_size=7")

    expected = Parity(5, train_size=70, test_size=16).part("train").y.tolist()
    assert [row["target"] for row in rows_of(tmp_path / "a.jsonl")] == expected
    assert [row["target"] for row in rows_of(tmp_path / "b.jsonl")] == expected


def test_new_data_need_no_training_data(seqnets, trained, classifier, tmp_path):
    seqnets("predict", f"checkpoint={classifier}", "part=train", "to=known.jsonl")
    rows = [line.split(",") for line in (trained / "mine.csv").read_text().splitlines()]
    new = [",".join([row[0], *row[2:]]) for row in rows]
    (tmp_path / "new.csv").write_text("".join(f"{line}\n" for line in new))

    done = seqnets(
        *("predict", f"checkpoint={classifier}", "dataset.path=nowhere.csv"),
        *("input=new.csv", "to=new.jsonl"),
    )

    written = rows_of(tmp_path / "new.jsonl")
    assert done.code == 0, done.err
    assert len(written) == 60
    assert [row["id"] for row in written] == [str(n) for n in range(60)]
    assert {row["target"] for row in written} == {None}
    assert "evaluate" not in done.out
    as_before = [row["probability"] for row in rows_of(tmp_path / "known.jsonl")]
    found = [row["probability"] for row in written]
    assert all(any(abs(p - other) < 1e-5 for other in found) for p in as_before)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_new_data_may_come_by_standard_input(
    form, seqnets, trained, classifier, tmp_path, monkeypatch
):
    text = (trained / "mine.csv").read_text()
    if form == "jsonl":
        rows = csv.DictReader(io.StringIO(text))
        numbers = ("first", "second")
        text = "\n".join(json.dumps({**r, **{n: float(r[n]) for n in numbers}}) for r in rows)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    done = seqnets("predict", f"checkpoint={classifier}", "input=-", "to=-")
    seqnets("predict", f"checkpoint={classifier}", f"input={trained / 'mine.csv'}", "to=a.jsonl")

    assert done.code == 0, done.err
    assert done.out == (tmp_path / "a.jsonl").read_text()
    assert "60 rows of standard input written to the standard output" in done.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "standard input is empty"),
        ("sequence,first,second\na,1,x\n", "DataError: standard input, line 2"),
    ],
)
def test_what_is_wrong_with_standard_input_is_told(text, told, seqnets, classifier, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    done = seqnets("predict", f"checkpoint={classifier}", "input=-", "to=-")

    assert (done.code, done.out) == (1, "")
    assert told in done.err


@pytest.mark.parametrize(
    ("dataset", "text", "suffix"),
    [
        ({"path": "mine.tsv"}, "a\tb", ".tsv"),
        ({"source_path": "train.en"}, "a b", ".en"),
        ({"path": "walks"}, '\n{"x": [[1]]}', ".jsonl"),
    ],
)
def test_standard_input_has_the_format_of_the_training_data_unless_it_is_json_lines(
    dataset, text, suffix, monkeypatch
):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    with spooled(dataset) as path:
        assert (path.suffix, path.read_text()) == (suffix, text)
    assert not path.exists()


@pytest.mark.parametrize("dataset", [{"path": "walks"}, {}])
def test_standard_input_that_nothing_gives_a_format_is_refused(dataset, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a,b")))

    with pytest.raises(DataError, match="standard input has no format"), spooled(dataset):
        pass


def test_names_of_files_in_standard_input_lead_from_the_working_folder(
    seqnets, tmp_path, monkeypatch
):
    (tmp_path / "data" / "walks").mkdir(parents=True)
    for n in range(20):
        np.save(tmp_path / "data" / "walks" / f"{n}.npy", np.full((3, 2), n % 2, np.float32))
    rows = "".join(f"walks/{n}.npy,{'ab'[n % 2]}\n" for n in range(20))
    (tmp_path / "data" / "mine.csv").write_text(f"file,label\n{rows}")
    trained = seqnets("train", *SMALL, "dataset=classification", "dataset.path=data/mine.csv")
    said = []
    for names in ("file\ndata/walks/7.npy\n", "file\nwalks/7.npy\n"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(names.encode())))
        said.append(seqnets("predict", f"checkpoint={only_run(tmp_path)}", "input=-", "to=-"))

    assert trained.code == 0, trained.err
    assert json.loads(said[0].out)["id"] == "data/walks/7.npy"
    assert (said[1].code, said[1].out) == (1, "")
    assert "DataError: standard input, line 2: walks/7.npy: no such file.\n" in said[1].err


def test_a_recording_is_predicted_alone_from_another_folder_and_by_standard_input(
    seqnets, tmp_path, monkeypatch
):
    (tmp_path / "data" / "walks").mkdir(parents=True)
    for n in range(20):
        rows = "".join(f"10:0{t},{n % 2},{t + n / 8}\n" for t in range(2 + n % 3))
        (tmp_path / "data" / "walks" / f"{n}.csv").write_text(f"time,x,speed\n{rows}")
    rows = "".join(f"walks/{n}.csv,{'ab'[n % 2]}\n" for n in range(20))
    (tmp_path / "data" / "mine.csv").write_text(f"file,label\n{rows}")
    made = ("dataset=classification", "dataset.path=data/mine.csv", "dataset.leave_out=[time]")
    trained = seqnets("train", *SMALL, *made)
    checkpoint = f"checkpoint={only_run(tmp_path)}"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    told = [
        seqnets("predict", checkpoint, f"input=../data/{name}", "to=-")
        for name in ("mine.csv", "walks/7.csv")
    ]
    recording = (tmp_path / "data" / "walks" / "7.csv").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(recording)))
    told.append(seqnets("predict", checkpoint, "input=-", "to=-"))

    assert trained.code == 0, trained.err
    assert [done.code for done in told] == [0, 0, 0], told
    of_table, alone, nameless = ([*map(json.loads, done.out.splitlines())] for done in told)
    assert [row["target"] for row in of_table] == ["a", "b"] * 10
    assert alone == [{**of_table[7], "id": "../data/walks/7.csv", "target": None}]
    assert nameless == [{key: cell for key, cell in alone[0].items() if key != "id"}]


def test_new_data_with_labels_are_scored(seqnets, trained, classifier, tmp_path):
    lines = (trained / "mine.csv").read_text().splitlines()
    (tmp_path / "new.csv").write_text("\n".join(lines) + "\nnew,other,1,1\n")

    done = seqnets("predict", f"checkpoint={classifier}", "input=new.csv", "to=new.jsonl")
    scored = seqnets("evaluate", f"checkpoint={classifier}", "predictions=new.jsonl")

    targets = [row["target"] for row in rows_of(tmp_path / "new.jsonl")]
    assert done.code == scored.code == 0, done.err + scored.err
    assert targets == ["abc"[n % 3] for n in range(60)] + [None]
    assert "predictions=new.jsonl" in done.out
    assert "Results on 60 rows" in scored.out


def test_data_that_differ_are_refused_with_the_way_to_score_them(seqnets, classifier, tmp_path):
    rows = [f"{n},{'abc'[n % 3]},{n}" for n in range(60)]
    (tmp_path / "other.csv").write_text("\n".join(["sequence,label,value", *rows]) + "\n")

    done = seqnets("evaluate", f"checkpoint={classifier}", "dataset.path=other.csv")

    assert done.code == 1
    assert "`seqnets predict input=FILE`" in done.err


def test_the_standard_output_gets_rows_and_nothing_else(seqnets, classifier):
    done = seqnets("predict", f"checkpoint={classifier}", "to=-", "trainer=debug")

    rows = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert {row["prediction"] for row in rows} <= {"a", "b", "c"}
    assert f"{len(rows)} rows of the test part written to the standard output" in done.err


def test_a_file_may_be_named_from_the_home_folder(seqnets, classifier, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))

    written = [seqnets("predict", f"checkpoint={classifier}", "to=~/said.jsonl") for _ in range(2)]

    assert len(rows_of(home / "said.jsonl")) == 12
    assert [done.code for done in written] == [0, 1]
    assert "already" in written[1].err


def test_a_file_is_never_overwritten_unasked(seqnets, classifier, tmp_path):
    (tmp_path / "predictions.jsonl").write_text("precious\n")

    refused = seqnets("predict", f"checkpoint={classifier}")
    kept = (tmp_path / "predictions.jsonl").read_text()
    done = seqnets("predict", f"checkpoint={classifier}", "overwrite=true")

    assert refused.code == 1
    assert "overwrite=true" in refused.err
    assert kept == "precious\n"
    assert done.code == 0
    assert rows_of(tmp_path / "predictions.jsonl")


@pytest.mark.parametrize("arguments", [["input=new.csv", "to=new.csv"], ["to={data}"]])
def test_a_file_that_data_are_read_from_is_never_overwritten(
    arguments, seqnets, trained, classifier, tmp_path
):
    data, new = trained / "mine.csv", tmp_path / "new.csv"
    before = data.read_text()
    new.write_text(before)

    given = [argument.format(data=data) for argument in arguments]
    done = seqnets("predict", f"checkpoint={classifier}", *given, "overwrite=true")

    kept = [file.read_text() for file in (data, new)]
    data.write_text(before)  # which other tests read
    assert kept == [before, before]
    assert done.code == 2
    assert "is a file that data are read from, expected another" in done.err


def test_a_no_to_overwriting_is_not_taken_for_a_yes(seqnets, classifier, tmp_path):
    (tmp_path / "predictions.jsonl").write_text("precious\n")

    refused = seqnets("predict", f"checkpoint={classifier}", "overwrite=no")

    assert refused.code == 2
    assert "overwrite: is 'no', expected true or false" in refused.err
    assert (tmp_path / "predictions.jsonl").read_text() == "precious\n"


@pytest.mark.parametrize("to", ["said.jsonl", "said.csv"])
def test_a_prediction_that_fails_leaves_no_file(to, seqnets, classifier, tmp_path, monkeypatch):
    def diverged(self, outcome, batch, known):
        return [{"prediction": math.nan, "target": "a"}]

    monkeypatch.setattr(Classification, "rows", diverged)
    before = sorted(tmp_path.iterdir())

    done = seqnets("predict", f"checkpoint={classifier}", f"to={to}")

    assert done.code == 1
    assert "Row 1: a number is infinite or NaN" in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_disk_that_is_full_is_told_with_the_file(tmp_path):
    def rows():
        yield {"prediction": 1}
        raise OSError(errno.ENOSPC, "No space left on device")  # as writing would

    with pytest.raises(ConfigError, match=r"said.jsonl cannot be written: No space left"):
        write_rows(rows(), str(tmp_path / "said.jsonl"))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["part=tset"], 2, "Did you mean test?"),
        (["to=said.txt"], 2, "expected a name that ends with .jsonl"),
        (["to=nowhere/said.jsonl"], 1, "a folder that can be written to"),
        (["to=null"], 2, "to: is None, expected a file"),
        (["trainer.devices=2"], 2, "One process writes all rows"),
        (["input=nowhere.csv"], 1, "nowhere.csv"),
        (["input=nowhere.csv", "dataset.audio.window=0.05"], 2, "dataset.audio: differs from"),
        (["prat=test"], 2, "Did you mean part"),
    ],
)
def test_what_cannot_be_predicted_is_told(arguments, code, told, seqnets, classifier, tmp_path):
    done = seqnets("predict", f"checkpoint={classifier}", *arguments)

    assert done.code == code
    assert told in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.glob("*.jsonl"))


def test_words_of_new_data_are_read_as_in_training_or_not_at_all(seqnets, tmp_path):
    (tmp_path / "mine.conll").write_text("Dog\tX\nsat\tY\n\n" * 20)
    seqnets("train", *SMALL, "dataset=tagging", "dataset.path=mine.conll", "model=tagger")
    new = ["predict", "checkpoint=last", "input=mine.conll"]

    other = seqnets(*new, "dataset.lowercase=false")
    same = seqnets(*new, "dataset.lowercase=true")

    assert other.code == 2
    assert "dataset.lowercase: differs from that in training" in other.err
    assert same.code == 0, same.err


@pytest.mark.parametrize("model", ["tagger", "crf_tagger"])
def test_words_are_written_as_they_are_in_the_file(model, seqnets, tmp_path):
    words = ["Dog", "rare", "Flüssiggasflaschenlager"]
    text = "".join(f"{word}\t{label}\n" for word, label in zip(words, "XYX", strict=True))
    (tmp_path / "mine.conll").write_text(f"{text}\n" * 20, encoding="utf-8")
    (tmp_path / "new.txt").write_text("Flüssiggasflaschenlager\n\nDog\nneu\n", encoding="utf-8")
    seqnets("train", *SMALL, "dataset=tagging", "dataset.path=mine.conll", f"model={model}")

    test, new = tmp_path / "test.jsonl", tmp_path / "new.jsonl"
    for more in ([f"to={test}"], [f"to={new}", "input=new.txt"]):
        seqnets("predict", "checkpoint=last", *more)

    assert [row["tokens"] for row in rows_of(test)] == [words] * 2
    assert [row["tokens"] for row in rows_of(new)] == [["Flüssiggasflaschenlager"], ["Dog", "neu"]]


def test_a_dataset_that_reads_no_new_file_says_so(seqnets, tmp_path):
    seqnets("train", *SMALL, "dataset=parity", "dataset.train_size=64", "dataset.test_size=16")

    done = seqnets("predict", f"checkpoint={only_run(tmp_path)}", "input=x.csv")

    assert done.code == 1
    assert "Parity: reads no file of new data" in done.err


def test_an_objective_of_ones_own_without_rows_says_so(seqnets, tmp_path, monkeypatch):
    (tmp_path / "myobjective.py").write_text(
        dedent("""
            from seqnets.training import Classification, Objective


            class Mine(Objective):
                metric, mode = "accuracy", "max"

                def __call__(self, model, batch, state=None):
                    return Classification()(model, batch, state)

                def metrics(self, known):
                    return Classification().metrics(known)
        """)
    )
    folder = tmp_path / "conf" / "objective"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# Mine\n_target_: myobjective.Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    allow = "allow=[myobjective]"
    sizes = ["dataset.train_size=64", "dataset.test_size=16"]
    trained = seqnets(
        *(
            "train",
            "--config-dir",
            "conf",
            *SMALL,
            "dataset=parity",
            *sizes,
            "objective=mine",
            allow,
        )
    )

    done = seqnets("predict", f"checkpoint={only_run(tmp_path)}", allow)

    assert trained.code == 0, trained.err
    assert "seqnets predict" not in trained.out
    assert done.code == 1
    assert "Mine: writes no predictions" in done.err


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (['{"prediction": "a", "target": "a"}', "{"], "said.jsonl, line 2"),
        (['{"prediction": "a", "target": "a"}', "", "[1]"], "said.jsonl, line 3: got [1]"),
        (['{"prediction": "a"}'], "said.jsonl, line 1: got no 'target'"),
        (['{"prediction": "a", "target": null}'], "expected some to score"),
        (['{"target": "a"}'], "said.jsonl, line 1: 'prediction' is missing"),
        (
            ['{"prediction": "a", "target": null}', '{"prediction": "d", "target": "a"}'],
            "said.jsonl, line 2: got prediction 'd', expected one of 'a', 'b', 'c'",
        ),
        (['{"prediction": ["a"], "target": "a"}'], "line 1: got prediction ['a']"),
        ([""], "said.jsonl"),
    ],
)
def test_predictions_that_cannot_be_scored_are_told_with_their_line(
    lines, told, seqnets, classifier, tmp_path
):
    (tmp_path / "said.jsonl").write_text("".join(f"{line}\n" for line in lines))

    done = seqnets("evaluate", f"checkpoint={classifier}", "predictions=said.jsonl")

    assert done.code == 1
    assert told in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (KeyError("cost"), "said.jsonl, line 3: got no 'cost', expected it in each row"),
        (DataError("Row 2: is odd."), "said.jsonl, line 3: is odd."),
        (DataError("Predictions: got 2, expected 3."), "Predictions: got 2, expected 3."),
    ],
    ids=["a key", "a row", "all rows"],
)
def test_what_ones_own_objective_says_of_predictions_is_told(said, told, tmp_path):
    class Mine(Classification):
        def scores(self, rows, known):
            raise said

    path = tmp_path / "said.jsonl"
    path.write_text('{"target": null}\n{"cost": 1, "target": "a"}\n{"target": "b"}\n')

    with pytest.raises(DataError) as error:
        score_file(path, Mine(), {})
    assert str(error.value).removeprefix(f"{tmp_path}{os.sep}").startswith(told)


def test_scores_of_ones_own_objective_have_its_metric(tmp_path):
    class Mine(Classification):
        def scores(self, rows, known):
            return {"cost": 1.0}

    path = tmp_path / "said.jsonl"
    path.write_text('{"target": "a"}\n')

    with pytest.raises(ConfigError, match="Mine: has no accuracy for predictions that are read"):
        score_file(path, Mine(), {})


def test_predictions_are_json_lines(seqnets, trained, classifier):
    done = seqnets("evaluate", f"checkpoint={classifier}", f"predictions={trained / 'mine.csv'}")

    assert done.code == 1
    assert "is not JSON Lines" in done.err


def test_what_an_objective_leaves_open_may_be_changed_for_a_trained_model(seqnets, tmp_path):
    sizes = ["dataset.train_size=64", "dataset.test_size=8", "dataset.length=3"]
    assert seqnets("train", *SMALL, "dataset=sort", *sizes).code == 0
    checkpoint = f"checkpoint={only_run(tmp_path)}"

    assert seqnets("predict", checkpoint, "objective.beam_size=3").code == 0
    assert len(rows_of(tmp_path / "predictions.jsonl")) == 8
    for verb in ("evaluate", "predict"):
        refused = seqnets(verb, checkpoint, "objective.beam_size=0", *WRITE[verb])
        unknown = seqnets(verb, checkpoint, "objective.beam=3", *WRITE[verb])
        assert "beam_size is 0" in refused.err
        assert "Did you mean objective.beam_size" in unknown.err


def test_the_n_best_are_a_list_in_json_lines_and_a_cell_of_json_in_a_table(seqnets, tmp_path):
    sizes = ["dataset.train_size=64", "dataset.test_size=8", "dataset.length=3"]
    assert seqnets("train", *SMALL, "dataset=sort", *sizes).code == 0
    search = f"checkpoint={only_run(tmp_path)}", "objective.beam_size=4"

    for to in ("best.jsonl", "best.csv"):
        done = seqnets("predict", *search, "objective.n_best=3", f"to={to}")
        assert done.code == 0, done.err
    refused = seqnets("predict", *search, "objective.n_best=5", "to=other.jsonl")
    scored = seqnets("evaluate", search[0], "predictions=best.jsonl")

    rows = rows_of(tmp_path / "best.jsonl")
    with (tmp_path / "best.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert [json.loads(line["candidates"]) for line in cells] == [r["candidates"] for r in rows]
    assert list(cells[0]) == ["source", "prediction", "target", "score", "candidates"]
    for row in rows:
        best, *others = row["candidates"]
        assert best == {"prediction": row["prediction"], "score": row["score"]}
        assert len(others) == 2
    assert refused.code == 1
    assert "n_best is 5, expected at most 4, which beam_size is" in refused.err
    assert not (tmp_path / "other.jsonl").exists()
    assert scored.code == 0, scored.err


WRITE = {"evaluate": [], "predict": ["to=other.jsonl"]}
