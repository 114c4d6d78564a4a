"""Features of sound and images follow their definitions."""

from __future__ import annotations

import builtins
import math
import tracemalloc

import numpy as np
import pytest

from seqnets.datasets.readers import LogMel
from seqnets.datasets.readers.audio import read_audio
from seqnets.datasets.readers.images import read_image
from seqnets.errors import ConfigError, DataError


def plain_log_mel(samples, rate, bands, window, hop):
    """Log-mel features in plain floats, read off the definitions."""
    length, step = round(window * rate), round(hop * rate)
    size = 1
    while size < length:
        size *= 2
    top = 2595 * math.log10(1 + rate / 2 / 700)
    corners = [700 * (10 ** (top * i / (bands + 1) / 2595) - 1) for i in range(bands + 2)]
    steps = []
    for start in range(0, len(samples) - length + 1, step):
        frame = [
            samples[start + n] * math.sin(math.pi * (n + 0.5) / length) ** 2 for n in range(length)
        ]
        power = []
        for k in range(size // 2 + 1):
            angles = [2 * math.pi * k * n / size for n in range(length)]
            real = sum(f * math.cos(a) for f, a in zip(frame, angles, strict=True))
            imaginary = sum(f * math.sin(a) for f, a in zip(frame, angles, strict=True))
            power.append(real**2 + imaginary**2)
        features = []
        for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
            total = 0.0
            for k, p in enumerate(power):
                f = k * rate / size
                if low < f <= middle:
                    total += p * (f - low) / (middle - low)
                elif middle < f < high:
                    total += p * (high - f) / (high - middle)
            features.append(math.log(max(total, 1e-10)))
        steps.append(features)
    return steps


def test_log_mel_follows_its_definition():
    samples = np.random.default_rng(0).normal(size=100)
    options = {"bands": 4, "window": 0.03, "hop": 0.01}

    expected = plain_log_mel(samples.tolist(), 1000, **options)

    assert LogMel(**options)(samples, 1000) == pytest.approx(np.array(expected), abs=1e-5)


def test_long_sound_takes_little_more_memory_than_its_samples_and_features():
    samples = np.random.default_rng(0).normal(size=8_000 * 60)

    tracemalloc.start()
    features = LogMel()(samples, 8_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(features) == 5_998
    np.testing.assert_allclose(features[2_500:3_500], LogMel()(samples[200_000:280_120], 8_000))
    assert peak < 4 * samples.nbytes


def test_a_tone_is_loudest_in_the_band_where_it_lies():
    rate, mel = 8000, LogMel(bands=20)
    top = 2595 * math.log10(1 + rate / 2 / 700)
    for band in (3, 10, 18):
        tone = 700 * (10 ** (top * (band + 1) / 21 / 2595) - 1)
        y = mel(np.sin(2 * np.pi * tone * np.arange(rate) / rate), rate)

        assert y.shape == (98, 20)
        assert (y.argmax(1) == band).all()


def test_short_sound_is_padded_and_silence_is_finite():
    y = LogMel(bands=8)(np.zeros(10), 8000)

    assert y.shape == (1, 8)
    assert y.tolist() == pytest.approx(np.full((1, 8), math.log(1e-10)))


@pytest.mark.parametrize("options", [{"bands": 0}, {"bands": 2.5}, {"window": 0}, {"hop": -1}])
def test_invalid_options_of_log_mel_are_refused(options):
    ((name, value),) = options.items()
    with pytest.raises(ConfigError, match=f"LogMel: {name} is {value}, expected a"):
        LogMel(**options)


def test_more_bands_than_frequencies_are_refused():
    with pytest.raises(ConfigError, match=r"got 200 bands for windows of 0.025 s at 8000 Hz"):
        LogMel(bands=200)(np.zeros(800), 8000)


def test_channels_of_sound_are_averaged(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.wav", np.array([[0.5, 0.25], [-0.5, 0.0]]), 8000)

    samples, rate = read_audio(tmp_path / "a.wav")

    assert rate == 8000
    assert samples == pytest.approx([0.375, -0.25], abs=1e-4)


@pytest.mark.parametrize(
    ("samples", "message"),
    [([], "got no sample"), ([0.0, math.nan], "sample 2 is not finite")],
)
def test_sound_without_samples_or_with_nan_is_refused(tmp_path, samples, message):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.wav", np.array(samples), 8000, subtype="FLOAT")

    with pytest.raises(DataError, match=message):
        read_audio(tmp_path / "a.wav")


def test_a_row_of_pixels_is_a_step(tmp_path):
    images = pytest.importorskip("PIL.Image")
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    images.fromarray(pixels).save(tmp_path / "a.png")

    rows, mode = read_image(tmp_path / "a.png")

    assert mode == "RGB"
    assert rows == pytest.approx(pixels.reshape(2, 9) / 255)


@pytest.mark.parametrize(
    ("mode", "expected"), [("1", "L"), ("P", "RGB"), ("CMYK", "RGB"), ("LA", "LA")]
)
def test_other_modes_of_images_become_grey_or_rgb(tmp_path, mode, expected):
    images = pytest.importorskip("PIL.Image")
    images.new(mode, (4, 3)).save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    (path,) = tmp_path.iterdir()

    rows, found = read_image(path)

    assert (found, rows.shape) == (expected, (3, 4 * len(expected)))


def test_an_image_of_16_bits_is_refused(tmp_path):
    images = pytest.importorskip("PIL.Image")
    images.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "a.png")

    with pytest.raises(DataError, match=r"its mode is I(;16)?, expected one of"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("library", "read", "extra"),
    [("soundfile", read_audio, "audio"), ("PIL", read_image, "images")],
)
def test_without_a_library_the_error_says_how_to_install_it(
    tmp_path, monkeypatch, library, read, extra
):
    load = builtins.__import__

    def missing(name, *rest):
        if name == library:
            raise ModuleNotFoundError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)

    with pytest.raises(ConfigError, match=rf"pip install 'seqnets\[{extra}\]'"):
        read(tmp_path / "a")
