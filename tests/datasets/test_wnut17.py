import pytest

from seqnets.datasets import WNUT17
from seqnets.errors import DataError


def test_its_three_files_are_read_as_published(shared_data):
    data = WNUT17(str(shared_data), metric="entity_f1", characters=20)
    data.setup()

    assert data.counts() == {"train": 3394, "val": 1009, "test": 1287}
    assert {part: int(data.lengths(part).sum()) for part in ("train", "val", "test")} == {
        "train": 62730,
        "val": 15733,
        "test": 23394,
    }
    assert len(data.labels) == 13
    assert 0.05 < data.baselines()["commonest label of the word"] < 0.07


def test_a_folder_without_the_files_is_reported_with_the_places_searched(tmp_path):
    with pytest.raises(
        DataError, match=r"/wnut17 lacks train\.conll, .*; .* lacks train.*\n.*WNUT 2017"
    ):
        WNUT17(str(tmp_path)).setup()
