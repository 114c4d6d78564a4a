import numpy as np
import pytest

from seqnets.insight.alignment import draw_alignment

pytest.importorskip("matplotlib")


def test_rows_are_output_tokens_and_columns_source_tokens():
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


def test_tokens_are_labels_and_long_ones_are_cut():
    figure = draw_alignment(np.eye(2), ["a", "x" * 150], ["ein", "haus"])

    axes, bar = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("read", "written")
    assert bar.get_ylabel() == "attention"
    assert axes.get_xticklabels()[1].get_text() == "x" * 23 + "…"
    assert figure.get_size_inches()[1] < 5


def test_short_tokens_stay_upright():
    short, long = (
        draw_alignment(np.eye(2), [token] * 2, ["ein", "haus"]).axes[0].get_xticklabels()[0]
        for token in ("7", "small")
    )

    assert (short.get_rotation(), long.get_rotation()) == (0, 90)


def test_more_tokens_than_can_be_read_are_counted_in_a_picture_of_the_same_size():
    read, written = [str(n) for n in range(700)], ["ein", "haus"]
    figure = draw_alignment(np.zeros((2, 700)), read, written)
    figure.draw_without_rendering()

    axes = figure.axes[0]
    assert figure.get_figwidth() < 20
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("read, by the token's number", "written")
    assert len(axes.get_xticklabels()) < 20
    assert [label.get_text() for label in axes.get_yticklabels()] == written
