"""Data that are not those that a model knows are refused, not scored by what they are not."""

import pytest

from .conftest import only_run

SMALL = ["trainer.max_epochs=1", "model.hidden_size=4", "trainer.log_every_n_steps=1"]


def series(folder, name, columns, scale=1.0, count=120):
    rows = [",".join(str(scale * (n % 7 + place)) for place in range(2)) for n in range(count)]
    (folder / name).write_text("\n".join([",".join(columns), *rows]) + "\n")


@pytest.fixture
def forecaster(seqnets, tmp_path):
    series(tmp_path, "a.csv", "uv")
    done = seqnets(
        *("train", *SMALL, "dataset=forecasting", "dataset.path=a.csv"),
        *("dataset.lookback=8", "dataset.horizon=2", "model.segment=2"),
    )
    assert done.code == 0, done.err
    return f"checkpoint={only_run(tmp_path)}"


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
@pytest.mark.parametrize(
    ("columns", "scale", "message"),
    [
        ("vu", 1.0, "columns differ from the model's: ['v', 'u'], expected the model's ['u'"),
        ("uv", 9.0, "scaling differs from the model's: mean: number 1 is "),
    ],
)
def test_a_series_of_other_columns_or_scales(
    verb, columns, scale, message, seqnets, forecaster, tmp_path
):
    series(tmp_path, "b.csv", columns, scale)

    done = seqnets(verb, forecaster, "dataset.path=b.csv")

    assert done.code == 1
    assert message in done.err
    assert seqnets(verb, forecaster, "dataset.path=a.csv", "dataset.lookback=6").code == 0


def test_targets_of_another_scale(seqnets, tmp_path):
    for name, scale in (("a", 1), ("b", 1000)):
        rows = [f"{n},{scale * n},{n % 5}" for n in range(40)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["sequence,target,u", *rows]) + "\n")
    seqnets("train", *SMALL, "dataset=regression", "dataset.path=a.csv")
    run = f"checkpoint={only_run(tmp_path)}"

    done = seqnets("predict", run, "dataset.path=b.csv")

    assert done.code == 1
    assert "scaling differs from the model's: y is" in done.err
    assert not (tmp_path / "predictions.jsonl").exists()


@pytest.mark.parametrize(
    ("letters", "count", "message"),
    [
        ("stuv", 300, "vocabulary differs from the model's: 5 entries, expected the model's 5"),
        ("abcd", 900, "the same.\n  Their number in train is"),
        ("dcba", 300, "the data have changed since its run began"),
    ],
)
def test_a_run_does_not_go_on_with_other_data(letters, count, message, seqnets, tmp_path):
    (tmp_path / "a.txt").write_text("abcd\n" * 300)
    run = ["dataset=text", "dataset.path=a.txt", "dataset.batch_size=2", "dataset.chunk_length=8"]
    assert seqnets("train", *SMALL, *run, f"dataset.cache={tmp_path}").code == 0
    (tmp_path / "a.txt").write_text(f"{letters}\n" * count)

    done = seqnets("train", f"resume={only_run(tmp_path)}", "trainer.max_epochs=2")

    assert done.code == 1
    assert message in done.err
