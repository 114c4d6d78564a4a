"""The scripts say what they do, and refuse what they cannot do before they measure anything."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script(monkeypatch, capsys):
    """Run a script; return its exit status, and what it printed."""
    pytest.importorskip("matplotlib")

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        out, err = capsys.readouterr()
        return ended.value.code, out + err

    return run


@pytest.mark.parametrize("name", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_a_script_asked_for_help_says_what_it_does_and_does_nothing(name, script):
    code, told = script(name, "--help")

    assert code == 0
    assert re.search(r"\n\n[A-Z][^\n]+(\n[^\n]+)*\.\n", told)
    assert "--help" in told


def test_the_checks_of_a_gpu_say_what_they_do():
    shell = ["bash", SCRIPTS / "gpu_acceptance.sh", "--help"]
    told = subprocess.run(shell, capture_output=True, text=True, check=True).stdout

    assert told.startswith("Check that the engine is correct and fast on this machine's GPU")
    assert "gpu_acceptance.sh [FOLDER]" in told


@pytest.fixture
def checks_without(tmp_path):
    """The checks of a GPU by a Python that does what it is asked, but lacks a package."""

    def run(package):
        asked, python = tmp_path / "asked", tmp_path / "python"
        lacks = f'case "$*" in *"import {package}"*) exit 1 ;; esac'
        python.write_text(f'#!/bin/sh\necho "$*" >>"{asked}"\n{lacks}\n')
        python.chmod(0o755)
        done = subprocess.run(
            ["bash", SCRIPTS / "gpu_acceptance.sh", tmp_path / "found"],
            env={**os.environ, "PYTHON": str(python)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done, asked.read_text()

    return run


def test_the_checks_of_a_gpu_say_before_them_that_nothing_will_be_timed(checks_without):
    done, _ = checks_without("hydra")

    assert done.stdout.startswith("gpu_acceptance: hydra is not installed")
    assert done.returncode == 1


@pytest.mark.parametrize(("package", "how"), [("xdist", ""), ("hydra", "-n 4 ")])
def test_features_of_a_gpu_are_checked_side_by_side_where_that_is_possible(
    package, how, checks_without
):
    _, asked = checks_without(package)

    assert f"-W default {how}tests/engine/test_cuda.py" in asked


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("first_step.py", "0", "repeats: is 0, expected at least 1."),
        ("measure_preference.py", "--threads 0", "--threads: is 0, expected at least 1."),
        ("measure_memory_span.py", "--cells gru,nope", "argument --cells: no cells ['nope']"),
        ("measure_memory_span.py", "--widths a", "argument --widths: invalid widths value: 'a'"),
        ("measure_memory_span.py", "--longest 2", "--longest: is 2, expected at least 4"),
        ("measure_memory_span.py", "--output a.png", "expected a name that ends with .json."),
        ("measure_training.py", "--output a.json --data nowhere", "--data: is 'nowhere'"),
        ("measure_training.py", "--output a.json --rounds 0", "--rounds: is 0, expected at least"),
        ("odyssey.py", "--seeds 0", "--seeds: is 0, expected at least 1."),
        ("odyssey.py", "--draw --output none.json", "--draw: there is no none.json"),
        ("reproduce.py", "nope", "reproduce: there is no experiment 'nope'"),
    ],
)
def test_a_script_refuses_plainly(name, arguments, told, script):
    code, printed = script(name, *arguments.split())

    assert code
    assert told in f"{printed}{code}"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("gpu_checks.py", "nowhere"),
        ("measure_linear.py", "--device cuda"),
        ("measure_preference.py", "--device cuda"),
        ("measure_training.py", "--device cuda --output a.json"),
        ("measure_host.py", "--output a.json"),
    ],
)
def test_a_script_that_is_for_a_gpu_says_that_there_is_none(name, arguments, script):
    code, printed = script(name, *arguments.split())

    assert code
    assert "torch finds no GPU" in printed
