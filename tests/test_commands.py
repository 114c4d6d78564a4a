"""The commands in the README and the guides are understood, and the keys that they name exist."""

import inspect
import re
import shlex
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from seqnets.cli.main import command as seqnets

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in ROOT.glob("docs/*.md")}
PAGES |= {
    name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")
}
VERBS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
ELSEWHERE = (
    "dataset=means",  # test_readme.py
    "hydra/sweeper",  # Optuna may not be installed
    "evaluate checkpoint=last objective.beam_size",  # of a transcriber
    "experiment=parity_search",  # in a file of the reader's
)
ANY = "=NAME", "=…", " …"  # for the reader to fill in


def commands(text):
    """The commands that a page gives, as their arguments; those of a sweep for its first job."""
    told = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    for line in [*told.splitlines(), *re.findall(r"`([^`\n]+)`", text)]:
        found = re.match(rf"(?:PYTHONPATH=\. )?seqnets ({'|'.join(VERBS)}) (.*)", line)
        if found and not any(each in line for each in (*ELSEWHERE, *ANY)):
            arguments = [each for each in shlex.split(found[2], comments=True) if each != "-m"]
            whole = {"[", "{"}.intersection  # a value, not one for each job
            yield found[1], *(each if whole(each) else each.split(",")[0] for each in arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a language model's run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "book.txt").write_text("What was learned stays; what was lost is gone.\n" * 40)
    small = "trainer=debug", "model.hidden_size=4", "dataset.batch_size=2", "logger=none"
    data = "dataset=text", f"dataset.path={folder}/book.txt", f"dataset.cache={folder}"
    assert (
        seqnets(["train", *small, *data, "dataset.chunk_length=16", f"output={folder}/runs"]) == 0
    )
    (found,) = folder.glob("runs/*/*")
    return found


@pytest.fixture
def with_own_cells(tmp_path, monkeypatch):
    """Work where the reader's own cell is: a configuration in a folder, and in a package."""
    (tmp_path / "mycells" / "conf").mkdir(parents=True)
    (tmp_path / "mycells" / "__init__.py").write_text("from seqnets.cells import MGUCell")
    (tmp_path / "mycells" / "conf" / "__init__.py").touch()
    for conf in (tmp_path / "conf", tmp_path / "mycells" / "conf"):
        (conf / "model" / "cell").mkdir(parents=True)
        config = "_target_: mycells.MGUCell\n_partial_: true\n"
        (conf / "model" / "cell" / "my_mgu.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    forget("mycells")  # other tests' modules of this name
    yield
    forget("mycells")


def forget(package):
    """Let a package be imported anew."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


@pytest.mark.parametrize(
    "arguments",
    dict.fromkeys(each for text in PAGES.values() for each in commands(text)),
    ids=" ".join,
)
@pytest.mark.usefixtures("with_own_cells")
def test_a_command_of_a_page_is_understood(arguments, run, capsys):
    given = [re.sub("^(checkpoint|resume)=.*", rf"\1={run}", each) for each in arguments]

    code = seqnets([*given, *([] if "--cfg" in given else ["--cfg", "job"])])

    assert code == 0, capsys.readouterr().err


def test_the_benchmark_of_a_cell_with_an_option_has_sizes_that_go_together(tmp_path, monkeypatch):
    (found,) = (each for each in commands(PAGES["benchmarks.md"]) if "model/cell=lstm" in each)
    monkeypatch.chdir(tmp_path)

    assert seqnets([*found, "rows=[loop]", "time_limit=0.001", "plot=false"]) == 0


GROUPS = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name != "hydra")
KEY = re.compile(rf"(?<![\w./])(\+?)\+?((?:{'|'.join(GROUPS)})(?:\.[a-z]\w*)+)(?![\w/(])")
CHOICE = re.compile(rf"(?<![\w./])((?:{'|'.join(GROUPS)})(?:/\w+)*)=([a-z_]\w*)(?![\w(])")
OTHERS = (  # of Python; files; what a configuration may add; what an option names
    *("model.encoder", "model.eval", "trainer.fit"),
    *("model.keras", "model.msgpack", "model.onnx", "model.pt"),
    *("callbacks.mine", "callbacks.hyperparameters.compared", "logger.wandb.entity"),
    *("model.cell_options", "dataset.augment"),
)
OWN = "my_mgu", "means", "convolutions", "absolute", "parity_search"


def inline(text):
    """The code within a page's sentences, and its commands, without those of another project."""
    text = re.sub(r"(?<=\| there \| here \|\n)(\|.*\n)+", "", text)
    blocks = re.compile(r"```(\w*)\n.*?```", re.DOTALL)
    commands = [block[0] for block in blocks.finditer(text) if block[1] == "bash"]
    return "\n".join([*commands, *re.findall(r"`[^`\n]+`", blocks.sub("", text))])


@cache
def declared():
    """Every key that a configuration file declares, and with a plus those that its class takes."""
    keys = set()

    def add(prefix, config):
        for key, value in config.items():
            keys.add(f"{prefix}.{key}")
            if isinstance(value, dict):
                add(f"{prefix}.{key}", value)
        module, _, name = str(config.get("_target_", "")).rpartition(".")
        if module.startswith(("seqnets", "torch", "lightning")):
            taken = inspect.signature(getattr(import_module(module), name)).parameters
            keys.update(f"+{prefix}.{key}" for key in taken)

    for path in CONFIGS.rglob("*.yaml"):
        config = OmegaConf.to_container(OmegaConf.load(path))
        if "@package _global_" in path.read_text(encoding="utf-8"):
            for group in GROUPS:
                add(group, inside if isinstance(inside := config.get(group), dict) else {})
        else:
            add(path.relative_to(CONFIGS).parts[0], config)
            add(".".join(path.relative_to(CONFIGS).parent.parts), config)
    return keys


@pytest.mark.parametrize("name", PAGES)
def test_the_keys_and_choices_that_a_page_names_exist(name):
    text = inline(PAGES[name])

    for plus, key in set(KEY.findall(text)):
        known = {key, f"{plus}{key}"} & declared()
        assert known or key.startswith(OTHERS), f"{name}: no configuration has {plus}{key}"
    for group, choice in set(CHOICE.findall(text)):
        there = (CONFIGS / group / f"{choice}.yaml").is_file()
        assert there or choice in OWN, f"{name}: {group}={choice}"
