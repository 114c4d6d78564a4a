import numpy as np
from matplotlib.colors import to_hex

from seqnets.insight.timeline import draw_timeline

TARGET = np.array([0, 0, 0, 1, 1, 0, -100, 2])
PREDICTION = np.array([0, 0, 1, 1, 1, 0, 0, 2])
LABELS = ["walk", "freeze", "turn"]


def strips(axis):
    """The steps of each colour, and which one."""
    return [
        (*(patch.get_x() + np.array([0.5, patch.get_width() + 0.5])), to_hex(patch.get_facecolor()))
        for patch in axis.patches
    ]


def test_each_run_of_a_label_is_one_strip_and_steps_without_one_stay_empty():
    figure = draw_timeline({"target": TARGET, "prediction": PREDICTION}, LABELS)
    target, prediction = figure.axes

    runs = [(start, stop) for start, stop, _ in strips(target)]
    assert runs == [(0, 3), (3, 5), (5, 6), (7, 8)]
    assert target.get_xlim() == prediction.get_xlim() == (-0.5, 7.5)
    colours = [colour for *_, colour in strips(target)]
    assert colours[0] == colours[2]
    assert len(set(colours)) == 3
    assert [colour for *_, colour in strips(prediction)][1] == colours[1]


def test_the_legend_names_the_labels_that_occur():
    figure = draw_timeline({"target": TARGET % 2, "prediction": PREDICTION % 2}, LABELS)

    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["walk", "freeze"]


def test_the_background_is_the_most_common_label_of_what_is_drawn():
    target = np.repeat([0, 1, 2, 1], [60, 30, 10, 500])
    (axis,) = draw_timeline({"target": target}, LABELS, steps=100).axes

    assert next(colour for *_, colour in strips(axis)) == "#d9d9d9"


def test_a_single_step_is_drawn_and_marked():
    features, strip = draw_timeline({"target": np.zeros(1, int)}, ["a"], np.ones((1, 2))).axes

    assert [line.get_marker() for line in features.lines] == [".", "."]
    assert [tick for tick in strip.get_xticks() if -0.5 < tick < 0.5] == [0]


def test_features_are_drawn_above_and_long_series_are_cut():
    signal = np.random.default_rng(0).normal(size=(900, 20))
    figure = draw_timeline({"target": np.zeros(900, int)}, ["a"], signal, steps=100)

    assert len(figure.axes) == 2
    assert len(figure.axes[0].lines) == 8
    assert figure.axes[1].get_xlim() == (-0.5, 99.5)


def test_labels_without_a_colour_are_listed_as_others():
    labels = [f"label {number}" for number in range(20)]
    figure = draw_timeline({"target": np.arange(20)}, labels)

    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {*shown} == {*labels[:11], "9 others"}
    colours = [colour for *_, colour in strips(figure.axes[0])]
    assert len(set(colours[:12])) == 12
    assert set(colours[11:]) == {colours[11]}


def test_a_legend_of_long_names_lies_within_the_picture():
    figure = draw_timeline(
        {"target": np.arange(8)}, [f"a rather long label, {n}" for n in range(8)]
    )
    figure.draw_without_rendering()

    assert figure.legends[0].get_window_extent().width < figure.bbox.width


def test_a_legend_of_wide_letters_has_columns_as_of_twice_as_many():
    wide, narrow = (
        draw_timeline({"target": np.arange(8)}, [name] * 8) for name in ("分" * 9, "a" * 18)
    )

    assert wide.legends[0]._ncols == narrow.legends[0]._ncols


def test_the_legend_goes_from_left_to_right():
    labels = [str(n) for n in range(8)]
    figure = draw_timeline({"prediction": np.arange(8)}, labels)

    (legend,) = figure.legends
    columns = legend._ncols
    assert columns < len(labels)
    down = iter(text.get_text() for text in legend.get_texts())
    heights = [len(labels[first::columns]) for first in range(columns)]
    assert [[next(down) for _ in range(n)] for n in heights] == [
        labels[first::columns] for first in range(columns)
    ]
