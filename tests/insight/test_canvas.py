from itertools import combinations

import numpy as np
import pytest

from seqnets.insight.alignment import draw_alignment
from seqnets.insight.canvas import plain, width_of
from seqnets.insight.confusion import draw_confusion
from seqnets.insight.fixed_points import draw_fixed_points
from seqnets.insight.forecast import Forecast, draw_forecasts
from seqnets.insight.gradient_flow import draw_gradient_flow
from seqnets.insight.states import draw_states
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


NORMAL = np.eye(3)
PROTANOPIA = [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
DEUTERANOPIA = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
"""What is seen of linear RGB: Machado et al., 2009, doi:10.1109/TVCG.2009.113."""


def in_lab(colour, sight):
    """A colour as it is seen, in CIE L*a*b*, where distances are those that are felt."""
    from matplotlib.colors import to_rgb

    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4339, 0.3762, 0.1899], [0.2127, 0.7152, 0.0722], [0.0178, 0.1095, 0.8727]]
    x, y, z = np.cbrt(to_xyz @ np.clip(sight @ linear, 0, 1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def classes():
    ends = [np.where(np.arange(4) == 3, number, -100) for number in range(10)]
    paths = [np.random.default_rng(number).normal(size=(4, 2)) for number in range(10)]
    nothing = np.zeros((0, 2))
    figure = draw_fixed_points(paths, nothing, nothing, np.zeros(0, bool), ends)
    named = (dots for dots in figure.axes[0].collections if not dots.get_label().startswith("_"))
    return [dots.get_facecolor()[0, :3] for dots in named if dots.get_offsets().size]


def features():
    figure = draw_states({"state h": np.eye(4)}, np.random.default_rng(0).normal(size=(4, 6)))
    return [line.get_color() for line in figure.axes[0].lines]


def layers():
    figure = draw_gradient_flow({f"layers.{n}": np.ones((2, 9)) for n in range(10)})
    return [line.get_color() for line in figure.axes[0].lines]


@pytest.mark.parametrize("sight", [NORMAL, PROTANOPIA, DEUTERANOPIA])
@pytest.mark.parametrize(("drawn", "count"), [(classes, 10), (features, 6), (layers, 10)])
def test_the_colour_blind_can_tell_curves_and_classes_apart(drawn, count, sight):
    seen = [in_lab(colour, np.array(sight)) for colour in drawn()]

    assert len(seen) == count
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 15
