"""Predicted numbers against their targets."""

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from seqnets.insight.scatter import draw_scatter


def test_a_point_stands_at_its_target_and_prediction():
    prediction, target = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])

    (axis,) = draw_scatter(prediction, target).axes

    assert axis.collections[0].get_offsets().tolist() == [[1.5, 1.0], [2.0, 2.0], [3.0, 4.0]]
    assert axis.get_title(loc="left") == "3 sequences, mean absolute error 0.5"
    (diagonal,) = axis.lines
    assert tuple(diagonal.get_xdata()) == tuple(diagonal.get_ydata()) == axis.get_xlim()


def test_values_that_are_not_finite_are_counted_and_left_out():
    prediction, target = np.array([1.0, np.nan, 2.0]), np.array([1.0, 1.0, np.inf])

    (axis,) = draw_scatter(prediction, target).axes

    assert len(axis.collections[0].get_offsets()) == 1
    assert axis.get_title(loc="left").endswith(", 2 not finite")


def test_empty_and_single_values_can_be_drawn():
    assert draw_scatter(np.array([np.nan]), np.array([1.0])).axes
    assert draw_scatter(np.array([1.0]), np.array([1.0])).axes


def test_large_numbers_along_the_axis_do_not_touch():
    ends = np.array([-4e4, 4e4])
    figure = draw_scatter(ends, ends)
    figure.draw_without_rendering()

    (low, high), shown = figure.axes[0].get_xlim(), figure.axes[0].get_xticklabels()
    boxes = [text.get_window_extent() for text in shown if low <= text.get_position()[0] <= high]
    assert all(left.x1 + 5 < right.x0 for left, right in pairwise(boxes))
