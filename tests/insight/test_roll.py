"""Piano rolls, drawn and played."""

import numpy as np

from seqnets.insight.roll import draw_rolls, play


def tune():
    roll = np.zeros((8, 88), np.float32)
    roll[0:4, 48] = 1  # A4, 440 Hz, MIDI 69, for a second
    return roll


def test_a_key_sounds_at_its_pitch_while_it_is_held():
    sound = play(tune(), lowest=21, step_seconds=0.25)

    second = sound.samples[: sound.rate]
    spectrum = np.abs(np.fft.rfft(second))
    assert abs(int(spectrum.argmax()) - 440) <= 1
    assert np.abs(sound.samples).max() <= 1
    assert np.abs(sound.samples[int(1.6 * sound.rate) :]).max() < 1e-3


def test_silence_stays_silent():
    assert not play(np.zeros((4, 88)), lowest=21).samples.any()


def test_rolls_share_their_steps_and_keys():
    figure = draw_rolls({"target": tune(), "prediction": np.roll(tune(), -12, axis=1)}, lowest=21)

    first, second, bar = figure.axes
    assert bar.get_ylabel() == "probability"
    assert first.get_title(loc="left") == "target"
    assert first.get_xlim() == second.get_xlim() == (-0.5, 7.5)
    assert "C4" in [label.get_text() for label in first.get_yticklabels()]


def test_a_key_is_drawn_at_its_number_even_the_highest():
    roll = np.zeros((2, 88), np.float32)
    roll[:, 87] = 1  # C8, MIDI 108

    axis, _ = draw_rolls({"target": roll}, lowest=21).axes

    (image,) = axis.images
    drawn, (*_, bottom, top) = image.get_array(), image.get_extent()
    assert len(drawn) == top - bottom
    assert np.flatnonzero(drawn[:, 0]) + bottom + 0.5 == 108


def test_a_silent_roll_is_drawn_with_all_its_keys():
    axis, _ = draw_rolls({"target": np.zeros((2, 12))}, lowest=60).axes

    assert axis.get_ylim() == (59.5, 71.5)
