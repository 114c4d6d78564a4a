import numpy as np
import pytest

from seqnets.insight import draw_units

T = 40
random = np.random.default_rng(0)
TEXT = list("a text in which nothing is said, at all\n")
SLOW = np.repeat([-0.9, 0.9, -0.8, 0.7], T // 4)


def blocks_of(figure):
    """The text and the colour values below each heading."""
    axes = figure.axes[0]
    paper = axes.images[0].get_array()
    found, heading = {}, None
    for text in axes.texts:
        if text.get_text().startswith("unit "):
            heading = text.get_text()
            found[heading] = ([], [])
        else:
            column, row = text.get_position()
            found[heading][0].append(text.get_text())
            found[heading][1].append(paper[int(row), int(column + 0.5)])
    return found


def test_units_that_hold_something_for_long_come_before_those_that_flicker_or_stay_still():
    part = 0.7 * random.choice([-1, 1], size=(T, 9))
    part[:, 3], part[:, 5], part[:, 7] = SLOW, 0.5 * SLOW, 1.0

    blocks = blocks_of(draw_units(TEXT, part, units=2))

    assert list(blocks) == ["unit 3", "unit 5"]
    for curve, (text, colours) in zip((SLOW, 0.5 * SLOW), blocks.values(), strict=True):
        assert "".join(text) == "".join(TEXT).replace("\n", "↵")
        assert colours == pytest.approx(curve)


def test_colours_are_as_far_from_white_for_negative_as_for_positive_numbers():
    (image,) = draw_units(TEXT, SLOW[:, None]).axes[0].images

    low, high = image.get_clim()
    assert low == -high
    assert 0.8 <= high <= 0.9


def test_a_long_text_is_cut_for_each_unit_alike():
    part = random.normal(size=(40 * T, 3))

    blocks = blocks_of(draw_units(TEXT * 40, part, lines=2))

    assert [len(text) for text, _ in blocks.values()] == [2 * T] * 3


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_units_that_hold_nothing_are_drawn(value):
    draw_units(["a"], np.full((1, 1), value)).draw_without_rendering()


def test_a_page_of_short_lines_is_as_wide_as_they_are():
    part = random.normal(size=(160, 1))
    short, long = (draw_units(list(4 * line), part) for line in (39 * "a" + "\n", 40 * "a"))

    paper = [figure.axes[0].images[0].get_array().shape[1] for figure in (short, long)]
    assert paper == [40, 96]
    assert short.get_figwidth() < long.get_figwidth()
