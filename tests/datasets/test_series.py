import json
import math
from calendar import monthrange
from datetime import date

import numpy as np
import pytest
import torch

from seqnets.datasets import ETTh1, SeriesTable
from seqnets.datasets.baselines.forecasts import forecast_baselines
from seqnets.datasets.series.windows import Windows, window_starts
from seqnets.errors import ConfigError, DataError


@pytest.fixture
def table(tmp_path):
    """Make the dataset of a table with the rows given, or of forty hours of two columns."""

    def make(lines=None, name="series.csv", **options):
        path = tmp_path / name
        if lines is None:
            lines = [
                "time,a,b",
                *(f"2026-01-{1 + i // 24:02}T{i % 24:02}:00,{i},{i % 5}" for i in range(40)),
            ]
        path.write_text("\n".join(lines) + "\n")
        return SeriesTable(str(path), **{"lookback": 4, "horizon": 2, **options})

    return make


def unscaled(data, values):
    scaling = data.scaling
    return (values.double() * scaling.deviation + scaling.mean).numpy()


def test_windows_cover_each_part_exactly(table):
    data = table(validation_fraction=0.25, test_fraction=0.25)
    data.setup()
    told = {
        part: unscaled(data, torch.cat([batch.y for batch in data.loader(part).in_order()]))
        for part in ("train", "val", "test")
    }

    assert data.counts() == {"train": 20 - 4 - 2 + 1, "val": 10 - 2 + 1, "test": 10 - 2 + 1}
    for part, first, end in (("train", 4, 20), ("val", 20, 30), ("test", 30, 40)):
        starts = told[part][:, 0, 0].round().astype(int).tolist()
        assert starts == list(range(first, end - 1))


def test_a_windows_inputs_precede_its_targets(table):
    data = table()
    data.setup()
    for batch in data.train_dataloader():
        x, y = unscaled(data, batch.x), unscaled(data, batch.y)
        steps = np.concatenate([x, y], 1)[..., 0]
        assert batch.x.shape[1:] == (4, 2)
        assert np.allclose(np.diff(steps, axis=1), 1)


def test_windows_are_shuffled_for_training_alone(table):
    data = table()
    rising = {part: next(iter(data.loader(part))).y[:, 0, 0].diff() > 0 for part in data.counts()}

    assert not rising["train"].all()
    assert rising["val"].all()
    assert rising["test"].all()


def test_scaling_is_of_the_training_part_alone(table):
    data = table(validation_fraction=0.25, test_fraction=0.25)
    data.setup()

    assert data.scaling.mean.tolist() == [np.arange(20).mean(), pytest.approx(2)]
    assert float(data.scaling.deviation[0]) == pytest.approx(np.arange(20).std(), abs=1e-12)


def test_targets_come_first_and_are_all_that_is_forecast(table):
    data = table(targets=["b"])
    data.setup()
    batch = next(iter(data.test_dataloader()))

    assert data.describe()["columns"] == ["b", "a"]
    assert data.sizes == {"input_size": 2, "output_size": 1, "horizon": 2}
    assert (batch.x.shape, batch.y.shape) == ((7, 4, 2), (7, 2, 1))


def test_windows_never_cross_from_one_series_into_another(table):
    rows = [f"{s},{i},{i + 1000 * s}" for i in range(30) for s in (1, 2)]
    data = table(["series,time,a", *rows])
    data.setup()

    assert list(data.series.lengths) == ["1", "2"]
    for part in ("train", "val", "test"):
        for batch in data.loader(part):
            steps = unscaled(data, torch.cat([batch.x, batch.y], 1))[..., 0]
            assert np.allclose(np.diff(steps, axis=1), 1, atol=1e-3)


def test_the_column_of_the_time_may_have_another_name(table):
    rows = ["date,a", *(f"2026-01-{1 + i:02},{i}" for i in range(30))]
    data = table(rows, time="date")

    assert data.series.columns == ["a"]
    assert data.series.times[-1] == "2026-01-30"
    with pytest.raises(DataError, match=r"column date is '2026-01-01'.*\n.*dataset.time=date"):
        table(rows).setup()
    with pytest.raises(DataError, match="got the columns date, a, expected day too"):
        table(rows, time="day").setup()


def test_processes_share_every_batch(table, as_process):
    whole = next(iter(table(batch_size=8).train_dataloader()))
    shares = []
    for rank in (0, 1):
        with as_process(rank, 2):
            shares.append(next(iter(table(batch_size=4).train_dataloader())))

    assert torch.equal(torch.stack([s.y for s in shares], 1).flatten(0, 1), whole.y)


MISSING = ["a,b", *(["1,1", "2,", "3,3", ",4", "NA,nan", "6,6", "7,7", "8,8"])]
LONGER = MISSING + ["9,9"] * 20


@pytest.mark.parametrize(
    ("missing", "a", "b"),
    [
        ("forward", [1, 2, 3, 3, 3, 6], [1, 1, 3, 4, 4, 6]),
        ("linear", [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]),
    ],
)
def test_missing_values_are_filled_in_and_never_scored(table, missing, a, b):
    data = table(LONGER, missing=missing)
    data.setup()
    y = data.windows["train"].y

    assert data.series.values[:6].T.tolist() == [a, b]
    assert y[:8].isnan().T.nonzero().tolist() == [[0, 3], [0, 4], [1, 1], [1, 4]]
    assert data.windows["train"].x.isfinite().all()


def test_a_missing_value_is_not_scored_wherever_its_column_is_put(table):
    data = table(LONGER, missing="forward", targets=["b"])

    assert data.windows["train"].y[:8].isnan().nonzero().tolist() == [[1, 0], [4, 0]]


