"""The contents of the wheel, which works without the source tree."""

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from itertools import chain
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
OTHER_NAMES = {"PIL": "pillow", "hydra": "hydra-core", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Libraries by the name that is imported, where it is not the one that is installed."""


def call(*command, cwd):
    """Run a command that sees nothing of this process' Python, and return what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def oldest(lines, relation):
    """The versions that some requirements admit at least, or are pinned to, by library."""
    found = [re.match(rf"([\w.-]+){relation}([\d.]+)", line) for line in lines]
    return {canonicalize_name(one[1]): Version(one[2]) for one in found if one}


def admitted():
    """The oldest version of each library that pyproject.toml admits."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    return oldest([*project["dependencies"], *extras], ">=")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The project's wheel, built from a copy: setuptools writes into the tree it builds from."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "seqnets"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tree / name).write_bytes((ROOT / name).read_bytes())
    for name in ("src", "configs"):
        copytree(ROOT / name, tree / name, ignore=ignore_patterns("*.egg-info", "__pycache__"))
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, cwd=tree)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory):
    """The scripts of a fresh environment with the wheel, and the dependencies of this one."""
    home = tmp_path_factory.mktemp("an environment") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    places = {"base": str(home), "platbase": str(home)}
    scheme = "venv" if sys.version_info >= (3, 11) else "posix_prefix"
    packages = Path(sysconfig.get_path("purelib", scheme, places))
    scripts = Path(sysconfig.get_path("scripts", scheme, places))
    call(
        sys.executable, "-m", "pip", "--python", scripts / "python",
        "install", "--no-index", "--no-deps", wheel, cwd=home,
    )  # fmt: skip
    # A .pth line adds the folder without reading the .pth files in it: the dependencies are
    # seen, and an editable install of the source tree is not.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def test_the_wheel_holds_every_module_every_configuration_and_the_type_marker(wheel):
    expected = {
        str(path.relative_to(ROOT / "src"))
        for path in (ROOT / "src" / "seqnets").rglob("*")
        if path.suffix in (".py", ".pyi", ".h", ".json") or path.name == "py.typed"
    } | {
        str("seqnets" / path.relative_to(ROOT))
        for path in (ROOT / "configs").rglob("*")
        if path.suffix in (".py", ".yaml")
    }

    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert held == expected


def test_the_wheel_brings_its_license(wheel):
    names = zipfile.ZipFile(wheel).namelist()

    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]


def test_the_source_distribution_can_build_and_test_the_project(tmp_path):
    folders = ("src", "configs", "tests", "docs", "scripts", "benchmarks")
    tree = tmp_path / "seqnets"
    for name in folders:
        copytree(ROOT / name, tree / name, ignore=ignore_patterns("*.egg-info", "__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            (tree / path.name).write_bytes(path.read_bytes())
    expected = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}

    call(sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", tmp_path, cwd=tree)
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}

    assert "tests/conftest.py" in expected
    assert expected <= held


def test_a_wheel_that_is_imported_as_it_is_says_that_it_must_be_installed(wheel, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "seqnets", "list"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert f"{wheel / 'seqnets' / 'configs'} is not a folder, expected" in done.stderr
    assert "install the wheel" in done.stderr


def test_a_folder_named_as_the_project_does_not_hide_what_make_has_installed(tmp_path):
    if not Path(sysconfig.get_path("purelib"), "seqnets.pth").exists():
        pytest.skip("needs an environment that the Makefile has set up")
    (tmp_path / "seqnets").mkdir()

    where = call(sys.executable, "-c", "import seqnets; print(seqnets.__file__)", cwd=tmp_path)

    assert Path(where.strip()).is_relative_to(ROOT)


def test_an_installed_wheel_is_what_is_imported(scripts, tmp_path):
    where = call(scripts / "python", "-c", "import seqnets; print(seqnets.__file__)", cwd=tmp_path)

    assert Path(where.strip()).is_relative_to(scripts.parent)


def test_an_installed_wheel_lists_its_configurations(scripts, tmp_path):
    listed = call(scripts / "seqnets", "list", cwd=tmp_path)

    for path in (ROOT / "configs" / "dataset").glob("*.yaml"):
        assert f"  {path.stem}  " in listed


def test_an_installed_wheel_trains_a_cell_of_the_users_own_in_another_folder(scripts, tmp_path):
    home = tmp_path / "another folder, with a comma"
    home.mkdir()
    (home / "a text = odd.txt").write_text("All is well. " * 200, encoding="utf-8")
    (home / "mine.py").write_text(
        "import seqnets\n\n\n"
        "class MineCell(seqnets.GatedCell):\n"
        "    gates = ('f', 'n')\n\n"
        "    def update(self, wx, uh, state):\n"
        "        (h,) = state\n"
        "        f = self.gate(wx.f + uh.f)\n"
        "        return (h + f * (self.candidate(wx.n + f * uh.n) - h),)\n"
    )
    folder = home / "conf" / "model" / "cell"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# Mine\n_target_: mine.MineCell\n_partial_: true\n")

    call(
        "env", f"PYTHONPATH={home}", scripts / "seqnets", "train", "--config-dir", "conf",
        "model/cell=mine", "model/option=[zoneout,layer_norm]", "allow=[mine]",
        "dataset=text", "dataset.path='a text = odd.txt'", "dataset.batch_size=2",
        "dataset.chunk_length=8", "model.hidden_size=4", "trainer=cpu", "trainer.max_steps=2",
        "output='the runs, all'",
        cwd=home,
    )  # fmt: skip

    (last,) = home.glob("the runs, all/text/*/checkpoints/last.ckpt")
    assert last.stat().st_size > 0


def test_the_oldest_versions_are_tested_that_the_project_admits():
    lines = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8").splitlines()

    assert oldest(lines, "==") == admitted()


def test_every_library_that_is_imported_is_a_dependency():
    trees = [ast.parse(path.read_bytes()) for path in (ROOT / "src").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    known = {"seqnets", "annotationlib", *sys.stdlib_module_names}  # the second since Python 3.14
    libraries = {name.partition(".")[0] for name in names} - known

    assert "torch" in libraries
    assert {canonicalize_name(OTHER_NAMES.get(name, name)) for name in libraries} <= {*admitted()}
