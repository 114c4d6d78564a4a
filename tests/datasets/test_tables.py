"""Rows of tables are read, and errors are reported with the line."""

import builtins
import json

import pytest

from seqnets.datasets.readers.cells import features_of, need, number_of, text_of
from seqnets.datasets.readers.tables import find_twice, read_rows
from seqnets.errors import ConfigError, DataError

pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture
def file(tmp_path):
    """Write a small file and return its path."""

    def write(name, content):
        path = tmp_path / name
        if isinstance(content, list):
            from pyarrow import parquet

            parquet.write_table(pyarrow.Table.from_pylist(content), path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def read(path):
    """All rows, each with its place less the folder."""
    return [(where.removeprefix(f"{path.parent}/"), row) for where, row in read_rows(path)]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "x,y\n1,b\n\n,c d\n"), ("a.TSV", "\ufeffx\ty\r\n1\tb\r\n\r\n\tc d")],
)
def test_cells_of_delimited_text_are_text_and_empty_ones_are_none(file, name, content):
    assert read(file(name, content)) == [
        (f"{name}, line 2", {"x": "1", "y": "b"}),
        (f"{name}, line 4", {"x": None, "y": "c d"}),
    ]


def test_a_cell_in_quotes_may_hold_line_ends_and_its_row_stands_where_it_begins(file):
    rows = read(file("a.csv", 'x,y\n"1\n2","say ""so"""\n3,4\n'))

    assert rows == [
        ("a.csv, line 2", {"x": "1\n2", "y": 'say "so"'}),
        ("a.csv, line 4", {"x": "3", "y": "4"}),
    ]


def test_objects_of_json_lines_are_read_unchanged(file):
    objects = [{"x": [1, [2.5, None]], "y": True}, {"y": "\u2028"}]
    content = "\n\n".join(json.dumps(each, ensure_ascii=False) for each in objects)

    assert read(file("a.jsonl", content)) == [
        ("a.jsonl, line 1", objects[0]),
        ("a.jsonl, line 3", objects[1]),
    ]


def test_rows_of_parquet_are_read_unchanged(file):
    rows = [{"x": [1.5, 2.0], "y": "a"}, {"x": [], "y": None}]

    assert read(file("a.parquet", rows)) == [
        ("a.parquet, row 1", rows[0]),
        ("a.parquet, row 2", rows[1]),
    ]


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_times_of_parquet_are_read_to_the_microsecond(zone, tmp_path):
    from pyarrow import parquet

    nanoseconds = pyarrow.array([1_700_000_000_000_001_999], pyarrow.timestamp("ns", zone))
    parquet.write_table(pyarrow.table({"x": [1], "time": nanoseconds}), tmp_path / "a.parquet")

    ((_, row),) = read(tmp_path / "a.parquet")

    assert row["x"] == 1
    assert row["time"].replace(tzinfo=None).isoformat() == "2023-11-14T22:13:20.000001"