def test_a_dash_is_told_how_a_missing_value_is_written(table):
    with pytest.raises(DataError, match=r"'-', expected .*\n  A missing value is an empty cell"):
        table(["a", "-", *["1"] * 20]).setup()


def test_a_gap_at_the_beginning_takes_the_first_value(table):
    data = table(["a", "?", "?", "3", *["4"] * 20], missing="forward")

    assert data.series.values[:4, 0].tolist() == [3, 3, 3, 4]


def test_the_mask_marks_present_values(table):
    data = table(LONGER, missing="forward", mask=True, targets=["b"])
    data.setup()

    assert data.series.columns == ["b", "a", "a is there", "b is there"]
    assert data.series.values[:6, 3].tolist() == [1, 0, 1, 1, 0, 1]
    assert data.sizes["output_size"] == 1


def test_masks_are_not_targets(table):
    data = table(LONGER, missing="forward", mask=True)
    data.setup()
    bare = table(LONGER, missing="forward")

    assert data.series.columns == ["a", "b", "a is there", "b is there"]
    assert data.sizes == {"input_size": 4, "output_size": 2, "horizon": 2}
    assert data.baselines()["last value"] == bare.baselines()["last value"]


def test_scaling_ignores_missing_values(table):
    lines = ["a", "1", "", "3", *["2"] * 8, *["5"] * 8]
    data = table(lines, missing="forward", validation_fraction=0.2, test_fraction=0.2)

    assert float(data.scaling.mean[0]) == pytest.approx(np.mean([1, 3, *[2] * 8]))


def rows(*changed):
    """Thirty hours, some lines of which are replaced: (line, text)."""
    lines = ["time,a", *(f"2026-01-{1 + i // 24:02} {i % 24:02}:00:00,{i}" for i in range(30))]
    for line, text in changed:
        lines[line - 1] = text
    return lines


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            rows((5, "2026-01-01 03:00:00,x")),
            "line 5: column a is 'x', expected a finite float32 number",
        ),
        (rows((5, "2026-01-01 03:00:00,")), r"line 5: column a is missing.*\n.*missing=forward"),
        (rows((5, "soon,3")), "line 5: time is 'soon', expected a time such as"),
        (rows((5, ",3")), "line 5: time is missing, expected a time"),
        (rows((5, "7,3")), "line 5: time is a number, expected a time without a zone"),
        (rows((5, "2026-01-01T03:00:00Z,3")), "line 5: time is a time with a zone"),
        (rows((5, "2026-01-01 02:00:00,3")), "line 5: got time 2026-01-01 02:00:00 twice"),
        (rows((5, "2026-01-01 01:00:00,3")), r"line 5: .* expected a later one.\n  Sort"),
        (["time,a", "1,0", "2,0", "4,0"], "line 4: .* a step of 2, expected 1, the length of"),
        (rows((5, "2026-01-01 03:30:00,3")), r"line 5: .* a step of 1:30:00, expected 1:00:00"),
        (
            ["time,a", "2026-01-01,1", "2026-01-02,2", "2026-01-04,4"],
            r"a step of 2 days, expected 1 day, the length",
        ),
        (
            ["time,a", "20260130,1", "20260131,2", "20260201,3"],
            r"line 4: .* a step of 70, expected 1, .*\n  It is read as a number. .* 2026-02-01",
        ),
        (["time,series", "1,a"], "header: got the columns time, series"),
        (["series,a", "x,1", ",2"], "line 3: column series is missing"),
        (["a", *"1234567"], r"the train part of the series has steps 0 to 5 of 7, too few"),
        (["a,b", *["1,"] * 20], r"line 2: column b is missing"),
    ],
)
def test_a_malformed_table_is_refused_with_the_line(table, lines, message):
    with pytest.raises(DataError, match=message) as caught:
        table(lines).setup()
    assert "series.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("time", "told"),
    [
        ("2026-01-01 02:00:00", True),
        ("2026-01-01 01:00:00", True),
        ("2026-01-01 00:30:00", False),
        ("2026-01-01T01:00:00Z", False),
    ],
)
def test_an_hour_that_occurs_twice_is_told_from_a_file_in_disorder(table, time, told):
    lines = rows((5, f"{time},3"))
    if time.endswith("Z"):
        lines = [line.replace(":00:00,", ":00:00Z,") for line in lines]

    with pytest.raises(DataError) as caught:
        table(lines, time_gaps="ignore").setup()
    assert ("If clocks were set back" in str(caught.value)) is told


def test_a_column_without_values_is_refused(table):
    lines = ["a,b,c", *["1,,x"] * 30]
    named = ["series,a,b", *["x,1,2"] * 30, *["y,1,"] * 30]

    with pytest.raises(
        DataError, match=r"of the series has no .*\n.*: 'dataset.leave_out=\[c,b\]'\.$"
    ):
        table(lines, missing="forward", leave_out=["c"]).setup()
    with pytest.raises(DataError, match=r"b of y has no .*\n.*leave_out=\[b\]'; or remove y from"):
        table(named, missing="forward").setup()


def test_a_column_without_training_values_is_refused(table):
    lines = ["a,b", *["1,"] * 25, *["1,2"] * 5]

    with pytest.raises(DataError, match="column b has no value in the training part"):
        table(lines, missing="forward").setup()


