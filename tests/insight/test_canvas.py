import numpy as np
import pytest

from seqnets.insight.alignment import draw_alignment
from seqnets.insight.canvas import plain, width_of
from seqnets.insight.confusion import draw_confusion
from seqnets.insight.forecast import Forecast, draw_forecasts
from seqnets.insight.timeline import draw_timeline

pytest.importorskip("matplotlib")

PRICES = ["$^$", "from $10 to $20"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_confusion(np.eye(2, dtype=int), PRICES),
        lambda: draw_alignment(np.eye(2), PRICES, PRICES),
        lambda: draw_timeline({"prediction": np.array([0, 1, 1])}, PRICES),
        lambda: draw_forecasts(
            PRICES, [[Forecast(np.zeros(3), np.zeros(2), np.zeros((2, 1)))]] * 2, [0.5]
        ),
    ],
    ids=["confusion", "alignment", "timeline", "forecast"],
)
def test_dollar_signs_are_drawn_literally(draw):
    from matplotlib.text import Text

    figure = draw()
    figure.canvas.draw()

    texts = [text.get_text() for text in figure.findobj(Text)]
    shown = [
        text._preprocess_math(text_)[0] for text in figure.findobj(Text)[:1] for text_ in texts
    ]
    assert set(PRICES) <= set(shown)


WIDE, NARROW = "分類の結果を描く" * 5, "a name of the same width, cut off"


@pytest.mark.parametrize("name", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_wide_letter_counts_twice_where_names_are_cut(name):
    assert 23 <= width_of(plain(name)) <= 24
    assert plain(name).endswith("…")
    assert plain(name[:5]) == name[:5]


@pytest.mark.parametrize("name", [WIDE, "walking upstairs", "no"], ids=["wide", "long", "short"])
@pytest.mark.parametrize("classes", [1, 2, 5, 10, 30])
@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_picture_has_room_for_names_and_title_when_it_is_first_drawn(name, classes):
    figure = draw_confusion(np.eye(classes, dtype=int), [name] * classes)
    figure.draw_without_rendering()

    axes = figure.axes[0]
    title, below, beside = axes._left_title, axes.xaxis.label, axes.yaxis.label
    assert title.get_window_extent().y1 < figure.bbox.y1
    assert below.get_window_extent().y0 > 0
    assert beside.get_window_extent().x0 > 0
