"""What the README and the guides say, done."""

import importlib
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPTIONS = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "writing-a-cell.md").read_text(encoding="utf-8")
PAGES = [
    path.stem
    for path in (ROOT / "docs").glob("*.md")
    if "```python" in path.read_text(encoding="utf-8")
    and path.stem not in ("kernels", "writing-a-cell")  # printed; and read with the README
]


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(verb):
    lines = "\n".join(blocks(README, "bash")).splitlines()
    return [line.split("#")[0].strip() for line in lines if line.startswith(f"seqnets {verb}")]


@pytest.mark.parametrize("page", [README, GUIDE], ids=["readme", "writing_a_cell"])
def test_the_python_in_the_pages_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    script = "\n".join(["import torch, seqnets", *blocks(page, "python")])
    (tmp_path / "a_page.py").write_text(script, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_page", raising=False)

    module = importlib.import_module("a_page")

    assert module.MGUCell.gates == ("f", "n")


@pytest.mark.parametrize("page", PAGES)
def test_the_python_in_a_page_runs(page, tmp_path, monkeypatch):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    here = [b for b in blocks(text, "python") if torch.cuda.is_available() or "cuda" not in b]
    monkeypatch.chdir(tmp_path)

    exec("\n".join(here), {})


def test_the_page_of_options_names_them_all():
    named = set(re.findall(r"^\| `(\w+)`", OPTIONS, re.MULTILINE))

    assert named == {path.stem for path in (ROOT / "configs" / "model" / "option").glob("*.yaml")}


def test_the_page_of_cells_is_what_the_cells_say():
    made = runpy.run_path(str(ROOT / "scripts" / "make_cells_page.py"))["page"]()

    assert made == (ROOT / "docs" / "cells.md").read_text(encoding="utf-8"), (
        "run scripts/make_cells_page.py"
    )


def test_the_page_of_kernels_is_what_is_printed():
    made = runpy.run_path(str(ROOT / "scripts" / "make_kernels_page.py"))["page"]()

    assert made == (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8"), (
        "run scripts/make_kernels_page.py"
    )


@pytest.mark.parametrize("command", [c for c in commands("train") if "resume" not in c])
def test_every_training_command_of_the_readme_composes(command, tmp_path):
    arguments = [a for a in shlex.split(command)[2:] if a != "-m"]
    arguments = [a if "[" in a else a.split(",")[0] for a in arguments]  # a sweep's first job

    done = subprocess.run(
        [sys.executable, "-m", "seqnets", "train", *arguments, "--cfg", "job"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "_target_: seqnets." in done.stdout


def made(target, folder):
    """What a target would do from a clean checkout."""
    command = ["make", "-n", target, f"VENV={folder}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_training_sets_up_no_more_than_it_needs_and_tests_the_rest(tmp_path):
    venv = tmp_path / "venv"

    assert "-e '.[plot]'" in made("train", venv)
    assert "[test" not in made("train", venv)
    assert "-e '.[test]'" in made("test", venv)
    venv.mkdir()
    (venv / ".usable").touch()  # as `make train` leaves it
    assert "-m venv" not in made("test", venv)
    assert "-e '.[test]'" in made("test", venv)


def test_the_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    for target in re.findall(r"^make (\S+)", "\n".join(blocks(README, "bash")), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
