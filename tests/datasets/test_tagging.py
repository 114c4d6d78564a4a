import json

import numpy as np
import pytest
import torch

from seqnets.cells import GRUCell
from seqnets.datasets import TaggingFiles
from seqnets.datasets.published.ucr import read_ts
from seqnets.datasets.readers.tagged import read_tagged
from seqnets.datasets.sequences.step_inputs import read_inputs
from seqnets.errors import ConfigError, DataError
from seqnets.models import SequenceTagger
from seqnets.training import Tagging
from seqnets.typing import IGNORE

CONLL = """-DOCSTART-\tO

Ada\tB-person
Lovelace\tI-person
was\tO
in\tO
London\tB-place

London\tB-place
was\tO
there\tO

was\tO
Ada\tB-person
"""

CSV = """sequence,ankle,leg,label
a,1,10,walk
a,2,20,walk
a,9,30,freeze
b,8,40,
b,1,50,walk
c,1,60,walk
c,9,70,freeze
"""


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def words(write):
    """The dataset of three sentences, all of which are in every part."""

    def make(**options):
        path = str(write("words.conll", CONLL))
        data = TaggingFiles(path, path, path, **{"min_count": 1, **options})
        data.setup()
        return data

    return make


def by_sequence(*rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def test_conll_has_a_word_and_its_label_per_line(write):
    first, second, third = read_tagged(write("a.conll", CONLL))

    assert first.steps == ["Ada", "Lovelace", "was", "in", "London"]
    assert first.labels == ["B-person", "I-person", "O", "O", "B-place"]
    assert len(second.steps) == 3
    assert third.where.endswith("a.conll, line 13")
    assert first.places["B-place"].endswith("a.conll, line 7")


def test_other_columns_and_spaces_may_separate_word_and_label(write):
    (sentence,) = read_tagged(write("a.txt", "Ada NNP B-NP B-person\nsang VBD B-VP O"))

    assert (sentence.steps, sentence.labels) == (["Ada", "sang"], ["B-person", "O"])


def test_comments_before_a_sentence_are_no_words(write):
    text = "\ufeff# newdoc\n# id = 1\n#\tO\n#ada\tO\n\n# text\nsang\tV\n"

    first, second = read_tagged(write("a.conll", text))

    assert (first.steps, first.labels, first.where[-6:]) == (["#", "#ada"], ["O", "O"], "line 3")
    assert (second.steps, second.labels) == (["sang"], ["V"])


@pytest.mark.parametrize("mark", [" ", "\t"])
def test_only_spaces_and_tabs_end_a_word(write, mark):
    (sentence,) = read_tagged(write("a.conll", f"New\u00a0York{mark}LOC\nis\u3000{mark}O\n"))

    assert (sentence.steps, sentence.labels) == (["New\u00a0York", "is\u3000"], ["LOC", "O"])


def test_json_lines_have_words_or_numbers_and_labels(write):
    words, numbers = (
        by_sequence({"tokens": ["Ada", "sang"], "labels": ["PER", None], "split": "val"}),
        by_sequence({"x": [[1, 2], [3, 4]], "labels": [0, 1]}, {"x": [[5, 6]]}),
    )

    (sentence,) = read_tagged(write("words.jsonl", words))
    first, second = read_tagged(write("numbers.jsonl", numbers))

    assert (sentence.steps, sentence.labels) == (["Ada", "sang"], ["PER", None])
    assert sentence.split == "val"
    assert (first.features, first.steps, first.labels) == (("1", "2"), [[1, 2], [3, 4]], ["0", "1"])
    assert second.labels == [None]


def test_csv_has_a_step_per_row(write):
    a, b, c = read_tagged(write("a.csv", CSV))

    assert a.features == ("ankle", "leg")
    assert a.steps == [[1, 10], [2, 20], [9, 30]]
    assert b.labels == [None, "walk"]
    assert c.places == {"walk": c.where, "freeze": c.where.replace("line 7", "line 8")}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "x,y,label\n1,2,walk\n3,4,stop\n"),
        ("a.tsv", "x\ty\tlabel\n1\t2\twalk\n3\t4\tstop\n"),
        (
            "a.jsonl",
            by_sequence({"x": 1, "y": 2, "label": "walk"}, {"x": 3, "y": 4, "label": "stop"}),
        ),
    ],
)
def test_a_feature_may_be_called_x(write, name, text):
    (series,) = read_tagged(write(name, text))

    assert (series.features, series.steps) == (("x", "y"), [[1, 2], [3, 4]])
    assert series.labels == ["walk", "stop"]


