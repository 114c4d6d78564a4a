"""The scripts that are for a GPU, as far as possible without one."""

import json
import os
import runpy
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from seqnets import unroll
from seqnets.cells import LSTMCell
from seqnets.engine import BACKENDS, native, reference
from seqnets.engine.native import over_time
from tests.cells.final import TRACED_CELLS

SCRIPTS = Path(__file__).parents[2] / "scripts"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checks():
    """The script's names."""
    name = "seqnets_gpu_checks"
    module = sys.modules[name] = type(sys)(name)
    vars(module).update(runpy.run_path(str(SCRIPTS / "gpu_checks.py"), run_name=name))
    yield module
    del sys.modules[name]


@pytest.fixture
def trial(checks):
    return checks.Trial("native", "GRUCell", "float32", 5, 4, 3, ("ragged", "reverse", "given"))


@pytest.fixture
def run_as(monkeypatch):
    """Let something else run in place of torch's kernels."""

    def put(run):
        backend = SimpleNamespace(name="native", refusal=native.refusal, run=run)
        monkeypatch.setitem(BACKENDS, "native", backend)

    return put


def test_every_cell_that_can_be_traced_is_checked(checks):
    assert set(checks.makers()) >= {cell.__name__ for cell in TRACED_CELLS}


def test_a_backend_that_is_right_agrees(checks, trial):
    assert checks.outcome(trial, CPU) == {}


def test_a_wrong_number_fails_with_its_name(checks, trial, run_as):
    def run(request):
        y, (h,) = native.run(request)
        return y, (h + 1e-3,)

    run_as(run)

    assert checks.outcome(trial, CPU)["failed"].startswith("final h differs by 1.0e-03")


def test_numbers_that_change_from_call_to_call_fail(checks, trial, run_as):
    scales = iter((1.0, 1 + 2e-7))

    def run(request):
        y, state = native.run(request)
        return y * next(scales), state

    run_as(run)

    assert "not the same, bit by bit" in checks.outcome(trial, CPU)["failed"]


def test_an_error_is_a_failure_and_a_refusal_is_not(checks, trial, run_as, monkeypatch):
    def run(request):
        raise RuntimeError("out of luck\nand more")

    run_as(run)

    assert checks.outcome(trial, CPU) == {"failed": "RuntimeError: out of luck"}
    monkeypatch.setitem(
        BACKENDS,
        "native",
        SimpleNamespace(name="native", refusal=lambda _: "too small", run=reference.run),
    )
    assert checks.outcome(trial, CPU) == {"refused": "too small."}


def test_the_sample_soon_shows_every_value_of_everything(checks):
    dtypes = list(checks.ALLOWED)

    trials = list(
        islice(checks.sample([("triton", "GRUCell"), ("triton", "LSTMCell")], dtypes), 16)
    )

    assert {trial.dtype for trial in trials} == set(dtypes)
    for name, values in checks.SIZES.items():
        assert {getattr(trial, name) for trial in trials} == set(values)
    assert {flag for trial in trials for flag in trial.flags} == set(checks.FLAGS)


def test_workers_run_trials_and_a_file_holds_their_outcomes(tmp_path):
    script = [sys.executable, SCRIPTS / "gpu_checks.py", tmp_path]
    options = ["--device=cpu", "--backend=native,scan", "--dtype=float32", "--trials=6"]

    done = subprocess.run(
        [*script, *options, "--workers=2"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "checks.json").read_text(encoding="utf-8"))
    assert sum(counts["failed"] for counts in found["trials"].values()) == 0
    assert sum(sum(counts.values()) for counts in found["trials"].values()) == 6
    assert {"machine", "versions", "commit", "resources"} <= found.keys()
    assert found["cells_refused"]["native: MGUCell"].startswith("torch has no kernel")


def test_a_worker_that_crashes_is_a_failure_and_a_new_one_takes_over(
    checks, trial, tmp_path, monkeypatch
):
    worker = checks.Worker("cpu", tmp_path / "log")
    command = worker._command
    worker._command = [sys.executable, "-c", "import sys; sys.stdin.readline(); sys.exit(3)"]

    broken = worker.ask(trial)
    worker._command = command
    after = worker.ask(trial)

    assert "ended with 3" in broken["failed"]
    assert after == {}
    assert worker.close() == {"resources": []}


def test_spilling_kernels_and_lost_processes_are_reported(checks, capsys):
    taken = {"kernel": "forward", "registers": 255, "spills": 8, "shared": 1024, "warps": 4}

    closed = [{"resources": [taken]}, {"resources": [taken]}, {"failed": "the process ended"}]
    found = checks.report({}, {}, closed, max_spills=0)
    checks.show(found, None)

    assert found["spilling"] == [taken]
    assert found["failed"] == {"resources": "the process ended"}
    assert "SPILLS" in capsys.readouterr().out
    assert checks.report({}, {}, closed, max_spills=8)["spilling"] == []


def test_acceptance_runs_all_parts_even_if_one_fails_and_ends_with_a_table(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *gpu_checks*) exit 7;; *) echo "ran $*";; esac\n')
    python.chmod(0o755)
    script = SCRIPTS / "gpu_acceptance.sh"

    done = subprocess.run(
        ["bash", script, tmp_path / "out"],
        env=os.environ | {"PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1, done.stderr
    ends = dict(line.split(maxsplit=2)[::2] for line in done.stdout.splitlines()[-5:])
    assert ends["checks"] == "FAILED: 7"
    assert (ends["benchmark"], ends["training"]) == ("passed", "passed")
    assert "suite=cuda" in (tmp_path / "out" / "benchmark.log").read_text(encoding="utf-8")


def test_the_time_of_torchs_kernels_is_measured_without_the_hook_of_second_derivatives(monkeypatch):
    script = runpy.run_path(str(SCRIPTS / "measure_host.py"))
    hooked = []
    monkeypatch.setattr(over_time, "let_derive_twice", lambda *call: hooked.append(call))
    cell, x = LSTMCell(3, 4), torch.randn(2, 5, 3)

    script["once"](lambda: unroll(cell, x, backend="native"))
    assert not hooked

    unroll(cell, x, backend="native")
    assert hooked
