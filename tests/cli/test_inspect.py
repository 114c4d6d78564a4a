"""A dataset is looked at before a model does."""

import re

import numpy as np
import pytest

from seqnets.cli import console
from seqnets.cli.inspect_data import _features


def lines_of(out):
    return [" ".join(line.split()) for line in out.splitlines()]


def test_sequences_show_sizes_lengths_classes_tokens_padding_and_samples(seqnets):
    done = seqnets(
        *("inspect", "dataset=parity", "dataset.length=6", "dataset.shortest_length=2"),
        *("dataset.train_size=200", "dataset.test_size=20", "dataset.batch_size=8"),
    )

    from seqnets.datasets import Parity

    data = Parity(6, shortest_length=2, train_size=200, test_size=20, batch_size=8)
    steps = data.lengths("train")
    lines = lines_of(done.out)
    assert done.code == 0, done.err
    assert lines[0].startswith("Parity: whether a string of bits")
    assert "Sizes that a model is given: vocab_size 2, num_classes 2." in lines
    assert "sequences 200 20 20" in lines
    assert "longest 6 6 6" in lines
    for length in range(2, 7):
        assert any(line.startswith(f"{length} {(steps == length).sum()} ") for line in lines)
    share = data.loader("train").padding
    assert f"{share:.1%} of the training steps" in done.out
    data.bucket_batches = 1
    assert share < data.loader("train").padding
    assert f"{data.loader('train').padding:.1%} if lengths were not put together" in done.out
    ones = int(data.part("train").y.sum())
    assert any(line.startswith(f"1 {ones} ") and f"{ones / 200:.1%}" in line for line in lines)
    assert "Tokens, 2 in the vocabulary" in lines
    assert "Training sample 3" in lines
    assert "Training sample 4" not in lines
    assert "What simple baselines reach" not in done.out
    assert "\x1b" not in done.out


def test_data_that_take_long_to_read_are_said_to_be_read(seqnets, write_module, monkeypatch):
    lines = (
        "import time",
        "from seqnets.datasets import Parity",
        "class Slow(Parity):",
        "    def setup(self, stage=None):",
        "        time.sleep(0.2)",
        "        super().setup(stage)",
    )
    write_module("slow_data", *lines)
    monkeypatch.setattr(console, "SLOW", 0.02)
    options = ["dataset.train_size=20", "dataset.test_size=20", "allow=[slow_data]"]

    slow = seqnets("inspect", "dataset=parity", "dataset._target_=slow_data.Slow", *options)
    monkeypatch.setenv("LOCAL_RANK", "1")
    second = seqnets("inspect", "dataset=parity", "dataset._target_=slow_data.Slow", *options)
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr(console, "SLOW", 60.0)
    quick = seqnets("inspect", "dataset=parity", "dataset._target_=slow_data.Slow", *options)

    assert slow.code == second.code == quick.code == 0, slow.err + second.err + quick.err
    assert slow.err == "Reading the data ...\n"
    assert second.err == quick.err == ""


def test_a_text_shows_its_tokens_and_how_it_begins(seqnets, tmp_path):
    (tmp_path / "book.txt").write_text("aab\tb \n" * 500)

    done = seqnets(
        *("inspect", "dataset=text", "dataset.path=book.txt", "dataset.cache=cache", "samples=1"),
        "baselines=true",
    )

    lines = lines_of(done.out)
    assert done.code == 0, done.err
    assert "characters 3,150 175 175" in lines
    assert any(line.startswith("a 900 ") for line in lines)
    assert any(line.startswith("space 450 ") for line in lines)
    assert any(line.startswith(r"\t 450 ") for line in lines)
    assert "text aab b" in lines
    assert "What simple baselines reach in bits per character" in lines
    assert "uniform 2.322" in lines
    assert lines[-1].endswith("train dataset=text dataset.path=book.txt dataset.cache=cache")


