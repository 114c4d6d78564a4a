"""Whole runs: trained, tested, resumed, evaluated, sampled; small ones."""

import csv
import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from textwrap import dedent

import hydra
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import Strategy
from lightning_utilities.core.imports import RequirementCache
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seqnets.cli.assemble import check_sizes
from seqnets.cli.repeated import without_settled
from seqnets.cli.running import _end_with, running
from seqnets.cli.stopping import Stopped, stoppable
from seqnets.datasets import Parity, SequenceLoader
from seqnets.insight.rounded import rounded
from seqnets.training import SequenceModule, load_checkpoint, save_checkpoint
from seqnets.training.callbacks import Checkpoints
from seqnets.training.event_files import files_in

from .conftest import SMALL, only_run

CONFIGS = Path(__file__).parents[2] / "configs"
AROUND = [
    f"{folder}={path.stem}"
    for folder in ("callbacks", "logger", "trainer")
    for path in sorted((CONFIGS / folder).glob("*.yaml"))
    # refused without a GPU; taken by two processes below; not installed for the tests
    if path.stem not in ("gpu", "ddp", "wandb", "mlflow")
]
"""Options of what stands around the training."""


def compose(*overrides):
    """The configuration of a training run, as its checkpoint keeps it."""
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose("train", overrides=[*overrides]))


@pytest.mark.parametrize("dataset", ["adding", "copy", "parity", "python_docs"])
def test_two_steps_on_every_dataset_that_needs_no_file(dataset, seqnets, tmp_path):
    size = [] if dataset == "python_docs" else ["dataset.train_size=64", "dataset.test_size=32"]

    done = seqnets("train", *SMALL, f"dataset={dataset}", *size)

    folder = only_run(tmp_path)
    assert done.code == 0, done.err
    assert folder.parent.name == dataset
    written = {path.name for path in folder.iterdir()}
    events = {name for name in written if name.startswith("events.out.tfevents.")}
    assert written - events == {"config.yaml", "run.log", "result.json", "run.lock", "checkpoints"}
    assert events
    assert load_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_the_end_tells_figures_baselines_a_passage_and_what_next(seqnets, small_text, tmp_path):
    done = seqnets("train", *small_text)

    folder = only_run(tmp_path)
    figures = json.loads((folder / "result.json").read_text())
    assert rounded(figures["test"]["bits_per_character"]) in done.out
    assert {"uniform", "xz given the training text"} <= figures["baselines"].keys()
    assert "this model is better" in done.out or "this model is not better" in done.out
    assert "A sampled passage:" in done.out
    assert f"tensorboard --logdir {folder.parents[1].name}" in done.out
    assert "Warning" not in done.err


def test_without_test_batches_the_run_is_finished_and_nothing_is_scored(
    seqnets, small_text, tmp_path
):
    # trainer=debug, which the text's options take, has a limit of its own
    done = seqnets("train", *small_text, "trainer.limit_test_batches=0")
    folder = only_run(tmp_path)
    scored = seqnets("evaluate", f"checkpoint={folder}", "part=val", "+trainer.limit_val_batches=0")

    assert done.code == 0, done.err
    assert "The test part is not scored: trainer.limit_test_batches=0." in done.out
    assert "Results on" not in done.out
    assert "evaluate checkpoint=" in done.out
    assert json.loads((folder / "result.json").read_text()) == {}
    assert scored.code != 0
    assert "trainer.limit_val_batches: is 0, expected at least one batch" in scored.err


def test_the_commands_at_the_end_work(seqnets, small_text, tmp_path):
    limited = "trainer.max_time=00:01:00:00"
    output = "a folder, with=signs [red] and :b:"
    done = seqnets("train", *small_text, limited, f"output='{output}'")

    assert f"Run folder: {output}/text/" in done.out
    lines = [line for line in done.out.splitlines() if line.startswith("seqnets ")]
    assert [line.split()[1] for line in lines] == ["generate", "evaluate", "train"]
    for line in lines:
        again = seqnets(*shlex.split(line)[1:])
        assert again.code == 0, again.err


@pytest.mark.parametrize("logger", ["csv", "none"])
def test_tensorboard_is_named_only_where_it_has_something_to_show(logger, seqnets, small_text):
    done = seqnets("train", *small_text, f"logger={logger}", "trainer.max_steps=1")

    lines = done.out.partition("\nWhat to do next:\n")[2].splitlines()
    commands = lines[1::2]
    assert lines[::2] == ["# generate text", "# score the model", "# train for as long again"]
    assert [line.split()[1] for line in commands] == ["generate", "evaluate", "train"]
    assert "trainer.max_steps=2" in commands[-1]


@pytest.mark.filterwarnings("ignore:seqnets runs recurrent layers by torch's operations")
def test_commands_that_the_shell_would_not_find_are_told_with_their_path(
    seqnets, small_text, monkeypatch
):
    monkeypatch.setenv("PATH", "")
    done = seqnets("train", *small_text)

    lines = done.out.partition("\nWhat to do next:\n")[2].splitlines()
    programs = [Path(shlex.split(line)[0]) for line in lines if not line.startswith("#")]
    assert {program.name for program in programs} == {"seqnets", "tensorboard"}
    assert all(program.is_file() for program in programs)


def test_evaluate_and_generate_need_only_the_file(seqnets, small_text, tmp_path):
    seqnets("train", *small_text)
    shutil.copy(only_run(tmp_path) / "checkpoints" / "best.ckpt", tmp_path / "moved.ckpt")
    figures = json.loads((only_run(tmp_path) / "result.json").read_text())["test"]
    shutil.rmtree(tmp_path / "runs")

    scored = seqnets("evaluate", "checkpoint=moved.ckpt", "+trainer.limit_test_batches=2")
    written = seqnets(
        "generate", "checkpoint=moved.ckpt", "prompt=What was lost; ", "length=30", "top_k=3"
    )
    again = seqnets(
        "generate", "checkpoint=moved.ckpt", "prompt=What was lost; ", "length=30", "top_k=3"
    )

    assert scored.code == written.code == 0, scored.err + written.err
    assert rounded(figures["bits_per_character"]) in scored.out
    assert written.out.startswith("What was lost; ")
    assert len(written.out) == len("What was lost; ") + 30 + len("\n")
    assert written == again


def test_a_language_model_may_learn_from_the_text_that_it_is_scored_on(
    seqnets, small_text, tmp_path
):
    seqnets("train", *small_text)
    options = ["evaluate", f"checkpoint={only_run(tmp_path)}", "dataset.chunk_length=8"]

    plain, dynamic = (
        seqnets(*options, "dataset.batch_size=1", f"dynamic.lr={lr}") for lr in (0, 1)
    )
    rows = seqnets(*options, "dynamic.lr=1")

    assert plain.code == dynamic.code == 0, plain.err + dynamic.err
    assert plain.out != dynamic.out
    assert (rows.code, "dynamic: got batches of 2 rows, expected 1" in rows.err) == (1, True)


def test_what_is_no_rate_of_dynamic_evaluation_is_refused(seqnets, small_text, tmp_path):
    seqnets("train", *small_text)

    for given, told in (
        ("dynamic.lr=fast", "dynamic: lr is 'fast', expected a number of at least 0"),
        ("dynamic=0.1", "dynamic: is 0.1, expected lr and decay alone"),
        ("dynamic=null", "dynamic: is None, expected lr and decay alone"),
        ("+dynamic.rate=1", "'rate': 1}, expected lr and decay alone"),
    ):
        assert told in seqnets("evaluate", f"checkpoint={only_run(tmp_path)}", given).err


def test_last_says_which_checkpoint_it_is(seqnets, small_text, tmp_path):
    seqnets("train", *small_text)
    best = only_run(tmp_path) / "checkpoints" / "best.ckpt"

    for verb in ("evaluate", "predict", "generate"):
        done = seqnets(verb, "checkpoint=last")
        named = seqnets(verb, f"checkpoint={best}", *["overwrite=true"] * (verb == "predict"))
        assert done.code == named.code == 0, done.err + named.err
        assert f"Checkpoint: {best.relative_to(tmp_path)}\n" in done.err
        assert "Checkpoint" not in done.out + named.err


