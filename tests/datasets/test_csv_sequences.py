from __future__ import annotations

import pytest

from seqnets.datasets import CSVSequences
from seqnets.errors import ConfigError, DataError

ROWS = """sequence,split,label,a,b
s1,train,yes,1,10
s1,train,yes,2,20
s2,train,no,3,30
s3,val,no,4,40
s4,test,yes,5,50
s4,test,yes,6,60
s4,test,yes,7,70
"""


@pytest.fixture
def table(tmp_path):
    """Make the dataset of a small file, some of whose text is replaced."""

    def make(old="", new="", text=ROWS, **options):
        assert old in text
        (tmp_path / "data.csv").write_bytes(text.replace(old, new, 1).encode("latin-1"))
        return CSVSequences(str(tmp_path / "data.csv"), **options)

    return make


def many(labels, per_class):
    rows = [f"{label}{number},{label},{number}" for label in labels for number in range(per_class)]
    return "sequence,label,value\n" + "\n".join(rows) + "\n"


def test_rows_become_the_sequences_of_their_parts(table):
    data = table(standardise=False)
    data.setup()
    (val,), (test,) = data.val_dataloader(), data.test_dataloader()

    assert data.counts() == {"train": 2, "val": 1, "test": 1}
    assert data.labels == ["no", "yes"]
    assert data.sizes == {"input_size": 2, "num_classes": 2}
    assert val.x.tolist() == [[[4, 40]]]
    assert val.y.tolist() == [0]
    assert test.x.tolist() == [[[5, 50], [6, 60], [7, 70]]]
    assert test.y.tolist() == [1]


def test_the_order_of_the_columns_makes_no_difference(table):
    turned = "\n".join(",".join(reversed(row.split(","))) for row in ROWS.splitlines())
    data = table(text=turned, standardise=False)
    (test,) = data.test_dataloader()

    assert test.x.tolist() == [[[50, 5], [60, 6], [70, 7]]]
    assert test.y.tolist() == [1]


def test_without_a_split_column_each_class_gives_a_share_to_each_part(table):
    data = table(text=many("xyz", 10), validation_fraction=0.25, test_fraction=0.2)
    data.setup()

    assert data.counts() == {"train": 18, "val": 6, "test": 6}
    for part, count in (("train", 6), ("val", 2), ("test", 2)):
        assert data.part(part).y.bincount().tolist() == [count] * 3


def test_no_sequence_is_in_two_parts(table):
    data = table(text=many("xyz", 10), standardise=False)
    data.setup()
    seen = [
        (value, label)
        for part in ("train", "val", "test")
        for value, label in zip(
            data.part(part).x.flatten().tolist(), data.part(part).y.tolist(), strict=True
        )
    ]

    assert sorted(seen) == sorted((n, label) for n in range(10) for label in range(3))


def test_constant_features_are_only_shifted(table):
    header, *rows = ROWS.splitlines()
    data = table(text="\n".join([f"{header},c", *(f"{row},7" for row in rows)]))
    data.setup()

    assert (data.part("train").x[:, 2] == 0).all()
    assert (data.part("test").x[:, 2] == 0).all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sequence,", "id,", "line 1: the columns id, split, label, a, b came"),
        ("label,", "class,", "line 1: the columns"),
        ("a,b", "a,a", "line 1: the columns"),
        ("s2,train,no,3,30", "s2,train,no,3", "line 4: 4 cells came, expected 5"),
        ("s2,train,no,3,30", "s2,train,no,3,30,1", "line 4: 6 cells came, expected 5"),
        ("s2,train,no,3,30", "s2,train,no,three,30", "line 4: column a is 'three'"),
        ("s2,train,no,3,30", "s2,train,no,,30", "line 4: column a is ''"),
        ("s2,train,no,3,30", "s2,train,no,3,nan", "line 4: column b is 'nan'"),
        ("s2,train,no,3,30", "s2,train,no,3,inf", "line 4: column b is 'inf'"),
        ("s2,train,no,3,30", 's2,train,"no,3,30', "not CSV"),
        ("s1,train,yes,2,20", "s1,train,no,2,20", "line 3: label 'no' .* expected 'yes'"),
        ("s1,train,yes,2,20", "s1,val,yes,2,20", "line 3: .* split 'val' came"),
        ("s2,train", "s2,training", "line 4: split 'training' came, expected train, val, test"),
        ("s3,val,no", "s1,val,no", "line 5: sequence 's1' comes again, .* line 2"),
        ("s3,val,no", "s3,val,maybe", "line 5: label 'maybe' came in the val part"),
        ("s3,val,no,4", "s3,val,no,1e300", "line 5: column a is '1e300'"),
        ("s3,val,no", "s3,val,n\xe9", r"byte 8\d \(line 5\) is 0xe9"),
        (ROWS, "", "the file is empty"),
        (ROWS.partition("\n")[2], "", "no row came"),
    ],
)
def test_a_malformed_file_is_refused_with_the_line(table, old, new, message):
    with pytest.raises(DataError, match=message):
        table(old, new).setup()


def test_a_file_without_training_sequences_is_refused(table):
    text = ROWS.replace("train", "val")

    with pytest.raises(DataError, match="no sequence is for training"):
        table(text=text).setup()


def test_a_file_without_features_is_refused(table):
    with pytest.raises(DataError, match="one or more features"):
        table(text="sequence,label\n1,2\n").setup()


def test_too_few_sequences_to_set_some_aside_are_refused(table):
    with pytest.raises(DataError, match="no two of one class"):
        table(text=many("xyz", 1)).setup()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        CSVSequences(str(tmp_path / "missing.csv")).setup()


def test_fractions_that_leave_nothing_for_training_are_refused():
    with pytest.raises(ConfigError, match="below 1"):
        CSVSequences("data.csv", validation_fraction=0.6, test_fraction=0.5)
