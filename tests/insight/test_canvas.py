import numpy as np
import pytest

from seqnets.insight.alignment import draw_alignment
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
