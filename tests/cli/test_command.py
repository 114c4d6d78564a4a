"""What is typed: verbs, help, mistyped names, lists, completion."""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from inspect import getfile
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore
from lightning.fabric.accelerators import MPSAccelerator
from omegaconf import OmegaConf

import seqnets as package
from seqnets import conversion
from seqnets.cli.arguments import parsed, quoted
from seqnets.cli.hydra_errors import _unknown_key
from seqnets.cli.listing import KINDS, configs
from seqnets.cli.main import VERBS, command
from seqnets.cli.meant import WRITTEN, path_meant, word_meant
from seqnets.cli.names import near
from seqnets.quoting import override
from seqnets.training import exporting
from seqnets.warn import warn


def test_the_version_is_the_packages(seqnets):
    assert seqnets("--version") == (0, f"seqnets {package.__version__}\n", "")


def test_a_warning_of_seqnets_comes_without_the_line_of_its_source():
    script = (
        "import sys, warnings, seqnets\n"
        "from seqnets.cli.main import main\n"
        "sys.argv = ['seqnets', '--version']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "for file in (seqnets.__file__, 'other.py'):\n"
        "    warnings.warn_explicit('it is slower', UserWarning, file, 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stderr == "Warning: it is slower\nother.py:1: UserWarning: it is slower\n"


def test_a_warning_from_inside_of_a_verb_is_of_seqnets(seqnets, monkeypatch):
    verb = {"__name__": "seqnets.cli.listing", "warn": warn}
    exec("def show(*options): warn('it is slower')", verb)
    monkeypatch.setattr("seqnets.cli.listing.show", verb["show"])

    with pytest.warns(UserWarning, match="it is slower") as told:
        seqnets("list", "models")

    assert told[0].filename == getfile(command)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's memory")
@pytest.mark.parametrize(("given", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "0"}, False)])
def test_memory_of_a_step_is_kept_for_the_next_unless_the_user_says_otherwise(given, kept):
    script = (
        "import resource, torch\n"
        "from seqnets.cli.main import keep_memory\n"
        "keep_memory()\n"
        "def step(): [torch.ones(4 << 20) for _ in range(3)]\n"
        "for _ in range(20): step()\n"  # until the heap has settled
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(10): step()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **given}, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) < 12_288) == kept  # the pages of one step in ten


def test_hydras_options_are_declared_where_python_reads_the_help_of_each(seqnets, monkeypatch):
    declare = argparse.ArgumentParser.add_argument

    def read(self, action):  # as Python 3.14 does; Hydra has a help that is not text
        assert "%" not in (action.help or "")

    def declare_and_read(self, *names, **options):
        action = declare(self, *names, **options)
        self._check_help(action)
        return action

    monkeypatch.setattr(argparse.ArgumentParser, "_check_help", read, raising=False)
    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", declare_and_read)

    assert seqnets("train", "--cfg", "job").code == 0
    assert argparse.ArgumentParser._check_help is read


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_lists_the_verbs(arguments, seqnets):
    done = seqnets(*arguments)

    assert done.code == 0
    for verb in VERBS:
        assert f"\n  {verb} " in done.out


@pytest.mark.parametrize("verb", ["convert", "list", "completion", "help"])
def test_help_followed_by_a_verb_is_the_help_of_the_verb(verb, seqnets):
    assert seqnets("help", verb) == seqnets(verb, "--help")
    assert seqnets("help", "convrt").err == seqnets("convrt").err


@pytest.mark.parametrize(
    "arguments", [("--help",), ("train", "--help"), ("evaluate", "--help"), ("list",)]
)
def test_lines_break_between_words_where_a_terminal_ends_and_stay_whole_elsewhere(
    arguments, seqnets, monkeypatch
):
    whole = seqnets(*arguments).out
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    shown = seqnets(*arguments).out

    assert max(map(len, whole.splitlines())) > 70
    assert max(map(len, shown.splitlines())) <= 70
    assert shown.split() == whole.split()  # and no word is cut


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("list", "completion")])
def test_the_help_of_a_verb_explains_each_of_its_keys_and_then_names_its_groups(verb, seqnets):
    done = seqnets(verb, "--help")

    own = OmegaConf.load(configs() / f"{verb}.yaml")
    shown, _, groups = done.out.partition("Groups")
    assert done.code == 0
    assert shown.startswith(f"seqnets {verb}:")
    assert "hydra" not in done.out
    for key in own.keys() - {"defaults", "hydra"}:
        assert re.search(rf"^  {key}: .*# |^  {key}: +#", shown, re.MULTILINE), key
    for entry in (entry for entry in own.defaults if entry != "_self_"):
        (group,) = entry
        assert (f"\n  {group}: " in groups) == ("hydra/" not in group)
    assert ("\n  model/cell: " in groups) == (verb in ("train", "inspect", "benchmark", "convert"))


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("list", "completion")])
def test_what_the_help_says_of_keys_stands_in_one_column(verb, seqnets):
    blocks = [block.splitlines() for block in seqnets(verb, "--help").out.split("\n\n")]

    of_keys = [lines for lines in blocks if all(" # " in line for line in lines)]
    assert of_keys
    for lines in of_keys:
        assert len({line.index("# ") for line in lines}) == 1


def test_the_help_of_completion_says_what_to_do_with_it(seqnets):
    done = seqnets("completion", "--help")

    assert done.code == 0
    assert '~/.bashrc: eval "$(seqnets completion bash)"' in done.out
    assert '~/.zshrc: eval "$(seqnets completion zsh)"' in done.out
    assert "config.fish: seqnets completion fish | source" in done.out


def test_the_composed_configuration_can_be_seen(seqnets):
    done = seqnets("train", "--cfg", "job", "dataset=parity", "model/cell=gru")

    assert done.code == 0
    assert "_target_: seqnets.datasets.Parity" in done.out
    assert "_target_: seqnets.cells.GRUCell" in done.out


