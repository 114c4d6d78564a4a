import math
from datetime import date, datetime, timedelta

import pytest
import torch

from seqnets.datasets import SeriesTable
from seqnets.errors import ConfigError, DataError


def hours(count=200, coming=0, first="2026-01-30 20:00"):
    """Lines of a table of hours, of which the last have a time alone."""
    start = datetime.fromisoformat(first)
    lines = [f"{start + timedelta(hours=n):%Y-%m-%d %H:%M},{n % 5}" for n in range(count)]
    times = [start + timedelta(hours=count + n) for n in range(coming)]
    return ["time,a", *lines, *(f"{time:%Y-%m-%d %H:%M}," for time in times)]


@pytest.fixture
def table(tmp_path):
    """Make the dataset of a table with the lines given."""

    def make(lines, name="series.csv", **options):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return SeriesTable(
            str(tmp_path / name), **{"lookback": 4, "horizon": 3, "calendar": ["hour"], **options}
        )

    return make


def waves(turns):
    """Sine and cosine of a share of a turn, as plain floats."""
    return [math.sin(2 * math.pi * turns), math.cos(2 * math.pi * turns)]


@pytest.mark.parametrize(
    ("time", "parts"),
    [
        ("2026-02-01 06:45", [45 / 60, 6 / 24, 6 / 7, 0, 31 / 365, 1 / 12]),  # a Sunday
        ("2024-12-31T23:00+02:00", [0, 23 / 24, 1 / 7, 30 / 31, 365 / 366, 11 / 12]),
        ("2026-06-01", [0, 0, 0, 0, 151 / 365, 5 / 12]),
    ],
)
def test_the_calendar_says_where_a_step_is_in_each_unit(table, time, parts):
    units = ["minute", "hour", "weekday", "day", "day_of_year", "month"]
    lines = ["series,time,a", *(f"{n},{time},{n % 5}" for n in range(30))]
    steps = {"lookback": 1, "horizon": 1, "missing": "forward", "calendar": units}
    data = table(lines, **steps)

    assert data.series.columns[1:5] == ["minute sin", "minute cos", "hour sin", "hour cos"]
    found = data.series.values[-1, 1:].tolist()
    assert found == pytest.approx([value for part in parts for value in waves(part)], abs=1e-12)


def test_columns_of_the_calendar_are_known_ahead_and_stay_as_they_are(table):
    lines = ["time,b,a", *(f"{line},{n % 3}" for n, line in enumerate(hours()[1:]))]
    data = table(lines, targets=["a"], known_ahead=["b"], calendar=["hour", "weekday"])
    data.setup()

    assert data.series.columns == ["a", "b", *data.columns_ahead[1:]]
    assert data.sizes == {"input_size": 6, "output_size": 1, "horizon": 3, "ahead_size": 5}
    assert [row["is"] for row in data.features()] == ["target"] + ["known ahead"] * 5
    for part in ("train", "val", "test"):
        batches, times = data.loader(part).in_order(), data.loader(part).texts["time"]
        ahead = torch.cat([batch.ahead for batch in batches])[..., 1:3]
        clock = [[int(time[11:13]) for time in window] for window in times]
        expected = torch.tensor([[waves(hour / 24) for hour in window] for window in clock])
        torch.testing.assert_close(ahead, expected)


def test_all_other_columns_are_targets_beside_the_calendar(table):
    assert table(hours()).sizes == {
        "input_size": 3, "output_size": 1, "horizon": 3, "ahead_size": 2,
    }  # fmt: skip
    assert table(hours(), mask=True).series.columns == ["a", "a is there", "hour sin", "hour cos"]


@pytest.mark.parametrize("coming", [0, 2, 3, 7])
@pytest.mark.parametrize("name", ["new.csv", "series.csv"])
def test_the_calendar_of_new_data_goes_on_over_the_horizon(table, tmp_path, name, coming):
    data = table(hours(200, coming))
    (tmp_path / "new.csv").write_text("\n".join(hours(9, coming, "2027-12-31 12:00")) + "\n")
    data.setup()

    new = data.new(tmp_path / name, data.describe())
    (batch,) = new

    clock = [21, 22, 23] if name == "new.csv" else [4, 5, 6]
    assert [int(time[11:13]) for time in new.texts["time"][0]] == clock
    torch.testing.assert_close(batch.ahead[0], torch.tensor([waves(hour / 24) for hour in clock]))
    past = [waves(hour / 24) for hour in range(clock[0] - 4, clock[0])]
    torch.testing.assert_close(batch.x[0, :, 1:], torch.tensor(past))
    assert len(data.series.times) == 200


def test_each_series_of_new_data_goes_on_from_its_own_end(table, tmp_path):
    lines = [f"{name},{line}" for name in "xy" for line in hours()[1:]]
    new = [f"x,{line}" for line in hours(9)[1:]] + [f"y,{line}" for line in hours(12)[1:]]
    data = table(["series,time,a", *lines])
    (tmp_path / "new.csv").write_text("\n".join(["series,time,a", *new]) + "\n")

    (batch,) = data.new(tmp_path / "new.csv", data.describe())

    ahead = [[waves(hour / 24) for hour in (first, first + 1, first + 2)] for first in (5, 8)]
    torch.testing.assert_close(batch.ahead, torch.tensor(ahead))