def test_a_prompt_is_text_as_it_stands(seqnets, small_text, text_file, tmp_path):
    text_file.write_text("'Twas 2024, null or True or 1e5.\n" * 90)
    seqnets("train", *small_text)

    for prompt in ("2024", "null", "True", "1e5", "'Twas", ""):
        done = seqnets("generate", f"checkpoint={only_run(tmp_path)}", f"prompt={prompt}")
        assert done.code == 0, done.err
        assert done.out.startswith(prompt)


def test_a_stop_text_is_text_as_it_stands(seqnets, small_text, text_file, tmp_path):
    text_file.write_text("123 null'\n" * 300)
    seqnets("train", *small_text)

    for stop in ("1", "12", "null", "'"):
        writing = "generate", "checkpoint=last", "length=999", "temperature=5", f"stop={stop}"
        done = seqnets(*writing)
        assert done.code == 0, done.err
        written = done.out.removesuffix("\n")
        assert written.find(stop) in (-1, len(written) - len(stop))
        assert len(stop) > 2 or written.endswith(stop)


def test_evaluate_refuses_text_with_another_vocabulary(seqnets, small_text, tmp_path):
    seqnets("train", *small_text)
    other = tmp_path / "other.txt"
    other.write_text("ZYXWV 12345\n" * 300)

    done = seqnets("evaluate", f"checkpoint={only_run(tmp_path)}", f"dataset.path={other}")

    assert done.code == 1
    assert "vocabulary differs" in done.err
    assert "'1'" in done.err


def test_several_texts_are_written_with_a_line_between(seqnets, small_text, tmp_path):
    seqnets("train", *small_text)
    writing = "generate", "checkpoint=last", "prompt=What", "length=40", "top_p=0.9", "seed=3"

    several = seqnets(*writing, "samples=3")
    other = seqnets(*writing, "samples=3", "seed=4")
    refused = seqnets(*writing, "samples=3", "temperature=0")

    assert several.code == 0, several.err
    texts = several.out.removesuffix("\n").split("\n---\n")
    assert [len(text) for text in texts] == [len("What") + 40] * 3
    assert all(text.startswith("What") for text in texts)
    assert len(set(texts)) == 3
    assert several.out == seqnets(*writing, "samples=3").out != other.out
    assert refused.code == 1
    assert "samples is 3 and temperature 0" in refused.err


def test_a_text_that_ends_with_a_line_ends_with_one_line_end(seqnets, small_text, tmp_path):
    seqnets("train", *small_text)

    for samples in (1, 2):
        lines = seqnets(
            "generate", "checkpoint=last", "length=4000", "temperature=2", "stop=\n",
            f"samples={samples}",
        ).out  # fmt: skip
        assert lines.endswith("\n")
        assert "\n\n" not in lines.lstrip("\n")
        assert len(lines.split("\n---\n")) == samples


def test_generate_refuses_what_is_no_language_model(seqnets, tmp_path):
    seqnets("train", *SMALL, "dataset=parity", "dataset.train_size=64", "dataset.test_size=32")

    done = seqnets("generate", f"checkpoint={only_run(tmp_path)}")

    assert done.code == 1
    assert "expected a language model" in done.err


def test_a_damaged_checkpoint_is_refused_by_every_verb(seqnets, small_text, tmp_path):
    seqnets("train", *small_text)
    path = only_run(tmp_path) / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-2000])

    for verb, key in [("train", "resume"), ("evaluate", "checkpoint"), ("generate", "checkpoint")]:
        done = seqnets(verb, f"{key}={path}")
        assert done.code == 1
        assert "so it is truncated" in done.err


def test_a_checkpoint_cannot_allow_its_own_code(seqnets, small_text, tmp_path):
    seqnets("train", *small_text)
    path = only_run(tmp_path) / "checkpoints" / "last.ckpt"
    checkpoint = load_checkpoint(path)
    checkpoint["seqnets"]["config"]["allow"] = ["shutil"]
    checkpoint["seqnets"]["config"]["model"]["cell"] = {"_target_": "shutil.copy"}
    save_checkpoint(checkpoint, path)

    for verb, key in [("train", "resume"), ("evaluate", "checkpoint"), ("generate", "checkpoint")]:
        done = seqnets(verb, f"{key}={path}")
        assert done.code == 1
        assert "shutil.copy may not be used" in done.err


def test_a_checkpoint_asks_nothing_of_the_machine(seqnets, small_text, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "not for them")
    seqnets("train", *small_text)
    path = only_run(tmp_path) / "checkpoints" / "last.ckpt"
    checkpoint = load_checkpoint(path)
    checkpoint["seqnets"]["config"]["dataset"]["path"] = "${oc.env:SECRET}.txt"
    checkpoint["seqnets"]["config"]["hydra"] = {"run": {"dir": "elsewhere"}}
    save_checkpoint(checkpoint, path)

    for verb, key in [("train", "resume"), ("evaluate", "checkpoint")]:
        done = seqnets(verb, f"{key}={path}")
        assert done.code == 1
        assert "${oc.env:SECRET}.txt" in done.err
    assert not (tmp_path / "elsewhere").exists()


def test_a_resumed_run_takes_its_options_from_the_checkpoint(seqnets, small_text, tmp_path):
    whole = seqnets("train", *small_text, "trainer.max_epochs=3", "output=whole")
    seqnets("train", *small_text)

    done = seqnets("train", "resume=last", "trainer.max_epochs=3")

    assert whole.code == done.code == 0, done.err
    (a,) = (tmp_path / "whole").glob("*/*")
    b = only_run(tmp_path)
    ours, theirs = (load_checkpoint(run / "checkpoints" / "last.ckpt") for run in (a, b))
    assert ours["global_step"] == theirs["global_step"] == 6
    config = theirs["seqnets"]["config"]
    assert config["model"]["hidden_size"] == 4
    assert config["trainer"]["max_epochs"] == 3
    events = EventAccumulator(str(b)).Reload()
    steps = [event.step for event in events.Scalars("val/loss")]
    assert steps == sorted(set(steps))


def test_a_resumed_run_keeps_to_the_folder_of_all_runs_that_it_was_made_in(
    seqnets, small_text, tmp_path
):
    seqnets("train", *small_text, "output=b")
    (folder,) = (tmp_path / "b").glob("*/*")

    done = seqnets("train", f"resume={folder}", "trainer.max_epochs=2")

    assert done.code == 0, done.err
    assert "\noutput: b\n" in (folder / "config.yaml").read_text()
    last = load_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert last["seqnets"]["config"]["output"] == "b"


def rates(folder):
    events = EventAccumulator(str(folder)).Reload().Scalars("learning_rate")
    return {event.step: event.value for event in events}


@pytest.mark.parametrize(
    ("scheduler", "options", "expected"),
    [
        (["constant"], [], [1e-4, 1e-4]),
        (["exponential", "scheduler.gamma=0.5"], [], [5e-5, 2.5e-5]),
        (["exponential", "scheduler.gamma=0.5"], ["scheduler.gamma=0.1"], [5e-5, 5e-6]),
        (["step", "scheduler.step_size=9"], ["scheduler.step_size=1"], [1e-4, 5e-5]),
        (["delayed_exponential", "scheduler.delay=1"], ["scheduler.gamma=0.1"], [5e-5, 1e-6]),
    ],
)
def test_a_resumed_run_takes_the_rate_and_the_schedule_that_it_is_given(
    scheduler, options, expected, seqnets, small_text, tmp_path
):
    name, *given = scheduler
    every = "trainer.log_every_n_steps=1"
    seqnets("train", *small_text, every, f"scheduler={name}", *given, "optimizer.lr=1e-3")

    folder = only_run(tmp_path)
    options = ["optimizer.lr=1e-4", "trainer.max_epochs=3", *options]
    done = seqnets("train", f"resume={folder}", *options)

    assert done.code == 0, done.err
    found = rates(folder)
    assert found[0] == pytest.approx(1e-3)
    assert [found[2], found[4]] == pytest.approx(expected)


