from __future__ import annotations

import pytest

from seqnets.insight.spans import draw_spans

pytest.importorskip("matplotlib")


def test_each_cell_has_a_line_of_length_against_width():
    figure = draw_spans({"lstm": {32: 16, 16: 4}, "rnn": {16: 0, 32: 8}}, 4, 32, "Copy")
    (axes,) = figure.axes
    _, lstm, rnn = axes.lines

    assert lstm.get_xdata().tolist() == rnn.get_xdata().tolist() == [16, 32]
    assert lstm.get_ydata() == pytest.approx([4, 16], rel=0.05)
    assert rnn.get_ydata() == pytest.approx([2, 8], rel=0.05)
    assert [line.get_label() for line in (lstm, rnn)] == ["lstm", "rnn"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none", "4", "8", "16", "32"]
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_coinciding_lines_are_drawn_side_by_side():
    (axes,) = draw_spans({"a": {8: 4}, "b": {8: 4}}, 4, 4).axes
    _, a, b = axes.lines

    assert a.get_ydata()[0] < b.get_ydata()[0]