@pytest.mark.parametrize(("part", "steps"), [("val", range(20, 30)), ("test", range(30, 40))])
def test_a_part_without_target_values_is_refused(part, steps, table):
    lines = ["a,b", *(f"{'' if step in steps else step},{step}" for step in range(40))]
    options = {"validation_fraction": 0.25, "test_fraction": 0.25, "missing": "forward"}

    with pytest.raises(DataError, match=f"the {part} part has no target value"):
        table(lines, targets=["a"], **options).setup()
    table(lines, **options).setup()


def test_a_target_that_is_not_a_column_is_refused(table):
    with pytest.raises(DataError, match=r"targets: got the numeric columns .*, expected c too"):
        table(targets=["c"]).setup()


def test_uneven_steps_can_be_treated_as_even(table):
    months = ["time,a", *(f"{2020 + i // 12}-{1 + i % 12:02}-01,{i}" for i in range(40))]

    with pytest.raises(DataError, match=r"line 4: .* 29 days.*\n.*missing=forward.*=ignore"):
        table(months).setup()
    with pytest.raises(
        DataError, match=r"2020-02-01 .* 31 days.* multiple of .* 28 days.* before 2021-03-01"
    ):
        table(months, time_gaps="fill", missing="forward").setup()
    table(months, time_gaps="ignore").setup()


def test_missing_steps_can_be_inserted(table):
    hours = [
        f"2026-01-{1 + i // 24:02} {i % 24:02}:00,{i}" for i in range(30) if i not in (1, 5, 6)
    ]
    data = table(["time,a", *hours], time_gaps="fill", missing="linear")
    data.setup()

    assert data.series.values[:, 0].tolist() == list(range(30))
    assert (~data.series.observed[:, 0]).nonzero()[0].tolist() == [1, 5, 6]
    assert data.series.times[4:6] == ["2026-01-01 04:00", "2026-01-01 05:00:00"]
    with pytest.raises(DataError, match="expected time too"):
        table(["a", *"123456789"], time_gaps="fill", missing="forward").setup()


def test_a_gap_from_a_wrong_timestamp_is_not_filled(table):
    steps = ["time,a", "0,1", *(f"{1_700_000_000 + i},1" for i in range(30))]

    with pytest.raises(DataError, match=r"31 rows would become 1,7.* steps of 1,.*\n.*after 0\."):
        table(steps, time_gaps="fill", missing="forward").setup()


def test_an_error_names_all_columns_of_words_beside_those_left_out(table):
    lines = ["day,a,town,b,sky", *(f"monday,{i},Rome,1,blue" for i in range(30))]

    with pytest.raises(
        DataError, match=r"town is 'Rome'.*\n.*a category: .*leave_out=\[day,town,sky\]'\."
    ):
        table(lines, leave_out=["day"]).setup()


def test_infinity_is_not_told_to_be_a_category(table):
    with pytest.raises(DataError, match=r"a is 'inf'.*\n  If .*series=a; not a feature: "):
        table(["a,b", *("inf,1" for _ in range(30))]).setup()


def test_options_in_errors_quote_names_with_blanks_for_hydra_and_the_shell(table):
    lines = ["my day,a", *(f"monday,{i}" for i in range(30))]

    with pytest.raises(DataError) as caught:
        table(lines).setup()
    assert """timestamp: "dataset.time='my day'"; a""" in str(caught.value)
    assert """not a feature: "dataset.leave_out=['my day']".""" in str(caught.value)


def test_columns_may_be_named_or_left_out(table, tmp_path):
    lines = ["id,place,a", *(f"{name},roof,{i}" for name in "xy" for i in range(30))]
    data = table(lines, series="id", leave_out=["place"])
    data.setup()
    (tmp_path / "new.csv").write_text("id,a\n" + "z,1\n" * 4)

    assert (list(data.series.lengths), data.series.columns) == (["x", "y"], ["a"])
    assert data.new(tmp_path / "new.csv", data.describe()).ids == ["z"]
    with pytest.raises(DataError, match=r"place is 'roof'.*\n.*dataset.leave_out=\[place\]"):
        table(lines, series="id").setup()
    with pytest.raises(DataError, match="expected plase too"):
        table(lines, series="id", leave_out=["plase"]).setup()
    with pytest.raises(
        DataError, match="leave_out has id, expected columns that would be features"
    ):
        table(lines, series="id", leave_out=["id"]).setup()
    with pytest.raises(DataError, match="expected sensor too"):
        table(lines, series="sensor").setup()


def test_a_single_series_keeps_its_name(table):
    data = table(["series,a", *(f"x,{i}" for i in range(30))])
    data.setup()

    assert set(data.loader("test").ids) == {"x"}
    assert data.new(data.file, data.describe()).ids == ["x"]


@pytest.mark.parametrize(
    "times",
    [
        [f"2024-01-01 00:00:{i // 10:02}.{i % 10}00000" for i in range(400)],
        [f"{1_700_000_000 + i / 100:.2f}" for i in range(400)],
    ],
    ids=["10 Hz as dates", "100 Hz since 1970"],
)
def test_even_steps_may_be_shorter_than_the_resolution_of_timestamps(table, times):
    lines = [f"{time},{i}" for i, time in enumerate(times)]

    table(["time,a", *lines]).setup()
    with pytest.raises(DataError, match=r"line 42: .* a step of .*, expected"):
        table(["time,a", *lines[:40], *lines[41:]]).setup()


def test_rows_of_json_may_lack_what_is_missing(table):
    lines = [
        json.dumps({"time": i, "a": i, "b": 2 * i} if i != 3 else {"time": 3, "a": 3})
        for i in range(30)
    ]
    data = table(lines, "series.jsonl", missing="linear")

    assert data.series.values[3].tolist() == [3, 6]
    with pytest.raises(DataError, match="line 31: got a column c"):
        table([*lines, '{"time": 30, "a": 1, "c": 2}'], "series.jsonl", missing="linear").setup()