@pytest.mark.parametrize(("unit", "token"), [("bpe", "\u2581größer"), ("words", "größer")])
def test_pairs_show_the_tokens_of_their_source(unit, token, seqnets, tmp_path):
    (tmp_path / "a.tsv").write_text("source\ttarget\n" + "ist größer\tx\n" * 30, encoding="utf-8")

    done = seqnets("inspect", "dataset=pairs", "dataset.path=a.tsv", f"dataset.unit={unit}")

    lines = lines_of(done.out)
    assert done.code == 0, done.err
    assert any(line.startswith(f"{token} 24 ") for line in lines)
    assert not any(" 0 0.0%" in line for line in lines)


def test_pieces_of_words_are_shown_as_they_stand_in_the_text(seqnets, tmp_path):
    (tmp_path / "book.txt").write_text("ist größer\n" * 2000, encoding="utf-8")
    text = ["dataset=text", "dataset.path=book.txt", "dataset.cache=cache"]

    done = seqnets("inspect", *text, "dataset.unit=bpe", "dataset.max_vocabulary=300")

    assert done.code == 0, done.err
    assert any(line.startswith("größer ") for line in lines_of(done.out))


def test_a_table_of_steps_shows_which_columns_are_features(seqnets, tmp_path):
    rows = [f"{n // 2},{'up' if n % 4 > 1 else 'down'},{n % 2},7" for n in range(80)]
    (tmp_path / "mine.csv").write_text("\n".join(["sequence,label,height,floor", *rows]) + "\n")

    done = seqnets("inspect", "dataset=classification", "dataset.path=mine.csv")

    lines = lines_of(done.out)
    assert "Columns of the training part" in lines
    assert {"height 0.5 0.5", "floor 7 0"} <= {*lines}


def test_long_names_that_begin_alike_are_told_apart(seqnets, tmp_path):
    kind = "http://example.org/kinds/of/motion#"
    heads = ["sequence", "label", *(f"temperature at the sensor {n}" for n in (1, 2))]
    rows = [f"{n // 2},{kind}{'up' if n % 4 > 1 else 'down'},{n % 2},{n}" for n in range(80)]
    (tmp_path / "mine.csv").write_text("\n".join([",".join(heads), *rows]) + "\n")

    done = seqnets("inspect", "dataset=classification", "dataset.path=mine.csv", "samples=0")

    assert "temperatur...he sensor 1 " in done.out, done.err
    assert "temperatur...he sensor 2 " in done.out
    assert "http://exa...f/motion#up " in done.out
    assert "http://exa...motion#down " in done.out


@pytest.mark.parametrize(
    ("metric", "told"),
    [("dataset.metric=f1", "commonest label of the word"), ("objective.metric=f1", "none")],
)
def test_baselines_are_told_in_the_metric_of_the_objective_or_not_at_all(
    metric, told, seqnets, tmp_path
):
    (tmp_path / "mine.conll").write_text("a\tX\nb\tY\n\n" * 20)

    done = seqnets(
        "inspect", "dataset=tagging", "dataset.path=mine.conll", metric, "baselines=true"
    )

    lines = lines_of(done.out)
    after = lines[lines.index("What simple baselines reach in f1") + 1 :]
    assert any(line.startswith(told) for line in after)


def test_a_series_shows_its_columns_and_how_much_of_them_is_missing(seqnets, tmp_path):
    rows = [f"{n},{n % 2},{'' if n % 4 == 0 else 7}" for n in range(100)]
    (tmp_path / "mine.csv").write_text("\n".join(["time,event,sales", *rows]) + "\n")
    sizes = ["dataset.lookback=4", "dataset.horizon=2", "dataset.missing=forward"]

    done = seqnets(
        "inspect", "dataset=forecasting", "dataset.path=mine.csv", "dataset.targets=[sales]", *sizes
    )

    told = [line.split() for line in done.out.splitlines()]
    assert ["sales", "target", "7", "0", "25.7%"] in told, "18 of 70 steps"
    assert ["event", "input", "only", "0.5", "0.5", "0.0%"] in told


