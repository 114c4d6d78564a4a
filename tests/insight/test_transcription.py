import numpy as np
import pytest

from seqnets.insight.transcription import draw_transcription

pytest.importorskip("matplotlib")

LABELS = ["", "a", "b", " "]


def probabilities(*classes, sure=0.9):
    """A model that is sure of one class a step."""
    return np.eye(len(LABELS))[list(classes)] * (sure - 0.02) + 0.02


def names(axis):
    return [(text.get_text(), text.xy[0]) for text in axis.texts if text.get_text() != "no label"]


def test_each_stretch_of_a_label_is_named_at_its_middle():
    (axis,) = draw_transcription(probabilities(0, 1, 1, 1, 0, 2, 0, 1), LABELS).axes

    assert sorted(names(axis), key=lambda name: name[1]) == [("a", 2), ("b", 5), ("a", 7)]


def test_a_peak_is_where_a_label_is_likeliest():
    p = np.zeros((6, 4))
    p[:, 1] = 0.0, 0.2, 0.3, 0.9, 0.4, 0.0

    (axis,) = draw_transcription(p, LABELS).axes

    assert names(axis) == [("a", 3)]


def test_no_label_is_a_dotted_line_and_what_is_unlikely_is_not_drawn():
    (axis,) = draw_transcription(probabilities(0, 1, 0), LABELS).axes

    blank, line, area = axis.patches
    assert blank.get_linestyle() == ":"
    assert [patch.get_data().values[1] for patch in (line, area)] == pytest.approx([0.9, 0.9])
    assert blank.get_data().values.tolist() == pytest.approx([0.9, 0.02, 0.9])


def test_a_space_can_be_seen():
    (axis,) = draw_transcription(probabilities(0, 3, 0), LABELS).axes

    assert names(axis) == [("␣", 1)]


def test_the_transcript_stands_above_and_beside_it_the_right_one():
    (one,) = draw_transcription(probabilities(1), LABELS, None, "a", None).axes
    (both,) = draw_transcription(probabilities(1), LABELS, None, "$", "b" * 99).axes

    assert one.get_title("left") == "written: a"
    assert both.get_title("left") == rf"written: \$     right: {'b' * 47}…"


@pytest.mark.parametrize(("features", "lines", "images"), [(2, 2, 0), (8, 0, 1)])
def test_few_features_are_lines_below_and_many_a_picture(features, lines, images):
    signal = np.arange(3.0 * features).reshape(3, features)

    _, below = draw_transcription(probabilities(0, 1, 0), LABELS, signal).axes

    assert (len(below.lines), len(below.images)) == (lines, images)
    for image in below.images:
        assert np.array_equal(image.get_array(), signal.T)


def test_long_sequences_are_cut_and_a_single_step_is_drawn():
    long = draw_transcription(probabilities(*[0, 1] * 50), LABELS, np.zeros((100, 2)), steps=40)
    short = draw_transcription(probabilities(1), LABELS, np.zeros((1, 2)))

    assert [axis.get_xlim() for axis in long.axes] == [(-0.5, 39.5)] * 2
    assert [axis.get_xlim() for axis in short.axes] == [(-0.5, 0.5)] * 2
    assert short.axes[1].lines[0].get_marker() == "."


def test_long_transcripts_stand_one_above_the_other_within_the_picture():
    (axis,) = draw_transcription(probabilities(1), LABELS, None, "0" * 40, "0" * 99).axes
    figure = axis.figure
    figure.draw_without_rendering()

    assert axis.get_title("left") == f"written: {'0' * 40}\nright: {'0' * 47}…"
    assert figure.get_tightbbox().x1 < figure.get_figwidth()