@pytest.mark.parametrize("option", ["hydra.job.name=mine", "hydra/job_logging=disabled"])
def test_verbs_with_a_checkpoint_take_options_of_hydra(option, seqnets):
    done = seqnets("evaluate", "checkpoint=nowhere", option)

    assert "Checkpoint nowhere: is not there" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["tarin"], "Did you mean train?"),
        (["resume", "runs/a b"], "Did you mean `seqnets train \"resume='runs/a b'\"`?"),
        (["test", "trainer=cpu"], "Did you mean `seqnets evaluate checkpoint=RUN`?"),
        (["train", "model/cell=lsmt"], "Did you mean lstm or"),
        (["train", "model/cell=LSTM"], "Did you mean lstm"),
        (
            ["train", "model=gru"],
            "model: there is no option 'gru'.\n  Did you mean model/cell=gru?",
        ),
        (["train", "gru"], "Did you mean model/cell=gru?"),
        (["benchmark", "gru"], "Did you mean 'cells=[gru]'?"),
        (["benchmark", "quick"], "Did you mean suite=quick?"),
        (
            ["train", "dataset.path=a.csv"],
            "  Others have it, such as dataset=classification, forecasting",
        ),
        (["train", "optimizer.momentum=1"], "  Others have it, such as optimizer=sgd.\n"),
        (
            ["train", "callbacks.early_stopping.patience=3"],
            "  Others have callbacks.early_stopping, such as callbacks=early_stopping.\n",
        ),
        (["train", "model.cell_options.zoneout.p=0.2"], "'model/option=[zoneout]' chooses it."),
        (["train", "~model.cell_options.zoneout.p"], "is not a key or group of `seqnets train`"),
        (
            ["train", "dataset=parity", "dataset.augment.noise.std=0.1"],
            "  Others have dataset.augment, such as dataset=classification,",
        ),
        (
            ["train", "dataset=tagging", "dataset.augment.noise.std=0.1"],
            "  'dataset/augment=[noise]' chooses it.",
        ),
        (["train", "dataset=no/such.csv"], "dataset: there is no option 'no/such.csv'."),
        (["train", "dataset=partiy"], "Did you mean parity"),
        (["train", "scheduler=none"], "'none'.\n  There are: constant, cosine,"),
        (["train", "callbacks=none"], "'none'.\n  None at all is 'callbacks=[]'.\n"),
        (["train", "datset=parity"], "Did you mean dataset"),
        (["train", "model/cel=gru"], "Did you mean model/cell"),
        (["train", "optimizer.lrr=1"], "Did you mean optimizer.lr"),
        (["train", "dataset=parity", "dataset.lenght=1"], "Did you mean dataset.length"),
        (["train", "xyzzy=1"], "There are: allow,"),
        (["train", "dataset=text"], "dataset.path: is not given"),
        (["train", "dataset=text", "dataset.path='√"], "is quoted twice"),
        (["train", "dataset={"], "seqnets train"),
        (["train", "dataset.path='abc"], "is quoted twice: "),
        (
            ["train", "dataset=forecasting", "dataset.targets=[Kraft {N}, Weg]"],
            """A text with special characters is quoted: "dataset.targets=['Kraft {N}',Weg]\"""",
        ),
        (
            ["train", "+key"],
            "+key cannot be read, expected KEY=VALUE.\n  +key=VALUE gives a value.",
        ),
        (["train", "dataset", "parity"], "  dataset=VALUE gives a value."),
        (["train", ""], "'': names no key, expected KEY=VALUE."),
        (["train", "+=3"], "'+=3': names no key, expected KEY=VALUE."),
        (["train", "~"], "'~': names no key, expected KEY=VALUE."),
        (["train", "-m", "seed=1,"], "seed=ONE,ANOTHER, none of them empty."),
        (["train", "schlüssel=1"], "'schlüssel' is no name of a key"),
        (["train", " seed=1"], "' seed' is no name of a key"),
        (["train", "output=${nothing}"], "UsageError: output: Interpolation key 'nothing' not fo"),
        (["train", "--flags"], "--flags: is no flag of `seqnets train`.\n  Did you mean"),
        (["train", "-x"], "-x: is no flag of `seqnets train`.\n  There are: --cfg, --config-dir,"),
        (
            ["train", "--config-name"],
            "is no flag of `seqnets train`.\n  A file of your own is conf/e",
        ),
        (["train", "--config-name=mine"], "called by --config-dir conf experiment=NAME."),
        (["train", "--config-path", "."], "--config-dir FOLDER adds your own."),
        (["train", "--experimental-rerun", "a.pickle"], "resume=RUN continues a run."),
        (["train", "--version"], "`seqnets --version` prints it."),
        (
            ["train", "--c", "job"],
            "--c: may be --cfg or --config-dir, expected one of them in full.",
        ),
        (["train", "--config-dir"], "--config-dir: has no value, expected a folder."),
        (["train", "-cd", "--cfg", "job"], "--config-dir: has no value, expected a folder."),
        (["train", "-cd", "a", "-cd", "b"], "--config-dir: is a and b, expected one of the two."),
        (["train", "--cfg"], "--cfg: has no value, expected job, hydra or all."),
        (["train", "--cfg", "jbo"], "--cfg: is 'jbo'.\n  Did you mean job?"),
        (["train", "--cfg", "job", "-m"], "--cfg: came with --multirun, expected one of the two."),
        (
            ["train", "--cfg", "job", "-p", "modle"],
            "--package: modle is not a key.\n  Did you mean mo",
        ),
        (
            ["train", "--package", "model"],
            "came without --cfg, expected both.\n  `seqnets train --cf",
        ),
        (
            ["train", "--resolve"],
            "  `seqnets train --cfg job --resolve` prints a configuration and",
        ),
        (["train", "--multirun=2", "seed=1"], "--multirun: is '2', expected no value."),
        (["train", "-m", "-m"], "--multirun: got no values to try, expected those of one key or"),
        (["train", "--info", "odd"], "odd cannot be read"),
        (["train", "dataset.targets=[ä,]"], "dataset.targets=[ä,] cannot be read"),
        (["train", "dataset.paths=[my book=1.txt"], "\"dataset.paths='[my book=1.txt'\""),
        (["train", "dataset.paths=[my book=1.txt]"], "dataset.paths: is not a key"),
        (["train", "--resume", "last"], "--resume: is no flag, expected resume=VALUE"),
        (["train", "--trainer.max_steps=9"], "is no flag, expected trainer.max_steps=VALUE"),
        (["train", "model.cell=lstm"], "names an option of a group, expected model/cell=lstm."),
        (["train", "dataset.augment=[noise]"], "a group, expected dataset/augment=[noise]."),
        (["train", "-m", "model.cell=lstm,gru"], "of a group, expected model/cell=lstm,gru."),
        (["train", "param_groups={a: {params: x}}"], "one by one.\n  +param_groups.NAME=VALUE"),
        (["train", "param_groups.a.lr=1"], "expected it to be added.\n  +param_groups.a.lr=VALUE"),
        (["train", "seed.x=1"], "seed.x: is not a key or group of `seqnets train`.\n  There are: "),
        (["train", "-m", "model/cell=gru,4"], "model/cell: is 4, expected a name.\n  There are: "),
        (["train", "lr=1"], "Did you mean optimizer.lr?"),
        (["train", "device=gpu"], "Did you mean trainer.devices"),
        (["train", "modle/cell=gru"], "Did you mean model/cell or model.cell?"),
        (
            ["train", "dataset=parity", "model/head=point"],
            "has no head, expected one that has: for",
        ),
        (["train", "model/attention=luong"], "this model has no attention, expected one that has"),
        (["benchmark", "suite/kind=cpu"], "suite/kind: is not a key or group"),
        (["evaluate", "checkpoint=a", "model.hidden_size=1"], "is determined by the checkpoint"),
        (["predict", "checkpoint=a", "+model.hidden_size=1"], "is determined by the checkpoint"),
        (["generate", "checkpoint=a", "model/cell=gru"], "`seqnets generate` takes allow, chec"),
        (
            ["benchmark", "seconds=1"],
            "compiled, device, dtype, grid, limits, memory, model/cell, ou",
        ),
        (["train", "--config-dir", "nowhere"], "nowhere"),
        (["train", "resume=last", "-m"], "-m asks for several"),
        (
            ["evaluate"],
            "checkpoint: is not given and has no default.\n"
            "  Give it as checkpoint=VALUE, or checkpoint=last",
        ),
        (["list", "cels"], "Did you mean cells"),
        (["list", "--config-dir", "nowhere"], "expected a folder"),
        (
            ["list", "hydra.searchpath=[pkg://no.conf]"],
            "pkg://no.conf is not a folder of configs",
        ),
        (
            ["train", "hydra.searchpath=[pkg://no.conf]", "dataset=parity"],
            "pkg://no.conf is not a folder of configs",
        ),
        (["train", "hydra.searchpath=pkg://no.conf"], "expected a list, such as"),
        (["completion", "csh"], "expected one of bash, zsh, fish"),
        (["train", "seed=abc"], "seed: is 'abc', expected a whole number"),
        (["train", "seed=-1"], "seed: is -1, expected a whole number"),
        (["train", "seed=99999999999"], "seed: is 99999999999, expected a whole number"),
        (["inspect", "seed=true"], "seed: is True, expected a whole number"),
        (["train", "output=null"], "output: is None, expected a folder"),
        (["train", "output="], "output: is empty, expected a path.\n  output=. is the current f"),
        (["train", "resume="], "the path is empty, expected a file or a run's folder"),
        (["inspect", "dataset=text", "dataset.path="], "dataset.path: is empty, expected a "),
        (["inspect", "dataset=ptb", "dataset.root="], "dataset.root: is empty, expected a path"),
        (["evaluate", "checkpoint="], "the path is empty, expected a file or a run's folder"),
        (["train", "allow=mine"], "'allow=[MODULE]'"),
        (["train", "~logger"], "Give it as logger=csv or many_loggers or"),
        (["train", "scheduler=null"], "scheduler: is None, expected a name.\n  There are: con"),
        (["train", "dataset=3"], "dataset: is 3, expected a name"),
        (["train", "model/cell=[gru,lstm]"], "with each: seqnets train -m model/cell=gru,lstm"),
        (
            ["train", "model/cell=gru,lstm"],
            "model/cell: got several, gru,lstm, expected one.\n"
            "  A run with each: seqnets train -m model/cell=gru,lstm\n",
        ),
        (["train", "model/option=chrono,zoneout"], "of them: 'model/option=[chrono,zoneout]'\n"),
        (["train", "dataset.path=a,b"], "A text with a comma: \"dataset.path='a,b'\"\n"),
        (["train", "optimizer.lr=range(1,3)"], "each: seqnets train -m 'optimizer.lr=range(1,3)'"),
        (["train", "model/option=[layer_norm,zonout]"], "Did you mean zoneout"),
        (["train", "model/option=[chrono,chrono]"], "model/option: got chrono twice, expected"),
        (["train", "~seed"], "~seed: removes what `seqnets train` needs"),
        (["train", "~model/head"], "~model/head: removes what nothing chose, expected it to"),
        (["train", "~model/cell=gru"], "~model/cell=gru: removes what nothing chose, expected it"),
        (
            ["train", "experiment=awd_lstm_ptb", "~model/option"],
            "~model/option: cannot change a list, expected the list that is wanted.\n"
            "  None at all is 'model/option=[]'.",
        ),
        (["train", "~dataset/augment=[noise]"], "None at all is 'dataset/augment=[]'"),
        (["train", "~model/cell=[gru]"], "model/cell: is ['gru'], expected a name"),
        (
            ["train", "~model.hiden_size"],
            "model.hiden_size: is not a key or group of `seqnets train`.\n"
            "  Did you mean model.hidden_size",
        ),
        (["train", "~loger"], "Did you mean logger"),
        (
            ["train", "++trainr.max_epochs=3"],
            "+trainr.max_epochs: nothing reads it, expected a key "
            "or group of `seqnets train`.\n  Did you mean trainer.max_epochs?",
        ),
        (["benchmark", "+devise=cpu"], "Did you mean device"),
        (["train", "+trainer.max_epochs=3"], "Give it as trainer.max_epochs=VALUE"),
        (
            ["train", "+experiment=parity"],
            "+experiment=parity: adds a group that is there already, expected it without the +.\n"
            "  Give it as experiment=parity.",
        ),
        (["train", "++dataset=parity"], "Give it as dataset=parity."),
    ],
)
def test_what_is_mistyped_is_told_in_one_clean_error(arguments, told, seqnets, tmp_path):
    done = seqnets(*arguments)

    assert done.code == 2
    assert told in done.err
    assert "Error executing job" not in done.err, "Hydra says nothing of its own"
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", ["new.txt", "data/new.txt", "FOLDER/new.txt"])
def test_a_file_given_as_a_dataset_is_told_its_key_whatever_dataset_is_called_alike(
    given, seqnets, tmp_path
):
    (tmp_path / "data").mkdir()
    for place in ("new.txt", "data/new.txt"):
        (tmp_path / place).touch()
    path = given.replace("FOLDER", str(tmp_path))

    assert f" dataset=NAME dataset.path={path}." in seqnets("train", f"dataset={path}").err
    assert "Did you mean text?" in seqnets("train", "dataset=nex.txt").err