def test_sequences_keep_what_their_file_calls_them_also_in_windows(write):
    rows = [{"id": n, "x": [[n], [n + 1], [n + 2]], "labels": [0, 1, 0]} for n in range(9)]
    path = write("a.jsonl", by_sequence(*rows))
    data = TaggingFiles(str(path), window=2)
    data.setup()

    assert data.loader("train").ids == sorted(2 * sorted({*data.loader("train").ids}))
    assert data.new(path, data.describe()).ids == sorted(2 * [*range(9)])
    assert [sequence.id for sequence in read_tagged(write("a.csv", CSV))] == ["a", "b", "c"]
    assert TaggingFiles(str(write("words.conll", CONLL * 4))).loader("train").ids is None


def test_csv_without_sequences_is_one_and_without_labels_can_be_read(write):
    text = "time,ankle\nmorning,1\nnoon,2\n"

    (series,) = read_tagged(write("a.csv", text), leave_out=["time"])

    assert (series.steps, series.labels) == ([[1], [2]], [None, None])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.conll", "Ada\tO\n\tO\n", r"line 2: got '\\tO', expected a word and its label"),
        ("a.conll", "Ada\t\n", r"line 1: got 'Ada\\t', expected a word and its label"),
        ("a.txt", "Ada sang\nin\n", "line 2: got 1 column, expected 2 as in the first line"),
        ("a.txt", "# id = 1\nAda O\n", r"2 columns, expected 4 .*\n.* where tabs separate"),
        ("a.conll", "\n", "is empty"),
        ("a.conll", "-DOCSTART- O\n\n", "got no sequence"),
        ("a.doc", "Ada\tO\n", r"expected a name that ends with \.conll, .*\.csv"),
        (
            "a.jsonl",
            '{"tokens": ["a", "b"], "labels": ["X"]}',
            "line 1: got 1 label for 2",
        ),
        ("a.jsonl", '{"tokens": [], "labels": []}', r"line 1: tokens is \[\], expected a list"),
        ("a.jsonl", '{"tokens": ["a", 1]}', r"line 1: column tokens\[1\] is 1, expected text"),
        ("a.jsonl", '{"tokens": ["a"], "labels": [1.5]}', r"line 1: column labels\[0\] is 1.5"),
        ("a.jsonl", '{"x": [[1, 2], [3]]}', r"line 1: x\[1\] has 1 number, expected 2"),
        ("a.jsonl", '{"x": [[1, "b"]]}', r"line 1: column x\[0\]\[1\] is 'b', expected a finite"),
        ("a.jsonl", '{"x": [[1]]}\n{"x": [[1, 2]]}', "line 2: got the features 1, 2, expected"),
        ("a.jsonl", '{"x": [[1]]}\n{"tokens": ["a"]}', "line 2: got words, expected the features"),
        ("a.jsonl", '{"tokens": ["a"], "split": "dev"}', "line 1: split is 'dev', expected tr"),
        ("a.csv", "label,x,split\na,1,val\nb,2,\n", "line 3: split is missing, expected train"),
        ("a.csv", "label\nx\n", "header: got the columns label, expected label, sequence"),
        ("a.csv", CSV.replace("9,30", "?,30"), r"line 4: column ankle is '\?'.*\n.*leave_out"),
        (
            "a.csv",
            CSV.replace("c,1", "a,1"),
            "line 7: sequence 'a' occurs again, first at .*line 2",
        ),
        ("a.csv", CSV.replace("c,", ","), "line 7: the id is .*expected text or a whole number"),
        ("a.csv", "id,x,label\n1,0.5,up\n2,1,up\n", "header: got a column id.*expected sequence"),
        ("a.jsonl", 2 * '{"id": 4, "tokens": ["a"]}\n', "line 2: sequence 4 occurs again.*line 1"),
        (
            "a.csv",
            "split,u,label\ntrain,1,x\nval,1,x\n",
            "line 3: split is 'val', expected 'train', which the sequence has since .*line 2",
        ),
    ],
)
def test_errors_in_a_file_are_reported_with_the_line(write, name, text, message):
    with pytest.raises(DataError, match=message):
        read_tagged(write(name, text))


