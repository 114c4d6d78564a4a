"""Files are written whole or not at all."""

import pytest

from seqnets.atomic import atomic


def test_a_file_takes_its_place_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "said.jsonl"

    with atomic(path) as partial:
        partial.write_text("whole")
        assert not path.exists()

    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_the_file_before_and_nothing_else(tmp_path):
    def write():
        with atomic(path) as partial:
            partial.write_text("half")
            raise ValueError("halfway")

    path = tmp_path / "said.jsonl"
    path.write_text("before")
    with pytest.raises(ValueError, match="halfway"):
        write()

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_being_written_is_hidden_and_of_the_same_kind(tmp_path):
    with atomic(tmp_path / "net.keras") as partial:
        partial.touch()

        assert partial.name.startswith(".")
        assert partial.suffix == ".keras"