def test_a_missing_option_is_one_of_the_group_that_was_named(seqnets, tmp_path):
    gate = tmp_path / "conf" / "model" / "gate"
    gate.mkdir(parents=True)
    (gate / "soft.yaml").write_text("bias: 1")
    (tmp_path / "mine").mkdir()
    own = ("train", "--config-dir", "conf", "+model/gate=sof")

    assert "model/gate: there is no option 'sof'.\n  Did you mean soft?" in seqnets(*own).err
    assert "dataset: there is no option './no.txt'." in seqnets("train", "dataset=./no.txt").err
    lost = seqnets("train", "model/cell=mine").err
    assert "dataset.path" not in lost
    assert "'hydra.searchpath=[pkg://PACKAGE.conf]' an installed package's." in lost


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "FILE"], "A dataset reads it: dataset=NAME dataset.path=FILE."),
        (["train", "dataset=FILE"], "A dataset reads it: dataset=NAME dataset.path=FILE."),
        (["predict", "FILE"], "Give it as input=FILE."),
        (["evaluate", "FILE"], "Give it as predictions=FILE."),
        (["convert", "FILE"], "Give it as source=FILE."),
        (["train", "RUN"], "Give it as resume=RUN."),
        (["inspect", "RUN"], "Give it as checkpoint=RUN."),
        (["predict", "RUN/checkpoints/last.ckpt"], "checkpoint=RUN/checkpoints/last.ckpt."),
        (["export", "last"], "Give it as checkpoint=last."),
        (["train", "copy"], "Did you mean dataset=copy or experiment=copy?"),
        (["train", "runs"], "It holds runs, of which the newest is resume=runs/text/RUN."),
        (["generate", "checkpoint=last", "once upon"], "Give it as 'prompt=once upon'."),
        (["export", "checkpoint=last", "a.onnx"], "Give it as target=a.onnx."),
        (["train", "dataset=RUN"], "Give it as resume=RUN."),
        (["inspect", "dataset=RUN"], "Give it as checkpoint=RUN."),
        (["train", "model=last"], "Give it as resume=last."),
        (["train", "checkpoint=RUN"], "for a trained model.\n  Give it as resume=RUN."),
        (["evaluate", "resume=last"], "for a trained model.\n  Give it as checkpoint=last."),
        (["evaluate", "dataset=RUN"], "for a trained model.\n  Give it as checkpoint=RUN."),
        (["predict", "dataset=FILE"], "for data.\n  Give it as input=FILE."),
        (
            ["train", "input=FILE"],
            "for data.\n  A dataset reads it: dataset=NAME dataset.path=FILE.",
        ),
        (["train", "outputs=runs"], "Did you mean output or"),
        (["train", "model=forecaster", "model.normalisation=last"], "model.normalization?"),
        (["train", "optimizer.foo=last"], "train`.\n  There are: optimizer."),
        (["evaluate", "dataset=copy"], "dataset: has no such keys yet"),
        (["generate", "checkpoint=last", "temperature"], "  temperature=VALUE gives a value."),
    ],
)
def test_a_file_whose_key_is_missing_or_wrong_is_told_one(arguments, told, seqnets, tmp_path):
    runs = "RUN/checkpoints/last.ckpt", "runs/text/RUN/checkpoints/last.ckpt"
    for place in ("data/walks.csv", *runs, "copy/walks.csv"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).touch()
    done = seqnets(*(argument.replace("FILE", "data/walks.csv") for argument in arguments))

    assert done.code == 2
    assert told.replace("FILE", "data/walks.csv") in done.err
    assert path_meant("predict", ["checkpoint=last"], "data") == "Give it as input=data."


