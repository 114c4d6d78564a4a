"""The objective of one class per step."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from seqnets.cells import GRUCell
from seqnets.datasets import TaggingFiles
from seqnets.errors import DataError
from seqnets.models import ConditionalRandomField, SequenceTagger
from seqnets.training import Tagging
from seqnets.typing import IGNORE, Batch

LABELS = ["B-place", "I-place", "O"]
KNOWN = {"sizes": {"num_classes": 3}, "labels": LABELS}


class Says(nn.Module):
    """A model that is sure of one class a step."""

    def __init__(self, classes):
        super().__init__()
        self.classes = torch.tensor(classes)

    def forward(self, x, state=None, lengths=None):
        return 20.0 * nn.functional.one_hot(self.classes, 3), state


def batch_of(y, lengths=None, x=None):
    y = torch.tensor(y)
    lengths = None if lengths is None else torch.tensor(lengths)
    return Batch(torch.zeros(*y.shape, 1) if x is None else x, y, lengths)


SAID = [[0, 1, 2, 2], [2, 1, 0, 0]]
RAGGED = batch_of([[0, 1, 2, 0], [2, 0, IGNORE, IGNORE]], [4, 2])


def test_predictions_keep_the_shape_of_their_sequences():
    outcome = Tagging()(Says(SAID), RAGGED)

    assert outcome.predictions.tolist() == SAID
    assert outcome.targets is RAGGED.y
    assert int(outcome.scored) == 6


def test_figures_are_those_of_scored_steps_and_whole_entities():
    tagging = Tagging("entity_f1")
    outcome = tagging(Says(SAID), RAGGED)

    figures = {
        name: float(metric(outcome.predictions, outcome.targets))
        for name, metric in tagging.metrics(KNOWN).items()
    }

    # right: place 0-2, place 3-4; place 1-2. said: place 0-2; place 1-2, with an I without a B.
    assert figures == {
        "accuracy": pytest.approx(4 / 6),
        "f1": pytest.approx((2 / 4 + 2 / 3 + 4 / 5) / 3),
        "entity_f1": pytest.approx(4 / 5),
        "entity_precision": pytest.approx(1),
        "entity_recall": pytest.approx(2 / 3),
    }


def test_a_rare_label_has_figures_of_its_own():
    tagging = Tagging("f1_I-place")
    outcome = tagging(Says(SAID), RAGGED)

    figures = {
        name: float(metric(outcome.predictions, outcome.targets))
        for name, metric in tagging.metrics(KNOWN).items()
    }

    assert figures["f1_I-place"] == pytest.approx(2 / 3)
    assert figures["precision_I-place"] == pytest.approx(1 / 2)
    assert figures["recall_I-place"] == 1


@pytest.mark.parametrize("metric", ["entity_f1", "f1_walk"])
def test_a_metric_that_does_not_fit_the_labels_is_refused(metric):
    with pytest.raises(DataError, match=r"Tagging: .*(got label '0'|no label is 'walk')"):
        Tagging(metric).metrics({"sizes": {"num_classes": 2}})


def test_a_metric_that_the_dataset_was_not_told_is_refused_where_validation_lacks_its_label(
    tmp_path,
):
    path, other = tmp_path / "a.conll", tmp_path / "b.conll"
    path.write_text("to\tO\nYork\tB-place\nCity\tI-place\n\nto\tO\nmove\tO\n", "utf-8")
    other.write_text("to\tO\nYork\tB-place\n", "utf-8")
    data = TaggingFiles(str(path), str(other), str(path))
    data.setup()

    Tagging("f1_B-place").check(nn.Identity(), data)
    with pytest.raises(DataError, match=r"b\.conll, line 1: the val part has no label 'I-place'"):
        Tagging("f1_I-place").check(nn.Identity(), data)


def test_a_random_field_is_scored_by_its_sequences_and_predicts_them():
    model = SequenceTagger(
        GRUCell, 3, input_size=1, hidden_size=4, output=ConditionalRandomField
    ).eval()
    nn.init.normal_(model.output.transitions)
    batch = RAGGED._replace(x=torch.randn(2, 4, 1))

    outcome = Tagging()(model, batch)

    y, _ = model.features(batch.x, lengths=batch.lengths)
    loss = model.output.loss(y, batch.y, batch.lengths)
    torch.testing.assert_close(outcome.loss, loss / 6)
    assert torch.equal(outcome.predictions, model.output.predict(y, batch.lengths))


def test_rows_have_prediction_and_target_of_each_step():
    rows = Tagging("entity_f1").rows(Tagging()(Says(SAID), RAGGED), RAGGED, KNOWN)

    assert rows == [
        {
            "prediction": ["B-place", "I-place", "O", "O"],
            "target": ["B-place", "I-place", "O", "B-place"],
            "entities": [{"kind": "place", "start": 0, "stop": 2}],
        },
        {
            "prediction": ["O", "I-place"],
            "target": ["O", "B-place"],
            "entities": [{"kind": "place", "start": 1, "stop": 2}],
        },
    ]


def test_rows_have_no_target_where_none_is_known_and_holes_where_some_are():
    batch = batch_of([[IGNORE] * 4, [2, IGNORE, 0, 0]])
    first, second = Tagging().rows(Tagging()(Says(SAID), batch), batch, KNOWN)

    assert first["target"] is None
    assert second["target"] == ["O", None, "B-place", "B-place"]


@pytest.mark.parametrize("metric", ["accuracy", "entity_f1", "f1_O"])
def test_written_predictions_score_the_same(metric):
    tagging = Tagging(metric)
    outcome = tagging(Says(SAID), RAGGED)

    rows = json.loads(json.dumps(tagging.rows(outcome, RAGGED, KNOWN)))

    assert tagging.scores(rows, KNOWN) == {
        name: float(score(outcome.predictions, outcome.targets))
        for name, score in tagging.metrics(KNOWN).items()
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prediction": ["O", "X"], "target": ["O", "O"]}, r"Row 2: prediction\[1\] is 'X', exp"),
        ({"prediction": ["O"], "target": ["X"]}, r"Row 2: target\[0\] is 'X', expected one of B-p"),
        ({"prediction": [None], "target": ["O"]}, r"Row 2: prediction\[0\] is None"),
        ({"prediction": [["O"]], "target": ["O"]}, r"Row 2: prediction\[0\] is \['O'\]"),
        ({"prediction": ["O"]}, "Row 2: target is None, expected a list"),
        ({"prediction": ["O"], "target": []}, "Row 2: got 1 predicted and 0 target labels"),
    ],
)
def test_unreadable_rows_are_reported(row, message):
    rows = [{"prediction": ["O"], "target": [None]}, row]

    with pytest.raises(DataError, match=message):
        Tagging().read(rows, KNOWN)


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("to\tO\nNew_York\tB-place\nCity\tI-place\n\nto\tO\nmove\tO\n", "utf-8")
    data = TaggingFiles(str(path), str(path), str(path), characters=8)
    data.setup()
    return next(iter(data.loader("test"))), data.describe()


def test_sentences_are_shown_with_their_entities(words):
    batch, known = words
    tagging = Tagging("entity_f1")
    outcome = tagging(Says([[2, 0, 2], [0, 2, 2]]), batch)

    assert tagging.pictures(outcome, batch, known)["labels"].splitlines()[2:] == [
        "| to **New\\_York… City** `place` | to **New\\_York…** `place` City |",
        "| to move | **to** `place` move |",
    ]
    assert tagging.rows(outcome, batch, known)[1]["tokens"] == ["to", "move"]


def test_sentences_are_shown_with_other_labels_word_by_word(words):
    batch, known = words
    tagging = Tagging()
    outcome = tagging(Says([[2, 0, 2], [0, 2, 2]]), batch)

    shown = tagging.pictures(outcome, batch, known)["labels"].splitlines()
    assert shown[3] == "| to `O` move `O` | to `B-place` move `O` |"


def test_steps_that_are_not_scored_are_not_shown():
    batch = batch_of([[IGNORE, 1, IGNORE, 0]])

    figure = Tagging().pictures(Tagging()(Says(SAID[:1]), batch), batch, KNOWN)["labels"]

    for axis in figure.axes[1:]:
        assert [patch.get_x() for patch in axis.patches] == [0.5, 2.5]


def test_other_sequences_are_shown_as_labels_over_time():
    figure = Tagging().pictures(Tagging()(Says(SAID), RAGGED), RAGGED, KNOWN)["labels"]

    signal, right, said = figure.axes
    assert len(signal.lines) == 1
    assert len(right.patches) == 4
    assert len(said.patches) == 3


def test_a_tagger_with_a_random_field_learns_transitions(tmp_path):
    """The features are noise; which label comes next depends on the one before alone."""
    random = np.random.default_rng(0)
    lines = ["sequence,noise,label"]
    for sequence in range(60):
        start = random.integers(3)
        lines += [f"{sequence},{random.normal()},{(start + step) % 3}" for step in range(9)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines), "utf-8")
    data = TaggingFiles(str(path))
    data.setup()
    field = ConditionalRandomField(1, 3)
    model = SequenceTagger(GRUCell, 3, input_size=1, hidden_size=1, output=lambda *_: field)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)

    for _ in range(15):
        for batch in data.loader("train"):
            optimizer.zero_grad()
            Tagging()(model, batch).loss.backward()
            optimizer.step()

    said = Tagging()(model.eval(), next(iter(data.loader("test")))).predictions
    assert ((said[:, 1:] - said[:, :-1]) % 3 == 1).all()
