import math

import pytest

from seqnets.insight.surprise import draw_surprise

NAN = math.nan


def lines(figure):
    """What is written, line by line, and the colour values below it."""
    axes = figure.axes[0]
    found = {}
    for text in axes.texts:
        found.setdefault(text.get_position()[1], []).append(text.get_text())
    return found, axes.images[0].get_array()


def test_each_token_is_coloured_by_its_nats_except_context():
    figure = draw_surprise([(["a", "bc", "d"], [NAN, 2.0, 1.0])], columns=6)
    found, paper = lines(figure)

    assert found == {0: ["a", "bc", "d"]}
    assert paper[0].tolist() == [None, 2.0, 2.0, 1.0, None, None]
    assert [axes.get_ylabel() for axes in figure.axes] == ["", "nats"]


def test_a_token_of_infinite_surprisal_has_the_darkest_colour():
    (image,) = draw_surprise([(["a", "b"], [1.0, math.inf])], columns=4).axes[0].images

    assert image.get_clim() == (0, 1)
    assert image.norm(image.get_array())[0, 1] > 1


def test_a_short_text_leaves_room_for_the_colour_bar():
    axes, bar = draw_surprise([(["a"], [1.0])]).axes
    axes.figure.draw_without_rendering()

    label = bar.get_yticklabels()[0].get_window_extent()
    assert bar.get_window_extent().height > 4 * label.height


def test_a_line_ends_with_the_texts_or_where_the_next_token_does_not_fit():
    figure = draw_surprise([(["one ", "two", "\n", "ab", "cdef "], [1.0] * 5)], columns=7)

    assert lines(figure)[0] == {0: ["one ", "two"], 1: ["↵"], 2: ["ab", "cdef "]}


def test_passages_are_separated_and_cut_at_the_last_line():
    passages = [(["a", "\n"], [1.0, 1.0])] * 9

    assert sorted(lines(draw_surprise(passages))[0]) == list(range(0, 18, 2))
    assert sorted(lines(draw_surprise(passages, lines=4))[0]) == [0, 2]


def test_a_token_longer_than_a_line_goes_on_in_the_next():
    assert lines(draw_surprise([(["abcdefgh"], [1.0])], columns=3))[0] == {
        0: ["abc"],
        1: ["def"],
        2: ["gh"],
    }


@pytest.mark.parametrize("passages", [[], [(["a"], [NAN])], [(["$x_{$", "\t\x00"], [0.0] * 2)]])
def test_text_without_surprisal_or_like_a_formula_is_drawn(passages, tmp_path):
    draw_surprise(passages).savefig(tmp_path / "surprise.png")


def test_wide_letters_take_two_columns():
    found, paper = lines(draw_surprise([(["日本", "a", "語🙂"], [1.0, 2.0, 3.0])], columns=6))

    assert found == {0: ["日本", "a"], 1: ["語🙂"]}
    assert paper[:2].tolist() == [[1.0] * 4 + [2.0, None], [3.0] * 4 + [None, None]]


def test_letters_fill_their_columns():
    figure = draw_surprise([(["x" * 96, "\n"] * 8, [1.0, 2.0] * 8)])
    figure.draw_without_rendering()

    axes = figure.axes[0]
    share = axes.texts[0].get_window_extent().width / axes.get_window_extent().width
    assert 0.97 < share <= 1.01