def test_a_file_to_be_written_is_known_by_the_formats_there_are():
    converted = {suffix for form in conversion.FORMATS.values() for suffix in form.suffixes}

    assert set(WRITTEN) == converted | {f".{form}" for form in exporting.FORMATS}
    assert not word_meant("export", ["checkpoint=last"], "model.hidden_size")


@pytest.mark.parametrize("named", [["MyGRU"], ["mygru"], ["model=mygru"]])
def test_an_option_of_ones_own_is_found_and_named_with_its_capitals(named, seqnets, tmp_path):
    cells = tmp_path / "conf" / "model" / "cell"
    cells.mkdir(parents=True)
    (cells / "MyGRU.yaml").write_text("_target_: seqnets.cells.GRUCell")

    done = seqnets("train", "--config-dir", "conf", *named)

    assert "Did you mean model/cell=MyGRU?" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["resume=nowhere"], "is not there"),
        (["resume=last"], "no run in 'runs'"),
        (["dataset=text", "dataset.path=nowhere.txt"], "nowhere.txt"),
        (["model=classifier"], "asks for num_classes, which seqnets.datasets.PythonDocs"),
        (["output=/dev/null"], "output=FOLDER"),
        (["dataset=parity", "model.cell._target_=os.system"], "model.cell._target_: os.system"),
        (["dataset=parity", "trainer.precision=odd"], "trainer.precision: is 'odd', expected"),
        (["dataset=parity", "trainer.devices=0"], "trainer: Lightning"),
        (["dataset=parity", "trainer.accelerator=tpu"], "trainer: Lightning lacks a package: "),
        (["dataset=parity", "trainer.accumulate_grad_batches=0"], "accumulate_grad_batches is 0"),
        (["dataset=parity", "trainer.log_every_n_steps=-1"], "log_every_n_steps is -1, expected"),
        (["dataset=parity", "trainer.check_val_every_n_epoch=0"], "check_val_every_n_epoch is 0"),
        (["dataset=parity", "trainer.val_check_interval=0"], "val_check_interval is 0, expected"),
        (["dataset=parity", "trainer.val_check_interval=true"], "val_check_interval is True, exp"),
        (["dataset=parity", "trainer.max_epochs=null"], "max_epochs is null and there is no other"),
        (["dataset=parity", "trainer.max_time=5"], "max_time is 5, expected days, hours, minutes"),
        (["dataset=parity", "trainer.gradient_clip_val=-1"], "gradient_clip_val is -1, expected"),
        (["dataset=parity", "+optimizer.lrr=1"], "Did you mean lr"),
        (["+model.hiden_size=1"], "Did you mean hidden_size"),
        (
            ["+model.cell.forget_bais=1"],
            "model.cell.forget_bais: seqnets.cells.LSTMCell has no such",
        ),
        (
            ["dataset=text", "dataset.path=a", "+dataset.chunk_lenght=1"],
            "Did you mean chunk_length",
        ),
        (["+model.options=1"], "model.options: seqnets.models.LanguageModel has no such option"),
        (["resume=123"], "Checkpoint 123: is not there"),
        (["dataset=parity", "dataset.length=0"], "length is 0"),
        (["dataset=parity", "optimizer.lr=-1"], "torch.optim.AdamW refuses its options: Invalid"),
        (["dataset=parity", "optimizer.lr=1e-3)"], "optimizer.lr: is '1e-3)', expected a number"),
        (["dataset=parity", "optimizer.lr=abc"], "optimizer.lr: is 'abc', expected a number."),
        (["dataset=parity", "scheduler=plateau", "scheduler.factor=2"], "scheduler: torch"),
        (["dataset=parity", "+scheduler.floor=7"], "scheduler: Cosine: floor is 7, expected a"),
        (
            ["dataset=parity", "+param_groups.slow={params: *bias*, lr: -1}"],
            "param_groups.slow: torch.optim.AdamW refuses its options: Invalid learning rate: -1",
        ),
        (
            ["dataset=parity", "+param_groups.slow={params: *bias*, weight_decay: abc}"],
            "ConfigError: param_groups.slow.weight_decay: is 'abc', expected a number.",
        ),
        (
            [
                *("dataset=parity", "+param_groups.slow={params: *bias*, lr: 1}"),
                *("optimizer._target_=torch.optim.LBFGS", "~optimizer.weight_decay"),
            ],
            "param_groups: torch.optim.LBFGS refuses its options: LBFGS doesn't support per-param",
        ),
        (
            ["dataset=parity", "+param_groups.slow={params: *bais*, lr: 1}"],
            "param_groups.slow: '*bais*' matches no parameter that earlier groups leave, expected",
        ),
    ],
)
def test_what_cannot_work_ends_before_any_long_work(arguments, told, seqnets, tmp_path):
    done = seqnets("train", *arguments)

    assert done.code == 1
    assert told in done.err
    assert "Traceback" not in done.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("text", [r"a\b", r"C:\data\x", "a\\", r"it's \'", "\\\\ü", "a b"])