def test_times_of_parquet_are_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from datetime import datetime, timedelta

    from pyarrow import parquet

    times = [datetime(2026, 1, 1) + timedelta(hours=i) for i in range(30)]
    content = pyarrow.table({"time": times, "a": [float(i) for i in range(30)]})
    parquet.write_table(content, tmp_path / "series.parquet")
    data = SeriesTable(str(tmp_path / "series.parquet"), lookback=4, horizon=2)
    data.setup()

    assert data.series.times[1] == "2026-01-01 01:00:00"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"missing": "guess"}, "missing is 'guess'"),
        ({"time_gaps": "guess"}, "time_gaps is 'guess'"),
        ({"time_gaps": "fill"}, "missing is 'error', expected forward or linear with"),
        ({"season": 5}, "season is 5, expected at most lookback, 4"),
        ({"targets": "a"}, "targets is 'a', expected a list"),
        ({"targets": ["a", "a"]}, "each once"),
        ({"known_ahead": "a"}, "known_ahead is 'a', expected a list of columns, each once"),
        ({"known_ahead": ["a"], "targets": ["a"]}, "known_ahead has a, expected no column of t"),
        ({"lookback": 0}, "lookback is 0"),
        ({"horizon": 0}, "horizon is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"test_fraction": 0.6, "validation_fraction": 0.5}, "expected below 1"),
    ],
)
def test_invalid_options_are_refused(table, options, message):
    with pytest.raises(ConfigError, match=message):
        table(**options)


def test_new_data_are_the_last_steps_in_the_scaling_that_was_learned(table, tmp_path):
    data = table(targets=["b"])
    data.setup()
    known = data.describe()
    (tmp_path / "new.csv").write_text("b,a,c\n" + "".join(f"{i},{100 + i},0\n" for i in range(9)))

    (batch,) = table(targets=["b"]).new(tmp_path / "new.csv", known)

    assert unscaled(data, batch.x)[0].T.round(3).tolist() == [[5, 6, 7, 8], [105, 106, 107, 108]]
    assert batch.y.shape == (1, 2, 1)
    assert batch.y.isnan().all()


def test_windows_say_which_series_they_are_of_and_after_which_step(table, tmp_path):
    lines = [f"{name},2026-01-01T{n:02}:00,{n % 5}" for name in ("x", "y") for n in range(20)]
    data = table(["series,time,a", *lines], validation_fraction=0.25, test_fraction=0.25)
    data.setup()
    test, new = data.loader("test"), data.new(tmp_path / "series.csv", data.describe())

    assert test.ids == ["x"] * 4 + ["y"] * 4
    assert test.texts["after"] == 2 * [f"2026-01-01T{n}:00" for n in (14, 15, 16, 17)]
    assert new.ids == ["x", "y"]
    assert new.texts["after"] == ["2026-01-01T19:00"] * 2
    assert list(test.texts["time"])[3:5] == [
        ["2026-01-01T18:00", "2026-01-01T19:00"],
        ["2026-01-01T15:00", "2026-01-01T16:00"],
    ]
    assert new.texts["time"] == [["2026-01-01T20:00", "2026-01-01T21:00"]] * 2


def shops(coming=2, names=("x",), told=20):
    """Hours of shops: sales n, a price and a promotion 10 n; and what is known of those ahead."""
    lines = ["series,time,promotion,sales,price"]
    for place, name in enumerate(names):
        count = told + 3 * place
        lines += [f"{name},2026-01-01T{n:02}:00,{10 * n},{n},{n % 3}" for n in range(count)]
        ahead = range(count, count + coming)
        lines += [f"{name},2026-01-{1 + n // 24:02}T{n % 24:02}:00,{10 * n},," for n in ahead]
    return lines


SHOPS = {"targets": ["sales"], "known_ahead": ["promotion"], "test_fraction": 0.3}


def test_columns_that_are_known_ahead_are_read_over_the_horizon(table):
    data = table(shops(0), **SHOPS)
    data.setup()
    scaling = data.scaling

    assert data.series.columns == ["sales", "price", "promotion"]
    assert data.sizes == {"input_size": 3, "output_size": 1, "horizon": 2, "ahead_size": 1}
    assert [row["is"] for row in data.features()] == ["target", "input only", "known ahead"]
    for part in ("train", "val", "test"):
        for batch in data.loader(part):
            assert (batch.x.shape[1:], batch.ahead.shape[1:]) == ((4, 3), (2, 1))
            promotion = batch.ahead[..., 0] * scaling.deviation[2] + scaling.mean[2]
            sales = batch.y[..., 0] * scaling.deviation[0] + scaling.mean[0]
            torch.testing.assert_close(promotion, 10 * sales, rtol=1e-4, atol=1e-4)


def test_without_targets_all_columns_but_those_known_ahead_are_forecast(table):
    data = table(known_ahead=["a"])

    assert data.sizes == {"input_size": 2, "output_size": 1, "horizon": 2, "ahead_size": 1}
    assert data.series.columns == ["b", "a"]


def test_steps_of_which_only_what_is_known_ahead_is_there_are_no_part_of_the_training(table):
    bare, longer = table(shops(0, "xy"), **SHOPS), table(shops(5, "xy"), "longer.csv", **SHOPS)

    assert longer.describe() == bare.describe()
    assert longer.series.times == bare.series.times
    for part in ("train", "val", "test"):
        assert torch.equal(longer.windows[part].x, bare.windows[part].x)


