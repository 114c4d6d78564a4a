"""Confusion matrices, counted over a part and drawn."""

import numpy as np
import pytest
import torch

from seqnets.insight.confusion import draw_confusion
from seqnets.training import Classification, Outcome, Tagging
from seqnets.training.scores import scores_of_parts
from seqnets.typing import IGNORE


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


KNOWN = {"sizes": {"num_classes": 3}, "labels": None}


def outcome(predictions, y):
    return Outcome(torch.tensor(0.0), torch.tensor(len(y)), predictions, torch.tensor(y), None)


def test_classification_shows_the_confusions_of_a_whole_part():
    objective = Classification()
    scores = scores_of_parts(objective, KNOWN)["val"]
    for classes, y in (([0, 1, 1], [0, 0, 1]), ([0, 2], [2, 2]), ([1], [IGNORE])):
        scores.update(outcome(torch.eye(3)[classes], y))
    scores.take()

    (figure,) = scores.pictures().values()

    cells = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert cells == {(0, 0): "1", (1, 0): "1", (1, 1): "1", (0, 2): "1", (2, 2): "1"}
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "1", "2"]


def test_tagging_shows_the_confusions_of_the_scored_steps():
    scores = scores_of_parts(Tagging(), KNOWN)["val"]
    scores.update(outcome(torch.tensor([[0, 1], [2, 2]]), [[0, 0], [2, IGNORE]]))
    scores.take()

    (figure,) = scores.pictures().values()

    assert figure.axes[0].get_title(loc="left") == "3 steps, 66.7% correct"


def test_the_next_part_begins_from_nothing():
    scores = scores_of_parts(Classification(), KNOWN)["val"]
    for y in ([0, 0], [1]):
        scores.update(outcome(torch.eye(3)[y], y))
        scores.take()

    assert scores.pictures()["confusion"].axes[0].get_title(loc="left").startswith("1 sequence,")


def test_confusions_of_too_many_classes_are_not_counted():
    known = {"sizes": {"num_classes": 5000}, "labels": None}

    assert Classification().overviews(known) == {}


def test_names_stay_upright_where_cells_are_wide_enough():
    few, many = (draw_confusion(np.eye(n, dtype=int), ["yes"] * n) for n in (2, 12))

    few, many = (figure.axes[0].get_xticklabels()[0].get_rotation() for figure in (few, many))
    assert (few, many) == (0, 90)