def test_rows_that_tell_the_times_ahead_are_taken_if_others_lack_some(table, tmp_path):
    lines = [f"{name},{line}" for name in "xy" for line in hours()[1:]]
    data = table(["series,time,a", *lines])
    past = [f"2026-03-28 {hour}:00+01:00" for hour in range(18, 24)]
    set_ahead = ["2026-03-29 00:00+01:00", "2026-03-29 01:00+01:00", "2026-03-29 03:00+02:00"]
    new = [f"{name},{time},1" for name in "xy" for time in past]
    new[6:6] = [f"x,{time}," for time in set_ahead]
    new += [f"y,{time}," for time in set_ahead[:1]]
    (tmp_path / "new.csv").write_text("\n".join(["series,time,a", *new]) + "\n")

    batches = data.new(tmp_path / "new.csv", data.describe())

    (batch,) = batches
    computed = [*set_ahead[:2], "2026-03-29 02:00+01:00"]
    assert [batches.texts["time"][row] for row in (0, 1)] == [set_ahead, computed]
    ahead = [[waves(hour / 24) for hour in found] for found in ([0, 1, 3], [0, 1, 2])]
    torch.testing.assert_close(batch.ahead, torch.tensor(ahead))


def test_days_off_are_told_by_rows_with_a_time_alone(table, tmp_path):
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(300)]
    days = [day for day in days if day.weekday() < 5]
    lines = ["time,a", *(f"{day},{n % 5}" for n, day in enumerate(days))]
    data = table(lines, time_gaps="ignore", calendar=["weekday"])
    known = data.describe()
    (tmp_path / "short.csv").write_text("\n".join(lines[:9]) + "\n")
    rows = [*lines[:9], *(f"{day}," for day in days[8:11])]
    (tmp_path / "new.csv").write_text("\n".join(rows) + "\n")

    (batch,) = data.new(tmp_path / "new.csv", known)

    expected = [waves(day.weekday() / 7) for day in days[8:11]]
    torch.testing.assert_close(batch.ahead[0], torch.tensor(expected))
    with pytest.raises(
        DataError,
        match=r"no times of the 3 steps of the series after 2026-01-12, .*\n.* Add a row",
    ):
        data.new(tmp_path / "short.csv", known)


def test_the_series_that_lacks_times_ahead_is_named(table, tmp_path):
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(60)]
    days = [day for day in days if day.weekday() < 5]
    lines = [f"{day},{name},{n % 5}" for name in "xy" for n, day in enumerate(days)]
    data = table(["time,series,a", *lines], time_gaps="ignore", calendar=["weekday"])
    new = [f"{day},x,1" for day in days[:9]] + [f"{day},y,1" for day in days[:6]]
    new += [f"{day},y," for day in days[6:9]]
    (tmp_path / "new.csv").write_text("\n".join(["time,series,a", *new]) + "\n")

    with pytest.raises(DataError, match=f"no times of the 3 steps of x after {days[8]}, expected"):
        data.new(tmp_path / "new.csv", data.describe())


def test_months_go_on_by_months(table, tmp_path):
    months = [f"{2010 + n // 12}-{n % 12 + 1:02}-01" for n in range(120)]
    data = table(
        ["time,a", *(f"{month},{n % 5}" for n, month in enumerate(months))],
        time_gaps="ignore",
        calendar=["month"],
    )

    (batch,) = data.new(tmp_path / "series.csv", data.describe())

    torch.testing.assert_close(batch.ahead[0], torch.tensor([waves(n / 12) for n in (0, 1, 2)]))


def test_steps_that_are_inserted_have_the_hours_of_their_neighbours(table):
    lines = [f"{line.replace(',', '+09:00,')}" for line in hours()[1:]]
    data = table(["time,a", *lines[:20], *lines[22:]], time_gaps="fill", missing="forward")
    whole = table(["time,a", *lines], "whole.csv")

    assert (data.series.values[:, 1:] == whole.series.values[:, 1:]).all()
    assert data.series.times[20] == "2026-01-31 16:00:00+09:00"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a", *map(str, range(60))], r"series.csv: got no column of times, .*\n.*=\[hour\] takes"),
        (["time,a", *(f"{n},1" for n in range(60))], "got times such as 0, expected dates such as"),
        (
            ["time,a", *(f"2026-{1 + n // 28:02}-{1 + n % 28:02},{n}" for n in range(28))],
            r"calendar has hour, expected units that vary: .*\n.* leave it out of dataset.calendar",
        ),
        (["time,a,hour cos", *(f"{line},1" for line in hours()[1:])], "got the column hour cos"),
        (
            [*hours()[:50], hours()[50].replace(",4", ","), *hours()[51:]],
            "line 51: column a is missing",
        ),
    ],
)
def test_data_that_the_calendar_tells_nothing_of_are_refused(table, lines, message):
    with pytest.raises(DataError, match=message):
        table(lines).setup()


def test_a_unit_that_only_one_of_its_waves_shows_is_learned_from(table):
    noons = ["time,a", *(f"2026-01-{1 + n // 2:02} {n % 2 * 12:02}:00,{n}" for n in range(60))]

    table(noons).setup()


def test_new_data_without_dates_are_refused(table, tmp_path):
    data = table(hours())
    (tmp_path / "new.csv").write_text("a\n" + "1\n" * 9)
    (tmp_path / "short.csv").write_text("\n".join(hours(3)) + "\n")

    with pytest.raises(DataError, match=r"new.csv: got no column of times, expected dates"):
        data.new(tmp_path / "new.csv", data.describe())
    with pytest.raises(DataError, match=r"short.csv: got 3 steps of the series, expected at least"):
        data.new(tmp_path / "short.csv", data.describe())


@pytest.mark.parametrize(
    ("calendar", "message"),
    [
        ("hour", "calendar is 'hour', expected a list of units, each once"),
        (["hour", "hour"], "each once"),
        (["dayofweek"], "calendar is 'dayofweek', expected one of minute, hour, weekday, day, day"),
    ],
)
def test_units_that_the_calendar_lacks_are_refused(table, calendar, message):
    with pytest.raises(ConfigError, match=message):
        table(hours(), calendar=calendar)