@pytest.mark.parametrize("name", ["new.csv", "series.csv"])
@pytest.mark.parametrize("missing", ["error", "forward"])
def test_new_data_go_on_with_what_is_known_ahead(table, tmp_path, name, missing):
    data = table(shops(3, "xy"), missing=missing, **SHOPS)
    known, scaling = data.describe(), data.scaling
    (tmp_path / name).write_text("\n".join(shops(3, "xy")) + "\n")

    new = data.new(tmp_path / name, known)
    (batch,) = new

    assert (scaling.undo(batch.x)[..., 0] + 0.5).int().tolist() == [
        [16, 17, 18, 19],
        [19, 20, 21, 22],
    ]
    promotion = batch.ahead[..., 0] * scaling.deviation[2] + scaling.mean[2]
    assert promotion.round().tolist() == [[200, 210], [230, 240]]
    assert batch.y.isnan().all()
    assert new.ids == ["x", "y"]
    assert new.texts["after"] == ["2026-01-01T19:00", "2026-01-01T22:00"]
    assert new.texts["time"] == [
        ["2026-01-01T20:00", "2026-01-01T21:00"],
        ["2026-01-01T23:00", "2026-01-02T00:00"],
    ]


def test_rows_of_json_may_lack_all_that_is_not_known_ahead(table, tmp_path):
    lines = [{"sales": n, "promotion": n % 2} for n in range(30)]
    lines += [{"promotion": 1}, {"promotion": 0}]
    data = table([json.dumps(line) for line in lines], "series.jsonl", known_ahead=["promotion"])

    new = data.new(tmp_path / "series.jsonl", data.describe())

    assert len(data.series.times) == 30
    assert next(iter(new)).ahead.sign().tolist() == [[[1], [-1]]]
    assert new.texts == {"after": ["step 29"]}


def changed(lines, line, text):
    lines[line - 1] = text
    return lines


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (
            shops(1),
            {},
            r"got 1 step of x after 2026-01-01T19:00, expected 2, .*\n.*: promotion. Add a row for",
        ),
        (shops(0), {}, "got 0 steps of x after 2026-01-01T19:00, expected 2, the model's horizon"),
        (shops(2, told=3), {}, "got 3 steps of x, expected at least 4, the model's lookback"),
        (
            changed(shops(), 23, "x,2026-01-01T21:00,,,"),
            {"missing": "forward"},
            r"column promotion of x has no value at 2026-01-01T21:00, expected one: .*\n.* a guess",
        ),
        (
            changed(shops(), 23, "x,2026-01-01T22:00,1,,"),
            {"missing": "forward", "time_gaps": "fill"},
            "column promotion of x has no value at 2026-01-01 21:00:00",
        ),
        (
            changed(shops(), 20, "x,2026-01-01T18:00,1,,"),
            {},
            "new.csv, line 20: column sales is missing, expected a number",
        ),
        (
            changed(shops(), 22, "x,2026-01-01T20:00,1,,5"),
            {},
            r"column sales is missing, .*\n.*\n  If the row is of a step to come, leave price",
        ),
        (
            [line.replace(",promotion", ",discount") for line in shops()],
            {},
            r"new.csv, header: got the features discount, .*, expected promotion too",
        ),
    ],
)
def test_new_data_without_what_is_known_ahead_are_refused(table, tmp_path, lines, options, message):
    data = table(shops(0, told=24), **SHOPS, **options)
    (tmp_path / "new.csv").write_text("\n".join(lines) + "\n")

    with pytest.raises(DataError, match=message):
        data.new(tmp_path / "new.csv", data.describe())


@pytest.mark.parametrize(
    ("known_ahead", "said"),
    [([], "'dataset.known_ahead=[promotion]'"), (["promotion"], "=[promotion,price]'")],
)
def test_what_a_row_to_come_has_is_told_to_be_known_ahead(table, known_ahead, said):
    price = "" if not known_ahead else "5"
    lines = changed(shops(2), 22, f"x,2026-01-01T20:00,1,,{price}")

    with pytest.raises(DataError, match=r"line 22: column sales is missing") as raised:
        table(lines, known_ahead=known_ahead).setup()

    last = str(raised.value).splitlines()[-1]
    assert last.startswith("  If the row is of a step to come, what it has is known ahead: ")
    assert last.endswith(f"{said}.")


def test_columns_that_cannot_be_known_ahead_are_refused(table):
    with pytest.raises(DataError, match=r"header: got the features a, b, expected c too.\n"):
        table(known_ahead=["c"]).setup()
    with pytest.raises(DataError, match=r"header: got the features a, b, expected time too.\n"):
        table(known_ahead=["time"]).setup()
    with pytest.raises(DataError, match="known_ahead has b, a, expected at least one of the"):
        table(known_ahead=["b", "a"]).setup()


def test_a_mask_says_of_the_past_alone_what_was_there(table):
    lines = changed(shops(0, told=24), 6, "x,2026-01-01T04:00,,4,1")
    data = table(lines, mask=True, missing="forward", **SHOPS)

    assert data.series.columns == [
        *("sales", "price", "promotion is there", "sales is there", "price is there"),
        "promotion",
    ]
    assert data.sizes == {"input_size": 6, "output_size": 1, "horizon": 2, "ahead_size": 1}


ENDS_OF_MONTHS = [
    f"{2020 + n // 12}-{n % 12 + 1:02}-{monthrange(2020 + n // 12, n % 12 + 1)[1]}"
    for n in range(48)
]


