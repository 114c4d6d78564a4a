"""What the pages say of results is what the result files say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "benchmarks" / "results" / "experiments").glob("*.json"))


def test_the_pages_are_made_from_the_result_files():
    command = [sys.executable, "scripts/make_results_page.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_result_beats_the_baselines_of_its_data_and_says_where_it_is_from(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    sign = 1 if record["mode"] == "max" else -1

    assert all(sign * record["ours"] > sign * rival for rival in record["rivals"].values())
    assert (ROOT / "configs" / "experiment" / f"{record['name']}.yaml").is_file()
    assert {"seed", "seconds", "machine", "versions", "commit", "date"} <= record.keys()


def test_the_guide_says_what_a_fused_softmax_was_measured_to_cost():
    file = "benchmarks/results/linear_cross_entropy.json"
    rows = json.loads((ROOT / file).read_text(encoding="utf-8"))["rows"]
    guide = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    memory, time = (
        " and ".join(f"{row[ratio]:.2f}" for row in rows) for ratio in ("MiB ratio", "ms ratio")
    )

    assert f"took {memory} times the memory, and {time} times the time (`{file}`)" in guide
