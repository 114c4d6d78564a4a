"""The script that measures how long cells remember, on a task of one step."""

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "measure_memory_span.py"
pytest.importorskip("matplotlib")


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script's names; its command line asks for something small."""
    asked = "--task recall --cells gru --widths 16 --longest 2 --steps 100 --rates 0.01"
    monkeypatch.setattr(
        sys, "argv", ["measure", *asked.split(), "--output", str(tmp_path / "span.json")]
    )
    return runpy.run_path(str(SCRIPT), run_name="measure_memory_span")


def test_results_machine_and_plot_are_written(script, tmp_path):
    script["main"]()
    found = json.loads((tmp_path / "span.json").read_text())

    first, second = found["tried"]
    assert first.items() >= {"cell": "gru", "units": 16, "length": 1, "solved": True}.items()
    assert second.items() >= {"length": 2, "solved": False, "rate": 0.01}.items()
    assert found["spans"] == {"gru": {"16": 1}}
    assert {"machine", "versions", "commit", "date"} <= found.keys()
    assert (tmp_path / "span.png").stat().st_size > 10_000


def test_known_results_are_not_measured_again(script, tmp_path, capsys):
    script["main"]()
    found = (tmp_path / "span.json").read_text()
    capsys.readouterr()
    script["main"]()

    assert capsys.readouterr().out.startswith("Written: ")
    assert (tmp_path / "span.json").read_text() == found


def test_only_a_file_with_the_same_settings_is_continued(script, tmp_path):
    path, tried = tmp_path / "span.json", [{"cell": "a", "units": 8, "length": 4, "solved": True}]
    settings = {"steps": 1, "longest": 8}
    script["write"](path, settings, tried)

    assert script["resumed"](path, settings) == tried
    assert script["resumed"](path, {**settings, "steps": 2}) == []
    assert script["resumed"](tmp_path / "none.json", settings) == []


def test_a_span_is_the_longest_solved_length_once_all_were_tried(script):
    tried = [
        {"cell": "a", "units": 8, "length": 4, "solved": True},
        {"cell": "a", "units": 8, "length": 8, "solved": False},
        {"cell": "a", "units": 16, "length": 4, "solved": False},
        {"cell": "b", "units": 8, "length": 4, "solved": True},
        {"cell": "b", "units": 8, "length": 8, "solved": True},
        {"cell": "b", "units": 16, "length": 4, "solved": True},
    ]

    assert script["spans"](tried, 8) == {"a": {8: 4, 16: 0}, "b": {8: 8}}
