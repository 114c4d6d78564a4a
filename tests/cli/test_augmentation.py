"""Augmented training, from the command line."""

import pytest

from .conftest import SMALL, only_run


def write(path):
    rows = [f"s{n},{'ab'[n % 2]},{n},{t}" for n in range(40) for t in range(5)]
    path.write_text("\n".join(["sequence,label,height,speed", *rows]))


def test_an_augmented_run_predicts_and_goes_on_as_any_other(seqnets, tmp_path):
    write(tmp_path / "a.csv")
    chosen = ["dataset/augment=[noise,crop]", "dataset.augment.noise.only=[speed]"]
    chosen += ["dataset.augment.crop.share=0.5"]

    trained = seqnets("train", *SMALL, "dataset=classification", "dataset.path=a.csv", *chosen)
    run = only_run(tmp_path)
    scored = [seqnets("evaluate", f"checkpoint={run}", f"part={p}").code for p in ("train", "test")]
    said = [
        seqnets("predict", f"checkpoint={run}", "input=a.csv", f"to={name}").code
        for name in ("one.jsonl", "two.jsonl")
    ]
    longer = seqnets("train", f"resume={run}", "trainer.max_epochs=2")

    assert (trained.code, *scored, *said, longer.code) == (0,) * 6, trained.err + longer.err
    assert (tmp_path / "one.jsonl").read_text() == (tmp_path / "two.jsonl").read_text()
    assert len((tmp_path / "one.jsonl").read_text().splitlines()) == 40


def test_augmented_samples_are_shown_beside_those_that_they_are_made_of(seqnets, tmp_path):
    write(tmp_path / "a.csv")
    data = ["dataset=classification", "dataset.path=a.csv", "dataset/augment=crop"]

    shown = seqnets("inspect", *data, "dataset.augment.crop.share=0.5", "samples=2")

    assert shown.code == 0, shown.err
    titles = [line for line in shown.out.splitlines() if line.startswith("Training sample")]
    assert titles == [
        "Training sample 1",
        "Training sample 2",
        "Training sample 1, augmented",
        "Training sample 2, augmented",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["dataset=text", "dataset.path=a.csv", "dataset/augment=[noise]"],
            "dataset/augment: this dataset has no augment, expected one that has: classification,",
        ),
        (
            ["dataset=classification", "dataset.path=b.csv", "dataset/augment=[spec_augment]"],
            "augment has SpecAugment, expected none: it changes features, and the input is tokens",
        ),
        (
            ["dataset=classification", "dataset.path=a.csv", "dataset/augment=[spec_augment]"],
            "has SpecAugment, which changes nothing in sequences of 2 features and at most 5 steps",
        ),
        (
            ["dataset=classification", "dataset.path=a.csv", "dataset/augment=[noises]"],
            "dataset/augment: there is no option 'noises'.\n  Did you mean noise?",
        ),
        (
            ["dataset=classification", "dataset.path=a.csv", "dataset/augment=[noise]",
             "dataset.augment.noise.deviation=no"],
            "dataset.augment.noise.deviation: is 'no', expected a number.",
        ),
        (
            ["dataset=classification", "dataset.path=a.csv", "dataset/augment=[noise]",
             "dataset.augment.noise.only=speed"],
            "As a list: dataset.augment.noise.only=[speed].",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_augmented_is_refused_before_training(arguments, message, seqnets, tmp_path):
    write(tmp_path / "a.csv")
    texts = (f"so {n},{'ab'[n % 2]}" for n in range(12))
    (tmp_path / "b.csv").write_text("\n".join(["text,label", *texts]))

    done = seqnets("train", *SMALL, *arguments)

    assert done.code != 0
    assert message in done.err
