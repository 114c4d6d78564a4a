"""The result pages agree with the result files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "benchmarks" / "results" / "experiments").glob("*.json"))


def test_the_result_pages_are_up_to_date():
    command = [sys.executable, "scripts/make_results_page.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_result_beats_its_baselines_and_has_its_provenance(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    sign = 1 if record["mode"] == "max" else -1

    assert all(sign * record["ours"] > sign * value for value in record["baselines"].values())
    assert (ROOT / "configs" / "experiment" / f"{record['name']}.yaml").is_file()
    assert {"seed", "seconds", "machine", "versions", "commit", "date"} <= record.keys()
