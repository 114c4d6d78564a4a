"""Features of sound files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqnets.checks import check_count, check_number
from seqnets.errors import ConfigError, DataError
from seqnets.optional import optional

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")

_BLOCK = 1_000
"""Maximum number of steps whose spectra are in memory at once."""


@dataclass(frozen=True)
class LogMel:
    r"""Log-power features in bands evenly spaced on the mel scale.

    A step is a window of samples, weighted by Hann's :math:`\sin^2`. The power of its spectrum is
    summed over triangular bands, whose corners lie evenly on
    :math:`m = 2595 \log_{10}(1 + f / 700)` from 0 to half the sample rate; below :math:`10^{-10}`
    the power counts as that.

    Args:
        bands: Features per step, I.
        window: Window length of a step, in seconds.
        hop: Interval between steps, in seconds.

    References:
        Davis and Mermelstein, 1980, "Comparison of Parametric Representations for Monosyllabic
        Word Recognition in Continuously Spoken Sentences", IEEE TASSP 28(4); the scale is that of
        O'Shaughnessy, 1987, "Speech Communication: Human and Machine".
    """

    bands: int = 40
    window: float = 0.025
    hop: float = 0.010

    def __post_init__(self) -> None:
        check_count("LogMel", bands=self.bands)
        check_number("LogMel", above=0, window=self.window, hop=self.hop)

    def __call__(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """The features, (T, I) float32, of samples, (N,); short sound is padded to one step.

        Raises:
            ConfigError: Windows are too short for that many bands at this sample rate.
        """
        length, hop = (max(1, round(rate * seconds)) for seconds in (self.window, self.hop))
        size = 1 << (length - 1).bit_length()
        samples = np.pad(samples, (0, max(0, length - len(samples))))
        frames = np.lib.stride_tricks.sliding_window_view(samples, length)[::hop]
        hann = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2
        filters = self._filters(size, rate)
        power = [
            np.abs(np.fft.rfft(frames[start : start + _BLOCK] * hann, size)) ** 2 @ filters
            for start in range(0, len(frames), _BLOCK)
        ]
        return np.log(np.maximum(np.concatenate(power), 1e-10)).astype(np.float32)

    def _filters(self, size: int, rate: int) -> np.ndarray:
        """The weight of each frequency in each band, (size / 2 + 1, I)."""
        top = 2595 * np.log10(1 + rate / 2 / 700)
        corners = 700 * (10 ** (np.linspace(0, top, self.bands + 2) / 2595) - 1)
        frequency = np.arange(size // 2 + 1)[:, None] * rate / size
        low, middle, high = corners[:-2], corners[1:-1], corners[2:]
        rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
        filters = np.maximum(0, np.minimum(rising, falling))
        if not filters.any(0).all():
            raise ConfigError(
                f"LogMel: got {self.bands} bands for windows of {self.window} s at {rate} Hz, "
                "some of which contain no frequency.\n  Use fewer bands or longer windows."
            )
        return filters


def read_audio(path: Path) -> tuple[np.ndarray, int]:
    """A sound's samples, averaged over channels, (N,) float64, and its sample rate.

    Raises:
        DataError: The file is damaged, empty, or has samples that are not finite.
        ConfigError: soundfile, which reads it, is not installed.
    """
    with optional(f"{path}: sound is read by soundfile", "audio"):
        import soundfile
    try:
        samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise DataError(f"{path}: cannot be read as sound: {error}") from None
    if not len(samples):
        raise DataError(f"{path}: got no sample, expected at least one.")
    if not np.isfinite(samples).all():
        place = int(np.argmin(np.isfinite(samples).all(1)))
        raise DataError(f"{path}: sample {place + 1:,} is not finite, expected numbers.")
    return samples.mean(1), rate
