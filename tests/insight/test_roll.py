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
