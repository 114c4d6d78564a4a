"""Confusion matrices, counted by hand and drawn."""

import numpy as np
import pytest
import torch

from seqnets.insight.confusion import count_confusions, draw_confusion
from seqnets.training import Classification, Outcome
from seqnets.typing import IGNORE, Batch


def test_confusions_are_counted_target_by_prediction():
    counts = count_confusions(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 2]), 3)

    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_a_step_without_a_target_class_is_not_counted():
    counts = count_confusions(np.array([IGNORE, 1]), np.array([0, 0]), 2)

    assert counts.tolist() == [[0, 0], [1, 0]]


def test_a_prediction_outside_the_classes_is_not_counted():
    counts = count_confusions(np.array([0, 1, 1]), np.array([4, 1, -1]), 3)

    assert counts.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_a_cell_is_shaded_by_its_share_of_the_row_and_holds_its_count():
    figure = draw_confusion(np.array([[3, 1], [0, 0]]), ["good", "bad"])

    axes = figure.axes[0]
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0, 0]]
    assert [text.get_text() for text in axes.texts] == ["3", "1"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["good", "bad"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("prediction", "target")
    assert axes.get_title(loc="left") == "4 sequences, 75.0% correct"


@pytest.mark.parametrize(("classes", "written"), [(18, 18), (120, 0)])
def test_many_classes_are_drawn_and_very_many_without_names(classes, written):
    figure = draw_confusion(np.eye(classes, dtype=int), [f"class {n}" for n in range(classes)])

    figure.canvas.draw()
    assert len(figure.axes[0].texts) == written
    assert ("by the class's number" in figure.axes[0].get_xlabel()) == (written == 0)
    assert max(figure.get_size_inches()) < 18


def test_an_empty_matrix_is_drawn():
    figure = draw_confusion(np.zeros((2, 2), int), ["a", "b"])

    assert figure.axes[0].get_title(loc="left") == "0 sequences"


def test_classification_shows_the_confusions_of_a_batch():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]])
    y = torch.tensor([0, 1, 1])
    outcome = Outcome(torch.tensor(0.0), torch.tensor(3), logits, y, None)
    known = {"sizes": {"num_classes": 2}, "labels": None}

    (figure,) = Classification().pictures(outcome, Batch(logits, y), known).values()

    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "1", "1"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1"]