def test_words_become_numbers_and_letters(words):
    data = words(characters=4)
    batch = next(iter(data.loader("test")))
    known = data.describe()

    assert data.sizes == {"vocab_size": 1 + 6, "num_classes": 4}
    assert batch.x.shape == (3, 5, 5)
    assert batch.lengths.tolist() == [5, 3, 2]
    assert batch.x[0, 4, 1:].tolist() == [ord(letter) + 1 for letter in "Lond"]
    assert read_inputs(known).decode(batch.x[0].numpy()) == ["Ada", "Love…", "was", "in", "Lond…"]
    assert [data.labels[n] for n in batch.y[2, :2]] == ["O", "B-person"]
    assert (batch.y[2, 2:] == IGNORE).all()


def test_rare_words_and_those_of_other_parts_are_unknown(words):
    data = words(min_count=2)

    assert data.vocabulary.tokens == ["<unk>", "was", "ada", "london"]
    assert words(min_count=2, lowercase=False).inputs.encode(["ada", "Ada"]).tolist() == [0, 2]


def test_a_metric_of_a_label_that_the_validation_part_lacks_is_refused(write):
    common = {"tokens": ["a", "b"], "labels": ["x", "y"]}
    rare = {**common, "labels": ["x", "z"]}
    rows = [{**row, "split": split} for split in ("train", "test") for row in (common, rare)]
    path = str(write("a.jsonl", by_sequence(*rows, {**common, "split": "val"})))

    assert TaggingFiles(path, metric="f1_y").splits.labels == ["x", "y", "z"]
    with pytest.raises(
        DataError,
        match=r"(?s)line 5: the val part has no label 'z', expected some.*Another dataset\.seed",
    ):
        TaggingFiles(path, metric="f1_z").setup()


def test_a_metric_of_entities_is_refused_where_the_validation_part_has_none(write):
    tagged = {"tokens": ["a", "b"], "labels": ["O", "B-x"]}
    rows = [{**tagged, "split": split} for split in ("train", "test")]
    outside = {**tagged, "labels": ["O", None], "split": "val"}
    path = str(write("a.jsonl", by_sequence(*rows, outside)))

    assert TaggingFiles(path, metric="accuracy").splits.labels == ["B-x", "O"]
    with pytest.raises(DataError, match=r"line 3: the val part has no entity, expected some"):
        TaggingFiles(path, metric="entity_f1").setup()


def test_features_are_scaled_by_the_training_part(write):
    train, other = write("a.csv", CSV), write("b.csv", CSV.replace("9,70", "99,70"))
    data = TaggingFiles(str(train), str(train), str(other))
    data.setup()
    steps = np.array([[1, 10], [2, 20], [9, 30], [8, 40], [1, 50], [1, 60], [9, 70]])

    expected = ([99, 70] - steps.mean(0)) / steps.std(0)

    batch = next(iter(data.loader("test")))
    torch.testing.assert_close(batch.x[2, 1].numpy(), expected.astype(np.float32))
    assert data.part("train").y.tolist() == [1, 1, 0, IGNORE, 1, 1, 0]


def test_parts_without_files_are_shares_of_the_sequences(write):
    rows = [{"tokens": [f"w{n}"], "labels": ["ab"[n % 2]]} for n in range(20)]
    path = write("a.jsonl", by_sequence(*rows))

    parts = TaggingFiles(str(path), test_fraction=0.2).read_parts()

    assert {part: len(found) for part, found in parts.items()} == {
        "train": 14,
        "val": 2,
        "test": 4,
    }
    everything = [sequence.steps[0] for found in parts.values() for sequence in found]
    assert sorted(everything) == sorted(f"w{n}" for n in range(20))


def test_of_one_long_sequence_the_parts_follow_each_other_and_are_cut_into_windows(write):
    steps = "".join(f"{n},{'ab'[n // 5 % 2]}\n" for n in range(100))
    data = TaggingFiles(str(write("a.csv", f"value,label\n{steps}")), window=16)
    data.setup()

    ends = {part: [s.steps[0][0] for s in found] for part, found in data.parts.items()}

    assert ends == {"train": [0, 16, 32, 48, 64], "val": [80], "test": [90]}
    assert data.part("train").lengths.tolist() == [16] * 5


def test_a_column_says_which_part_a_sequence_is_for(write):
    rows = [
        {"tokens": ["a"], "labels": ["x"], "split": split} for split in ("train", "val", "test")
    ]
    path = write("a.jsonl", by_sequence(*rows, {"tokens": ["b"], "labels": ["y"]}))

    parts = TaggingFiles(str(path)).read_parts()

    assert [len(parts[part]) for part in ("train", "val", "test")] == [2, 1, 1]


