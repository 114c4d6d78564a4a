import numpy as np
import pytest

from seqnets.insight.alignment import draw_alignment

pytest.importorskip("matplotlib")


def test_a_row_stands_for_what_was_written_and_a_column_for_what_was_read():
    weights = np.array([[0.9, 0.1, 0.0], [0.0, 0.2, 0.8]])

    figure = draw_alignment(weights, ["a", "small", "house"], ["ein", "haus"])

    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "small", "house"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ein", "haus"]
    assert np.array_equal(axes.images[0].get_array(), weights)
    assert axes.images[0].get_clim() == (0, 1)


def test_a_longer_sentence_makes_a_larger_picture():
    small, large = (
        draw_alignment(np.zeros((n, n)), ["word"] * n, ["wort"] * n).get_size_inches()
        for n in (3, 30)
    )

    assert (large > small).all()