def test_a_proposed_value_is_read_as_the_text_that_it_stands_for(text):
    (read,) = parsed([override("key", text)])

    assert read.value() == text


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("prompt=[ä, b]", "[ä, b]"),
        ("stop=null", "null"),
        ("stop=\n", "\n"),
        ("dataset.paths=[ä.csv, b.csv]", ["ä.csv", "b.csv"]),
        (r"dataset.targets=[a\,ü,b\,c]", ["a,ü", "b,c"]),
        ("dataset.targets=[Druck [bar], v [m/s, m/h],T]", ["Druck [bar]", "v [m/s, m/h]", "T"]),
    ],
)
def test_what_hydra_cannot_read_is_taken_as_it_stands(argument, value):
    (read,) = parsed([quoted(argument)])

    assert read.value() == value


@pytest.mark.parametrize(
    "name", ["Größe (1).csv", "it's 5 o'clock.csv", "a=b#c[1].csv", "日本.csv"]
)
def test_a_name_of_a_file_is_taken_as_it_stands(name, seqnets, tmp_path):
    rows = [f"{n},{'ab'[n % 2]},{n}" for n in range(20)]
    (tmp_path / name).write_text("\n".join(["sequence,label,x", *rows]))

    done = seqnets("inspect", "dataset=classification", f"dataset.path={name}")
    named = seqnets("inspect", "dataset=classification", override("dataset.path", name))

    assert done.code == named.code == 0, done.err + named.err
    assert done.out == named.out


def test_a_folder_of_configurations_may_have_a_space_in_its_name(seqnets, tmp_path):
    option = tmp_path / "my conf" / "experiment" / "mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("# @package _global_\nseed: 1234567\n")

    done = seqnets("train", "--config-dir=my conf", "experiment=mine", "--cfg", "job")

    assert "seed: 1234567" in done.out


@pytest.mark.parametrize(
    "flag", ["--config-dir=conf", "--config-dir conf", "--config-d conf", "-cd conf", "-cd=conf"]
)
def test_keys_may_follow_the_folder_of_configurations_as_well_as_precede_it(
    flag, seqnets, tmp_path
):
    option = tmp_path / "conf" / "experiment" / "mine.yaml"
    option.parent.mkdir(parents=True)
    option.write_text("# @package _global_\nseed: 1234567\n")

    done = seqnets("train", "experiment=mine", *flag.split(), "--cfg", "job", "output=there")

    assert "seed: 1234567" in done.out, done.err
    assert "output: there" in done.out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["list"], ["train", "--cfg", "job"], ["generate", "-h"]])