def test_a_row_for_a_part_that_has_a_file_of_its_own_is_refused(write):
    rows = [{"tokens": ["a"], "labels": ["x"], "split": split} for split in ("train", "val")]
    path, other = str(write("a.jsonl", by_sequence(*rows))), write("b.jsonl", by_sequence(rows[1]))

    with pytest.raises(DataError, match=r"a\.jsonl, line 2: split is 'val', expected train: this"):
        TaggingFiles(path, str(other)).read_parts()
    with pytest.raises(DataError, match=r"b\.jsonl, line 1: split is 'val', expected test"):
        TaggingFiles(path, test_path=str(other)).read_parts()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (CONLL.replace("\tI-person", "\tO").replace("B-person", "person"), {"metric": "entity_f1"},
         "line 3: got label 'person', expected O, B-KIND and I-KIND"),
        (CONLL, {"metric": "f1_walk"}, r"metric is f1_walk, and no label is 'walk'"),
        ("a\tO\n\nb\tO\n", {}, r"line 1: the training part has O alone, expected at least two"),
        ("a\n\nb\n", {}, r"line 1: the training part has no label, expected .*\n.*dataset.label="),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit_are_reported_with_the_line(write, text, options, message):
    path = str(write("a.conll", text))

    with pytest.raises(DataError, match=message):
        TaggingFiles(path, path, path, **options).setup()


def test_labels_that_differ_in_blanks_alone_are_refused(write):
    path = str(write("steps.csv", CSV.replace("2,20,walk", "2,20,walk ")))

    with pytest.raises(DataError, match=r"line 3: has the labels 'walk' and 'walk ', expected one"):
        TaggingFiles(path, path, path).setup()


def test_a_label_that_training_lacks_is_reported_with_the_line(write):
    path, other = write("a.conll", CONLL), write("b.conll", CONLL.replace("I-person", "I-nobody"))

    with pytest.raises(DataError, match=r"b\.conll, line 4: got label 'I-nobody' in the val part"):
        TaggingFiles(str(path), str(other), str(path)).setup()


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_without_labels_is_refused(part, write):
    labels = {"train": ["x", "y"], "val": ["x", None], "test": [None, "y"], part: [None, None]}
    rows = [{"tokens": ["a", "b"], "labels": labels[name], "split": name} for name in labels]

    with pytest.raises(DataError, match=rf"a\.jsonl, line \d: the {part} part has no label"):
        TaggingFiles(str(write("a.jsonl", by_sequence(*rows)))).setup()


def test_parts_of_different_kinds_are_refused(write):
    path, other = write("a.conll", CONLL), write("b.csv", CSV)

    with pytest.raises(DataError, match=r"b.csv, header: got the features ankle, leg, .* words"):
        TaggingFiles(str(path), str(path), str(other)).setup()


def test_too_few_sequences_are_refused(write):
    path = write("a.jsonl", by_sequence(*[{"tokens": ["a", "b"], "labels": ["x", "y"]}] * 2))

    with pytest.raises(DataError, match="got 2 sequences for training, expected at least 3"):
        TaggingFiles(str(path)).setup()


def test_invalid_options_are_refused():
    with pytest.raises(ConfigError, match="window is 0"):
        TaggingFiles("a", window=0)


def test_baselines_ignore_other_steps(words, write):
    assert words().baselines() == {
        "commonest label": pytest.approx(0.5),
        "commonest label of the word": 1.0,
    }
    assert words(metric="entity_f1").baselines() == {"commonest label of the word": 1.0}

    path = str(write("a.csv", CSV))
    data = TaggingFiles(path, path, path, metric="f1_freeze")
    baselines = data.baselines()
    assert baselines["always freeze"] == pytest.approx(2 * 2 / (6 + 2))
    assert 0 < baselines["nearest mean"] <= 1


def test_new_words_are_encoded_as_the_model_knows_them_and_so_are_their_labels(words, write):
    known = json.loads(json.dumps(words(characters=4).describe()))
    path = write("new.txt", "Ada\tX\nsang\tX\n\nLondon\tB-place\n")
    data = TaggingFiles("is not read", characters=9)

    (batch,) = data.new(path, known)

    tokens = known["vocabulary"]
    assert batch.x.shape == (2, 2, 5)
    assert batch.x[:, :, 0].tolist() == [[tokens.index("ada"), 0], [tokens.index("london"), 0]]
    assert batch.y.tolist() == [[IGNORE, IGNORE], [known["labels"].index("B-place"), IGNORE]]


