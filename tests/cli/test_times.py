"""Times of steps, from a column of time stamps to predictions."""

import json
from datetime import datetime, timedelta

from .conftest import SMALL, only_run


def write(path, hours):
    """Sequences of two classes, with as many hours between the steps as a number makes."""
    start = datetime(2026, 3, 1)
    rows = [
        f"{start + step * timedelta(hours=hours(number))},s{number},{'ab'[number % 2]},{step}"
        for number in range(40)
        for step in range(3)
    ]
    path.write_text("\n".join(["when,sequence,label,x", *rows]))


def test_a_run_with_times_predicts_goes_on_and_heeds_what_changes(seqnets, tmp_path):
    write(tmp_path / "a.csv", lambda number: 1 + number % 2)
    write(tmp_path / "b.csv", lambda number: 1 + 50 * (number % 2))
    data = ["dataset=classification", "dataset.path=a.csv", "dataset.time=when"]
    cell = ["model/cell=cfc", "model.timed=true", "model.num_layers=2"]

    trained = seqnets("train", *SMALL, *data, *cell)
    run = only_run(tmp_path)
    new = ["predict", f"checkpoint={run}", "input=b.csv", "to=b.jsonl"]
    predicted = seqnets(*new)
    other = seqnets(*new, "overwrite=true", "dataset.time_unit=60")
    more = seqnets("train", f"resume={run}", "trainer.max_epochs=2")
    write(tmp_path / "a.csv", lambda number: 1 + number % 3)
    changed = seqnets("train", f"resume={run}", "trainer.max_epochs=3")

    assert trained.code == predicted.code == more.code == 0, trained.err + predicted.err + more.err
    rows = [*map(json.loads, (tmp_path / "b.jsonl").read_text().splitlines())]
    assert len({json.dumps(row["probabilities"]) for row in rows}) == 2
    assert "dataset.time_unit: differs from that in training" in other.err
    assert changed.code == 1
    assert "the data" in changed.err
