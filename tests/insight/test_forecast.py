import numpy as np
import pytest

pytest.importorskip("matplotlib")

from seqnets.insight.forecast import Forecast, draw_forecasts


def forecast(quantiles):
    prediction = np.arange(4.0)[:, None] + np.arange(quantiles)
    return Forecast(np.arange(-99.0, 1), np.array([1.0, 2.0, np.nan, 4.0]), prediction)


def test_the_target_and_the_forecast_begin_where_the_past_ends():
    (axis,) = draw_forecasts(["OT"], [[forecast(1)]], [0.5], turns=2).axes
    known, target, prediction, now = (line.get_xydata() for line in axis.lines)

    assert list(known[:, 0]) == [-7, -6, -5, -4, -3, -2, -1, 0]
    assert list(target[:, 0]) == list(prediction[:, 0]) == [0, 1, 2, 3, 4]
    assert list(known[-1]) == list(target[0]) == list(prediction[0]) == [0, 0]
    assert list(now[:, 0]) == [0, 0]


def test_quantiles_as_far_from_the_median_are_a_band():
    (axis,) = draw_forecasts(["OT"], [[forecast(5)]], [0.05, 0.25, 0.5, 0.75, 0.95]).axes

    assert [band.get_label() for band in axis.collections] == ["90% interval", "50% interval"]
    assert list(axis.lines[2].get_ydata()) == [0, 2, 3, 4, 5]


def test_levels_that_are_not_as_far_from_the_median_are_no_band():
    (axis,) = draw_forecasts(["OT"], [[forecast(4)]], [0.1, 0.2, 0.5, 0.9]).axes

    (band,) = axis.collections
    assert band.get_label() == "80% interval"
    assert list(band.get_paths()[0].vertices[1:6, 1]) == [0, 0, 1, 2, 3]


def test_a_single_forecast_of_one_step_has_a_legend_within_it_and_whole_steps():
    one = Forecast(np.arange(9.0), np.ones(1), np.arange(3.0)[None])
    figure = draw_forecasts(["OT"], [[one]], [0.1, 0.5, 0.9])
    figure.draw_without_rendering()

    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0
    assert legend.x1 <= figure.bbox.x1
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())


def test_each_series_has_a_row():
    figure = draw_forecasts(["a", "b"], [[forecast(1)] * 3] * 2)

    assert [axis.get_ylabel() for axis in figure.axes] == ["a", "", "", "b", "", ""]


@pytest.mark.parametrize("count", [1, 2])
def test_a_legend_of_many_intervals_lies_within_few_forecasts(count):
    levels = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95]
    figure = draw_forecasts(["OT"], [[forecast(7)] * count], levels)
    figure.draw_without_rendering()

    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1