def test_a_resumed_run_takes_the_options_of_its_optimizer_that_it_is_given(
    seqnets, small_text, tmp_path
):
    seqnets("train", *small_text)

    folder = only_run(tmp_path)
    options = ["optimizer.weight_decay=0.5", "+optimizer.betas=[0.5,0.6]"]
    done = seqnets("train", f"resume={folder}", *options, "trainer.max_epochs=2")

    assert done.code == 0, done.err
    last = load_checkpoint(folder / "checkpoints" / "last.ckpt")
    (group,) = last["optimizer_states"][0]["param_groups"]
    assert group["weight_decay"] == 0.5
    assert list(group["betas"]) == [0.5, 0.6]


def test_a_plateau_of_a_resumed_run_takes_the_patience_that_it_is_given(
    seqnets, small_text, tmp_path
):
    seqnets("train", *small_text, "scheduler=plateau")

    folder = only_run(tmp_path)
    options = ["scheduler.patience=7", "scheduler.factor=0.5", "trainer.max_epochs=2"]
    done = seqnets("train", f"resume={folder}", *options)

    assert done.code == 0, done.err
    last = load_checkpoint(folder / "checkpoints" / "last.ckpt")
    (process,) = last["seqnets"]["processes"]
    assert process["plateau"]["patience"] == 7
    assert process["plateau"]["factor"] == 0.5
    assert process["plateau"]["last_epoch"] == 2


