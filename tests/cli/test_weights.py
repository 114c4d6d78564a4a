"""Weights of sequences, from a column of the training file to new data without it."""

from .conftest import SMALL, only_run


def write(path, column=True, most=3):
    rows = [
        f"s{n},{f'{n % most / 2},' if column else ''}{'ab'[n % 2]},{n},{step}"
        for n in range(40)
        for step in range(3)
    ]
    path.write_text("\n".join([f"sequence,{'trust,' if column else ''}label,x,y", *rows]))


def test_a_weighted_run_predicts_data_without_weights_and_does_not_go_on_with_others(
    seqnets, tmp_path
):
    write(tmp_path / "a.csv")
    write(tmp_path / "b.csv", column=False)
    data = ["dataset=classification", "dataset.path=a.csv", "dataset.weight=trust"]
    trained = seqnets("train", *SMALL, *data)
    run = only_run(tmp_path)
    new = seqnets("predict", f"checkpoint={run}", "input=b.csv", "to=b.jsonl")
    write(tmp_path / "a.csv", most=4)
    other = seqnets("train", f"resume={run}", "trainer.max_epochs=3")

    assert trained.code == new.code == 0, trained.err + new.err
    assert len((tmp_path / "b.jsonl").read_text().splitlines()) == 40
    assert other.code == 1
    assert "the data have changed since its run began, expected the same" in other.err