def test_output_for_which_there_is_no_room_is_told_in_one_line(arguments):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "seqnets", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)

    told = "seqnets: the output cannot be written: No space left on device.\n"
    assert (done.returncode, done.stderr) == (1, told)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are others there")
@pytest.mark.parametrize(
    ("arguments", "ended"),
    [
        (["list"], (0, "")),
        pytest.param(["inspect", "dataset=parity"], (0, ""), marks=pytest.mark.slow),
        pytest.param(["train", "--cfg", "job"], (0, ""), marks=pytest.mark.slow),
        (["train", "dataset=parity", "trainer=debug"], (141, "Stopped by SIGPIPE.\n")),
    ],
)
def test_a_run_whose_output_nobody_reads_has_failed_and_no_other_command(
    arguments, ended, tmp_path
):
    read, write = os.pipe()
    os.close(read)

    done = subprocess.run(
        [sys.executable, "-m", "seqnets", *arguments],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    os.close(write)

    assert (done.returncode, done.stderr) == ended


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are others there")
def test_a_run_of_which_nobody_reads_the_errors_either_ends_with_the_same_code(tmp_path):
    read, write = os.pipe()
    os.close(read)

    done = subprocess.run(
        [sys.executable, "-m", "seqnets", "train", "dataset=parity", "trainer=debug"],
        stdout=write,
        stderr=write,
        cwd=tmp_path,
    )
    os.close(write)

    assert done.returncode == 141


@pytest.mark.skipif(sys.platform == "win32", reason="there is no sh")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["list"], 0),
        (["list", "nothing"], 2),
        pytest.param(["train", "dataset=parity", "trainer=debug"], 0, marks=pytest.mark.slow),
    ],
)
def test_a_closed_output_is_as_one_that_is_discarded(arguments, code, closed, tmp_path):
    command = [sys.executable, "-m", "seqnets", *arguments]

    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command], cwd=tmp_path, capture_output=True
    )

    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stdout + done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_an_error_that_cannot_be_printed_has_the_same_exit_code(tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "seqnets", "list", "nothing"]

    with open("/dev/full", "w") as full:
        codes = [subprocess.run(command, stderr=error).returncode for error in (write, full)]
    os.close(write)

    assert codes == [2, 2]


def test_what_a_command_leaves_behind_is_finalized_before_its_process_ends(tmp_path):
    leaves = [
        "from pathlib import Path",
        "from seqnets.cli import main",
        "class Left:",
        "    def __init__(self):",
        "        self.itself = self",
        "    def __del__(self):",
        "        Path('log').touch()",
        "main.command = lambda arguments: Left() and 0",
        "main.main()",
    ]

    subprocess.run([sys.executable, "-c", "\n".join(leaves)], cwd=tmp_path, check=True)

    assert (tmp_path / "log").exists()


def test_output_is_line_by_line_where_a_notebook_shows_it(tmp_path):
    ipykernels = {"TERM": "xterm-color", "GIT_PAGER": "cat", "FORCE_COLOR": "1"}
    elsewhere = {"MPLBACKEND": "module://missing.backend"}  # where the kernel has another Python

    done = subprocess.run(
        [sys.executable, "-m", "seqnets", "train", "dataset=parity", "trainer.max_steps=2"],
        cwd=tmp_path,
        env={**os.environ, **ipykernels, **elsewhere},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "\nstep 2  loss " in done.stdout


def test_characters_that_the_output_cannot_hold_are_escaped(tmp_path):
    rows = [f"{n},{('größer', 'kleiner')[n % 2]},{n},{n}" for n in range(20) for _ in range(n + 1)]
    (tmp_path / "mine.csv").write_text("\n".join(["sequence,label,x,y", *rows]), encoding="utf-8")
    command = [sys.executable, "-m", "seqnets", "inspect", "dataset=classification"]

    done = subprocess.run(
        [*command, "dataset.path=mine.csv", "samples=1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )

    assert done.returncode == 0, done.stderr
    assert rb"gr\xf6\xdfer" in done.stdout
    assert b"To train:" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(seqnets):
    done = seqnets("train", "trainer=gpu")

    assert done.code == 1
    assert "DeviceError: trainer.accelerator: is 'gpu' with 1 device, expected" in done.err
    assert "trainer=cpu" in done.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_the_engine_has_no_loops_for_is_left_alone(seqnets, monkeypatch):
    monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: True))

    done = seqnets("train", "dataset=parity", "trainer=debug", "trainer.accelerator=auto")

    assert done.code == 0


def test_a_traceback_is_shown_where_it_is_asked_for(seqnets, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    with pytest.raises(package.errors.ConfigError):
        seqnets("train", "dataset=partiy")
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_the_list_says_what_each_thing_is(seqnets):
    done = seqnets("list")

    assert done.code == 0
    assert "cells (model/cell=NAME)" in done.out
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert any(line.startswith("python_docs Python's reference manual") for line in lines)


def test_what_was_typed_is_never_what_is_proposed():
    assert near("model/head", ["model/head", "model/heads"]) == "Did you mean model/heads?"


@pytest.mark.parametrize(
    ("group", "told"),
    [
        ("model/cell", "Single keys can be changed: model.cell.KEY=VALUE."),
        ("learning", "It stays as the run has it; a new run can take another."),
    ],
)
def test_of_a_group_that_a_checkpoint_determines_the_keys_are_proposed_if_it_has_any(group, told):
    run = {"model": {"cell": {"bias": True}}, "learning": None}
    ConfigStore.instance().store("train_from_checkpoint", run)

    error = _unknown_key("train", "train_from_checkpoint", [], group, to_set=True)

    assert told in str(error)


def test_names_are_not_alike_for_a_parent_that_they_share():
    keys = ["dataset.audio", "dataset.missing", "seed", "trainer.devices"]

    assert near("dataset.num_workers", keys) == "There are: dataset.audio, dataset.missing."
    assert near("dataset.mising", keys) == "Did you mean dataset.missing?"


def test_every_folder_of_configs_to_choose_from_is_listed():
    folders = {path.parent for path in configs().rglob("*.yaml")} - {configs()}

    groups = {folder.relative_to(configs()).as_posix() for folder in folders}

    assert groups - {"hydra/job_logging"} == set(KINDS.values())


def test_one_kind_is_listed_alone_with_those_of_a_folder(seqnets, tmp_path):
    folder = tmp_path / "conf" / "model" / "cell"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# A cell of my own\n_target_: mine.Cell\n")

    done = seqnets("list", "cells", "--config-dir", "conf")

    assert ["mine", "A", "cell", "of", "my", "own"] in [row.split() for row in done.out.split("\n")]
    assert "datasets" not in done.out


@pytest.mark.parametrize("entry", ["pkg://shared_cells.conf", "shared_cells/conf"])
def test_shared_cells_are_listed_and_named_as_they_are_used(entry, seqnets, tmp_path, monkeypatch):
    folder = tmp_path / "shared_cells" / "conf"
    (folder / "model" / "cell").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "model" / "cell" / "ours.yaml").write_text("# A cell of ours\n_target_: our.Cell\n")
    monkeypatch.syspath_prepend(tmp_path)

    done = seqnets("list", "cells", f"hydra.searchpath=[{entry}]")
    mistyped = seqnets("train", f"hydra.searchpath=[{entry}]", "model/cell=our", "dataset=parity")

    assert ["ours", "A", "cell", "of", "ours"] in [row.split() for row in done.out.split("\n")]
    assert "Did you mean ours?" in mistyped.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("seqnets tr", {"train", "evaluate"}),
        ("seqnets list ", {"cells", "models"}),
        ("seqnets train mod", {"model", "model."}),
        ("seqnets train model/cell=", {"model/cell=gru", "model/cell=lstm"}),
        ("seqnets train dataset=parity dataset.", {"dataset.length=", "dataset.batch_size="}),
        ("seqnets train --config-dir conf model/cell=m", {"model/cell=mine"}),
        ("seqnets train --config-dir 'conf' 'trainer.devices=[1,2]' model/c", {"model/cell="}),
        ("seqnets train 'hydra.searchpath=[conf]' model/cell=m", {"model/cell=mine"}),
        ("""seqnets train dataset=text dataset.path="'a b'" -m dataset.u""", {"dataset.unit="}),
        ("seqnets train dataset=text 'dataset.path=Größe (1).csv' dataset.u", {"dataset.unit="}),
        ("seqnets evaluate checkpoint=./c", {"checkpoint=./conf"}),
        ("seqnets predict o", {"overwrite="}),
        ("seqnets inspect dataset=par", {"dataset=parity"}),
    ],
)
def test_completion_says_what_may_follow(line, words, seqnets, monkeypatch, tmp_path):
    folder = tmp_path / "conf" / "model" / "cell"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("_target_: mine.Cell\n")
    monkeypatch.setenv("COMP_LINE", line)

    done = seqnets("completion", "query")

    assert words <= set(done.out.split())


