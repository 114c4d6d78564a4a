"""Sequences that count more than others."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from seqnets.datasets import ClassificationFiles, RegressionFiles
from seqnets.datasets.parts import PARTS
from seqnets.datasets.sequences.checks import check_sequences
from seqnets.datasets.sequences.sequences import Sequences
from seqnets.errors import ConfigError, DataError
from seqnets.typing import IGNORE

COUNT = 20


def weight_of(number):
    return number % 4 * 0.5


def write(folder, kind, column="trust"):
    """Twenty sequences that begin with their number, of two classes."""
    suffixes = {"npz": ".npz", "rows": ".jsonl"}
    path = folder / f"a{suffixes.get(kind, '.csv')}"
    numbers = range(COUNT)
    weights, labels = [weight_of(n) for n in numbers], ["ab"[n // 4 % 2] for n in numbers]
    steps = [[[n, 1], [n, 2], [n, 3]][: 2 + n % 2] for n in numbers]
    rows = [*zip(numbers, labels, weights, steps, strict=True)]
    if kind == "npz":
        x, lengths = np.concatenate(steps), [*map(len, steps)]
        np.savez(path, x=x, lengths=lengths, y=labels, ids=[*numbers], **{column: weights})
    elif kind == "rows":
        found = [{"id": n, "label": y, column: w, "x": x} for n, y, w, x in rows]
        path.write_text("\n".join(map(json.dumps, found)))
    elif kind == "steps":
        lines = [f"{n},{w},{y},{a},{b}" for n, y, w, x in rows for a, b in x]
        path.write_text("\n".join([f"sequence,{column},label,n,step", *lines]))
    else:
        for n, _, _, x in rows:
            np.save(folder / f"{n}.npy", np.array(x, float))
        lines = [f"{n}.npy,{y},{w}" for n, y, w, _ in rows]
        path.write_text("\n".join([f"file,label,{column}", *lines]))
    return path


def files(path, **options):
    return ClassificationFiles(str(path), **{"standardise": False, "batch_size": COUNT, **options})


def weights_of(data, part):
    """The weight of each sequence of a part, by its number."""
    (batch,) = data.loader(part)
    numbers = batch.x[:, 0, 0].int().tolist()
    return dict(zip(numbers, batch.weights.tolist(), strict=True))


@pytest.mark.parametrize("kind", ["steps", "rows", "files", "npz"])
def test_weights_of_a_file_are_in_proportion_and_one_on_average_in_each_part(kind, tmp_path):
    data = files(write(tmp_path, kind), weight="trust")
    data.setup()

    assert data.sizes == {"input_size": 2, "num_classes": 2}
    for part in PARTS:
        found = weights_of(data, part)
        mean = np.mean([weight_of(number) for number in found])

        assert len(found) == len(data.part(part))
        assert found == pytest.approx({number: weight_of(number) / mean for number in found})


@pytest.mark.parametrize("kind", ["steps", "rows", "files", "npz"])
def test_new_files_may_lack_the_weights_and_have_none_of_any_use(kind, tmp_path):
    data = files(write(tmp_path, kind), weight="trust")
    data.setup()
    (whole,) = data.new(write(tmp_path, kind), data.describe())
    (tmp_path / "b").mkdir()
    bare = write(tmp_path / "b", kind)
    if kind == "npz":
        with np.load(bare) as arrays:
            np.savez(bare, **{name: arrays[name] for name in ("x", "lengths", "y", "ids")})
    elif kind == "steps":
        lines = [line.split(",") for line in bare.read_text().splitlines()]
        bare.write_text("\n".join(",".join([line[0], *line[2:]]) for line in lines))
    else:
        bare.write_text(bare.read_text().replace("trust", "another"))
    (batch,) = data.new(bare, data.describe())

    assert batch.weights is whole.weights is None
    assert batch.x.equal(whole.x)
    assert batch.y.equal(whole.y)


def test_weights_that_are_not_asked_for_leave_all_as_it_was(tmp_path):
    path = write(tmp_path, "rows")
    plain, weighted = files(path), files(path, weight="trust")
    (batch,), (other,) = plain.loader("train"), weighted.loader("train")

    assert batch.weights is None
    assert batch.x.equal(other.x)
    assert batch.y.equal(other.y)
    assert plain.describe().keys() == weighted.describe().keys()


def test_a_run_is_not_continued_with_other_weights(tmp_path):
    path = write(tmp_path, "rows")
    before = files(path, weight="trust").describe()
    path.write_text(path.read_text().replace('"trust": 0.5', '"trust": 7'))
    after = files(path, weight="trust").describe()

    assert {name for name in before if before[name] != after[name]} == {"sample"}


def test_numbers_of_a_sequence_have_one_weight(tmp_path):
    rows = [{"a": n, "b": -n, "w": 1 + n % 2, "x": [n]} for n in range(COUNT)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = RegressionFiles(
        str(tmp_path / "a.jsonl"), ["a", "b"], weight="w", standardise=False, batch_size=COUNT
    )
    data.setup()
    found = weights_of(data, "train")
    mean = np.mean([1 + number % 2 for number in found])

    assert found == pytest.approx({number: (1 + number % 2) / mean for number in found})


STEPS = """sequence,split,trust,label,x
s1,train,2,a,1
s1,train,2,a,2
s2,train,0,b,3
s3,val,1,b,4
s4,test,3,a,5
"""


@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        ("train,0", "train,-1", {}, r"csv, line 4: column trust is '-1', expected a number of at"),
        ("train,0", "train,nan", {}, "line 4: column trust is 'nan', expected a finite float32"),
        ("train,0", "train,inf", {}, "line 4: column trust is 'inf', expected a finite float32"),
        ("train,0", "train,", {}, "line 4: column trust is missing, expected a finite float32"),
        ("train,0", "train,high", {}, "line 4: column trust is 'high', expected a finite float32"),
        ("train,2,a,2", "train,3,a,2", {}, r"line 3: trust is 3.0, expected 2.0.\n  Sequence 's1'"),
        ("val,1", "val,0", {}, "val part: the weights of all sequences are 0, expected one"),
        ("", "", {"weight": "size"}, r"expected size too.\n  dataset.weight=COLUMN names ano"),
        ("", "", {"leave_out": ["trust"]}, "leave_out has trust, expected columns that would be"),
    ],
)  # fmt: skip
def test_weights_that_say_nothing_are_refused(old, new, options, message, tmp_path):
    (tmp_path / "a.csv").write_text(STEPS.replace(old, new, 1))

    with pytest.raises(DataError, match=message):
        files(tmp_path / "a.csv", **{"weight": "trust", **options}).setup()


@pytest.mark.parametrize(
    ("options", "what"), [({"label": "trust"}, "the target"), ({"groups": "trust"}, "the groups")]
)
def test_a_column_that_is_also_something_else_is_refused(options, what, tmp_path):
    (tmp_path / "a.csv").write_text(STEPS)

    with pytest.raises(ConfigError, match=f"weight is trust, the column of {what}, expected one"):
        files(tmp_path / "a.csv", weight="trust", **options).setup()


def test_what_does_not_say_of_weights_is_refused(tmp_path):
    (tmp_path / "a.ts").write_text("@data")
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), y=np.arange(4))

    for name, message in (
        ("", "does not say how much a sequence counts, expected a table or an archive with trust"),
        ("a.ts", "does not say how much a sequence counts, expected a table"),
        ("a.npz", r"got no array trust, expected the weight of each sequence.\n  dataset.weight="),
    ):
        with pytest.raises(DataError, match=message):
            files(tmp_path / name, weight="trust").setup()


def sequences(weights, **options):
    y = torch.tensor([0, 1, 0])
    return Sequences(torch.zeros(3, 1), torch.ones(3, dtype=torch.int64), y, **options,
                     weights=torch.tensor(weights))  # fmt: skip


def test_sequences_of_a_program_that_are_selected_keep_their_weights():
    chosen = sequences([3.0, 1.0, 2.0]).select(torch.tensor([2, 0]))

    assert chosen.weights.tolist() == [2, 3]
    assert chosen.batch(torch.tensor([1])).weights.tolist() == pytest.approx([1.2])


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ([1.0, -1.0, 0.0], {}, "a: a weight in sequence 1 is -1.0, expected a finite number of at"),
        ([1.0, 1.0, torch.nan], {}, "a weight in sequence 2 is nan"),
        ([1.0, 1.0], {}, r"a: weights have shape \(2,\), expected one per sequence: \(3,\)"),
        ([0.0, 0.0, 0.0], {}, "a: the weights of all sequences are 0"),
        ([1.0, 1.0, 1.0], {"stepwise": True}, "weights of sequences with targets of steps or tran"),
    ],
)
def test_weights_of_a_program_that_fit_no_loss_are_refused(weights, options, message):
    with pytest.raises(DataError, match=message):
        check_sequences("a", sequences(weights, **options), {"input_size": 1, "num_classes": 2})


def test_transcripts_have_no_weights():
    found = Sequences(torch.zeros(2, 1), torch.ones(2, dtype=torch.int64),
                      torch.tensor([[1], [IGNORE]]), weights=torch.ones(2))  # fmt: skip

    with pytest.raises(DataError, match="targets of steps or transcripts, expected none"):
        check_sequences("a", found, {"input_size": 1, "num_classes": 2})
