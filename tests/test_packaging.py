"""A wheel, installed in a fresh environment, trains from another folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    for name in ("src", "configs", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    shutil.rmtree(source / "src" / "seqnets.egg-info", ignore_errors=True)
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet",
        "--wheel-dir", folder, source)  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_every_config(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())

    modules = {p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src").rglob("*.py")}
    configs = {p.relative_to(ROOT).as_posix() for p in (ROOT / "configs").rglob("*.yaml")}
    assert modules | {"seqnets/py.typed"} <= inside
    assert {f"seqnets/{config}" for config in configs} <= inside


def test_installed_in_a_fresh_environment_it_trains_from_another_folder(wheel, tmp_path):
    home = tmp_path / "a folder with spaces"
    venv.create(home / "env", with_pip=False)
    python = home / "env" / "bin" / "python"
    packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--no-compile",
        "--target", packages, wheel)  # fmt: skip
    # Its dependencies are this environment's. The editable install there stays unseen, because
    # Python does not read the .pth files of a folder that a .pth file names.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    where = run(python, "-c", "import seqnets; print(seqnets.__file__)", env=environment)
    listed = run(python, "-m", "seqnets", "list", "cells", cwd=home, env=environment)
    run(
        python, "-m", "seqnets", "train", "dataset=parity", "model/cell=peephole_lstm",
        "trainer=debug", "output=my runs", "+trainer.enable_model_summary=false",
        cwd=home, env=environment,
    )  # fmt: skip

    assert Path(where.strip()).is_relative_to(home)
    assert "peephole_lstm" in listed
    assert list(home.glob("my runs/parity/*/checkpoints/last.ckpt"))