def test_it_fits_a_terminal_of_80_columns(seqnets, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    done = seqnets("inspect", "dataset=adding", "dataset.train_size=50", "dataset.test_size=10")

    assert done.code == 0, done.err
    shown = done.out.partition("To train:")[0].splitlines()
    assert max(map(len, shown)) <= 80
    assert "Steps of the training sequences" not in done.out  # all are alike


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["dataset=partiy"], 2, "Did you mean parity"),
        (["dataset=text"], 2, "dataset.path: is not given"),
        (["dataset=text", "dataset.path=nowhere.txt"], 1, "nowhere.txt"),
        (["samples=-1"], 2, "samples: is -1"),
        (["baselines=3"], 2, "baselines: is 3"),
        *(
            ([f"{key}={value}"], 2, f"{key}: is about a trained model, expected checkpoint=")
            for key, value in {"part": "val", "row": 0, "at": "x", "to": 3, "overwrite": 7}.items()
        ),
    ],
)
def test_what_cannot_be_looked_at_is_told(arguments, code, told, seqnets):
    done = seqnets("inspect", *arguments)

    assert done.code == code
    assert told in done.err
    assert "Traceback" not in done.err


def test_a_users_own_statistics_of_features_need_no_mean():
    table = _features([{"": "height", "unit": "m"}])

    assert [column.justify for column in table.columns] == ["left", "right"]


def test_transcripts_show_their_labels_and_how_many_there_are_per_step(seqnets, tmp_path):
    texts = [("ab a", "train"), ("b", "train"), ("a", "val"), ("b", "test")]
    rows = ["file,text,split"]
    for n, (text, split) in enumerate(texts):
        np.save(tmp_path / f"{n}.npy", np.arange(8.0 + n))
        rows.append(f"{n}.npy,{text},{split}")
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")

    done = seqnets("inspect", "dataset=transcription", "dataset.path=a.csv", "baselines=true")

    lines = lines_of(done.out)
    assert done.code == 0, done.err
    assert lines[lines.index("Transcripts") + 1 :][:8] == [
        "train val test",
        "labels 5 1 1",
        "shortest 1 1 1",
        "median 1 1 1",
        "95 % 1 1 1",
        "longest 4 1 1",
        "labels per step 0.294 0.100 0.091",
        "most 0.500 0.100 0.091",
    ]
    shown = lines[lines.index("Labels, 3") + 2 :][:3]
    assert [" ".join(line.split()[:4]) for line in shown] == ["space 1 0 0", "a 2 1 0", "b 2 0 1"]
    assert "text ab a" in lines
    assert "What simple baselines reach in cer" in lines
    assert "commonest label repeated 1.000" in lines


def test_blanks_around_a_class_are_seen(seqnets, tmp_path):
    rows = [f"{n},{' '.join(('', '')) if n % 2 else 'up'},{n}" for n in range(40)]
    (tmp_path / "mine.csv").write_text("\n".join(["sequence,label,x", *rows]))

    done = seqnets("inspect", "dataset=classification", "dataset.path=mine.csv", "samples=0")

    assert done.code == 0, done.err
    assert re.search(r"^space +12 +4 +4 ", done.out, re.MULTILINE), done.out


def test_bars_of_classes_give_way_to_their_names_and_shares(seqnets, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    rows = [f"{n},{'normal' if n % 4 else 'bearing fault'}" for n in range(40)]
    (tmp_path / "mine.csv").write_text("\n".join(["text,label", *rows]))

    done = seqnets("inspect", "dataset=classification", "dataset.path=mine.csv", "samples=0")

    assert done.code == 0, done.err
    lines = lines_of(done.out)
    assert "bearing fault 6 2 2 ██████ 25.0%" in lines
    assert f"normal 18 6 6 {'█' * 18} 75.0%" in lines


def test_the_command_to_train_leaves_out_what_only_inspect_knows(seqnets):
    data = ["dataset=adding", "dataset.train_size=50", "dataset.test_size=10", "seed=3"]

    done = seqnets("inspect", *data, "++samples=1", "baselines=false", "checkpoint=null")

    assert done.code == 0, done.err
    assert done.out.rstrip().endswith(f"train {' '.join(data)}")