@pytest.mark.parametrize(
    ("times", "gaps", "recent", "ahead"),
    [
        (range(30), "error", [7, 8, 9, 10], ["11", "12"]),
        ([n / 10 for n in range(30)], "error", [0.6, 0.7, 0.8, 0.9], ["1.0", "1.1"]),
        ([n * 0.1 for n in range(30)], "error", [0.0, 0.1, 0.2, 3 * 0.1], ["0.4", "0.5"]),
        (
            [1767225600000000 + n for n in range(30)],
            "error",
            [1767225700000000 + n for n in range(4)],
            ["1767225700000004", "1767225700000005"],
        ),
        (
            [f"2026-01-{day:02}{noon}" for day in range(1, 16) for noon in ("", " 12:00")],
            "error",
            ["2026-03-01 12:00", "2026-03-02", "2026-03-02 12:00", "2026-03-03"],
            ["2026-03-03 12:00:00", "2026-03-04"],
        ),
        (
            [f"2026-01-{day:02}" for day in range(1, 31)],
            "error",
            ["2028-02-25", "2028-02-26", "2028-02-27", "2028-02-28"],
            ["2028-02-29", "2028-03-01"],
        ),
        (
            [f"2026-01-01 {hour:02}:00+01:00" for hour in range(24)],
            "error",  # clocks were set back between the last two steps
            [
                "2026-10-25 00:00+02:00",
                "2026-10-25 01:00+02:00",
                "2026-10-25 02:00+02:00",
                "2026-10-25 02:00+01:00",
            ],
            ["2026-10-25 03:00+01:00", "2026-10-25 04:00+01:00"],
        ),
        (
            [f"2026-01-01T{hour:02}:30Z" for hour in range(24)],
            "fill",
            ["2026-12-31T17:30Z", "2026-12-31T19:30Z", "2026-12-31T21:30Z", "2026-12-31T22:30Z"],
            ["2026-12-31T23:30Z", "2027-01-01T00:30Z"],
        ),
        (
            ENDS_OF_MONTHS,
            "ignore",
            ["2027-09-30", "2027-10-31", "2027-11-30", "2027-12-31"],
            ["2028-01-31", "2028-02-29"],
        ),
        (
            [f"{year}-{month:02}-01" for year in range(2010, 2020) for month in (1, 4, 7, 10)],
            "ignore",
            ["2025-01-01", "2025-04-01", "2025-07-01", "2025-10-01"],
            ["2026-01-01", "2026-04-01"],
        ),
        (
            [f"{year}-01-01" for year in range(1990, 2020)],
            "ignore",
            ["2022-01-01", "2023-01-01", "2024-01-01", "2025-01-01"],
            ["2026-01-01", "2027-01-01"],
        ),
    ],
)
def test_a_forecast_tells_the_times_of_its_steps(table, tmp_path, times, gaps, recent, ahead):
    data = table(
        ["time,a", *(f"{time},{n % 5}" for n, time in enumerate(times))],
        time_gaps=gaps,
        missing="forward",
    )
    data.setup()
    (tmp_path / "new.csv").write_text("time,a\n" + "".join(f"{time},1\n" for time in recent))

    new = data.new(tmp_path / "new.csv", data.describe())

    assert new.texts["time"] == [ahead]


@pytest.mark.parametrize("times", [["2026-01-01"], ["9999-12-30", "9999-12-31"]])
def test_no_times_are_told_after_a_single_step_or_the_last_day_that_there_is(
    table, tmp_path, times
):
    data = table(["time,a", *(f"2026-01-{n:02},{n % 5}" for n in range(1, 31))], lookback=1)
    data.setup()
    (tmp_path / "new.csv").write_text("time,a\n" + "".join(f"{time},1\n" for time in times))

    assert "time" not in data.new(tmp_path / "new.csv", data.describe()).texts


def test_times_ahead_are_not_told_where_the_spacing_is_unknown(table, tmp_path):
    weekdays = [
        f"2026-{m:02}-{d:02}"
        for m in (1, 2, 3)
        for d in range(1, 29)
        if date(2026, m, d).weekday() < 5
    ]
    trading = table(
        ["time,a", *(f"{day},{n % 5}" for n, day in enumerate(weekdays))], time_gaps="ignore"
    )
    monthly = table(
        ["time,a", *(f"{day},{n % 5}" for n, day in enumerate(ENDS_OF_MONTHS))],
        "monthly.csv",
        time_gaps="ignore",
    )
    paydays = table(
        ["time,a", *(f"{day[:8]}{15 + n % 2},{n % 5}" for n, day in enumerate(ENDS_OF_MONTHS))],
        "paydays.csv",
        time_gaps="ignore",
    )
    untimed = table(["a", *map(str, range(30))], "untimed.csv")
    days = ["2026-06-01", "2026-06-02", "2026-06-03", "2026-06-04"]
    (tmp_path / "new.csv").write_text("time,a\n" + "".join(f"{day},1\n" for day in days))

    found = [
        data.new(tmp_path / "new.csv", data.describe()) for data in (trading, monthly, untimed)
    ]

    assert [list(new.texts) for new in found[:2]] == [["after"]] * 2
    assert untimed.loader("test").texts.keys() == {"after"}
    assert "months" not in paydays.describe()
    assert list(trading.loader("test").texts["time"])[-1] == weekdays[-2:]


