"""Sequences whose steps have times."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch

from seqnets.datasets import (
    ClassificationFiles,
    RegressionFiles,
    TaggingFiles,
    TranscriptionFiles,
)
from seqnets.datasets.augmentation import Crop, Noise, Stretch
from seqnets.datasets.readers.timestamps import moment_of, read_iso
from seqnets.datasets.sequences.times import Times
from seqnets.errors import ConfigError, DataError, DtypeError

COUNT = 12
START = datetime(2026, 3, 1)


def lasting(number, step):
    """How long a step is after the one before, in seconds; 10 on average."""
    return (number % 3 + 1) * (2 * step if number % 2 else 6 - 2 * step)


def sequences():
    """Of each sequence two features and the time, in seconds, of its three steps."""
    for number in range(COUNT):
        since = [0, lasting(number, 1), lasting(number, 1) + lasting(number, 2)]
        yield number, [[number, step] for step in range(3)], [1000 + time for time in since]


def moment(seconds, zone=""):
    return (START + timedelta(seconds=seconds)).isoformat(sep=" ") + zone


def write(folder, kind):
    """Sequences of two classes with the time of each step in the first column, or array."""
    labels = ["ab"[n // 2 % 2] for n in range(COUNT)]
    found = list(sequences())
    if kind in ("steps", "stamps", "zoned"):
        show = {"steps": str, "stamps": moment, "zoned": lambda s: moment(s, "+02:00")}[kind]
        rows = [
            f"{show(t)},{n},{labels[n]},{a},{b}"
            for n, x, times in found
            for (a, b), t in zip(x, times, strict=True)
        ]
        path = folder / "a.csv"
        path.write_text("\n".join(["when,sequence,label,n,step", *rows]))
    elif kind == "rows":
        path = folder / "a.jsonl"
        rows = [{"when": times, "label": labels[n], "x": x} for n, x, times in found]
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "recordings":
        for n, x, times in found:
            lines = [f"{moment(t)},{a},{b}" for (a, b), t in zip(x, times, strict=True)]
            (folder / f"{n}.csv").write_text("\n".join(["when,n,step", *lines]))
        path = folder / "a.csv"
        path.write_text("\n".join(["file,label", *(f"{n}.csv,{labels[n]}" for n in range(COUNT))]))
    else:
        x = np.array([x for _, x, _ in found], np.float32 if kind == "padded" else np.float64)
        times = np.array([times for _, _, times in found])
        lengths = {} if kind == "equal" else {"lengths": np.full(COUNT, 3)}
        if kind == "joined":
            x, times = x.reshape(-1, 2), times.reshape(-1)
        path = folder / "a.npz"
        np.savez(path, x=x, y=labels, when=times, **lengths)
    return path


def files(path, make=ClassificationFiles, **options):
    options = {"time": "when", "standardise": False, "batch_size": COUNT, **options}
    return make(str(path), **options)


def steps_of(data):
    """The steps of the sequences in training, by their number."""
    train = data.part("train")
    return {int(x[0, 0]): x for x in train.x.split(train.lengths.tolist())}


@pytest.mark.parametrize(
    "kind", ["steps", "stamps", "zoned", "rows", "recordings", "padded", "joined", "equal"]
)
def test_the_time_since_the_step_before_is_the_last_feature_in_every_file(kind, tmp_path):
    data = files(write(tmp_path, kind), time_unit=2)

    found = steps_of(data)
    passed = [lasting(n, step) for n in found for step in (1, 2)]

    assert data.sizes["input_size"] == 3
    for number, x in found.items():
        first = sum(passed) / len(passed)
        elapsed = [first, lasting(number, 1), lasting(number, 2)]
        assert x[:, :2].tolist() == [[number, step] for step in range(3)]
        assert x[:, 2].tolist() == pytest.approx([time / 2 for time in elapsed])


@pytest.mark.parametrize("standardise", [False, True])
def test_a_mean_step_of_training_lasts_1_whatever_is_standardised(standardise, tmp_path):
    data = files(write(tmp_path, "stamps"), standardise=standardise)

    x = data.part("train").x

    assert x[:, 2].reshape(-1, 3)[:, 0].eq(1).all()
    assert float(x[:, 2].mean()) == pytest.approx(1)
    assert float(x[:, 1].mean()) == pytest.approx(0 if standardise else 1, abs=1e-6)
    assert [*data.feature_names] == ["n", "step", "when"]


def test_cells_of_stamps_get_the_time_since_the_first_step(tmp_path):
    data = files(write(tmp_path, "stamps"), time_unit=1, time_stamps=True)

    for number, x in steps_of(data).items():
        assert x[:, 2].tolist() == [0, lasting(number, 1), lasting(number, 1) + lasting(number, 2)]


@pytest.mark.parametrize("kind", ["steps", "stamps", "recordings"])
@pytest.mark.parametrize("stamps", [False, True])
def test_new_data_have_times_as_in_training(stamps, kind, tmp_path):
    data = files(write(tmp_path, kind), standardise=True, time_stamps=stamps)
    known = json.loads(json.dumps(data.describe()))
    new = tmp_path / "new.csv"
    show = str if kind == "steps" else moment
    new.write_text(
        "\n".join(["step,when,sequence,n", *(f"{k},{show(9e8 + 30 * k)},s,5" for k in range(3))])
    )

    (batch,) = data.new(new, known)
    scale = known["scaling"]["x"]

    assert batch.x[0, :, 1].tolist() == pytest.approx(
        [(k - scale["mean"][1]) / scale["deviation"][1] for k in range(3)]
    )
    mean = known["time"]["mean"]
    times = [0, 30, 60] if stamps else [mean, 30, 30]
    assert batch.x[0, :, 2].tolist() == pytest.approx([time / mean for time in times])


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (["10", "20", "15"], r"line 4: column when is '15' after '20', expected times that do not"),
        (["10", "", "15"], r"line 3: column when is missing, expected the time of the step"),
        (["10", "soon", "15"], r"line 3: column when is 'soon', expected a time such as"),
        (["10", "2026-01-01", "15"], r"line 3: column when is a time without a zone, expected a n"),
        (["5", "5", "5"], r"no time passes within the sequences of the training part"),
    ],
)
@pytest.mark.parametrize("make", [ClassificationFiles, TaggingFiles])
def test_a_time_that_cannot_be_is_found_in_its_line(make, cells, told, tmp_path):
    per_step = int(make is TaggingFiles)
    rows = [
        f"{n},{'ab'[(n + k * per_step) % 2]},{t},{k}"
        for n in range(12)
        for k, t in enumerate(cells)
    ]
    (tmp_path / "a.csv").write_text("\n".join(["sequence,label,when,x", *rows]))
    options = {"missing": "zero"} if make is ClassificationFiles else {}

    with pytest.raises(DataError, match=told):
        make(str(tmp_path / "a.csv"), time="when", **options).setup()


@pytest.mark.parametrize(
    ("times", "told"),
    [
        (["02:00", "02:50", "02:10"], True),
        (["02:00", "04:00", "02:10"], False),
        (["02:00+02:00", "02:50+02:00", "02:10+02:00"], False),
    ],
)
def test_local_times_that_fall_by_an_hour_at_most_are_told_of_clocks_set_back(
    times, told, tmp_path
):
    rows = [f"a,b,2026-10-25 {time},1" for time in times]
    (tmp_path / "a.csv").write_text("\n".join(["sequence,label,when,x", *rows]))

    with pytest.raises(DataError, match="Sort the steps by time") as caught:
        files(tmp_path / "a.csv").setup()

    assert ("If clocks were set back there" in str(caught.value)) is told


def test_steps_may_be_at_one_time(tmp_path):
    rows = [f"{n},{'ab'[n % 2]},{t},{t}" for n in range(12) for t in (3, 3, 5)]
    (tmp_path / "a.csv").write_text("\n".join(["sequence,label,when,x", *rows]))

    data = files(tmp_path / "a.csv", time_unit=1)

    assert data.part("train").x[:3, 1].tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"time": None, "time_unit": 60}, "time_unit is 60, and time is None, expected the column"),
        ({"time": None, "time_stamps": True}, "time_stamps is True, and time is None"),
        ({"time_unit": 0}, "time_unit is 0, expected a number above 0"),
        ({"time": "label"}, "dataset.time is label, a column that is read otherwise"),
        ({"leave_out": ["when"]}, "dataset.time is when, a column that is read otherwise or left"),
    ],
)
@pytest.mark.parametrize("make", [RegressionFiles, TaggingFiles])
def test_options_of_times_that_do_not_fit_are_refused(make, options, told, tmp_path):
    path = write(tmp_path, "steps")
    own = {"targets": ["label"]} if make is RegressionFiles else {}

    with pytest.raises(ConfigError, match=told):
        make(str(path), **{"time": "when", **own, **options}).setup()


def test_whether_times_are_stamps_is_true_or_false(tmp_path):
    with pytest.raises(DtypeError, match="time_stamps is 'no', expected True or False"):
        files("a.csv", time_stamps="no")


@pytest.mark.parametrize("kind", ["steps", "rows", "recordings"])
def test_a_column_of_times_that_is_not_there_is_told(kind, tmp_path):
    with pytest.raises(DataError, match=r"expected .*then(.|\n)*dataset.time=COLUMN names"):
        files(write(tmp_path, kind), time="then").setup()


@pytest.mark.parametrize("kind", ["stamps", "recordings"])
def test_a_column_of_time_stamps_is_no_feature_but_may_be_the_time(kind, tmp_path):
    told = r"not a feature: .*leave_out=\[when\].* If it is when steps were: dataset.time=when"

    with pytest.raises(DataError, match=told):
        files(write(tmp_path, kind), time=None).setup()


def test_what_has_no_column_of_times_is_refused(tmp_path):
    text, words = tmp_path / "a.csv", tmp_path / "a.conll"
    text.write_text("text,label\nwell,a\nso,b\n")
    words.write_text("well A\nso B\n")

    with pytest.raises(DataError, match=r"a.csv: does not say when steps are, expected a table"):
        files(text).setup()
    with pytest.raises(DataError, match=r"a.conll: has words, expected a table of numbers with wh"):
        TaggingFiles(str(words), time="when").setup()


@pytest.mark.parametrize("make", ["csv", "jsonl"])
def test_steps_with_labels_have_times_from_the_start_of_each_piece(make, tmp_path):
    path = tmp_path / f"a.{make}"
    if make == "csv":
        rows = [
            f"{n},{moment(t)},{'ab'[k % 2]},{x[0]}"
            for n, steps, times in sequences()
            for k, (x, t) in enumerate(zip(steps, times, strict=True))
        ]
        path.write_text("\n".join(["sequence,when,label,n", *rows]))
    else:
        rows = [
            {"x": [step[:1] for step in x], "when": [*map(moment, t)], "labels": ["a", "b", "a"]}
            for _, x, t in sequences()
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
    data = TaggingFiles(str(path), time="when", time_unit=1, window=2)
    known = json.loads(json.dumps(data.describe()))

    train, mean = data.part("train"), known["time"]["mean"]
    new = next(iter(data.new(path, known)))
    numbers = data.inputs.scaling.undo(train.x)[:, 0].round().int()

    for piece in train.lengths.cumsum(0).tolist():
        number = int(numbers[piece - 1])
        since = train.x[piece - 2 : piece, 1].tolist()
        assert since == pytest.approx([mean, lasting(number, 1)]) or since[-1] == pytest.approx(
            mean
        )
    assert sorted(set(train.lengths.tolist())) == [1, 2]
    assert new.x[0, 0, 1] == pytest.approx(mean)
    shown = data.features()[1]
    assert float(shown["mean"]) == pytest.approx(float(train.x[:, 1].mean()), rel=1e-3)


@pytest.mark.parametrize(
    ("make", "told"), [(ClassificationFiles, "got time"), (TaggingFiles, "its times are")]
)
def test_times_of_another_kind_than_in_training_are_refused(make, told, tmp_path):
    data = make(str(write(tmp_path, "stamps")), time="when")
    known, kept = data.describe(), (tmp_path / "a.csv").rename(tmp_path / "b.csv")
    other = write(tmp_path, "steps")

    with pytest.raises(DataError, match=f"{told} a number, expected a time without a zone"):
        data.new(other, known)
    with pytest.raises(DataError, match=f"{told} a time without a zone, expected a number"):
        make(str(other), test_path=str(kept), time="when").setup()


@pytest.mark.parametrize("times", [[1, 2], 3])
@pytest.mark.parametrize("make", [ClassificationFiles, TaggingFiles])
def test_a_row_with_another_number_of_times_than_steps_is_refused(make, times, tmp_path):
    row = {"x": [[1], [2], [3]], "when": times, "label": "a", "labels": ["a", "b", "a"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))

    with pytest.raises(DataError, match=r"line 1: column when is .*, expected a list of 3 times,"):
        make(str(tmp_path / "a.jsonl"), time="when").setup()


def test_transcribed_events_have_times(tmp_path):
    rows = [{"text": "ab", "x": x, "when": times} for _, x, times in sequences()]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))

    data = files(tmp_path / "a.jsonl", TranscriptionFiles, time_unit=1)

    assert all(
        x[1:, 2].tolist() == [lasting(n, 1), lasting(n, 2)] for n, x in steps_of(data).items()
    )


def test_augmentations_leave_times_alone(tmp_path):
    path = write(tmp_path, "steps")
    plain = next(iter(files(path).loader("train"))).x
    noisy = next(iter(files(path, augment=[Noise()]).loader("train"))).x
    cropped = next(iter(files(path, augment=[Crop(share=0.5)]).loader("train")))

    assert torch.equal(noisy[..., 2], plain[..., 2])
    assert not torch.equal(noisy[..., 0], plain[..., 0])
    assert {*cropped.x[..., 2].flatten().tolist()} <= {0, *plain[..., 2].flatten().tolist()}
    with pytest.raises(ConfigError, match="Stretch, expected none that changes how far steps are"):
        assert files(path, augment=[Stretch()]).augmenter


@pytest.mark.parametrize("stamps", [False, True])
def test_padded_rows_get_the_times_that_concatenated_ones_do(stamps):
    times = Times("when", "a number", stamps, 4.0)
    lengths = torch.tensor([3, 2])
    x = torch.tensor([[0.0, 5], [1, 7], [2, 12], [3, 100], [4, 101]], dtype=torch.float64)
    padded = torch.nn.utils.rnn.pad_sequence(x.split([3, 2]), batch_first=True)

    made = times.of_batch(padded)

    assert torch.equal(torch.cat([made[0], made[1, :2]]), times(x, lengths))
    assert torch.equal(times.of_batch(times.undo(made))[0], made[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01 08:00:00.5+01:00", "2026-03-01 08:00:00.500000+01:00"),
        ("2026-03-01T08:00:00,123456789", "2026-03-01 08:00:00.123456"),
        ("20260301T080015-0530", "2026-03-01 08:00:15-05:30"),
        ("2026-03-01 08+01", "2026-03-01 08:00:00+01:00"),
        ("2026-W09-7T0800", "2026-03-01 08:00:00"),
        ("2026W09", "2026-02-23 00:00:00"),
        ("2026-02-30 08:00:00.5", "None"),
        ("2026-03-01 08:0015", "None"),
        ("2026-03-01 08:00+24:00", "None"),
    ],
)
def test_times_are_read_alike_by_all_versions_of_python(text, expected):
    assert str(read_iso(text)) == str(moment_of(text)) == expected
