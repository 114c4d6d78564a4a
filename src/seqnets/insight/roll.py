"""Piano rolls as figures and as sound."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from seqnets.insight.canvas import Sound, new_figure, whole_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STEPS = 200
"""Maximum steps of a roll that are drawn."""

_RATE = 22_050
_LOUDNESS = (1.0, 0.5, 0.25, 0.12)
"""Amplitudes of a tone and its overtones."""


def draw_rolls(rolls: Mapping[str, np.ndarray], lowest: int) -> Figure:
    """Draw piano rolls in rows that share steps and keys.

    Args:
        rolls: Rolls by name, each (T, K), from 0 for a silent key to 1 for a sounding one.
        lowest: MIDI number of the first key.
    """
    shown = {name: roll[:_STEPS] for name, roll in rolls.items()}
    loudest = np.max([roll.max(0) for roll in shown.values()], axis=0)
    used, K = np.flatnonzero(loudest > 0.05), len(loudest)
    low, high = (max(0, used[0] - 2), min(K, used[-1] + 3)) if len(used) else (0, K)
    figure, axes = new_figure(8, 1 + 2.2 * len(shown), nrows=len(shown), sharex=True, squeeze=False)
    for axis, (name, roll) in zip(axes[:, 0], shown.items(), strict=True):
        extent = (-0.5, len(roll) - 0.5, lowest + low - 0.5, lowest + high - 0.5)
        image = axis.imshow(
            roll[:, low:high].T, cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower",
            interpolation="nearest", extent=extent,
        )  # fmt: skip
        octaves = [
            key for key in range(12 * (lowest // 12), 128, 12) if extent[2] < key < extent[3]
        ]
        axis.set_yticks(octaves, [f"C{key // 12 - 1}" for key in octaves])
        axis.set_title(name, loc="left", fontsize=10)
    axes[-1, 0].set_xlabel("step")
    whole_steps(axes[-1, 0].xaxis)
    figure.colorbar(image, ax=axes, shrink=0.6, pad=0.01, label="probability")
    return figure


def play(roll: np.ndarray, lowest: int, step_seconds: float = 0.25) -> Sound:
    """Synthesise a piano roll: each key is a decaying tone with a few overtones.

    Args:
        roll: (T, K), above 0.5 where a key sounds. Consecutive steps are one tone.
        lowest: MIDI number of the first key.
        step_seconds: Duration of a step in seconds.
    """
    length = int(step_seconds * _RATE)
    samples = np.zeros((len(roll) + 2) * length, np.float32)
    for key in range(roll.shape[1]):
        pitch = 440 * 2 ** ((lowest + key - 69) / 12)
        for sounds, group in groupby(enumerate(roll[:, key] > 0.5), lambda pair: bool(pair[1])):
            steps = [step for step, _ in group]
            if sounds:
                tone = _tone(pitch, (len(steps) + 1) * length, length)
                start = steps[0] * length
                samples[start : start + len(tone)] += tone
    peak = np.abs(samples).max()
    return Sound(samples / peak * 0.9 if peak > 0 else samples, _RATE)


def _tone(pitch: float, length: int, release: int) -> np.ndarray:
    time = np.arange(length) / _RATE
    waves = [
        loud * np.sin(2 * np.pi * pitch * n * time)
        for n, loud in enumerate(_LOUDNESS, start=1)
        if pitch * n < _RATE / 2
    ]
    loudness = np.exp(-2.0 * time) * np.minimum(1, time / 0.005)
    loudness[-release:] *= np.linspace(1, 0, release)
    return (np.sum(waves, axis=0) * loudness).astype(np.float32)
