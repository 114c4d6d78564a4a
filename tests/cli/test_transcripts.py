"""Sequences are transcribed, and scored by the transcripts as they stand in a file."""

import json

from .conftest import SMALL, only_run


def write(path, texts):
    rows = [{"text": text, "x": list(range(8))} for text in texts]
    path.write_text("\n".join(map(json.dumps, [*rows, {"x": [1, 2], "text": "b"}])) + "\n")


def test_transcripts_of_new_data_are_written_and_scored_as_they_stand(seqnets, tmp_path):
    write(tmp_path / "mine.jsonl", ["ab", "b a", "", "aab"] * 5)
    write(tmp_path / "new.jsonl", ["b  a", "bäh", "", None, "ab" * 9])
    data = ["dataset=transcription", "dataset.path=mine.jsonl"]
    trained = seqnets("train", *SMALL, *data)
    assert trained.code == 0, trained.err
    run = f"checkpoint={only_run(tmp_path)}"

    predicted = seqnets("predict", run, "input=new.jsonl", "to=said.jsonl")
    scored = seqnets("evaluate", run, "predictions=said.jsonl")

    written = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert predicted.code == scored.code == 0, predicted.err + scored.err
    assert [row["target"] for row in written] == ["b a", "bäh", "", None, "ab" * 9, "b"]
    assert all(isinstance(row["prediction"], str) for row in written)
    assert "Results on 5 rows" in scored.out


def test_models_whose_labels_are_words_are_compared_by_errors_per_word(seqnets, tmp_path):
    write(tmp_path / "mine.jsonl", ["one two", "two", "b one"] * 5)
    data = ["dataset=transcription", "dataset.path=mine.jsonl", "dataset.unit=words"]

    inspected = seqnets("inspect", *data, "samples=0", "baselines=true")
    trained = seqnets("train", *SMALL, *data)

    assert inspected.code == trained.code == 0, inspected.err + trained.err
    assert "What simple baselines reach in wer" in inspected.out
    assert " wer " in trained.out
    assert " cer " not in trained.out