def test_a_time_of_parquet_that_no_calendar_has_is_refused(tmp_path):
    from pyarrow import parquet

    times = pyarrow.array([10**18], pyarrow.timestamp("us"))
    parquet.write_table(pyarrow.table({"time": times}), tmp_path / "a.parquet")

    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "x,y\n1,2\n3\n", "a.csv, line 3: got 1 cell, expected 2: x, y"),
        ("a.csv", "x,y\n1,2,3\n", "line 2: got 3 cells"),
        ("a.csv", "x,x\n1,2\n", "line 1: got the columns x, x, 'x' twice"),
        ("a.csv", "x,,y\n1,2,3\n", r"line 1: .* 1 without a name, .*\n  .* columns\.$"),
        ("a.csv", "x,y,,\n1,2,,\n", r"line 1: .* 2 without a name, .*\n.* columns at the end"),
        ("a.csv", ",x\n0,2\n", r"line 1: .* 1 without a name, .*\n.* index=False\)\.$"),
        ("a.csv", "x;y\n1;2\n", "line 1: got one column 'x;y'"),
        ("a.tsv", "x,y\n1,2\n", "line 1: got one column 'x,y'"),
        ("a.csv", 'x,y\n1,2\n3,"4\n5,6\n', "line 3: not CSV"),
        ("a.csv", 'x,y\n1,"2"3\n', "line 2: not CSV"),
        ("a.csv", b"x,y\n1,caf\xe9\n", r"byte 9 \(line 2\) is 0xe9, expected UTF-8"),
        ("a.csv", b"x\n" + b"\x80\n", r"byte 2 \(line 2\) is 0x80(.|\n)*iconv -f cp1252"),
        ("a.csv", "caf\u00e9\n".encode() + b"caf\xe9\n", r"byte 9 .* 0xe9, .*\n.* encodings"),
        ("a.csv", "\u00e9".encode() + b"x" * 2**20 + b"\xe9", r"line 1.* 0xe9, .*\n.* encodings"),
        ("a.csv", "x,y\n".encode("utf-16"), r"byte 0 \(line 1\) is 0xff(.|\n)*iconv -f utf-16"),
        ("a.csv", "x,y\n1,2\n\n3,\0\n", "line 4: has a NUL character(.|\n)*iconv -f utf-16le"),
        ("a.csv", "x,y\n1,2\n".encode("utf-16le"), "line 1: has a NUL character"),
        ("a.csv", "sep=;\nx;y\n1,5;2\n", "line 1: got one column 'sep=;'(.|\n)* point and noth"),
        ("a.csv", "", "the file is empty"),
        ("a.csv", "x,y\n", "got no row"),
        ("a.jsonl", '{"x": 1}\n{"x": }\n', "line 2, column 7: not JSON: Expecting value"),
        ("a.jsonl", '{"x": 1, "x": 2}\n', "line 1: not JSON that can be read: it has 'x' twice"),
        ("a.jsonl", '{"x": 1}\n[1, 2]\n', r"line 2: got \[1, 2\], expected a JSON object"),
        ("a.jsonl", "[" * 100_000, "line 1: not JSON that can be read"),
        ("a.jsonl", "9" * 5_000, "line 1: not JSON that can be read"),
        ("a.jsonl", b'{"x": "\xe9"}\n', r"\(line 1\) is 0xe9"),
        ("a.ndjson", "\n \n", "the file is empty"),
        ("a.parquet", b"no parquet", "cannot be read as Parquet"),
        ("a.parquet", b"", "cannot be read as Parquet"),
        ("a.xlsx", "x", "expected a name that ends with .csv, .tsv, .jsonl, .ndjson, .parquet"),
    ],
)  # fmt: skip
def test_a_malformed_table_is_refused_with_its_line(file, name, content, message):
    with pytest.raises(DataError, match=message):
        read(file(name, content))


def test_an_empty_parquet_is_refused(file, tmp_path):
    path = file("a.parquet", [{"x": 1}])
    from pyarrow import parquet

    parquet.write_table(parquet.read_table(path).slice(0, 0), path)

    with pytest.raises(DataError, match="got no row"):
        read(path)


def test_a_column_twice_in_parquet_is_refused(tmp_path):
    from pyarrow import parquet

    table = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], ["x", "x"])
    parquet.write_table(table, tmp_path / "a.parquet")

    with pytest.raises(DataError, match="'x' twice"):
        read(tmp_path / "a.parquet")


def test_names_of_many_columns_are_not_compared_each_with_each():
    class Name(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other):
            Name.compared += 1
            return str.__eq__(self, other)

    names = [Name(number) for number in range(1000)]

    assert find_twice(names) is None
    assert Name.compared < 1000
    assert find_twice(["a", "c", "b", "c", "b"]) == "c"


def test_a_parquet_that_was_cut_off_is_refused(file):
    path = file("a.parquet", [{"x": [float(n)] * 100} for n in range(100)])
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_missing_table_is_refused(tmp_path, suffix):
    with pytest.raises(DataError, match="No such file"):
        read(tmp_path / f"missing.{suffix}")


def test_without_pyarrow_the_error_says_how_to_install_it(file, monkeypatch):
    path, load = file("a.parquet", [{"x": 1}]), builtins.__import__

    def missing(name, *rest):
        if name == "pyarrow":
            raise ModuleNotFoundError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)

    with pytest.raises(ConfigError, match=r"pip install 'seqnets\[tables\]'"):
        read(path)