def test_new_features_are_scaled_as_the_training_part_was(write):
    path = str(write("a.csv", CSV))
    trained = TaggingFiles(path, path, path)
    known = json.loads(json.dumps(trained.describe()))
    new = write("new.csv", "ankle,leg\n1,10\n2,20\n")

    (batch,) = TaggingFiles("is not read").new(new, known)

    torch.testing.assert_close(batch.x[0], trained.part("train").x[:2])
    with pytest.raises(DataError, match="header: got leg, arm, expected ankle, leg, as the model"):
        TaggingFiles("is not read").new(write("b.csv", "leg,arm\n10,1\n"), known)


def test_features_may_stand_in_another_order_in_another_file(write):
    path = str(write("a.csv", CSV))
    rows = (row.split(",") for row in CSV.split())
    turned = "".join(f"{name},{leg},{ankle},{label}\n" for name, ankle, leg, label in rows)
    data = TaggingFiles(path, path, str(write("b.csv", turned)))

    (new,) = data.new(write("new.csv", "leg,ankle\n10,1\n20,2\n"), data.describe())

    torch.testing.assert_close(data.part("test").x, data.part("train").x)
    torch.testing.assert_close(new.x[0], data.part("train").x[:2])


def test_an_error_names_all_columns_of_words_beside_those_left_out(write):
    path = write("a.csv", "day,label,a,town,sky\nmonday,up,1,Rome,blue\n")

    with pytest.raises(DataError, match=r"town is 'Rome'.*\n.*leave_out=\[day,town,sky\]'\."):
        read_tagged(path, leave_out=["day"])


def test_new_files_may_lack_what_is_left_out_and_training_files_may_not(write):
    path = str(write("a.csv", CSV.replace("ankle", "time")))
    data = TaggingFiles(path, path, path, leave_out=["time"])
    known = data.describe()

    (batch,) = data.new(write("new.csv", "leg\n10\n20\n"), known)

    torch.testing.assert_close(batch.x[0], data.part("train").x[:2])
    with pytest.raises(DataError, match=r"header: got the columns .*, expected times too"):
        TaggingFiles(path, path, path, leave_out=["times"]).setup()
    with pytest.raises(DataError, match="leave_out has label, expected columns that would be fea"):
        TaggingFiles(path, path, path, leave_out=["label"]).setup()


def test_the_first_sequences_can_be_read(words):
    first, second = words().examples("train", 2)

    assert first == {
        "steps": "5",
        "words": "Ada Lovelace was in London",
        "labels": "B-person  I-person  O ×2  B-place",
    }
    assert second["steps"] == "3"


def join(problem, path, sequences):
    """Write sequences that are pieces of four recordings each, with the label of each step."""
    random = np.random.default_rng(0)
    cases = read_ts(problem).cases
    lines = ["sequence,x1,x2,x3,x4,x5,x6,label"]
    for sequence in range(sequences):
        for case in random.integers(len(cases), size=4):
            _, steps, label = cases[case]
            start = random.integers(40)
            for step in steps[start : start + 60 : 2]:
                lines.append(",".join([str(sequence), *map(str, step), label]))
    path.write_text("\n".join(lines), "utf-8")
    return str(path)


def test_motions_that_follow_each_other_are_told_apart_step_by_step(shared_data, tmp_path):
    train, test = (
        join(shared_data / "ucr" / f"BasicMotions_{part}.ts", tmp_path / f"{part}.csv", count)
        for part, count in (("TRAIN", 60), ("TEST", 20))
    )
    data = TaggingFiles(train, test, test, metric="f1", batch_size=10)
    data.setup()
    model = SequenceTagger(GRUCell, 4, input_size=6, hidden_size=24, bidirectional=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    objective = Tagging("f1")

    for _ in range(5):
        for batch in data.loader("train"):
            optimizer.zero_grad()
            objective(model, batch).loss.backward()
            optimizer.step()

    f1 = objective.metrics(data.describe())["f1"]
    for batch in data.loader("test"):
        outcome = objective(model.eval(), batch)
        f1.update(outcome.predictions, outcome.targets)
    assert float(f1.compute()) > data.baselines()["nearest mean"] + 0.2


def test_columns_to_leave_out_of_a_table_with_a_row_per_sequence_are_refused(write):
    rows = '{"x": [[1, 2], [3, 4]], "labels": ["a", "b"], "place": 1}\n' * 3
    path = str(write("a.jsonl", rows))

    with pytest.raises(DataError, match="leave_out is place, expected none: only a table"):
        TaggingFiles(path, path, path, leave_out=["place"]).setup()
