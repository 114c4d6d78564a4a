import numpy as np
import pytest

from seqnets.insight.gradient_flow import draw_gradient_flow, per_step, reach

HALVED = 8 * 0.5 ** np.arange(12.0)[None].repeat(3, 0)


def test_a_norm_that_halves_at_each_step_says_so():
    assert per_step(HALVED) == pytest.approx(0.5)
    assert reach(HALVED) == 7  # 0.5 ** 7 is less than 1 %


def test_gradients_that_grow_reach_all_the_way():
    assert per_step(1 / HALVED) == pytest.approx(2)
    assert reach(1 / HALVED) == 12


def test_a_norm_that_becomes_zero_counts_until_then():
    cut = HALVED * (np.arange(12) < 4)

    assert per_step(cut) == pytest.approx(0.5)
    assert reach(cut) == 4
    assert np.isnan(per_step(0 * HALVED))


@pytest.mark.parametrize("end", [0.1, 1, 5])
def test_a_norm_that_falls_and_rises_again_counts_until_its_lowest_point(end):
    both_ends = HALVED + end * HALVED[:, ::-1]  # below a bidirectional layer

    assert per_step(both_ends) == pytest.approx(0.5, abs=0.1)


def test_a_norm_that_explodes_after_a_dip_counts_to_the_end():
    dipped = np.where(np.arange(12) == 1, 7, 1 / HALVED)

    assert per_step(dipped) == pytest.approx(2)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("step", [0, 5, 11])
def test_gradients_that_are_not_finite_have_no_reach(step, wrong):
    assert np.isnan(reach(np.where(np.arange(12) == step, wrong, HALVED)))


def test_without_a_gradient_there_is_no_reach():
    assert np.isnan(reach(0 * HALVED))


def test_a_layer_without_a_gradient_at_its_last_step_has_no_rate_in_the_picture():
    (label,) = draw_gradient_flow({"back": 0 * HALVED}).axes[0].get_legend().get_texts()

    assert label.get_text() == "back: no rate"


def test_rows_of_other_scales_and_lengths_count_alike():
    lengths, scales = np.array([[12], [4], [2]]), np.array([[1], [1e3], [1e6]])
    ragged = np.where(np.arange(12) < lengths, scales * HALVED, np.nan)
    longer = np.pad(ragged, [(0, 0), (0, 2)], constant_values=np.nan)
    and_none = np.concatenate([longer, np.zeros((4, 14))])  # rows without a gradient

    for norms in (ragged, and_none):
        assert per_step(norms) == pytest.approx(0.5)
        assert reach(norms) == 7


def test_the_picture_has_a_line_for_each_layer_that_ends_where_gradients_do():
    shorter = np.where(np.arange(12) < [[12], [8], [3]], HALVED, np.nan)
    cut = HALVED * (np.arange(12) < 4)

    figure = draw_gradient_flow({"encoder.layers.0.cell": shorter, "encoder.layers.1.cell": cut})

    (axis,) = figure.axes
    long, short = (line.get_ydata() for line in axis.lines)
    np.testing.assert_allclose(long, HALVED[0])
    assert np.isfinite(short).sum() == 4
    assert [text.get_text() for text in axis.get_legend().get_texts()] == [
        "layers.0.cell: × 0.5 a step, below 1 % after 7 steps",
        "layers.1.cell: × 0.5 a step, below 1 % after 4 steps",
    ]


@pytest.mark.parametrize("norm", [0, np.inf, np.nan])
@pytest.mark.parametrize("shape", [(1, 1), (2, 5)])
def test_gradients_that_are_zero_or_not_finite_are_drawn(shape, norm):
    draw_gradient_flow({"layer": np.full(shape, float(norm))}).canvas.draw()


def test_the_picture_ends_where_norms_are_too_small_to_be_drawn():
    (axis,) = draw_gradient_flow({"a": 0.5 ** np.arange(400.0)[None]}).axes

    assert 40 <= axis.get_xlim()[1] < 60


def test_a_legend_of_many_layers_lies_below_the_lines():
    layers = {f"layers.{place}": np.full((1, 9), 1.0 + place) for place in range(12)}
    figure = draw_gradient_flow(layers)
    figure.draw_without_rendering()

    (axis,), (legend,) = figure.axes, figure.legends
    assert len(legend.get_texts()) == 12
    assert 0 <= legend.get_window_extent().y0
    assert legend.get_window_extent().y1 <= axis.get_tightbbox().y0


@pytest.mark.parametrize(
    ("name", "layers", "columns"),
    [("rnn.{}", 8, 2), ("rnn.{}", 24, 2), ("blocks.{}.of_a_long_name", 8, 1)],
)
def test_many_layers_have_a_colour_each_and_a_legend_within_the_picture(name, layers, columns):
    slow = 0.99 ** np.arange(500.0)[None].repeat(3, 0)
    figure = draw_gradient_flow({name.format(n): slow for n in range(layers)})
    figure.draw_without_rendering()

    assert len({str(line.get_color()) for line in figure.axes[0].lines}) == layers
    assert figure.legends[0]._ncols == columns
    legend = figure.legends[0].get_window_extent()
    assert legend.x1 <= figure.bbox.x1
    assert legend.y1 < figure.axes[0].get_window_extent().y0