@pytest.mark.parametrize(
    ("value", "expected"), [("1.5", 1.5), (" -2e3 ", -2000), (7, 7), (2.5, 2.5)]
)
def test_a_number_is_read(value, expected):
    assert number_of("here", "x", value) == expected


@pytest.mark.parametrize(
    "value",
    ["", None, "one", "nan", "inf", "1e300", 1e300, 10**400, float("nan"), True, [1], {}, "1,5"],
)
def test_values_that_are_not_finite_numbers_are_refused_with_the_column(value):
    with pytest.raises(
        DataError, match=r"a.csv, line 3: column x is .* expected a finite float32 number"
    ):
        number_of("a.csv, line 3", "x", value)


@pytest.mark.parametrize("value", ["1,5", "-1.234,5", "12,345.6", "1 234", "1\u00a0234", "1'234"])
def test_a_number_with_thousands_or_a_decimal_comma_is_refused_with_how_to_write_it(value):
    with pytest.raises(DataError, match=r"a decimal point and nothing between thousands: 1234\.5"):
        number_of("here", "x", value)


@pytest.mark.parametrize("value", ["-", "--", " – ", "n/a", "N/A", "#N/A", "#NV", "n.a.", "None"])
def test_what_other_programs_write_for_a_missing_value_is_told_how_to_write_one(value):
    with pytest.raises(DataError, match=r"\n  A missing value is an empty cell, null, NaN, NA or"):
        number_of("here", "x", value, gaps=True)


@pytest.mark.parametrize("value", ["-", "NA"])
def test_where_no_value_may_be_missing_nobody_is_told_how_to_write_one(value):
    with pytest.raises(DataError, match=r"expected a finite float32 number\.$"):
        number_of("here", "x", value)


@pytest.mark.parametrize("value", ["", "one", "2024-01-31", "1,b"])
def test_what_is_no_number_at_all_is_not_told_how_to_write_numbers(value):
    with pytest.raises(DataError) as error:
        number_of("here", "x", value)

    assert "decimal point" not in str(error.value)


@pytest.mark.parametrize("value", ["1,5", "inf", "-1e300", "1_000"])
def test_what_is_meant_as_a_number_is_taken_neither_for_a_category_nor_for_a_word(value):
    row = {"a": value, "b": value, "sky": "blue"}

    with pytest.raises(DataError, match=r"not a feature: 'dataset.leave_out=\[a,sky\]'\.$"):
        features_of("here", row, list(row), [])


@pytest.mark.parametrize("broken", ["1,2\n", "x0" + ",1" * 2_999 + "\n"])
def test_errors_of_a_wide_table_are_short(broken, file):
    columns = [f"x{n}" for n in range(3_000)]

    with pytest.raises(DataError) as error:
        read(
            file("a.csv", ",".join([*columns, "x0"][: 3_000 + (broken[0] == "x")]) + f"\n{broken}")
        )

    assert "x18, x19, ... (3,00" in str(error.value)
    assert len(str(error.value)) < 400


def test_text_is_read():
    assert text_of("here", "x", "caf\u00e9") == "caf\u00e9"


@pytest.mark.parametrize("value", ["", None, 1, ["a"], "half \ud83d"])
def test_values_that_are_not_text_are_refused_with_the_column(value):
    with pytest.raises(DataError, match=r"a.csv, line 3: column x (is|has) .* expected"):
        text_of("a.csv, line 3", "x", value)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("a.csv, line 3", "a.csv, header"),
        ("a.TSV, line 12", "a.TSV, header"),
        ("a.jsonl, line 3", "a.jsonl, line 3"),
        ("a.parquet, row 3", "a.parquet, row 3"),
    ],
)
def test_a_row_that_lacks_a_column_is_refused_where_columns_are_named(where, told):
    need(where, {"x": 1, "y": 2}, "y", "x")

    with pytest.raises(DataError, match=f"^{told}: got the columns x, y, expected z too"):
        need(where, {"x": 1, "y": 2}, "x", "z")


def test_long_values_are_shortened_in_messages():
    with pytest.raises(DataError) as error:
        number_of("here", "x", list(range(1000)))

    assert len(str(error.value)) < 120
