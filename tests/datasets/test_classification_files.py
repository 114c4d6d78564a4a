"""A user's sequences in every format train a classifier, and errors are reported."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from seqnets.cells import GRUCell
from seqnets.datasets import ClassificationFiles
from seqnets.datasets.readers import LogMel
from seqnets.datasets.readers.records import Wanted
from seqnets.datasets.readers.sources import read_source
from seqnets.errors import ConfigError, DataError
from seqnets.models import SequenceClassifier
from seqnets.training import Classification
from seqnets.typing import IGNORE

ROWS = """sequence,split,label,a,b
s1,train,yes,1,10
s1,train,yes,2,20
s2,train,no,3,30
s3,val,no,4,40
s4,test,yes,5,50
s4,test,yes,6,60
s4,test,yes,7,70
"""

RATE = 8_000


def walks():
    """Ten walks up and ten down, of two features and 3 to 6 steps: (label, steps)."""
    random = np.random.default_rng(0)
    for number in range(20):
        sign = 1 if number % 2 else -1
        steps = np.arange(3 + number % 4)[:, None] * [sign, 0.5] + random.normal(0, 0.1, 2)
        yield ("up" if sign > 0 else "down"), steps.round(4).tolist()


def write_csv(folder, delimiter=","):
    path = folder / ("walks.csv" if delimiter == "," else "walks.tsv")
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["sequence", "label", "height", "speed"])
        for number, (label, steps) in enumerate(walks()):
            writer.writerows([number, label, *step] for step in steps)
    return path


def objects(kind):
    for number, (label, steps) in enumerate(walks()):
        if kind == "steps":
            yield from (
                {"sequence": number, "label": label, "height": a, "speed": b} for a, b in steps
            )
        elif kind == "x":
            yield {"id": f"w{number}", "label": label, "x": steps}
        else:
            yield {"label": label, "text": ("higher " if label == "up" else "lower ") * len(steps)}


def write_json_lines(folder, kind):
    path = folder / "walks.jsonl"
    path.write_text("\n".join(map(json.dumps, objects(kind))))
    return path


def write_parquet(folder, kind):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(objects(kind))), folder / "walks.parquet")
    return folder / "walks.parquet"


def write_npz(folder, padded):
    labels, sequences = zip(*walks(), strict=True)
    lengths = [len(steps) for steps in sequences]
    if padded:
        x = np.zeros((20, 6, 2))
        for row, steps in zip(x, sequences, strict=True):
            row[: len(steps)] = steps
    else:
        x = np.concatenate(sequences)
    np.savez(folder / "walks.npz", x=x, lengths=lengths, y=labels)
    return folder / "walks.npz"


def write_ts(folder):
    lines = [
        ":".join([*(",".join(map(str, values)) for values in zip(*steps, strict=True)), label])
        for label, steps in walks()
    ]
    header = ["@problemName walks", "@dimensions 2", "@classLabel true up down", "@data"]
    (folder / "walks.ts").write_text("\n".join(header + lines))
    return folder / "walks.ts"


def write_folder(folder, write):
    for number, (label, steps) in enumerate(walks()):
        (folder / "walks" / label).mkdir(parents=True, exist_ok=True)
        write(folder / "walks" / label / f"{number}", label, steps)
    (folder / "walks" / "up" / ".hidden").write_text("passed over")
    return folder / "walks"


def write_text(path, label, steps):
    path.with_suffix(".txt").write_text(f"{label} " * len(steps))


def write_sound(path, label, steps):
    soundfile = pytest.importorskip("soundfile")
    time = np.arange(RATE // 20 * len(steps)) / RATE
    tone = np.sin(2 * np.pi * time * (1500 if label == "up" else 300))
    soundfile.write(path.with_suffix(".wav"), 0.5 * tone, RATE)


def write_image(path, label, steps):
    images = pytest.importorskip("PIL.Image")
    pixels = np.full((len(steps), 5), 20 if label == "up" else 220, np.uint8)
    images.fromarray(pixels).save(path.with_suffix(".png"))


FORMATS = {
    "csv, a row a step": write_csv,
    "tsv, a row a step": partial(write_csv, delimiter="\t"),
    "jsonl, a row a step": partial(write_json_lines, kind="steps"),
    "jsonl, a row a sequence": partial(write_json_lines, kind="x"),
    "jsonl, text": partial(write_json_lines, kind="text"),
    "parquet, a row a step": partial(write_parquet, kind="steps"),
    "parquet, a row a sequence": partial(write_parquet, kind="x"),
    "parquet, text": partial(write_parquet, kind="text"),
    "npz, padded": partial(write_npz, padded=True),
    "npz, steps behind each other": partial(write_npz, padded=False),
    "ts": write_ts,
    "folder of text": partial(write_folder, write=write_text),
    "folder of sound": partial(write_folder, write=write_sound),
    "folder of images": partial(write_folder, write=write_image),
}


@pytest.fixture(params=FORMATS)
def path(request, tmp_path):
    return FORMATS[request.param](tmp_path)


def test_a_file_of_every_format_trains_a_classifier(path):
    data = ClassificationFiles(str(path))
    data.setup()
    torch.manual_seed(0)
    model = SequenceClassifier(GRUCell, hidden_size=8, **data.sizes)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(30):
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            Classification()(model, batch).loss.backward()
            optimizer.step()
    (test,) = data.test_dataloader()

    assert data.labels == ["down", "up"]
    assert data.counts() == {"train": 12, "val": 4, "test": 4}
    assert (model(test.x, None, test.lengths)[0].argmax(-1) == test.y).all()


def test_the_same_file_as_new_data_gives_the_same_inputs_and_the_labels_that_it_has(path):
    data = ClassificationFiles(str(path), batch_size=100)
    everything = path.parent / "walks" / "up" if path.is_dir() else path
    (batch,) = data.new(everything, data.describe())
    seen = {tuple(row[row != 0].flatten().tolist()) for row in batch.x}
    trained = {
        tuple(row[row != 0].flatten().tolist())
        for part in ("train", "val", "test")
        for loaded in data.loader(part)
        for row in loaded.x
    }

    assert seen <= trained
    labels = batch.y.tolist()
    assert sorted(labels) == [IGNORE] * 10 if path.is_dir() else [0] * 10 + [1] * 10


def test_the_description_of_sound_tells_how_its_features_were_made(tmp_path):
    mel = LogMel(bands=20, window=0.05, hop=0.02)
    sound = ClassificationFiles(str(write_folder(tmp_path, write_sound)), audio=mel)
    text = ClassificationFiles(str(write_folder(tmp_path / "texts", write_text)), audio=mel)

    assert sound.describe()["audio"] == {"bands": 20, "window": 0.05, "hop": 0.02}
    assert sound.describe()["facts"]["sample rate"] == RATE
    assert text.describe()["audio"] is None


@pytest.mark.parametrize("told", [True, False])
def test_new_sound_has_the_features_that_the_model_was_trained_with(told, tmp_path):
    path = write_folder(tmp_path, write_sound)
    data = ClassificationFiles(str(path), audio=LogMel(bands=20, window=0.05, hop=0.02))
    known = data.describe()
    other = ClassificationFiles(str(path)) if told else data
    if not told:  # as in checkpoints that do not say it
        del known["audio"]

    (expected,) = data.new(path / "up" / "1.wav", data.describe())
    (batch,) = other.new(path / "up" / "1.wav", known)

    assert torch.equal(batch.x, expected.x)


@pytest.mark.parametrize("write", [write_text, write_sound, write_image])
def test_one_file_of_a_folder_is_new_data_as_the_folder_is(write, tmp_path):
    path = write_folder(tmp_path, write)
    data = ClassificationFiles(str(path), batch_size=100)
    data.setup()
    first, *_ = sorted(file for file in (path / "up").iterdir() if file.name[0] != ".")

    (all_of_them,) = data.new(path / "up", data.describe())
    (alone,) = data.new(first, data.describe())

    assert len(alone.x) == 1
    assert torch.equal(alone.x[0], all_of_them.x[0, : alone.x.shape[1]])


def test_columns_that_are_left_out_are_no_features_and_new_files_may_lack_them(tmp_path):
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text(ROWS.replace(",b\n", ",b,place\n").replace("0\n", "0,roof\n"))
    new.write_text(ROWS)
    data = ClassificationFiles(str(old), leave_out=["place"])

    assert data.sizes["input_size"] == 2
    assert next(iter(data.new(new, data.describe()))).x.shape[-1] == 2
    with pytest.raises(DataError, match=r"place is 'roof'.*\n.*dataset.leave_out=\[place\]"):
        ClassificationFiles(str(old)).setup()
    with pytest.raises(DataError, match=r"expected plase too.\n.*dataset.leave_out"):
        ClassificationFiles(str(old), leave_out=["plase"]).setup()
    with pytest.raises(DataError, match="leave_out is place, expected none: only a table"):
        ClassificationFiles(str(write_npz(tmp_path, True)), leave_out=["place"]).setup()


def test_an_error_names_all_columns_of_words_beside_those_left_out(table):
    text = "sequence,label,day,x,town,y,sky\n1,a,monday,1,Rome,2,blue\n"

    with pytest.raises(DataError, match=r"town is 'Rome'.*\n.*leave_out=\[day,town,sky\]'\."):
        table(text=text, leave_out=["day"]).setup()


def test_a_number_instead_of_steps_points_to_the_column_that_tables_of_steps_need(table):
    with pytest.raises(DataError, match=r"x is '1', .*\n.*one step, column sequence has to say"):
        table(text="label,x\na,1\n").setup()


@pytest.mark.parametrize("name", ["sequence", "split", "label"])
def test_columns_that_are_never_features_cannot_be_left_out(table, name):
    with pytest.raises(DataError, match=f"line 2: leave_out has {name}, expected columns that wou"):
        table(leave_out=[name]).setup()


def test_refused_columns_show_the_blanks_around_their_names(table):
    with pytest.raises(DataError, match="got the columns sequence, ' label', label, expected one"):
        table(text="sequence, label,label\n1,2,3\n", leave_out=[" label"]).setup()


@pytest.mark.parametrize("standardise", [True, False])
def test_features_show_their_deviation_before_it_is_scaled_and_none_if_constant(
    tmp_path, standardise
):
    path = tmp_path / "mine.csv"
    rows = [f"{n},{'ab'[n % 2]},{10 * (n // 2 % 2)},1e9" for n in range(40)]
    path.write_text("\n".join(["sequence,label,height,floor", *rows]))
    data = ClassificationFiles(
        str(path), validation_path=str(path), test_path=str(path), standardise=standardise
    )

    assert data.features() == [
        {"": "height", "mean": "5", "deviation": "5"},
        {"": "floor", "mean": "1e+09", "deviation": "0"},
    ]


@pytest.mark.parametrize("standardise", [True, False])
def test_what_gaps_are_filled_with_does_not_count_in_the_statistics_of_features(
    tmp_path, standardise
):
    path = tmp_path / "mine.csv"
    rows = [f"{n},{'ab'[n % 2]},{['', 10, 20][n % 3]},{['', 7][n % 2]}" for n in range(60)]
    path.write_text("\n".join(["sequence,label,height,floor", *rows]))
    data = ClassificationFiles(
        str(path),
        validation_path=str(path),
        test_path=str(path),
        standardise=standardise,
        missing="zero",
    )

    assert data.features() == [
        {"": "height", "mean": "15", "deviation": "5"},
        {"": "floor", "mean": "7", "deviation": "0"},
    ]


def test_examples_show_labels_and_how_sequences_begin(path):
    data = ClassificationFiles(str(path))
    examples = data.examples("test", 3)

    assert len(examples) == 3
    assert {example["label"] for example in examples} <= {"up", "down"}
    assert all(example["begins"] and int(example["steps"]) > 0 for example in examples)


def test_examples_are_in_the_units_of_the_file_and_mark_what_is_not_shown(tmp_path):
    x = np.arange(4 * 4 * 7).reshape(4, 4, 7)  # four sequences of four steps and seven features
    np.savez(tmp_path / "mine.npz", x=x, y=[0, 0, 1, 1], split=["train", "val", "test", "train"])
    (example,) = ClassificationFiles(str(tmp_path / "mine.npz")).examples("train", 1)

    steps = ["0 1 2 3 4 5 ...", "7 8 9 10 11 12 ...", "14 15 16 17 18 19 ...", "..."]
    assert example["begins"] == " | ".join(steps)


def test_a_column_that_is_refused_for_its_blanks_shows_them(tmp_path):
    (tmp_path / "mine.csv").write_text(ROWS.replace(",", " , "))

    with pytest.raises(DataError, match="got the columns 'sequence ', ' split '"):
        ClassificationFiles(str(tmp_path / "mine.csv")).setup()


@pytest.mark.parametrize(
    ("begins", "suffix", "sequences"),
    [("sequence,", "csv", 2), ('{"id"', "jsonl", 2), ("text,label", "csv", 2)],
)
def test_the_examples_of_the_documentation_are_read(tmp_path, begins, suffix, sequences):
    blocks = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8").split("```")
    (block,) = (b.partition("\n")[2] for b in blocks if b.partition("\n")[2].startswith(begins))
    (tmp_path / f"a.{suffix}").write_text(block)
    target = ClassificationFiles("unread").read_target
    source = read_source(tmp_path / f"a.{suffix}", Wanted(("label",), target))

    assert len({record.target for record in source.records}) == sequences


def test_checkpoint_metadata_are_plain_values(path):
    known = ClassificationFiles(str(path)).describe()

    assert json.loads(json.dumps(known)) == known


@pytest.fixture
def table(tmp_path):
    """Make the dataset of a small file, some of whose text is replaced."""

    def make(old="", new="", text=ROWS, name="data.csv", **options):
        assert old in text
        (tmp_path / name).write_bytes(text.replace(old, new, 1).encode("latin-1"))
        return ClassificationFiles(str(tmp_path / name), **options)

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


def test_a_label_that_is_named_later_is_no_feature(table):
    data = table("label", "kind")
    data.label = "kind"
    data.setup()

    assert data.describe()["targets"] == ["kind"]
    assert data.sizes == {"input_size": 2, "num_classes": 2}


def test_the_order_of_the_columns_makes_no_difference(table):
    turned = "\n".join(",".join(reversed(row.split(","))) for row in ROWS.splitlines())
    data = table(text=turned, standardise=False)
    (test,) = data.test_dataloader()

    assert test.x.tolist() == [[[50, 5], [60, 6], [70, 7]]]
    assert test.y.tolist() == [1]


def test_without_a_split_column_parts_are_stratified(table):
    data = table(text=many("xyz", 10), validation_fraction=0.25, test_fraction=0.2)
    data.setup()

    assert data.counts() == {"train": 18, "val": 6, "test": 6}
    for part, count in (("train", 6), ("val", 2), ("test", 2)):
        assert data.part(part).y.bincount().tolist() == [count] * 3


def test_of_a_class_none_is_held_out_if_training_would_lack_it(table):
    text = many("a", 8) + "b,b,1\n" + "".join(f"c{n},c,{n}\n" for n in range(2))
    data = table(text=text)

    counts = {part: data.class_counts(part).tolist() for part in ("train", "val", "test")}
    assert counts == {"train": [4, 1, 1], "val": [2, 0, 0], "test": [2, 0, 1]}


def test_the_test_fraction_does_not_change_the_validation_part(table):
    data = table(text=many("xy", 100), validation_fraction=0.2, test_fraction=0.2)

    assert data.counts() == {"train": 120, "val": 40, "test": 40}


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


def test_features_are_standardised_by_the_training_part_and_constant_ones_centred(table):
    header, *rows = ROWS.splitlines()
    data = table(text="\n".join([f"{header},c", *(f"{row},7" for row in rows)]))
    data.setup()
    train = data.part("train").x

    torch.testing.assert_close(train[:, :2].mean(0), torch.zeros(2))
    torch.testing.assert_close(train[:, :2].std(0, correction=0), torch.ones(2))
    assert (train[:, 2] == 0).all()
    assert (data.part("test").x[:, 2] == 0).all()


EPOCH = 1_700_000_000
"""Seconds since 1970: float32 has steps of 128 there."""


def write_times(folder, kind):
    """Twenty sequences of three seconds each, which begin a second apart."""
    path, steps = folder / f"times.{kind}", EPOCH + np.arange(20)[:, None] + np.arange(3)
    labels = ["ab"[n % 2] for n in range(20)]
    if kind == "npz":
        np.savez(path, x=steps, y=labels)
    elif kind == "csv":
        rows = [f"{n},{labels[n]},{v}" for n, values in enumerate(steps) for v in values]
        path.write_text("sequence,label,time\n" + "\n".join(rows))
    elif kind == "jsonl":
        rows = [{"x": x, "label": y} for x, y in zip(steps.tolist(), labels, strict=True)]
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        rows = [f"{','.join(map(str, x))}:{y}" for x, y in zip(steps, labels, strict=True)]
        path.write_text("@univariate true\n@classLabel true a b\n@data\n" + "\n".join(rows))
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "npz", "ts"])
def test_features_with_a_large_offset_are_standardised_before_they_are_rounded(tmp_path, kind):
    data = ClassificationFiles(write_times(tmp_path, kind))
    data.setup()
    x = data.part("train").x
    own = data.contents.inputs.scaling.undo(x).view(-1, 3)

    assert x.dtype == torch.float32
    assert own[:, 0].round().unique().numel() == len(own)
    torch.testing.assert_close(own.diff(), torch.ones(len(own), 2).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "npz", "ts"])
def test_features_that_are_not_standardised_are_float32_too(tmp_path, kind):
    data = ClassificationFiles(write_times(tmp_path, kind), standardise=False)

    assert data.part("train").x.dtype == torch.float32


def test_each_part_may_have_a_file_of_its_own(table, tmp_path):
    table(text=many("xy", 2), name="test.csv")
    data = table(text=many("xy", 5), test_path=str(tmp_path / "test.csv"))
    data.setup()

    assert data.counts() == {"train": 8, "val": 2, "test": 4}


def test_the_columns_of_a_file_of_a_part_may_stand_in_another_order(table, tmp_path):
    table(text="sequence,label,b,a\n1,yes,7,3\n", name="test.csv")
    rows = ROWS.replace("test", "train")
    data = table(text=rows, test_path=str(tmp_path / "test.csv"), standardise=False)

    assert data.part("test").x.tolist() == [[3, 7]]
    assert data.describe()["facts"]["features"] == ["a", "b"]


def test_a_file_of_a_part_that_has_other_features_is_refused(table, tmp_path):
    table(text=many("xy", 2).replace("value", "values"), name="test.csv")
    data = table(text=many("xy", 5), test_path=str(tmp_path / "test.csv"))

    with pytest.raises(DataError, match=r"test.csv: got features .*values.*, expected .*value"):
        data.setup()


def test_a_row_for_a_part_that_has_a_file_of_its_own_is_refused(table, tmp_path):
    table(name="val.csv", text=many("ab", 2))
    data = table(validation_path=str(tmp_path / "val.csv"), text=ROWS)

    with pytest.raises(DataError, match=r"data.csv, line 5: split is 'val', expected train"):
        data.setup()


def test_classes_are_numbered_in_the_order_of_their_numbers(table):
    text = "".join(f'{{"x": [1, 2], "label": {n}}}\n' for n in (10, 9, 2, 10, 9, 2, 10, 9, 2))

    assert table(text=text, name="a.jsonl").labels == ["2", "9", "10"]


def test_words_that_are_rare_or_new_are_unknown(table, tmp_path):
    text = "text,label\n" + "so good,1\nso bad,0\n" * 5
    data = table(text=text, unit="words", max_vocabulary=3)
    (tmp_path / "new.jsonl").write_text('{"text": "so new"}\n{"text": "so"}\n')
    (batch,) = data.new(tmp_path / "new.jsonl", data.describe())

    assert data.vocabulary.tokens == ["<unk>", "so", "bad"]
    assert data.sizes == {"vocab_size": 3, "num_classes": 2}
    assert batch.x.tolist() == [[1, 0], [1, 0]]
    assert batch.lengths.tolist() == [2, 1]


def test_a_new_character_is_unknown(table, tmp_path):
    data = table(text="text,label\n" + "aa,1\nbb,0\n" * 5)
    (tmp_path / "new.csv").write_text("text\nabz\n")
    (batch,) = data.new(tmp_path / "new.csv", data.describe())

    assert batch.x.tolist() == [[1, 2, 0]]


def test_new_files_need_neither_the_training_files_nor_targets(table, tmp_path):
    data = table()
    known = data.describe()
    (tmp_path / "data.csv").unlink()
    (tmp_path / "new.csv").write_text("sequence,a,b\n1,1,10\n1,2,20\n2,3,30\n")
    (batch,) = table(text="", name="none.csv").new(tmp_path / "new.csv", known)

    torch.testing.assert_close(batch.x[0], torch.tensor([[-1.0, -1], [0, 0]]) * 1.5**0.5)
    assert batch.lengths.tolist() == [2, 1]


def test_the_columns_of_a_new_file_may_stand_in_another_order(table, tmp_path):
    data = table()
    (tmp_path / "new.csv").write_text("sequence,a,b\n1,1,10\n2,3,30\n")
    (tmp_path / "turned.csv").write_text("b,sequence,a\n10,1,1\n30,2,3\n")
    (new,), (turned,) = (
        data.new(tmp_path / f"{name}.csv", data.describe()) for name in ("new", "turned")
    )

    assert turned.x.tolist() == new.x.tolist()


def test_unknown_labels_of_a_new_file_are_ignored(table, tmp_path):
    data = table()
    (tmp_path / "new.csv").write_text("sequence,label,a,b\n1,no,1,1\n2,other,1,1\n3,,1,1\n")
    (batch,) = data.new(tmp_path / "new.csv", data.describe())

    assert batch.y.tolist() == [data.labels.index("no"), IGNORE, IGNORE]


def test_the_column_of_the_label_may_have_another_name(table):
    data = table(text=ROWS.replace("label", "class"), label="class")

    assert data.labels == table().labels
    assert "class" in data.examples("train", 1)[0]
    with pytest.raises(DataError, match=r"expected label too.\n  dataset.label=COLUMN names"):
        table(text=ROWS.replace("label", "class")).setup()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sequence,a,c\n1,1,1\n", r"got features \['a', 'c'\], expected \['a', 'b'\]"),
        ("sequence,a\n1,1\n", "got features .*"),
        ("text\nabc\n", "got features text"),
        ("sequence,a,b\n1,x,1\n", "line 2: column a is 'x'"),
    ],
)
def test_a_new_file_that_does_not_fit_is_refused(table, tmp_path, content, message):
    (tmp_path / "new.csv").write_text(content)
    data = table()

    with pytest.raises(DataError, match=message):
        data.new(tmp_path / "new.csv", data.describe())


GAPS = """sequence,split,label,a
s1,train,yes,
s1,train,yes,1
s1,train,yes,nan
s2,train,no,
s2,train,no,3
s3,val,no,4
s4,test,yes,5
"""


@pytest.mark.parametrize("cell", ["NA", "null", "?", " NaN ", "na"])
def test_a_cell_is_missing_as_it_is_in_a_table_of_series(table, cell):
    data = table(text=GAPS.replace("nan", cell), missing="forward", standardise=False)

    assert data.part("train").x[:, 0].tolist() == [0, 1, 1, 0, 3]


def test_a_sequence_may_be_called_what_a_missing_number_is(table):
    data = table("s1,train,yes,1,10\ns1,train", "NA,train,yes,1,10\nNA,train")
    data.setup()

    assert data.part("train").ids == ["NA", "s2"]


@pytest.mark.parametrize(
    ("missing", "standardise", "expected"),
    [
        ("forward", False, [0, 1, 1, 0, 3]),
        ("zero", False, [0, 1, 0, 0, 3]),
        ("forward", True, [0, -1, -1, 0, 1]),
        ("zero", True, [0, -1, 0, 0, 1]),
    ],
)
def test_missing_values_are_filled_as_asked_for(table, missing, standardise, expected):
    data = table(text=GAPS, missing=missing, standardise=standardise)
    data.setup()

    assert data.part("train").x[:, 0].tolist() == expected


@pytest.mark.parametrize(("standardise", "expected"), [(False, [1, 3]), (True, [-1, 1])])
def test_missing_values_are_kept_as_asked_for(table, standardise, expected):
    data = table(text=GAPS, missing="keep", standardise=standardise)
    data.setup()

    x = data.part("train").x[:, 0]
    assert x.isnan().tolist() == [True, False, True, True, False]
    assert x[~x.isnan()].tolist() == expected
    assert data.describe()["gaps"]


def test_a_feature_that_is_always_missing_is_refused(table):
    text = GAPS.replace("yes,1\n", "yes,\n").replace("no,3", "no,")

    with pytest.raises(DataError, match=r"feature a is missing at every .*\n.*leave_out=\[a\]'\.$"):
        table(text=text, missing="zero").setup()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "sequence,",
            "id,",
            r"header: got the columns id, .*one of(.|\n)*must be called sequence\.",
        ),
        ("label,", "class,", "header: got the columns .*, expected label too"),
        ("a,b", "a,a", "line 1: got the columns .* 'a' twice"),
        ("s2,train,no,3,30", "s2,train,no,3", "line 4: got 4 cells, expected 5"),
        ("s2,train,no,3,30", "s2,train,no,3,30,1", "line 4: got 6 cells, expected 5"),
        (
            "s2,train,no,3,30",
            "s2,train,no,three,30",
            r"line 4: column a is 'three'.*\n.*a category: ",
        ),
        ("s2,train,no,3,30", "s2,train,no,,30", "line 4: column a is missing"),
        ("s2,train,no,3,30", "s2,train,no,3,nan", "line 4: column b is 'nan'"),
        ("s2,train,no,3,30", "s2,train,no,3,inf", "line 4: column b is 'inf'"),
        ("s2,train,no,3,30", 's2,train,"no,3,30', "line 4: not CSV"),
        ("s2,train,no,3,30", ",train,no,3,30", "line 4: the id is missing"),
        ("s2,train,no,3,30", "s2,train,,3,30", "line 4: column label is missing"),
        ("s2,train,no,3,30", "s2,,no,3,30", "line 4: split is missing, expected train, val"),
        ("s1,train,yes,2,20", "s1,train,no,2,20", "line 3: label is 'no', expected 'yes'"),
        ("s1,train,yes,2,20", "s1,val,yes,2,20", "line 3: split is 'val', expected 'train'"),
        ("s2,train", "s2,training", "line 4: split is 'training', expected train, val, test"),
        ("s3,val,no", "s1,val,no", "line 5: sequence 's1' occurs again, first at .*line 2"),
        ("s3,val,no", "s3,val,maybe", "line 5: got label 'maybe' in the val part"),
        ("s2,train,no", "s2,train,yes", "all training sequences have the label 'yes'"),
        ("s3,val,no,4", "s3,val,no,1e300", "line 5: column a is '1e300'"),
        ("s3,val,no", "s3,val,n\xe9", r"byte 8\d \(line 5\) is 0xe9"),
        (ROWS, "", "the file is empty"),
        (ROWS.partition("\n")[2], "", "got no row"),
    ],
)
def test_a_malformed_table_with_a_row_a_step_is_refused_with_the_line(table, old, new, message):
    with pytest.raises(DataError, match=message):
        table(old, new).setup()


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"sequence": 1, "label": "a", "n": 2, "more": 3}, "got column more, expected those of"),
        ({"sequence": 1, "label": "a"}, "got the columns sequence, label, expected n too"),
    ],
)
def test_a_step_with_other_columns_than_the_first_is_refused(table, row, told):
    rows = [{"sequence": 1, "label": "a", "n": 1}, row]

    with pytest.raises(DataError, match=f"line 2: {told}"):
        table(text="\n".join(map(json.dumps, rows)), name="a.jsonl").setup()


OBJECTS = (
    '{"id": 1, "label": "a", "x": [[1, 2], [3, 4]]}\n{"id": 2, "label": "b", "x": [[5, 6]]}\n'
    + '{"label": "a", "x": [[1, 2]]}\n{"label": "b", "x": [[1, 2]]}\n' * 3
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"id": 2', '"id": 1', "line 2: sequence 1 occurs again, first at .*line 1"),
        ('"id": 2', '"id": 1.5', "line 2: the id is 1.5, expected text or a whole number"),
        ('"label": "b"', '"label": 2', "line 2: got label 2, expected one of the same kind"),
        ('"label": "b"', '"label": null', "line 2: column label is missing"),
        ('"label": "b"', '"label": ["b"]', r"line 2: column label is \['b'\]"),
        ('"label": "b", ', "", "line 2: got the columns .*, expected label too"),
        ('"x": [[5, 6]]', '"y": 0', "line 2: got the columns id, label, y, expected x too"),
        ("[[5, 6]]", "[]", r"line 2: column x is \[\], expected a list of steps, at least one"),
        ("[[5, 6]]", "[[]]", r"line 2: step 1 of column x is \[\]"),
        ("[[5, 6]]", "5", "line 2: column x is 5, expected a list"),
        ("[[5, 6]]", "[5, 6]", "line 2: got 1 feature a step, expected 2"),
        ("[3, 4]", "[3]", r"line 1: step 2 of column x is \[3\], expected a list of 2 numbers"),
        ("[3, 4]", "3", "line 1: step 2 of column x is 3, expected a list of 2 numbers"),
        ("[3, 4]", "[3, NaN]", "line 1: column x, step 2 is nan, expected a finite float32 number"),
        (
            "[3, 4]",
            "[3, null]",
            "line 1: column x, step 2 is missing, expected a finite float32 number",
        ),
        (
            "[3, 4]",
            "[3, Infinity]",
            "line 1: column x, step 2 is inf, expected a finite float32 number",
        ),
        (
            "[3, 4]",
            "[3, true]",
            "line 1: column x, step 2 is True, expected a finite float32 number",
        ),
        ("[3, 4]", '[3, "four"]', "line 1: column x, step 2 is 'four'"),
        (
            '"x": [[1, 2], [3, 4]]',
            '"text": "a", "x": [1]',
            "line 1: got the columns .* expected one of",
        ),
        ('{"id": 2', '{"id" 2', "line 2, column 7: not JSON"),
    ],
)
def test_a_malformed_table_with_a_row_a_sequence_is_refused_with_the_line(table, old, new, message):
    with pytest.raises(DataError, match=message):
        table(old, new, text=OBJECTS, name="data.jsonl").setup()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label\na,1\n,2\n", "line 3: column text is missing, expected text"),
        ("text,label\nb,1\na,1\n \t ,2\n" + "a,1\na,2\n" * 4, "line 4: the text has no words"),
        ("text,label\na,1\nb\n", "line 3: got 1 cell"),
    ],
)
def test_malformed_text_is_refused_with_the_line(table, text, message):
    with pytest.raises(DataError, match=message):
        table(text=text, unit="words").setup()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.array([[1, np.nan]])}, "sequence 1: column x, step 2, feature 1 is nan"),
        (
            {"x": [[1, 2], [1, np.inf]], "y": [1, 2]},
            "sequence 2: column x, step 2, feature 1 is inf",
        ),
        ({"x": np.array([["a"]])}, "x is <U1 of shape"),
        ({"x": np.ones(3)}, r"x has shape \(3,\), expected \(N, T, I\) or \(N, T\)"),
        ({"x": np.ones((2, 3)), "y": [1]}, r"y has shape \(1,\), expected \(2, 1\) or \(2,\)"),
        ({"x": np.ones((2, 3)), "y": None}, "got no array y"),
        ({"x": np.ones((2, 3)), "y": [1.0, 2.0]}, "sequence 1: column label is 1.0"),
        ({"x": np.ones((2, 3)), "y": [1, 2], "ids": ["a", "a"]}, "sequence 2: sequence 'a' occurs"),
        ({"x": np.ones((1, 3)), "split": ["dev"]}, "sequence 1: split is 'dev'"),
        ({"x": np.ones((1, 3)), "length": [3]}, "got the arrays length, x, y, expected x and"),
        ({"x": np.ones(3), "lengths": [1, 1], "y": [1, 2]}, "2 lengths with the sum 2"),
        ({"x": np.ones(3), "lengths": [0, 3], "y": [1, 2]}, "sequence 1: its length is 0"),
        ({"x": np.ones((2, 3, 1)), "lengths": [3, 4]}, "sequence 2: its length is 4, expected 1"),
        ({"x": np.ones(3), "lengths": [1.5, 1.5]}, "lengths is float64"),
        ({"x": np.array([object()])}, "cannot be read as a NumPy archive without pickled objects"),
        ({"y": [1]}, "got the arrays y, expected x"),
    ],
)
def test_a_malformed_archive_is_refused_with_array_and_sequence(tmp_path, arrays, message):
    arrays = {"y": [0], **arrays}
    np.savez(tmp_path / "a.npz", **{name: a for name, a in arrays.items() if a is not None})

    with pytest.raises(DataError, match=message):
        ClassificationFiles(str(tmp_path / "a.npz")).setup()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut off"])
def test_a_damaged_archive_is_refused(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)

    with pytest.raises(DataError, match=r"a.npz: cannot be read as a NumPy archive"):
        ClassificationFiles(str(tmp_path / "a.npz")).setup()


def test_a_single_array_is_no_archive(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.ones((2, 3)))

    with pytest.raises(DataError, match="it is a single array"):
        ClassificationFiles(str(tmp_path / "a.npz")).setup()


def test_missing_values_of_a_ts_file_are_filled_as_asked_for(tmp_path):
    path = write_ts(tmp_path)
    path.write_text(path.read_text().replace("@data\n", "@data\n?,1,2:3,NaN,5:up\n"))

    with pytest.raises(DataError, match=r"walks.ts, line 5: step 1 of dimension 1 is '\?'"):
        ClassificationFiles(str(path)).setup()
    filled = ClassificationFiles(str(path), missing="forward", standardise=False)
    (batch,) = filled.new(path, filled.describe())
    assert batch.x[0, :3].tolist() == [[0, 3], [1, 3], [2, 5]]


def test_a_label_that_is_named_is_not_looked_for_in_a_ts_file(tmp_path):
    data = ClassificationFiles(str(write_ts(tmp_path)), label="kind")

    with pytest.raises(DataError, match=r"@classLabel is for classification, without dataset\.la"):
        data.setup()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: (f / "readme.md").write_text("x"),
            "readme.md: got a file, expected one folder",
        ),
        (lambda f: (f / "empty").mkdir(), "empty: the folder is empty"),
        (lambda f: (f / "up" / "more").mkdir(), "more: got a folder, expected files"),
        (lambda f: (f / "up" / "a.doc").write_text("x"), r"a.doc: cannot be read"),
        (lambda f: (f / "up" / "a.txt").write_text(""), "a.txt: the file is empty"),
        (lambda f: (f / "up" / "a.txt").write_bytes(b"\xff"), r"a.txt: byte 0 \(line 1\)"),
        (
            lambda f: write_image(f / "up" / "a", "up", [1]),
            "a.png: got kind image, expected text as in .*0.txt",
        ),
    ],
)
def test_a_malformed_folder_is_refused(tmp_path, change, message):
    folder = write_folder(tmp_path, write_text)
    change(folder)

    with pytest.raises(DataError, match=message):
        ClassificationFiles(str(folder)).setup()


def test_new_data_in_folders_of_classes_are_refused(tmp_path):
    folder = write_folder(tmp_path, write_text)
    data = ClassificationFiles(str(folder))

    with pytest.raises(DataError, match=r"got a folder, expected files there.\n  New data are one"):
        data.new(folder, data.describe())


def test_sound_of_another_sample_rate_is_refused(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    folder = write_folder(tmp_path, write_sound)
    soundfile.write(folder / "up" / "a.wav", np.zeros(100), 16_000)

    with pytest.raises(
        DataError,
        match=r"a.wav: got sample rate 16000, expected 8000 as in .*0.wav.\n.* -ar 8000 NEW$",
    ):
        ClassificationFiles(str(folder)).setup()


def test_images_of_another_width_are_refused(tmp_path):
    images = pytest.importorskip("PIL.Image")
    folder = write_folder(tmp_path, write_image)
    images.new("L", (6, 5)).save(folder / "up" / "a.png")

    with pytest.raises(DataError, match=r"a.png: got width 6, expected 5 as in .*0.png"):
        ClassificationFiles(str(folder)).setup()


@pytest.mark.parametrize("name", ["a.wav", "a.png"])
def test_a_damaged_sound_or_image_is_refused(tmp_path, name):
    pytest.importorskip("soundfile")
    pytest.importorskip("PIL.Image")
    (tmp_path / "walks" / "up").mkdir(parents=True)
    (tmp_path / "walks" / "up" / name).write_bytes(b"RIFF damaged")

    with pytest.raises(DataError, match=f"{name}: cannot be read as"):
        ClassificationFiles(str(tmp_path / "walks")).setup()


def test_a_file_without_training_sequences_is_refused(table):
    with pytest.raises(DataError, match="no sequence is for training"):
        table(text=ROWS.replace("train", "val")).setup()


def test_a_file_without_features_is_refused(table):
    with pytest.raises(DataError, match=r"header: .* expected one or more features"):
        table(text="sequence,label\n1,2\n").setup()


def test_new_data_of_no_kind_is_told_all_kinds_that_new_data_may_have(tmp_path):
    data = ClassificationFiles(str(write_folder(tmp_path, write_text)))
    (tmp_path / "call.m4a").touch()

    with pytest.raises(DataError, match=r"a folder of files, or .* \.ts, \.wav, .* or \.txt\."):
        data.new(tmp_path / "call.m4a", data.describe())
    with pytest.raises(DataError, match=r"one folder per class, or .* \.npz or \.ts\."):
        ClassificationFiles(str(tmp_path / "call.m4a")).setup()


def test_too_few_sequences_to_hold_some_out_are_refused(table):
    with pytest.raises(DataError, match="no two of one class"):
        table(text=many("xyz", 1)).setup()


@pytest.mark.parametrize(("name", "message"), [("a.csv", "No such file"), ("a.h5", "no such file")])
def test_a_missing_file_is_refused(tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        ClassificationFiles(str(tmp_path / name)).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 0.6, "test_fraction": 0.5}, "below 1"),
        ({"missing": "mean"}, "missing is 'mean', expected one of error, forward, zero"),
        ({"unit": "syllables"}, "unit is 'syllables'"),
        ({"max_vocabulary": 1}, "max_vocabulary is 1"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        ClassificationFiles("data.csv", **options)


def test_labels_that_differ_in_blanks_alone_are_refused(tmp_path):
    rows = [f"{n},{('up', 'down', 'up ')[n % 3]},{n}" for n in range(60)]
    (tmp_path / "mine.csv").write_text("\n".join(["sequence,label,x", *rows]))

    with pytest.raises(DataError, match="line 4: has the labels 'up' and 'up ', expected one spel"):
        ClassificationFiles(str(tmp_path / "mine.csv")).setup()