def test_the_command_of_a_job_may_be_given_again_to_go_on(seqnets, small_text, tmp_path):
    job = ["train", "resume=auto", *small_text, "~callbacks.monitor", "+trainer.benchmark=false"]
    job += ["trainer.max_time=null", "seed=3"]  # the dataset's is the same
    first = seqnets(*job, "model/cell=gru")
    (only_run(tmp_path) / "result.json").unlink()  # as if it had been stopped

    other = seqnets(*job, "model/cell=rnn")
    again = seqnets(*job, "model/cell=gru", "trainer.max_epochs=2")

    assert first.code == again.code == 0, first.err + again.err
    last = load_checkpoint(only_run(tmp_path) / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 4
    assert last["seqnets"]["config"]["model"]["cell"]["_target_"] == "seqnets.cells.GRUCell"
    assert other.code == 2
    assert "is determined by the checkpoint" in other.err


def test_a_repeated_command_with_another_choice_is_told_which():
    saved = compose("experiment=parity", "model/cell=gru", "optimizer=sgd")
    ours = ["experiment=parity", "model/cell=lstm", "optimizer=sgd", "model.hidden_size=8"]

    left = without_settled("train", ["resume=auto", *ours], saved)

    assert left == ["resume=auto", "model/cell=lstm", "model.hidden_size=8"]


@pytest.mark.parametrize("inner", ["model/cell=lstm", "model/option=[zoneout]"])
def test_a_repeated_command_with_another_choice_within_one_is_told_the_inner_one(inner):
    saved = compose("dataset=parity", "model=classifier", "model/cell=gru")

    left = without_settled("train", ["dataset=parity", "model=classifier", inner], saved)

    assert left == [inner]


@pytest.mark.parametrize(
    ("first", "again", "told"),
    [([], ["seed=4"], "seed: is 4, expected 0"), (["seed=4"], [], "seed: is 0, expected 4")],
)
def test_a_repeated_command_with_another_seed_is_told_so(first, again, told, seqnets, small_text):
    job = ["train", "resume=auto", *small_text]
    seqnets(*job, *first)
    (only_run(Path()) / "result.json").unlink()  # as if it had been stopped

    done = seqnets(*job, *again)

    assert done.code == 2
    assert f"{told}, the run's own" in done.err


def test_what_a_repeated_command_changes_is_changed(tmp_path):
    choices = ["resume=auto", "dataset=tagging", "dataset.path=x.jsonl"]
    saved = compose(*choices[1:])
    changes = ["~callbacks.monitor", "dataset.metric=f1", "trainer.max_epochs=9"]
    changes += ["trainer.gradient_clip_val=null"]

    left = without_settled("train", [*choices, *changes], saved)

    assert left == ["resume=auto", "dataset.path=x.jsonl", *changes]


@pytest.mark.parametrize(
    "others",
    [["--cfg", "job"], ["--config-dir", "model"], [""]],
    ids=["shown", "a folder", "empty"],
)
def test_only_overrides_are_choices(others, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    saved = compose("dataset=parity")

    left = without_settled("train", ["resume=auto", "dataset=parity", *others], saved)

    assert left == ["resume=auto", *others]


def test_a_resumed_run_keeps_its_groups(seqnets, small_text, tmp_path):
    seqnets("train", *small_text)

    done = seqnets("train", "resume=last", "dataset=parity")
    option = seqnets("train", "resume=last", "model.cell_options.zoneout.probability=0.2")

    assert done.code == option.code == 2
    assert "is determined by the checkpoint" in done.err
    assert "'model/option=[zoneout]' chooses it in a new run." in option.err


def test_a_resumed_run_keeps_its_seed(seqnets, small_text, tmp_path):
    seqnets("train", *small_text, "seed=3")

    other = seqnets("train", "resume=last", "seed=4", "trainer.max_epochs=2")
    same = seqnets("train", "resume=last", "seed=3", "trainer.max_epochs=2")

    assert other.code == 2
    assert "seed: is 4, expected 3, the run's own." in other.err
    assert same.code == 0, same.err


def test_a_resumed_run_takes_no_option_that_only_says_what_parameters_start_as(
    seqnets, small_text, tmp_path
):
    seqnets("train", *small_text, "model/option=chrono", "model.dropout=0.5")
    shutil.copytree(only_run(tmp_path), tmp_path / "copied")
    resumed = ["train", f"resume={only_run(tmp_path)}", "trainer.max_epochs=2"]
    start = "model.cell_options.chrono.max_steps"

    refused = seqnets(*resumed, f"{start}=7", "model.dropout=0.4")
    taken = seqnets(*resumed, f"{start}=100", "model.memory=lean")
    bare = seqnets("train", "resume=copied", "trainer.max_epochs=2")

    assert refused.code == 2
    assert refused.err.startswith(f"UsageError: {start}: is 7, expected 100, the run's own.\n")
    assert taken.code == bare.code == 0, taken.err + bare.err
    weights = [
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for path in (only_run(tmp_path), tmp_path / "copied")
    ]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_a_resumed_run_takes_an_option_that_becomes_several(seqnets, small_text):
    seqnets("train", *small_text, "model.dropout=0.5")

    several = "model.dropout={input: 0.1, output: 0.2}"
    done = seqnets("train", "resume=last", several, "trainer.max_epochs=2")

    assert done.code == 0, done.err


def test_a_resumed_run_keeps_the_rows_of_its_table(seqnets, small_text, tmp_path):
    def rows():
        return list(csv.DictReader((only_run(tmp_path) / "metrics.csv").read_text().splitlines()))

    seqnets("train", *small_text, "logger=csv")
    before = rows()
    done = seqnets("train", f"resume={only_run(tmp_path)}", "trainer.max_epochs=2")
    after = rows()

    assert done.code == 0, done.err
    assert "Warning" not in done.err
    assert after[: len(before)] == before != []
    assert int(after[-1]["step"]) > int(before[-1]["step"])


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_that_is_not_installed_says_how_to_get_it(name, seqnets, monkeypatch):
    for module in ("wandb", "mlflow"):
        available = f"lightning.pytorch.loggers.{module}._{module.upper()}_AVAILABLE"
        monkeypatch.setattr(available, RequirementCache(f"{module}>=999"))

    done = seqnets("train", *SMALL, "dataset=parity", f"logger=[csv,{name}]")

    assert done.code == 1
    assert f"ConfigError: logger.{name}: lightning.pytorch.loggers." in done.err
    assert f"pip install 'seqnets[{name}]'" in done.err
    assert done.err.count("pip install") == 1


def test_what_a_killed_run_told_of_steps_after_its_checkpoint_is_forgotten(
    seqnets, small_text, tmp_path
):
    seqnets("train", *small_text, "trainer.max_epochs=2", "logger=many_loggers")
    folder = only_run(tmp_path)
    shutil.copy(folder / "checkpoints" / "last.ckpt", tmp_path / "of step 4")
    seqnets("train", f"resume={folder}", "trainer.max_epochs=6")
    shutil.copy(tmp_path / "of step 4", folder / "checkpoints" / "last.ckpt")

    done = seqnets("train", f"resume={folder}", "trainer.max_epochs=4", "optimizer.lr=0.1")

    assert done.code == 0, done.err
    events = EventAccumulator(str(folder), size_guidance={"histograms": 0}).Reload()
    steps = [event.step for event in events.Scalars("val/loss")]
    assert steps == [2, 4, 6, 8]
    table = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    assert [int(row["step"]) for row in table if row["val/loss"]] == [2, 4, 6, 8]
    assert [event.step for event in events.Scalars("train/loss")] == [*range(8)]
    assert [event.step for event in events.Scalars("test/loss")] == [4, 8]
    assert [event.step for event in events.Histograms("parameters/output.bias")] == [0, 4, 8]
    assert len(files_in(folder)) == 4  # of each run that is kept, one for the test


@pytest.mark.parametrize("killed_at", [3, 5])
def test_what_a_run_told_between_validations_is_whole_after_it_was_killed(
    killed_at, seqnets, small_text, tmp_path, monkeypatch
):
    ended = Checkpoints.on_train_batch_end

    def killed(callback, trainer, *others):
        ended(callback, trainer, *others)
        if trainer.global_step == killed_at:
            shutil.copytree(trainer.default_root_dir, tmp_path / "killed")

    often = "callbacks.checkpoints.every_n_steps=3"
    whole = ["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=4", often]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "on_train_batch_end", killed)
        seqnets("train", *small_text, *whole, "logger=many_loggers")

    done = seqnets("train", f"resume={tmp_path / 'killed'}")

    assert done.code == 0, done.err
    events = EventAccumulator(str(tmp_path / "killed")).Reload()
    table = csv.DictReader((tmp_path / "killed" / "metrics.csv").read_text().splitlines())
    assert [event.step for event in events.Scalars("train/loss")] == [*range(8)]
    assert [int(row["step"]) for row in table if row["train/loss"]] == [*range(8)]


def test_no_row_of_a_table_stands_twice_after_a_killed_run_is_resumed(
    seqnets, small_text, tmp_path
):
    seqnets("train", *small_text, "logger=csv")
    folder = only_run(tmp_path)
    last, table = folder / "checkpoints" / "last.ckpt", folder / "metrics.csv"
    shutil.copy(last, tmp_path / "of step 2")
    seqnets("train", f"resume={folder}", "trainer.max_epochs=2")
    shutil.copy(tmp_path / "of step 2", last)
    with table.open("a") as file:
        file.write("1,")  # a row that had no room

    done = seqnets("train", f"resume={folder}", "trainer.max_epochs=2")

    assert done.code == 0, done.err
    rows = list(csv.DictReader(table.read_text().splitlines()))
    for figure, steps in {"train/loss": [0, 1, 2, 3], "val/loss": [2, 4]}.items():
        assert [int(row["step"]) for row in rows if row[figure]] == steps


def test_a_finished_run_that_cannot_go_on_stays_as_it_is(seqnets, small_text, tmp_path):
    seqnets("train", *small_text)
    files = [only_run(tmp_path) / name for name in ("result.json", "config.yaml")]
    before = [path.read_bytes() for path in files]

    done = seqnets("train", "resume=last", "trainer.max_epochs=2", "model.num_layers=7")

    assert "CheckpointError" in done.err
    assert [path.read_bytes() for path in files] == before


def test_runs_to_continue_are_looked_for_where_an_experiments_file_puts_them(
    seqnets, small_text, tmp_path, monkeypatch
):
    experiment = tmp_path / "conf" / "experiment" / "mine.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text("# @package _global_\n# Mine\noutput: ${oc.env:PLACE}/mine\n")
    monkeypatch.setenv("PLACE", "here")
    run = ["train", "--config-dir", "conf", *small_text, "experiment=mine"]
    seqnets(*run)

    done = seqnets(*run, "resume=last")

    assert done.code == 0, done.err
    assert "Nothing is left to train" in done.out
    assert len([*(tmp_path / "here" / "mine").glob("*/*")]) == 1


def test_auto_starts_a_run_where_there_is_none_and_says_so(seqnets, small_text, tmp_path):
    done = seqnets("train", *small_text, "resume=auto")

    assert done.code == 0
    assert "a new one starts" in done.out
    assert only_run(tmp_path).is_dir()


def test_a_run_that_is_told_to_stop_exits_with_143_and_auto_goes_on(started, seqnets, tmp_path):
    endless = ["dataset=parity", "model.hidden_size=4", "trainer=cpu", "dataset.train_size=64"]
    process = started("train", *endless, "trainer.max_epochs=100000", "scheduler=constant")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/*/checkpoints/last.ckpt")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)

    second = seqnets("train", "resume=auto", "trainer.max_time=00:00:00:05")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    last = only_run(tmp_path) / "checkpoints" / "last.ckpt"
    stopped_at = load_checkpoint(last)["global_step"]
    epochs = stopped_at // 2 + 3
    done = seqnets("train", "resume=auto", f"trainer.max_epochs={epochs}")

    assert second.code == 1
    assert f"is in use by process {process.pid}, expected" in second.err
    assert process.returncode == 143, output
    assert "Stopped by SIGTERM" in output
    assert "Stopped by SIGTERM" in (only_run(tmp_path) / "run.log").read_text()
    assert "Traceback" not in output
    assert done.code == 0, done.err
    assert load_checkpoint(last)["global_step"] == 2 * epochs > stopped_at


@pytest.fixture
def heeds_interrupts():
    """SIGINT interrupts, also where a shell runs the tests in the background, and ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_interrupts")
def test_a_second_interrupt_ends_the_run_at_once_with_130(
    seqnets, small_text, tmp_path, write_module
):
    interrupt = ["import signal", "from lightning.pytorch import Callback"]
    interrupt += ["class Twice(Callback):", "    def on_before_backward(self, *_):"]
    interrupt += ["        signal.raise_signal(signal.SIGINT)"] * 2
    write_module("interrupts", *interrupt)

    twice = ["+callbacks.twice._target_=interrupts.Twice", "allow=[interrupts]"]
    done = seqnets("train", *small_text, *twice)

    assert done.code == 130


@pytest.mark.parametrize("moment", ["follow_ups", "finish"])
def test_a_run_that_is_stopped_after_its_test_is_not_finished(
    moment, seqnets, small_text, tmp_path, monkeypatch
):
    def stopped(*_):
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(f"seqnets.cli.train.{moment}", stopped)
        trained = seqnets("train", *small_text)
    resumed = seqnets("train", *small_text, "resume=auto")

    assert (trained.code, resumed.code) == (143, 0), trained.err + resumed.err
    assert (only_run(tmp_path) / "result.json").exists()  # of one run, not of a new one beside it


def test_only_the_first_process_of_each_machine_that_is_stopped_ends_with_the_signals_code(
    seqnets, small_text, write_module, monkeypatch
):
    stop = ["import signal", "from lightning.pytorch import Callback"]
    stop += ["class Stop(Callback):", "    def on_before_backward(self, *_):"]
    stop += ["        signal.raise_signal(signal.SIGTERM)"]
    write_module("stops", *stop)
    command = ["train", *small_text, "+callbacks.stop._target_=stops.Stop", "allow=[stops]"]

    first = seqnets(*command)
    monkeypatch.setattr(Trainer, "is_global_zero", False)
    of_another_machine = seqnets(*command)
    monkeypatch.setattr(Trainer, "local_rank", 1)
    second = seqnets(*command)

    codes = [first.code, of_another_machine.code, second.code]
    assert codes == [143, 143, 0], first.err + of_another_machine.err + second.err


IN_A_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup
os.execv(sys.executable, [sys.executable, "-m", "seqnets", *sys.argv[1:]])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are others there")
def test_a_run_whose_terminal_is_closed_saves_what_it_has_trained(tmp_path):
    endless = ["dataset=parity", "model.hidden_size=4", "trainer=cpu", "dataset.train_size=64"]
    endless += ["trainer.max_epochs=100000", "scheduler=constant", f"output={tmp_path}"]
    terminal, its_end = os.openpty()
    command = [sys.executable, "-c", IN_A_TERMINAL, "train", *endless]
    with subprocess.Popen(
        command, stdin=its_end, stdout=its_end, stderr=its_end, start_new_session=True
    ) as process:
        os.close(its_end)
        shown = b""
        while b"validation accuracy" not in shown:
            shown += os.read(terminal, 4096)
        os.close(terminal)  # which signals the process
        process.send_signal(signal.SIGHUP)  # as the shell does too
        try:
            process.wait(60)
        finally:
            process.kill()

    (folder,) = tmp_path.glob("parity/*")
    log = (folder / "run.log").read_text()
    stopped = re.search(r"Stopped by SIGHUP at step (\d+)", log)
    assert process.returncode == 129, shown
    assert load_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] == int(stopped[1])


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are others there")
def test_a_session_that_ends_sends_two_signals_of_which_the_first_counts(tmp_path):
    code = (
        "import signal, sys\n"
        "from seqnets.cli import main\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # tests may run under nohup
        "def run(arguments):\n"
        "    try: signal.raise_signal(signal.SIGTERM)\n"
        "    finally: signal.raise_signal(signal.SIGHUP)\n"
        "main._run = run\n"
        "main.main()"
    )
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run([sys.executable, "-c", code], stderr=log)

    assert (done.returncode, (tmp_path / "log").read_text()) == (143, "Stopped by SIGTERM.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are others there")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_to_a_command_that_is_ending_leaves_its_exit_code(name):
    code = (
        "import atexit, signal, sys\n"
        "from seqnets.cli.main import main\n"
        f"signal.signal(signal.{name}, signal.SIG_DFL)\n"  # tests may run under nohup
        f"atexit.register(signal.raise_signal, signal.{name})\n"
        "main()"
    )

    assert subprocess.run([sys.executable, "-c", code, "nonsense"]).returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are others there")
def test_without_a_terminal_only_files_have_what_is_printed(tmp_path):
    ends = "import os, seqnets.signals; seqnets.signals.outlive_terminal(); "
    prints = "os.write(1, b'a'); os.write(2, b'b')"
    command = [sys.executable, "-c", ends + prints]
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log)

    assert (done.returncode, done.stdout, (tmp_path / "log").read_text()) == (0, b"", "b")


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are others there")
def test_what_has_the_number_of_a_closed_output_is_not_discarded():
    ends = "import os, seqnets.signals; r, w = os.pipe(); seqnets.signals.outlive_terminal(); "
    reads = "os.write(w, b'a'); assert (r, os.read(r, 1)) == (1, b'a')"
    command = [sys.executable, "-c", ends + reads]

    assert subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command]).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_stopped_while_it_scores_says_so(
    number, seqnets, small_text, tmp_path, monkeypatch, heeds_interrupts
):
    def stopped(*_):
        signal.raise_signal(number)

    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    whole = SequenceModule.test_step
    monkeypatch.setattr(SequenceModule, "test_step", stopped)
    trained = seqnets("train", *small_text)
    folder = only_run(tmp_path)
    checkpoint = f"checkpoint={folder / 'checkpoints' / 'last.ckpt'}"
    scored = seqnets("evaluate", checkpoint)
    monkeypatch.setattr(SequenceModule, "test_step", whole)
    resumed = seqnets("train", f"resume={folder}")

    assert trained.code == scored.code == 128 + number
    assert f"Stopped by {number.name} after training; to score" in trained.out
    assert f"{number.name} after training" in (folder / "run.log").read_text()
    assert "Traceback" not in (folder / "run.log").read_text()
    assert scored.err == f"Stopped by {number.name}.\n"
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert resumed.code == 0
    assert "Results on the test part" in resumed.out


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            with pytest.raises(Stopped, match="SIGTERM"):
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)


MISTAKES = {
    "a mode that is none": (
        ["callbacks=early_stopping", "callbacks.early_stopping.mode=up"],
        (1, "callbacks.early_stopping: .*EarlyStopping refuses its options: .*got up"),
    ),
    "a model of steps for whole sequences": (
        ["model=language_model"],
        (1, r"targets have shape \(32,\) and predictions \(32, \d+, 2\), expected \(B,\) and"),
    ),
    "an objective of steps for whole sequences": (
        ["objective=language_modelling"],
        (1, r"targets have shape \(32,\) and predictions \(32, 2\), expected \(B, T\) and"),
    ),
    "an objective for other data": (
        ["objective=transduction"],
        (1, "objective: Transduction asks for 'target', which these data do not have"),
    ),
    "a size of the model that follows from the data": (
        ["+model.num_classes=7"],
        (2, "model.num_classes: is 7, expected 2, which follows from the data"),
    ),
    "a published number alone": (
        ["published=3"],
        (2, "published: is 3, expected a mapping of source, metric, value"),
    ),
    "a published number without its value": (
        ["published={source: x, metric: accuracy}"],
        (2, "published: is .*, expected a mapping of source, metric, value"),
    ),
    "a published number in words": (
        ["published={source: x, metric: accuracy, value: high}"],
        (2, "published.value: is 'high', expected a number"),
    ),
    "a module that is not there": (
        ["allow=[no_such_module]"],
        (2, "allow: 'no_such_module' is in no module that can be imported"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_before_training_or_in_its_first_step(mistake, seqnets, tmp_path):
    options, (code, told) = MISTAKES[mistake]
    size = ["dataset.train_size=64", "dataset.test_size=32"]

    done = seqnets("train", *SMALL, "dataset=parity", *size, *options)

    assert done.code == code
    assert re.search(told, done.err), done.err
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_size_of_the_model_that_is_left_open_is_the_datas():
    check_sizes(
        {"model": {"input_size": None, "num_classes": 2}}, {"input_size": 3, "num_classes": 2}
    )


def test_a_run_goes_on_in_its_own_folder_and_in_no_other(seqnets, small_text, tmp_path):
    seqnets("train", *small_text)

    done = seqnets("train", f"resume={only_run(tmp_path)}", "output=elsewhere")

    assert done.code == 2
    assert "output: came with a run to resume" in done.err


def test_a_checkpoint_that_is_in_no_runs_folder_goes_on_where_it_is_told(
    seqnets, small_text, tmp_path
):
    seqnets("train", *small_text)
    shutil.copy(only_run(tmp_path) / "checkpoints" / "last.ckpt", tmp_path / "moved.ckpt")

    done = seqnets("train", "resume=moved.ckpt", "output=elsewhere", "trainer.max_epochs=2")

    assert done.code == 0, done.err
    assert len([*tmp_path.glob("elsewhere/*/*/checkpoints/last.ckpt")]) == 1


def test_a_run_whose_data_have_another_vocabulary_is_told_of_the_data(
    seqnets, small_text, text_file, tmp_path
):
    seqnets("train", *small_text)
    text_file.write_text(text_file.read_text(encoding="utf-8").replace("lost", "LOST"), "utf-8")

    done = seqnets("train", f"resume={only_run(tmp_path)}", "trainer.max_epochs=2")

    assert done.code == 1
    assert "the dataset's vocabulary differs from the model's" in done.err
    assert "'L', 'O', 'S', 'T'" in done.err


def test_a_path_that_was_relative_to_another_folder_is_told_so(
    seqnets, small_text, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    options = [o for o in small_text if not o.startswith("dataset.path=")]
    seqnets("train", *options, "dataset.path=book.txt")
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    done = seqnets("evaluate", f"checkpoint={only_run(tmp_path)}")
    resumed = seqnets("train", f"resume={only_run(tmp_path)}", "trainer.max_epochs=2")

    assert done.code == resumed.code == 1
    assert "relative to where it was trained" in done.err
    assert "relative to where it was trained" in resumed.err
    assert (
        seqnets("evaluate", f"checkpoint={only_run(tmp_path)}", "dataset.path=../book.txt").code
        == 0
    )


def test_a_run_that_stops_early_says_so_and_goes_on_with_the_patience_it_suggests(
    seqnets, small_text, tmp_path
):
    never = ["callbacks=early_stopping", "+callbacks.early_stopping.min_delta=100"]
    patience = "callbacks.early_stopping.patience=1"
    done = seqnets("train", *small_text, *never, patience, "trainer.max_epochs=20")

    assert done.code == 0, done.err
    assert "Stopped early: val/loss has not fallen for 1 validation.\n" in done.out
    again = next(line for line in done.out.splitlines() if line.startswith("seqnets train"))
    assert "callbacks.early_stopping.patience=6" in again
    before, last = 2 * 2, only_run(tmp_path) / "checkpoints" / "last.ckpt"
    assert load_checkpoint(last)["global_step"] == before
    resumed = seqnets(*shlex.split(again)[1:])
    assert resumed.code == 0, resumed.err
    assert load_checkpoint(last)["global_step"] == before + 2 * 5


def test_a_figure_for_early_stopping_that_there_is_not_ends_before_training(seqnets, small_text):
    wrong = ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/lost"]
    done = seqnets("train", *small_text, *wrong)

    assert done.code == 1
    assert "EarlyStopping: monitor is 'val/lost', expected one of val/loss, val/bits" in done.err
    assert "callbacks.early_stopping.monitor" in done.err
    assert "step 2 " not in done.out


def test_early_stopping_that_waits_for_accuracy_to_fall_is_told_so_before_training(seqnets):
    waits = ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/accuracy"]
    parity = ["dataset=parity", "dataset.train_size=64", "dataset.test_size=32"]
    done = seqnets("train", *SMALL, *parity, *waits)

    assert done.code == 1
    assert "EarlyStopping: mode is 'min' for val/accuracy, expected 'max'" in done.err
    assert "step 2 " not in done.out
    rises = seqnets("train", *SMALL, *parity, *waits, "callbacks.early_stopping.mode=max")
    assert rises.code == 0, rises.err


def test_a_run_with_nothing_left_to_train_says_so_and_how_it_would_go_on(
    seqnets, small_text, tmp_path
):
    seqnets("train", *small_text, "trainer.max_epochs=5", "trainer.max_steps=-1")
    idle = seqnets("train", "resume=last")
    done = seqnets("train", "resume=last", "trainer.max_epochs=-1", "trainer.max_steps=3")

    assert "Nothing is left to train: epoch 5 of trainer.max_epochs=5.\n" in idle.out
    assert idle.out.rstrip().endswith(" trainer.max_epochs=10"), "the one limit that there is"
    assert done.code == 0, done.err
    assert "Nothing is left to train: step 10 of trainer.max_steps=3.\n" in done.out
    assert "step 10" not in done.out.splitlines(), "there is no progress to tell"
    again = next(line for line in done.out.splitlines() if line.startswith("seqnets train"))
    assert again.endswith(" trainer.max_epochs=-1 trainer.max_steps=13")
    resumed = seqnets(*shlex.split(again)[1:])
    assert "Nothing is left" not in resumed.out
    last = only_run(tmp_path) / "checkpoints" / "last.ckpt"
    assert load_checkpoint(last)["global_step"] == 13


def test_a_resumed_run_is_judged_by_the_metric_of_the_dataset_that_it_is_given(seqnets, tmp_path):
    (tmp_path / "mine.conll").write_text("a\tX\nb\tY\nb\tY\n\n" * 20)
    data = ["dataset=tagging", "dataset.path=mine.conll", "model=tagger"]
    seqnets("train", *data, "model.hidden_size=4", "trainer.max_epochs=1", "trainer=cpu")

    done = seqnets("train", "resume=last", "dataset.metric=f1", "trainer.max_epochs=2")

    assert done.code == 0, done.err
    result = json.loads((only_run(tmp_path) / "result.json").read_text())
    assert result["metric"] == "f1"
    assert result["baselines"]["commonest label of the word"] == 1
    scored = seqnets("evaluate", "checkpoint=last", "dataset.metric=f1_X")
    assert "f1 X" in scored.out


def test_a_run_is_not_resumed_with_fewer_epochs_than_it_has_behind_it(
    seqnets, small_text, tmp_path
):
    seqnets("train", *small_text, "trainer.max_epochs=4")
    for fewer in (2, 3):
        done = seqnets("train", "resume=last", f"trainer.max_epochs={fewer}")

        assert done.code == 2
        told = f"trainer.max_epochs: is {fewer}, expected at least 4, the epoch of the ch"
        assert told in done.err
        assert "Lightning" not in done.err
    assert "Nothing is left to train: epoch 4" in seqnets("train", "resume=last").out


def test_options_of_the_trainer_that_are_refused_now_do_not_keep_a_run_from_going_on(
    seqnets, small_text, tmp_path
):
    seqnets("train", *small_text)
    path = only_run(tmp_path) / "checkpoints" / "last.ckpt"
    saved = load_checkpoint(path)
    saved["seqnets"]["config"]["trainer"] |= {"enable_model_summary": False, "logger": True}
    save_checkpoint(saved, path)

    done = seqnets("train", "resume=last", "trainer.max_epochs=2")
    given = seqnets("train", "resume=last", "+trainer.logger=false")

    assert done.code == 0, done.err
    assert "trainer.logger: is set by the command itself" in given.err


def test_a_profiler_prints_what_it_measured(seqnets):
    done = seqnets("train", *SMALL, "dataset=parity", "+trainer.profiler=simple")

    assert done.code == 0, done.err
    assert "FIT Profiler Report" in done.out
    assert "run_training_batch" in done.out
    assert "Profiler" not in done.err


@pytest.mark.parametrize(
    "limits",
    [
        ["trainer.max_steps=1"],
        ["trainer.max_steps=1", "trainer.limit_val_batches=0"],
        ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=0"],
    ],
)
def test_figures_of_the_test_part_stand_at_the_last_step_though_nothing_was_left_to_train(
    limits, seqnets, small_text, tmp_path
):
    seqnets("train", *small_text, *limits, "logger=many_loggers")
    done = seqnets("train", "resume=last")

    assert "Nothing is left to train" in done.out
    events = EventAccumulator(str(only_run(tmp_path))).Reload()
    table = csv.DictReader((only_run(tmp_path) / "metrics.csv").read_text().splitlines())
    assert [event.step for event in events.Scalars("test/loss")] == [1], "once for both runs"
    assert [row["step"] for row in table if row["test/loss"]] == ["1"]


def test_empty_lists_mean_no_callbacks_and_no_loggers(seqnets, tmp_path):
    data = ["dataset=parity", "dataset.train_size=64", "dataset.test_size=32"]
    done = seqnets("train", *SMALL[:-1], *data, "callbacks=[]", "logger=[]")

    assert done.code == 0, done.err
    left = {path.name for path in only_run(tmp_path).rglob("*") if path.is_file()}
    assert left == {"config.yaml", "result.json", "run.lock", "run.log"}
    assert done.out.endswith("\nThere is no checkpoint: no callback has written one.\n")
    before, _, _ = done.out.partition("Results on the test part")
    lost = "None of the callbacks writes checkpoints"
    assert lost in before, "when that can still be changed"
    assert (done.out + done.err).count(lost) == 1
    assert lost in (only_run(tmp_path) / "run.log").read_text()


def test_a_sweep_makes_one_run_for_each_value(seqnets, small_text, tmp_path):
    done = seqnets("train", "-m", *small_text, "seed=1,2", "logger=none")

    results = [json.loads(p.read_text()) for p in (tmp_path / "runs").glob("*/*/result.json")]
    assert done.code == 0, done.err
    assert len(results) == 2
    assert results[0]["test"] != results[1]["test"]


def test_a_sweep_ends_with_the_first_job_that_fails(seqnets, small_text, tmp_path):
    done = seqnets("train", *small_text, "-m", "optimizer.lr=0.1,fast,0.2")

    assert done.code == 1
    assert "optimizer.lr: is 'fast'" in done.err
    assert "#1" in done.out
    assert "#2" not in done.out
    assert len(list((tmp_path / "runs").glob("*/*"))) == 1


@pytest.mark.parametrize("allowing", ["allow=[mycells]", "experiment=mine"])
def test_a_cell_of_ones_own_needs_a_class_three_lines_and_its_permission(
    seqnets, tmp_path, monkeypatch, allowing
):
    (tmp_path / "mycells.py").write_text(
        dedent("""
            import seqnets
            import torch


            class MGUCell(seqnets.GatedCell):
                gates = ("f", "n")

                def update(self, wx, uh, state):
                    (h,) = state
                    f = torch.sigmoid(wx.f + uh.f)
                    n = torch.tanh(wx.n + f * uh.n)
                    return (h + f * (n - h),)
        """)
    )
    folder = tmp_path / "conf" / "model" / "cell"
    folder.mkdir(parents=True)
    (folder / "my_mgu.yaml").write_text(
        "# Minimal gated unit\n_target_: mycells.MGUCell\n_partial_: true\n"
    )
    experiment = tmp_path / "conf" / "experiment" / "mine.yaml"
    experiment.parent.mkdir()
    experiment.write_text("# @package _global_\n# Mine\nallow: [mycells]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    run = ["train", "--config-dir", "conf", "model/cell=my_mgu", "dataset=parity", *SMALL]

    refused = seqnets(*run)
    done = seqnets(*run, allowing)

    assert refused.code == 1
    assert "'allow=[mycells]'" in refused.err
    assert done.code == 0, done.err
    weights = load_checkpoint(only_run(tmp_path) / "checkpoints" / "last.ckpt")["state_dict"]
    assert torch.Size([8, 4]) in {tuple(w.shape) for w in weights.values()}
    repeated = seqnets(*run, allowing, "resume=last")
    assert repeated.code == 0, repeated.err
    again = next(line for line in done.out.splitlines() if line.startswith("seqnets train"))
    resumed = seqnets(*shlex.split(again)[1:])
    assert resumed.code == 0, resumed.err


def test_a_run_that_diverges_says_so_and_keeps_its_checkpoint(seqnets, small_text, tmp_path):
    steps = ["trainer.limit_train_batches=8", "trainer.limit_val_batches=0"]
    wild = ["model/cell=relu_rnn", "optimizer=sgd", "optimizer.lr=1e30"]

    done = seqnets("train", *small_text, *steps, *wild, "scheduler=constant")

    assert done.code == 1
    assert "DivergenceError" in done.err
    assert "Traceback" not in done.err
    last = load_checkpoint(only_run(tmp_path) / "checkpoints" / "last.ckpt")
    assert 1 <= last["global_step"] < 8


def test_missing_values_that_a_cell_does_not_take_are_named_where_the_loss_is_nan(
    seqnets, tmp_path
):
    rows = [f"{n},{'ab'[n % 2]},{t},{t % 2 or ''}" for n in range(12) for t in range(3)]
    Path("gaps.csv").write_text("\n".join(["sequence,label,x,y", *rows]))
    data = ["dataset=classification", "dataset.path=gaps.csv", "model.hidden_size=4"]

    asked = seqnets("train", *data)
    done = seqnets("train", *data, "dataset.missing=keep", "model/cell=gru", "logger=none")

    assert "dataset.missing=keep leaves it to model/cell=grud" in asked.err
    assert "the loss is nan" in done.err
    assert "take model/cell=grud, or dataset.missing=forward or zero" in done.err


def test_a_run_that_fails_after_a_step_keeps_its_folder_and_its_log_says_why(
    seqnets, small_text, tmp_path
):
    steps = ["trainer.limit_train_batches=8", "trainer.limit_val_batches=0"]
    wild = ["model/cell=relu_rnn", "optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant"]
    rare = "callbacks.checkpoints.every_n_steps=0"

    done = seqnets("train", *small_text, *steps, *wild, rare)

    assert done.code == 1
    folder = only_run(tmp_path)
    assert not list((folder / "checkpoints").iterdir())
    assert list(folder.glob("events.*"))
    log = (folder / "run.log").read_text()
    assert "ended by DivergenceError: Training: the loss is " in log
    assert "Traceback" not in log


def test_a_run_that_fails_before_a_step_leaves_no_folder(seqnets, small_text, tmp_path):
    before = set(tmp_path.iterdir())

    done = seqnets("train", *small_text, "callbacks.samples.prompt=√")

    assert done.code != 0
    assert set(tmp_path.iterdir()) == before


def test_a_run_that_fails_before_a_step_leaves_those_beside_it(seqnets, small_text, tmp_path):
    beside = tmp_path / "runs" / "text" / "another"
    beside.mkdir(parents=True)

    assert seqnets("train", *small_text, "callbacks.samples.prompt=√").code != 0
    assert list(beside.parent.iterdir()) == [beside]


@pytest.mark.parametrize("limit", ["max_steps=0", "limit_train_batches=0", "max_time=00:00:00:00"])
def test_a_new_run_that_may_make_no_step_is_an_error(limit, seqnets, small_text, tmp_path):
    done = seqnets("train", *small_text, f"trainer.{limit}")

    assert done.code == 1
    assert "trainer: its limits leave a new run no step to take, expected at least one" in done.err
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_key_of_ones_own_is_taken_where_another_reads_it(seqnets, tmp_path):
    done = seqnets("train", *SMALL, "dataset=parity", "+size=5", "model.hidden_size=${size}")

    assert done.code == 0, done.err
    weights = load_checkpoint(only_run(tmp_path) / "checkpoints" / "last.ckpt")["state_dict"]
    assert any(tuple(weight.shape)[-1:] == (5,) for weight in weights.values())


def test_a_full_disk_is_told_without_a_traceback(seqnets):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        done = seqnets("train", "dataset=parity", "trainer=debug", "model.hidden_size=4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert done.code == 1
    assert "output: the run's files, or what it prints, cannot be written: File too" in done.err


def test_a_disk_that_is_full_for_a_thread_that_writes_is_told_once(tmp_path, capsys):
    def write():
        raise OSError(errno.ENOSPC, "No space left on device")

    with running(tmp_path, {}, "parity"):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()

    assert "Traceback" not in capsys.readouterr().err


def test_what_lightning_finds_wrong_with_its_options_is_told_cleanly(seqnets, small_text):
    done = seqnets("train", *small_text, "trainer.devices=0")

    assert done.code == 1
    assert "ConfigError: trainer: Lightning does not take these options" in done.err


def test_a_package_that_a_callback_of_lightnings_lacks_is_no_wrong_option(
    seqnets, small_text, monkeypatch
):
    monkeypatch.setattr("lightning.pytorch.callbacks.device_stats_monitor._PSUTIL_AVAILABLE", "")

    callback = "+callbacks.mine={_target_: lightning.pytorch.callbacks.DeviceStatsMonitor}"
    done = seqnets("train", *small_text, callback)

    assert done.code == 1
    assert "ConfigError: trainer: Lightning lacks a package: `DeviceStatsMonitor`" in done.err


def test_an_epoch_that_ends_before_its_first_validation_is_told_with_its_batches(
    seqnets, small_text
):
    done = seqnets("train", *small_text, "trainer.val_check_interval=1000")

    assert done.code == 1
    assert re.search(r"val_check_interval: is 1000 batches, expected at most the \d+ of", done.err)
    assert "trainer.check_val_every_n_epoch=null" in done.err


def test_several_checkpoints_are_scored_in_one_sweep(seqnets, small_text, tmp_path):
    seqnets("train", *small_text)
    folder = only_run(tmp_path) / "checkpoints"

    done = seqnets("evaluate", "-m", f"checkpoint={folder / 'best.ckpt'},{folder / 'last.ckpt'}")

    assert done.code == 0, done.err
    assert done.out.count("Results on the test part") == 2


@pytest.mark.parametrize("option", AROUND)
def test_what_stands_around_training_lets_a_run_take_a_step(option, seqnets, small_text, tmp_path):
    text = [override for override in small_text if not override.startswith("trainer")]
    done = seqnets("train", *text, option, "trainer.max_steps=1")

    assert done.code == 0, done.err
    assert json.loads((only_run(tmp_path) / "result.json").read_text())["step"] == 1


@pytest.mark.parametrize("dataset", ["adding", "python_docs"])
def test_in_half_precision_throughout_pictures_are_shown_as_well(dataset, seqnets, tmp_path):
    size = [] if dataset == "python_docs" else ["dataset.train_size=64", "dataset.test_size=32"]
    small = ["model.hidden_size=4", "trainer.max_steps=2", "+callbacks.samples.length=5"]
    half = ["trainer.precision=bf16-true", "+trainer.limit_val_batches=1"]
    done = seqnets("train", f"dataset={dataset}", *size, *small, *half)

    assert done.code == 0, done.err


def test_rare_classes_may_count_as_much_as_others(seqnets, tmp_path):
    (tmp_path / "walks.csv").write_text(
        "sequence,label,x\n"
        + "".join(f"{i},{'often' if i % 5 else 'rare'},{i}\n" for i in range(40))
    )
    options = ["objective.class_weights=balanced", "objective.metric=f1"]
    done = seqnets("train", "dataset=classification", "dataset.path=walks.csv", *SMALL, *options)
    scored = seqnets("evaluate", f"checkpoint={only_run(tmp_path)}", "part=val")

    assert (done.code, scored.code) == (0, 0), done.err + scored.err
    assert json.loads((only_run(tmp_path) / "result.json").read_text())["metric"] == "f1"
    assert "accuracy=" in scored.out


@pytest.mark.parametrize(
    ("told", "name", "file", "option"),
    [
        ("mae_room.temp=", "regression", "a.csv", "targets=[room.temp,hall.temp]"),
        ("f1 U.S", "tagging", "a.conll", "metric=f1_U.S"),
    ],
)
def test_names_of_targets_and_labels_may_have_dots(told, name, file, option, seqnets, tmp_path):
    rows = [f"{n},{n},{n},{n % 5}" for n in range(40)]
    table = "\n".join(["sequence,room.temp,hall.temp,u", *rows])
    (tmp_path / "a.csv").write_text(table)
    (tmp_path / "a.conll").write_text("a\tU.S\nb\tO\n\n" * 30)
    data = [f"dataset={name}", f"dataset.path={file}", f"dataset.{option}"]

    done = seqnets("train", "model.hidden_size=4", "trainer.max_steps=1", *data)

    assert done.code == 0, done.err
    assert told in done.out


def test_two_processes_share_one_run_and_go_on_with_it(started, tmp_path):
    options = ["dataset=parity", "dataset.train_size=128", "dataset.test_size=8"]
    runs = [
        ["trainer=ddp", *options, "model.hidden_size=4", "trainer.max_steps=1", "output=runs"],
        ["resume=last", "trainer.max_steps=2", "output=runs"],
    ]

    for arguments in runs:
        process = started("train", *arguments, OMP_NUM_THREADS="1")
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        assert output.count("Run folder") == 1
        assert (only_run(tmp_path) / "result.json").exists()

    last = load_checkpoint(only_run(tmp_path) / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 2
    assert len(last["seqnets"]["processes"]) == 2


def test_a_process_whose_fellow_has_ended_says_so_in_a_sentence(seqnets, monkeypatch):
    def make_data(*_):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]")

    monkeypatch.setattr("seqnets.cli.train.make_data", make_data)

    done = seqnets("train", "dataset=parity")

    assert done.code == 1
    assert done.err.startswith("SeqnetsError: Training: another process of the run has ended")


@pytest.mark.parametrize("in_group", [False, True])
def test_a_process_waits_for_no_group_whose_first_process_has_ended(in_group, monkeypatch, capsys):
    looks = iter([False, False, False, in_group])
    parents = iter([7, 7, 7, 1])
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: next(looks))
    monkeypatch.setattr("os.getppid", lambda: next(parents))
    monkeypatch.setattr("os._exit", sys.exit)
    monkeypatch.setattr("time.sleep", lambda _: None)

    with nullcontext() if in_group else pytest.raises(SystemExit):
        _end_with(7)
    assert ("another process of the run has ended" in capsys.readouterr().err) != in_group


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_a_process_looks_for_the_first_one_where_that_is_its_parent(
    platform, monkeypatch, tmp_path
):
    looked = threading.Event()
    monkeypatch.setattr("seqnets.cli.running._end_with", lambda first: looked.set())
    monkeypatch.setattr(sys, "platform", platform)
    known = {"LOCAL_RANK": "1", "SEQNETS_RUN_FOLDER": str(tmp_path), "SEQNETS_RUN_PROCESS": "7"}
    for name, value in known.items():
        monkeypatch.setenv(name, value)

    with running(None, {}, "parity"):
        assert looked.wait(0.1 if platform == "win32" else 10) == (platform != "win32")


def test_the_share_of_padding_is_told_when_all_processes_are_there(seqnets, monkeypatch):
    there = []
    monkeypatch.setattr(Strategy, "setup_environment", lambda self: there.append(self))
    monkeypatch.setattr(SequenceLoader, "padding", property(lambda self: len(there) / 4))

    done = seqnets("train", *SMALL, "dataset=parity", "dataset.train_size=64")

    assert "Padding is 25.0% of the training steps." in done.out


def test_much_padding_is_told_with_the_way_to_cut_long_sequences(seqnets, tmp_path):
    steps = [f"{name},{step % 5},{'ab'[step % 2]}" for name in range(8) for step in range(4)]
    steps += [f"long,{step % 5},{'ab'[step % 2]}" for step in range(200)]
    (tmp_path / "steps.csv").write_text("\n".join(["sequence,level,label", *steps]))
    tagging = ["dataset=tagging", f"dataset.path={tmp_path / 'steps.csv'}"]

    whole = seqnets("train", *SMALL, *tagging)
    cut = seqnets("train", *SMALL, *tagging, "dataset.window=10")

    assert "% of the training steps. dataset.window=STEPS would cut long sequences." in whole.out
    assert "would cut" not in cut.out


def test_the_share_of_padding_and_the_way_to_predict_are_told(seqnets, tmp_path):
    sizes = ["dataset.train_size=64", "dataset.test_size=32", "dataset.shortest_length=2"]

    done = seqnets("train", *SMALL, "dataset=parity", *sizes)

    data = Parity(32, shortest_length=2, train_size=64, test_size=32)
    told = f"Padding is {data.loader('train').padding:.1%} of the training steps."
    assert done.code == 0, done.err
    assert told in done.out
    assert told in (only_run(tmp_path) / "run.log").read_text()
    events = EventAccumulator(str(only_run(tmp_path))).Reload()
    assert events.Tensors("padding/text_summary")
    lines = [line for line in done.out.splitlines() if line.startswith("seqnets ")]
    assert [line.split()[1] for line in lines] == ["predict", "evaluate", "train"]
    again = seqnets(*shlex.split(lines[0])[1:])
    assert again.code == 0, again.err


def test_a_callback_is_left_out_by_null(seqnets, small_text):
    done = seqnets("train", *small_text, "callbacks.samples=null", "logger=none")

    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("finder", "instead"),
    [("LearningRateFinder", "-m optimizer.lr="), ("BatchSizeFinder", "-m dataset.batch_size=")],
)
def test_a_callback_that_replaces_what_the_configuration_says_is_refused(
    finder, instead, seqnets, small_text, tmp_path, write_module
):
    base = f"from lightning.pytorch.callbacks import {finder}"
    write_module("mine_to_find", base, f"class My{finder}({finder}): ...")
    callback = f"+callbacks.mine={{_target_: mine_to_find.My{finder}}}"

    done = seqnets("train", *small_text, callback, "allow=[mine_to_find]")

    assert done.code == 1
    assert f"callbacks.mine: My{finder} replaces what the configuration says" in done.err
    assert instead in done.err
    assert not (tmp_path / "runs").exists()
