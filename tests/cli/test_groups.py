"""Groups that a column names are kept together, from the first look at the data on."""

import json

from .conftest import SMALL, only_run

RUN = [*SMALL, "dataset=classification", "dataset.path=a.csv"]


def write(path, column=True, persons=10):
    rows = [
        f"s{n},{f'p{n % persons},' if column else ''}{'ab'[n % 2]},{n},{step}"
        for n in range(40)
        for step in range(3)
    ]
    path.write_text("\n".join([f"sequence,{'person,' if column else ''}label,x,y", *rows]))


def persons_of(path):
    return {int(json.loads(line)["id"][1:]) % 10 for line in path.read_text().splitlines()}


def test_a_model_is_scored_by_persons_that_it_has_not_seen(seqnets, tmp_path):
    write(tmp_path / "a.csv")
    write(tmp_path / "b.csv", column=False)
    shown = seqnets("inspect", *RUN[-2:], "dataset.groups=person")
    trained = seqnets("train", *RUN, "dataset.groups=person")
    run = f"checkpoint={only_run(tmp_path)}"
    done = [seqnets("predict", run, f"part={part}", f"to={part}.jsonl") for part in ("val", "test")]
    new = seqnets("predict", run, "input=b.csv", "to=b.jsonl")

    for each in (shown, trained, *done, new):
        assert each.code == 0, each.err
    assert "groups 6 2 2" in [" ".join(line.split()) for line in shown.out.splitlines()]
    val, test = (persons_of(tmp_path / f"{part}.jsonl") for part in ("val", "test"))
    assert [len(val), len(test)] == [2, 2]
    assert not val & test
    assert persons_of(tmp_path / "b.jsonl") == {*range(10)}


def test_a_run_does_not_go_on_with_other_groups(seqnets, tmp_path):
    write(tmp_path / "a.csv")
    assert seqnets("train", *RUN, "dataset.groups=person").code == 0
    write(tmp_path / "a.csv", persons=8)

    done = seqnets("train", f"resume={only_run(tmp_path)}", "trainer.max_epochs=3")

    assert done.code == 1
    assert "the data have changed since its run began, expected the same" in done.err


def test_what_is_wrong_with_groups_is_told_before_training(seqnets, tmp_path):
    write(tmp_path / "a.csv", persons=2)
    few = seqnets("train", *RUN, "dataset.groups=person")
    unknown = seqnets("train", "dataset=forecasting", "dataset.path=a.csv", "dataset.groups=person")

    assert few.code == 1
    assert "a.csv, groups by person: got 2 groups for training, expected at least 3" in few.err
    assert unknown.code != 0
    assert "dataset.groups" in unknown.err
