"""A user's sequences train a regressor, with errors in the user's units."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from seqnets.cells import GRUCell
from seqnets.datasets import ClassificationFiles, RegressionFiles
from seqnets.errors import ConfigError, DataError
from seqnets.models import SequenceRegressor
from seqnets.training import Regression

SERIES = [np.arange(1, 3 + n % 4) * (1 + n % 5) for n in range(40)]
"""Series, whose last value and sum are to be told."""


def write_table(folder, suffix):
    rows = [
        {"sequence": n, "last": int(x[-1]) * 1000, "sum": int(x.sum()), "value": int(v)}
        for n, x in enumerate(SERIES)
        for v in x
    ]
    path = folder / f"series.{suffix}"
    if suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines))
    return path


def write_objects(folder):
    rows = [{"x": x.tolist(), "last": int(x[-1]) * 1000, "sum": int(x.sum())} for x in SERIES]
    (folder / "series.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "series.jsonl"


def write_npz(folder):
    y = [(x[-1] * 1000, x.sum()) for x in SERIES]
    lengths = [len(x) for x in SERIES]
    np.savez(folder / "series.npz", x=np.concatenate(SERIES), lengths=lengths, y=y)
    return folder / "series.npz"


FORMATS = {
    "csv, a row a step": lambda folder: write_table(folder, "csv"),
    "jsonl, a row a step": lambda folder: write_table(folder, "jsonl"),
    "jsonl, a row a sequence": write_objects,
    "npz": write_npz,
}


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_a_file_of_every_format_trains_a_regressor(write, tmp_path):
    data = RegressionFiles(str(write(tmp_path)), targets=["last", "sum"])
    data.setup()
    torch.manual_seed(0)
    model = SequenceRegressor(GRUCell, hidden_size=16, **data.sizes)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(80):
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            Regression()(model, batch).loss.backward()
            optimizer.step()
    (test,) = data.test_dataloader()

    assert data.sizes == {"input_size": 1, "output_size": 2}
    assert data.counts() == {"train": 24, "val": 8, "test": 8}
    assert Regression()(model, test).loss.item() < 0.3 * data.baselines()["mean"]


def write_ts(folder):
    lines = [f"{','.join(map(str, x))}:{x[-1] * 1000}" for x in SERIES]
    header = ["@problemName series", "@univariate true", "@targetLabel true", "@data"]
    (folder / "series.ts").write_text("\n".join(header + lines))
    return folder / "series.ts"


def test_a_ts_file_has_one_target(tmp_path):
    data = RegressionFiles(str(write_ts(tmp_path)), standardise=False)
    data.setup()

    assert {float(y) for y in data.part("train").y} <= {1000.0 * x[-1] for x in SERIES}
    with pytest.raises(DataError, match=r"a .ts file holds one target, and last, sum are wanted"):
        RegressionFiles(str(tmp_path / "series.ts"), targets=["last", "sum"]).setup()


def test_targets_are_standardised_by_the_training_part_and_shown_in_their_own_units(tmp_path):
    data = RegressionFiles(str(write_table(tmp_path, "csv")), targets=["last", "sum"])
    train, scale = data.part("train"), data.describe()["scaling"]["y"]
    (example,) = data.examples("train", 1)

    torch.testing.assert_close(train.y.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(train.y.std(0, correction=0), torch.ones(2))
    x = train.x[: int(train.lengths[0])] * data.contents.inputs.scaling.deviation
    x = x + data.contents.inputs.scaling.mean
    assert float(example["last"]) == pytest.approx(float(x[-1]) * 1000, rel=1e-3)
    assert float(train.y[0, 0]) * scale["deviation"][0] + scale["mean"][0] == pytest.approx(
        float(x[-1]) * 1000, rel=1e-5
    )


EPOCH = 1_700_000_000
"""Seconds since 1970: float32 has steps of 128 there."""


def test_targets_with_a_large_offset_are_standardised_before_they_are_rounded(tmp_path):
    rows = [f"{n},{n % 7},{EPOCH + n}" for n in range(30)]
    (tmp_path / "times.csv").write_text("sequence,value,target\n" + "\n".join(rows))
    data = RegressionFiles(str(tmp_path / "times.csv"))
    data.setup()
    y, scale = data.part("train").y, data.describe()["scaling"]["y"]

    assert y.dtype == torch.float32
    own = y[:, 0].double() * scale["deviation"][0] + scale["mean"][0]
    expected = [EPOCH + int(name) for name in data.part("train").ids]
    assert own.tolist() == pytest.approx(expected, abs=1e-3, rel=0)


def test_predictions_are_written_in_the_users_units_and_read_back(tmp_path):
    data = RegressionFiles(str(write_table(tmp_path, "csv")), targets=["last", "sum"])
    known, objective = data.describe(), Regression()
    torch.manual_seed(0)
    model = SequenceRegressor(GRUCell, hidden_size=4, **data.sizes)
    (batch,) = data.test_dataloader()
    outcome = objective(model, batch)
    rows = objective.rows(outcome, batch, known)
    scores = objective.scores(rows, known)
    said, right = (
        np.array([[row[key]["last"], row[key]["sum"]] for row in rows])
        for key in ("prediction", "target")
    )

    assert right[:, 0].tolist() == pytest.approx((right[:, 0] / 1000).round() * 1000)
    assert scores["mse"] == pytest.approx(outcome.loss.item(), rel=1e-5)
    assert scores["mae_last"] == pytest.approx(np.abs(said - right)[:, 0].mean(), rel=1e-5)
    assert scores["mae_sum"] == pytest.approx(np.abs(said - right)[:, 1].mean(), rel=1e-5)


def test_without_standardising_metrics_are_in_the_users_units(tmp_path):
    data = RegressionFiles(str(write_objects(tmp_path)), targets=["sum"], standardise=False)

    assert set(Regression().metrics(data.describe())) == {"mse", "mae"}
    assert data.part("test").y[:, 0].tolist() == [sum(x) for x in _sequences(data.part("test"))]


def _sequences(part):
    return [x[:, 0].tolist() for x in part.x.split(part.lengths.tolist())]


def test_the_mean_is_the_baseline(tmp_path):
    data = RegressionFiles(str(write_objects(tmp_path)), targets=["sum"], standardise=False)
    train, test = (data.part(part).y[:, 0].double() for part in ("train", "test"))

    assert data.baselines()["mean"] == pytest.approx(
        float((test - train.mean()).square().mean()), rel=1e-5
    )


def test_targets_of_new_files_are_kept_where_they_are_numbers(tmp_path):
    data = RegressionFiles(str(write_table(tmp_path, "csv")), targets=["last", "sum"])
    known = data.describe()
    (tmp_path / "new.csv").write_text("sequence,value,last,sum\n1,2,4,6\n2,2,much,6\n")
    (batch,) = data.new(tmp_path / "new.csv", known)
    outcome = Regression()(SequenceRegressor(GRUCell, hidden_size=4, **data.sizes), batch)

    targets = [row["target"] for row in Regression().rows(outcome, batch, known)]
    assert targets == [{"last": 4, "sum": 6}, None]


def test_new_files_may_have_no_targets(tmp_path):
    data = RegressionFiles(str(write_table(tmp_path, "csv")), targets=["last", "sum"])
    (tmp_path / "new.csv").write_text("sequence,value\n1,2\n1,4\n")
    (batch,) = data.new(tmp_path / "new.csv", data.describe())
    outcome = Regression()(SequenceRegressor(GRUCell, hidden_size=4, **data.sizes), batch)
    (row,) = Regression().rows(outcome, batch, data.describe())

    assert batch.y.isnan().all()
    assert batch.y.shape == (1, 2)
    assert row["target"] is None
    assert all(math.isfinite(number) for number in row["prediction"].values())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0,1000,", "0,,", "line 2: column last is missing, expected a finite float32 number"),
        ("0,1000,", "0,1_000,", "line 2: column last is '1_000', expected a finite float32 number"),
        ("0,1000,", "0,١٢,", "line 2: column last is '١٢', expected a finite float32 number"),
        ("0,1000,", "0,much,", "line 2: column last is 'much', expected a finite float32 number"),
        ("0,1000,", "0,nan,", "line 2: column last is 'nan', expected a finite float32 number"),
        ("0,1000,", "0,1e99,", "line 2: column last is '1e99', expected a finite float32 number"),
        ("0,2000,3,2", "0,2001,3,2", r"line 3: last, sum is \(2001.0, 3.0\), expected \(2000.0"),
        ("last", "first", r"header: got the columns .*, expected last too.\n.*dataset.targets="),
    ],
)
def test_a_malformed_target_is_refused_with_the_line(tmp_path, old, new, message):
    path = tmp_path / "data.csv"
    text = "sequence,last,sum,value\n0,1000,3,1\n0,2000,3,2\n"
    text = text if "2000,3,2" in old else text.replace("0,2000,3,2\n", "")
    path.write_text(text.replace(old, new, 1))
    if "2001" in new:
        path.write_text(path.read_text().replace("0,1000,3,1", "0,2000,3,1"))

    with pytest.raises(DataError, match=message):
        RegressionFiles(str(path), targets=["last", "sum"]).setup()


def test_a_target_that_is_a_word_is_told_to_be_one_of_classification(tmp_path):
    (tmp_path / "data.csv").write_text("sequence,my kind,value\n0,up,1\n")

    told = "is 'up', .*\\n  If it is .* dataset=classification \"dataset.label='my kind'\""
    with pytest.raises(DataError, match=told):
        RegressionFiles(str(tmp_path / "data.csv"), targets=["my kind"]).setup()
    (tmp_path / "data.csv").write_text("sequence,my kind,value\n0,inf,1\n")
    with pytest.raises(DataError, match=r"is 'inf', expected a finite float32 number\.$"):
        RegressionFiles(str(tmp_path / "data.csv"), targets=["my kind"]).setup()


def test_an_array_of_several_targets_without_their_names_is_told_how_to_name_them(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.ones((3, 2)), y=np.ones((3, 2)))

    with pytest.raises(DataError, match=r"\(3, 2\), expected \(3, 1\) .*\n.*dataset.targets=\["):
        RegressionFiles(str(tmp_path / "data.npz")).setup()
    with pytest.raises(DataError) as error:
        ClassificationFiles(str(tmp_path / "data.npz"), label="kind").setup()
    assert "dataset.targets" not in str(error.value), "which it does not have"


def test_a_folder_of_classes_is_refused(tmp_path):
    (tmp_path / "a").mkdir()

    with pytest.raises(
        DataError, match="got a folder, expected a table with target: folders hold classes"
    ):
        RegressionFiles(str(tmp_path)).setup()


@pytest.mark.parametrize("targets", [[], ["a", "a"]])
def test_invalid_targets_are_refused(targets):
    with pytest.raises(ConfigError, match="expected one or more columns, each once"):
        RegressionFiles("data.csv", targets)