COMPLETING = {
    "bash": """
        eval "$(seqnets completion bash)"
        COMP_LINE="seqnets train model/cell=jan"; COMP_POINT=${#COMP_LINE}
        COMP_WORDS=(seqnets train model/cell=jan); COMP_CWORD=2
        compopt() { :; }  # works only while a line is being typed
        _seqnets seqnets
        echo "${COMPREPLY[@]}"
    """,
    "zsh": """
        compdef() { :; }  # as if completion were set up already
        compadd() { while [[ "$1" != -- ]]; do shift; done; shift; print -l -- "$@"; }
        eval "$(seqnets completion zsh)"
        words=(seqnets train model/cell=jan) CURRENT=3 PREFIX=model/cell=jan
        _seqnets
    """,
    "fish": """
        seqnets completion fish | source
        complete -C "seqnets train model/cell=jan"
    """,
}


@pytest.mark.parametrize("shell", COMPLETING)
def test_shells_complete_by_their_scripts(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    fake = tmp_path / "seqnets"
    fake.write_text(f'#!/bin/sh\nexec {sys.executable} -m seqnets "$@"\n')
    fake.chmod(0o755)
    unconfigured = {"bash": "--norc", "zsh": "-f", "fish": "--no-config"}[shell]

    done = subprocess.run(
        [shell, unconfigured, "-c", COMPLETING[shell]],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split() == ["model/cell=janet"], done.stderr


def test_a_file_of_ones_own_that_seqnets_would_hide_is_refused(seqnets, tmp_path):
    folder = tmp_path / "conf" / "model" / "cell"
    folder.mkdir(parents=True)
    (folder / "gru.yaml").write_text("# Mine\n_target_: mine.Cell\n_partial_: true\n")

    for flag in (["--config-dir", "conf"], ["--config-dir=conf"]):
        done = seqnets("train", *flag, "model/cell=gru", "dataset=parity")

        assert done.code == 2
        assert "conf/model/cell/gru.yaml has the name of a file of seqnets' own" in done.err


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            ["# Mine", "# @package _global_", "optimizer:", "  lr: 5.0", "seed: 3"],
            "experiment: its file sets experiment.optimizer, seed, which nothing reads, expected "
            "optimizer, seed.\n  Begin the file with the line `# @package _global_`.",
        ),
        (
            ["# @package _global_", "optimiser:", "  lr: 5.0"],
            "optimiser: is set by a file, and nothing reads it, expected a key or group of "
            "`seqnets train`.\n  Did you mean optimizer",
        ),
    ],
)
def test_a_key_of_a_file_of_ones_own_that_nothing_reads_is_refused(lines, told, seqnets, tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("\n".join(lines))

    options = ["experiment=mine", "trainer=debug", "dataset=parity", "model.hidden_size=4"]
    done = seqnets("train", "--config-dir", "conf", *options)

    assert done.code == 2
    assert told in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("lines", [[], ["# Mine", "# @package model.cell_options.mine"]])
def test_an_option_of_ones_own_that_has_no_place_is_told_it(lines, seqnets, tmp_path):
    folder = tmp_path / "conf" / "model" / "option"
    folder.mkdir(parents=True)
    lines += ["_target_: seqnets.cells.ClipState", "_partial_: true", "limit: 9.0"]
    (folder / "mine.yaml").write_text("\n".join(lines))

    options = ["model/option=[layer_norm,mine]", "trainer=debug", "dataset=parity"]
    done = seqnets("train", "--config-dir", "conf", *options)

    assert done.code == 2
    assert "Begin the file with the line `# @package model.cell_options.mine`." in done.err


def test_a_key_of_ones_own_that_others_refer_to_is_taken(seqnets, tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    lines = ["# @package _global_", "width: 4", "model:", "  hidden_size: ${width}"]
    (folder / "mine.yaml").write_text("\n".join(lines))

    options = ["experiment=mine", "trainer=debug", "width=3"]
    done = seqnets("train", "--config-dir", "conf", "dataset=parity", *options)
    again = seqnets("train", "resume=last", "trainer.max_epochs=2")

    assert done.code == again.code == 0, done.err + again.err


def test_a_group_of_ones_own_is_added_if_its_files_set_keys_at_the_root(seqnets, tmp_path):
    folder = tmp_path / "conf" / "debug"
    folder.mkdir(parents=True)
    (folder / "short.yaml").write_text("# @package _global_\ntrainer:\n  max_steps: 1\n")
    (folder / "lost.yaml").write_text("trainer:\n  max_steps: 1\n")

    options = ["--config-dir", "conf", "dataset=parity", "trainer=debug", "model.hidden_size=4"]
    done = seqnets("train", *options, "+debug=short")
    lost = seqnets("train", *options, "+debug=lost")

    assert done.code == 0, done.err
    assert "step 1 " in done.out
    assert lost.code == 2
    assert "+debug: nothing reads it" in lost.err
    assert "Begin the file with the line `# @package _global_`." in lost.err


@pytest.mark.parametrize("given", ["output=~nobody-here/runs", "resume=~nobody-here/run"])
def test_a_home_folder_that_is_not_there_is_told_without_a_traceback(given, seqnets):
    done = seqnets("train", "dataset=parity", given)

    assert done.code == 1
    assert done.err.startswith("seqnets: ~ stands for a home folder that is not there, expected")


def test_options_of_training_are_tried_out_before_the_model_is_made(seqnets):
    impossible = ["dataset=parity", "model.hidden_size=4000000"]

    assert "Invalid learning rate: -1" in seqnets("train", *impossible, "optimizer.lr=-1").err
    assert "scheduler: Cosine" in seqnets("train", *impossible, "+scheduler.floor=7").err


def test_a_model_that_no_memory_can_hold_is_told_in_one_clean_error(seqnets, monkeypatch):
    done = seqnets("train", "dataset=parity", "model.hidden_size=4000000")

    assert done.code == 1
    assert re.match("seqnets: there is not enough memory: [\\w' ]+ memory: ", done.err), done.err
    assert "A smaller model, batch or dataset needs less" in done.err
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(RuntimeError, match="allocate memory"):
        seqnets("train", "dataset=parity", "model.hidden_size=4000000")


def test_lightnings_data_modules_are_no_datasets(seqnets, tmp_path):
    folder = tmp_path / "conf" / "dataset"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "_target_: lightning.pytorch.demos.boring_classes.BoringDataModule"
    )

    allowed = "allow=[lightning.pytorch.demos]"
    done = seqnets("inspect", "--config-dir", "conf", "dataset=mine", allowed)

    assert done.code == 1
    assert "is no DataModule, expected a class that derives from seqnets.datasets" in done.err


@pytest.mark.parametrize(
    ("mistyped", "told"),
    [
        ("dataset.train_sizes=9", "Did you mean dataset.train_size"),
        ("dataset.batch_size=9", "is added by +dataset.batch_size=VALUE"),
        ("callbacks.told.evry=3", "Did you mean callbacks.told.every"),
    ],
)
def test_keys_close_to_a_mistyped_one_are_those_of_the_files_of_ones_own(
    mistyped, told, seqnets, tmp_path
):
    for name, lines in {
        "dataset/mine": ["_target_: seqnets.datasets.Parity", "train_size: 64"],
        "callbacks/mine": ["told:", "  every: 3"],
    }.items():
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines))

    choices = ["dataset=mine", "callbacks=[default,mine]"]
    done = seqnets("train", "--config-dir", "conf", *choices, mistyped)

    assert done.code == 2
    assert told in done.err