@pytest.mark.parametrize(
    ("lines", "missing", "told"),
    [
        ("1,2\n1,many\n", "forward", "line 3: column {} is 'many', expected a finite"),
        ("1,\n2,\n", "forward", "column {} of the series has no value"),
        ("1,2\n1,\n", "error", "line 3: column {} is missing, expected a number"),
    ],
)
@pytest.mark.parametrize("column", ["b", "c"])
def test_a_wrong_column_of_new_data_is_to_be_left_out_if_the_model_does_not_know_it(
    column, lines, missing, told, table, tmp_path
):
    data = table(missing=missing)
    (tmp_path / "new.csv").write_text(f"a,{column}\n{lines}")

    with pytest.raises(DataError) as caught:
        data.new(tmp_path / "new.csv", data.describe())

    first, *advice = str(caught.value).splitlines()
    assert told.format(column) in first
    if column == "c":
        assert advice == ["  The model knows no such column: 'dataset.leave_out=[c]'."]
    else:
        assert "leave_out" not in "".join(advice)


@pytest.mark.parametrize("missing", ["error", "forward"])
def test_columns_that_the_model_does_not_know_do_not_say_which_steps_are_to_come(
    missing, table, tmp_path
):
    data = table(shops(0, "xy"), missing=missing, **SHOPS)
    known, lines = data.describe(), shops(3, "xy")
    (tmp_path / "new.csv").write_text("\n".join(lines) + "\n")
    wind = ["wind", *map(str, range(1, len(lines)))]
    blown = [f"{line},{value}" for line, value in zip(lines, wind, strict=True)]
    (tmp_path / "blown.csv").write_text("\n".join(blown) + "\n")

    (bare,), (more,) = (data.new(tmp_path / name, known) for name in ("new.csv", "blown.csv"))

    assert torch.equal(more.x, bare.x)
    assert torch.equal(more.ahead, bare.ahead)


def test_forecasts_by_the_calendar_start_where_the_columns_that_the_model_knows_end(
    table, tmp_path
):
    hours = [f"2026-01-01T{n:02}:00" for n in range(20)]
    data = table(
        ["time,a", *(f"{hour},{n}" for n, hour in enumerate(hours))],
        calendar=["hour"],
        missing="forward",
    )
    known = data.describe()
    rows = [f"{hour},{n if n < 18 else ''},{n}" for n, hour in enumerate(hours)]
    (tmp_path / "new.csv").write_text("\n".join(["time,a,wind", *rows]) + "\n")

    assert data.new(tmp_path / "new.csv", known).texts["after"] == [hours[17]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "got 1 step of the series, expected at least 4"),
        ("a\n1\n", "got the numeric columns a, expected b too"),
    ],
)
def test_new_data_that_do_not_fit_are_refused(table, tmp_path, text, message):
    data = table()
    data.setup()
    (tmp_path / "new.csv").write_text(text)

    with pytest.raises(DataError, match=message):
        data.new(tmp_path / "new.csv", data.describe())


@pytest.mark.parametrize(("season", "lag"), [(0, 1), (3, 3)])
def test_each_series_has_the_error_of_a_naive_forecast_of_its_training_part(table, season, lag):
    known = {"x": [n * n % 7 for n in range(40)], "y": [100 + n * n % 5 for n in range(60)]}
    known["x"][9] = None
    lines = [f"{name},{'' if value is None else value}" for name in known for value in known[name]]
    data = table(["series,a", *lines], season=season, missing="forward", test_fraction=0.25)
    data.setup()
    errors = []
    for values in known.values():
        part = values[: data.ends(len(values))["train"]]
        pairs = [pair for pair in zip(part, part[lag:], strict=False) if None not in pair]
        errors.append([sum(abs(a - b) for a, b in pairs) / len(pairs)])

    scaled = torch.tensor(errors) / data.scaling.deviation

    torch.testing.assert_close(data.naive_errors, scaled)
    assert data.describe()["naive_errors"] == {
        name: pytest.approx(row.tolist()) for name, row in zip("xy", scaled, strict=True)
    }
    (batch,) = data.loader("test")
    expected = torch.stack([scaled["xy".index(name)] for name in data.loader("test").ids])
    torch.testing.assert_close(batch.scales, expected.float())
    assert next(iter(data.new(data.file, data.describe()))).scales is None


def test_counts_stay_as_they_are(table):
    lines = ["sales,price", *(f"{n % 4 or ''},{n / 3}" for n in range(40))]
    data = table(lines, counts=True, targets=["sales"], missing="linear")
    data.setup()
    batch = next(iter(data.loader("test")))

    assert data.scaling.mean.tolist() == [0, pytest.approx(sum(range(28)) / 28 / 3)]
    assert data.scaling.deviation[0] == 1
    assert set(batch.y[~batch.y.isnan()].tolist()) == {1, 2, 3}


@pytest.mark.parametrize("size", [1, 10**9])
def test_baselines_of_counts_are_those_of_scaled_data_in_other_units(table, size):
    lines = ["sales", *(f"{n % 5 * size}" for n in range(150))]
    counts, scaled = (table(lines, lookback=12, season=4, counts=found) for found in (True, False))
    unit = scaled.scaling.deviation.item()

    expected = {name: error * unit**2 for name, error in scaled.baselines().items()}
    assert counts.baselines() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("value", "shown"), [("2.5", "2.5"), ("-1", "-1")])
def test_targets_that_are_no_counts_are_refused(table, value, shown):
    lines = ["a,b", *(f"{n % 4},{n / 3}" for n in range(40))]
    lines[36] = f"{value},0"

    with pytest.raises(DataError, match=f"column a is {shown} at step 35, expected a whole number"):
        table(lines, counts=True, targets=["a"]).setup()
    with pytest.raises(DataError, match=r"column b is 0\.333333 at step 1"):
        table(lines, counts=True, targets=["b"]).setup()
    table(lines, targets=["a"]).setup()


