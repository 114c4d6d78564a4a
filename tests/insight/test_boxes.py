"""Box plots of several runs."""

import numpy as np
import pytest

from seqnets.insight.boxes import draw_boxes


def test_each_run_is_a_dot_and_an_outlier_a_triangle_at_the_edge():
    runs = {"V": [1.0, 1.1, 1.2], "NFG": [1.5, 1.6, 40.0], "NP": [1.0, 1.1, 1.3]}
    (axis,) = draw_boxes({"nats a step": runs}, "V").axes

    dots = [line for line in axis.lines if line.get_marker() == "o"]
    astray = [line for line in axis.lines if line.get_marker() == "^"]
    assert [len(line.get_ydata()) for line in dots] == [3, 2, 3]
    assert sum(len(line.get_ydata()) for line in astray) == 1
    assert max(np.max(line.get_ydata()) for line in dots) < 2
    assert axis.get_ylabel() == "nats a step"


def test_the_line_is_the_references_median():
    (axis,) = draw_boxes({"error": {"V": [1.0, 2.0, 9.0], "NP": [3.0, 3.0, 3.0]}}, "V").axes

    (dashed,) = (line for line in axis.lines if line.get_linestyle() == "--")
    assert list(dashed.get_ydata()) == pytest.approx([2.0, 2.0])