@pytest.mark.parametrize(
    ("group", "lines", "told"),
    [
        ("model", ["hidden_size: ["], "a file is not YAML: while parsing"),
        ("model", ["hidden_size: 3"], "model: has no _target_, expected the class"),
        ("optimizer", ["lr: 3"], "optimizer: has no _target_"),
        ("logger", ["name: a"], "logger.name: has no _target_"),
        ("callbacks", ["mine:", "  every: 3"], "callbacks.mine: has no _target_"),
        (
            "callbacks",
            ["mine:", "  _target_: torch.nn.Identity"],
            "callbacks.mine: torch.nn.Identity is no Callback, expected a class that derives from "
            "lightning.pytorch.Callback.",
        ),
        (
            "callbacks",
            ["mine:", "  _target_: torch.nn.Linear"],  # which needs options
            "callbacks.mine: torch.nn.Linear is no Callback",
        ),
        (
            "objective",
            ["_target_: torch.nn.Identity"],
            "objective: torch.nn.Identity is no Objective, expected a class that derives from "
            "seqnets.training.Objective.",
        ),
        (
            "model",
            ["_target_: torch.optim.SGD", "_partial_: true"],
            "model: torch.optim.SGD is no Module, expected a class that derives from "
            "torch.nn.Module.",
        ),
        (
            "model",
            ["_target_: seqnets.models.SequenceClassifier", "hidden_size: ${nothing.there}"],
            "model.hidden_size: Interpolation key 'nothing.there' not found",
        ),
    ],
)
def test_what_is_wrong_in_a_file_of_ones_own_is_told_in_one_clean_error(
    group, lines, told, seqnets, tmp_path
):
    folder = tmp_path / "conf" / group
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("\n".join(lines))

    done = seqnets("train", "--config-dir", "conf", "dataset=parity", f"{group}=mine")

    assert done.code in (1, 2)
    assert told in done.err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("*/*"))