def test_examples_say_when_windows_are(table):
    data = table()
    data.setup()

    assert data.examples("train", 1) == [
        {
            "input": "2026-01-01T00:00 to 2026-01-01T03:00",
            "to forecast": "2026-01-01T04:00 to 2026-01-01T05:00",
            "last of a": "1  2  3",
        }
    ]


def one_column(values, first, end, lookback, horizon):
    x = torch.tensor(values, dtype=torch.float32)[:, None]
    return Windows(x, x, window_starts(first, end, lookback, horizon), lookback, horizon)


def test_baselines_follow_their_definitions():
    values = [math.sin(i) + 0.01 * i for i in range(60)]
    train, test = one_column(values, 0, 40, 4, 3), one_column(values, 40, 60, 4, 3)
    last = season = scored = 0
    for start in range(36, 60 - 7 + 1):
        past, coming = values[start : start + 4], values[start + 4 : start + 7]
        for step, value in enumerate(coming):
            last += (past[-1] - value) ** 2
            season += (past[2 + step % 2] - value) ** 2
            scored += 1

    baselines = forecast_baselines(train, test, 1, season=2)

    assert baselines["last value"] == pytest.approx(last / scored, rel=1e-5)
    assert baselines["last season"] == pytest.approx(season / scored, rel=1e-5)
    assert list(forecast_baselines(train, test, 1)) == ["last value", "linear"]


def test_the_linear_baseline_finds_a_linear_recurrence():
    values = [1.0, 2.0]
    while len(values) < 400:
        values.append(1.6 * values[-1] - values[-2])  # a wave
    train, test = one_column(values, 0, 300, 6, 4), one_column(values, 300, 400, 6, 4)

    assert forecast_baselines(train, test, 1)["linear"] < 1e-4


def test_the_linear_baseline_regresses_on_what_is_known_ahead():
    random = np.random.default_rng(0)
    values = random.normal(size=(120, 4)).cumsum(0)  # two targets, two that are known ahead
    values[:, 1] += 3 * values[:, 3]
    targets = values[:, :2].copy()
    targets[[30, 31, 100], [0, 1, 1]] = np.nan
    x, y = (torch.from_numpy(part).float() for part in (values, targets))
    train, test = (
        Windows(x, y, window_starts(*part, 3, 2), 3, 2, ahead=2) for part in ((0, 80), (80, 120))
    )

    def rows(windows):
        for start in windows.starts.tolist():
            for target in (0, 1):
                past = x[start : start + 3, target].double()
                ahead = x[start + 2 : start + 5, 2:].double().flatten()
                future = y[start + 3 : start + 5, target].double() - past[-1]
                yield torch.cat([past - past[-1], torch.ones(1), ahead]).numpy(), future.numpy()

    regressors, futures = (
        np.stack(part)
        for part in zip(*(row for row in rows(train) if np.isfinite(row[1]).all()), strict=True)
    )
    penalty = 1e-3 * len(regressors) * np.eye(regressors.shape[1])
    weight = np.linalg.solve(regressors.T @ regressors + penalty, regressors.T @ futures)
    missed = np.stack([regressor @ weight - future for regressor, future in rows(test)])

    found = forecast_baselines(train, test, 2)["linear"]

    assert found == pytest.approx(np.nanmean(np.square(missed)), rel=1e-9)


def test_baselines_ignore_missing_values():
    values = [float(i % 3) for i in range(60)]
    train, test = one_column(values, 0, 40, 3, 3), one_column(values, 40, 60, 3, 3)
    y = test.y.clone()
    y[45] = torch.nan
    holed = Windows(test.x, y, test.starts, 3, 3)

    baselines = forecast_baselines(train, holed, 1, season=3)

    assert baselines["last season"] == 0
    assert math.isfinite(baselines["linear"])


@pytest.fixture(scope="module")
def transformer(request):
    from tests.conftest import SHARED

    if not SHARED.is_dir():
        pytest.skip("real data files are not beside the project in ../shared/data")
    data = ETTh1(str(SHARED))
    data.setup()
    return data


def test_etth1_has_the_usual_windows(transformer):
    assert transformer.counts() == {"train": 8640 - 336 - 96 + 1, "val": 2785, "test": 2785}
    assert transformer.sizes == {"input_size": 7, "output_size": 7, "horizon": 96}
    assert transformer.series.columns[-1] == "OT"


def test_etth1_is_standardised_by_its_first_12_months(transformer):
    values = transformer.series.values

    assert transformer.scaling.mean.numpy() == pytest.approx(values[:8640].mean(0))
    assert transformer.scaling.deviation.numpy() == pytest.approx(values[:8640].std(0))


def test_etth1_tests_from_month_16_to_20(transformer):
    (first, *_) = transformer.examples("test", 1)
    last = transformer.windows["test"].starts[-1] + 336 + 96

    assert first["to forecast"].startswith("2017-10-24 00:00:00")
    assert last == 20 * 30 * 24


def test_a_shorter_file_is_refused(tmp_path):
    (tmp_path / "ETTh1.csv").write_text("date,OT\n2016-07-01 00:00:00,1\n")

    with pytest.raises(DataError, match="got 1 step, expected at least 14,400"):
        ETTh1(str(tmp_path)).setup()


def test_a_missing_file_is_an_error_that_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"ETTh1: .*/etth lacks ETTh1.csv; .* lacks ETTh1.csv"):
        ETTh1(str(tmp_path)).setup()
