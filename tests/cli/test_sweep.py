"""Sweeps: the table at their end, and what an optimising sweeper is given."""

import json
import os
import pickle
import re
import sys
from importlib.util import find_spec

import pytest
import torch.distributed as dist
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import run_job
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf, open_dict
from rich.console import Console

from seqnets.cli import sweep_rows
from seqnets.cli.application import _JobEnded
from seqnets.cli.names import UsageError
from seqnets.cli.stopping import Stopped
from seqnets.cli.sweep import UNFINISHED, Job, Trained
from seqnets.cli.sweep_table import show
from seqnets.errors import ConfigError, DivergenceError
from seqnets.insight.rounded import rounded
from seqnets.training.callbacks import Hyperparameters
from tests.slow import mostly_slow

from .conftest import SMALL

PARITY = [*SMALL, "dataset=parity", "dataset.train_size=64", "dataset.test_size=32", "logger=none"]


class Optimising(Sweeper):
    """Tries two values of a key, and remembers what it was given."""

    got: list
    key, values = "optimizer.lr", (0.1, 0.0123456)

    def __init__(self, direction):
        self.got.append(direction)

    def setup(self, *, hydra_context, task_function, config):
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        if self.got == ["odd"]:
            raise ValueError("the direction is odd")
        jobs = [[*arguments, f"{self.key}={value}"] for value in self.values]
        self.got += [job.return_value for job in self.launcher.launch(jobs, initial_job_idx=0)]


@pytest.fixture
def optimising(monkeypatch):
    """Choose that sweeper; what it was given comes into the list."""
    # Hydra takes plugins from a package of that name alone
    monkeypatch.setattr(Plugins, "is_in_toplevel_plugins_module", lambda *_: True)
    Plugins.instance().register(Optimising)
    node = {"_target_": f"{__name__}.Optimising", "direction": "minimize"}
    ConfigStore.instance().store("optimising", node, group="hydra/sweeper")
    monkeypatch.setattr(Optimising, "got", [], raising=False)
    return Optimising.got


class Elsewhere(Launcher):
    """Runs the last job first, and each with no more than another process would have."""

    def setup(self, *, hydra_context, task_function, config):
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        ended = [self._run(number, list(job)) for number, job in [*enumerate(job_overrides)][::-1]]
        return ended[::-1]

    def _run(self, number, overrides):
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.num = number
        application = pickle.loads(pickle.dumps(self.task_function))
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("SEQNETS_SWEEP")]:
                patch.delenv(name)
            return run_job(
                hydra_context=self.hydra_context,
                task_function=application,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )


@pytest.fixture
def elsewhere(monkeypatch):
    """The override that has jobs run elsewhere."""
    monkeypatch.setattr(Plugins, "is_in_toplevel_plugins_module", lambda *_: True)
    Plugins.instance().register(Elsewhere)
    node = {"_target_": f"{__name__}.Elsewhere"}
    ConfigStore.instance().store("elsewhere", node, group="hydra/launcher")
    return "hydra/launcher=elsewhere"


@pytest.fixture
def submitit(monkeypatch):
    """The override that has jobs run by a launcher that waits for all of them."""
    monkeypatch.setattr(Plugins, "is_in_toplevel_plugins_module", lambda *_: True)
    Plugins.instance().register(Submitit)
    node = {"_target_": f"{__name__}.Submitit"}
    ConfigStore.instance().store("submitit_here", node, group="hydra/launcher")
    return "hydra/launcher=submitit_here"


class Submitit(Elsewhere):
    """Waits for all jobs; a process that raises more than an Exception sends it nothing."""

    def _run(self, number, overrides):
        try:
            return super()._run(number, overrides)
        except BaseException as error:
            raise RuntimeError("Job 7 has not produced any output\nTraceback ...") from error


@pytest.mark.parametrize(
    "end", [143, ConfigError("a"), DivergenceError("b"), UsageError("c"), Stopped(15)]
)
def test_what_ended_a_job_comes_back_from_a_launchers_process(end):
    came = pickle.loads(pickle.dumps(_JobEnded(end))).end

    assert (type(came), str(came)) == (type(end), str(end))


def results(tmp_path):
    found = (tmp_path / "runs").glob("*/*/result.json")
    return {str(path.parent.relative_to(tmp_path)): json.loads(path.read_text()) for path in found}


def numbered(jobs):
    return dict(enumerate(jobs))


def rows(out, title="Sweep of"):
    """The cells of a sweep's table, row by row."""
    table = out[out.index(title) :].partition("Over seeds: ")[0]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines()]


def test_a_sweep_ends_with_a_table_of_what_each_job_came_to(seqnets, tmp_path):
    fixed = ["~callbacks.pictures", "+trainer.overfit_batches=0"]
    done = seqnets("train", "-m", *PARITY, *fixed, "optimizer.lr=0.1,0.01", "seed=1,2")

    told = [row for row in rows(done.out) if row]
    ran = results(tmp_path)
    assert done.code == 0, done.err
    assert "Sweep of 4 jobs: accuracy, higher is better" in done.out
    assert [row[1:3] for row in told] == [["0.1", "1"], ["0.1", "2"], ["0.01", "1"], ["0.01", "2"]]
    assert [row[0].split()[0] for row in told] == ["0", "1", "2", "3"]
    assert {row[5]: row[3:5] for row in told} == {
        folder: [rounded(result["validation"]), rounded(result["test"]["accuracy"])]
        for folder, result in ran.items()
    }
    scores = [float(row[3]) for row in told]
    assert [row[0].endswith("*") for row in told].index(True) == scores.index(max(scores))


def test_jobs_that_run_in_other_processes_are_in_the_table_in_their_order(
    seqnets, tmp_path, elsewhere
):
    done = seqnets("train", "-m", *PARITY, elsewhere, "optimizer.lr=0.1,0.01,0.001")

    told = [row for row in rows(done.out) if row]
    assert done.code == 0, done.err
    assert [row[0].split()[0] for row in told] == ["0", "1", "2"]
    assert [row[1] for row in told] == ["0.1", "0.01", "0.001"]
    assert {row[-1]: row[3] for row in told} == {
        folder: rounded(result["test"]["accuracy"]) for folder, result in results(tmp_path).items()
    }
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"multirun.yaml", "parity"}


def test_a_job_that_fails_in_another_process_is_told_by_its_number(seqnets, elsewhere):
    done = seqnets("train", "-m", *PARITY, elsewhere, "optimizer.lr=0.1,fast,0.2")

    failed, first = (row for row in rows(done.out) if row)
    assert done.code == 1
    assert failed == ["1", "fast", "", "failed", ""]
    assert first[:2] == ["2 *", "0.2"], "its launcher had not come to job 0"
    assert "\n#1 optimizer.lr: is 'fast', expected a number.\n" in done.out


def test_jobs_that_a_launcher_waits_for_all_end_before_the_one_that_failed_is_told(
    seqnets, submitit
):
    done = seqnets("train", "-m", *PARITY, submitit, "optimizer.lr=0.1,fast,0.2")

    told = [row for row in rows(done.out) if row]
    assert done.code == 1
    assert [row[1] for row in told] == ["0.1", "fast", "0.2"]
    assert [row[-2] for row in told].count("failed") == 1
    assert "\nConfigError: optimizer.lr: is 'fast', expected a number.\n" in done.err


def test_a_job_that_a_launcher_lost_is_told_without_a_traceback(seqnets, submitit, monkeypatch):
    def killed(self, number, overrides):
        raise RuntimeError("A worker was terminated.\nTraceback ...")

    monkeypatch.setattr(Elsewhere, "_run", killed)

    done = seqnets("train", "-m", *PARITY, submitit, "seed=1")

    assert done.code == 1
    lost = "Job 7 has not produced any output"
    assert done.err == f"SeqnetsError: hydra/launcher: a job has no result: {lost}\n"


@pytest.mark.parametrize("begun", ["", "hydra:\n  run: [", "hydra:\n  run:\n"])
def test_a_sweep_that_begins_in_the_same_folder_takes_no_rows_from_one_that_ends(
    begun, tmp_path, monkeypatch
):
    (folder := tmp_path / ".sweep_0").mkdir()
    (tmp_path / "multirun.yaml").write_text(begun)
    monkeypatch.setenv(sweep_rows.FOLDER_VARIABLE, str(folder))
    job = Job({"seed": "1"}, None, UNFINISHED)
    sweep_rows.write(0, job)

    assert sweep_rows.take() == {0: job}


def test_a_job_that_is_killed_or_outlives_its_sweep_has_no_end(seqnets, monkeypatch, elsewhere):
    tables = []

    def run(*_, **__):
        tables.append(sweep_rows.take())
        return Trained(0, "runs/a", 7, "loss", "min", 1.0)

    monkeypatch.setattr("seqnets.cli.train.run", run)

    done = seqnets("train", "-m", elsewhere, "seed=1,2")

    assert done.code == 0, done.err
    assert tables == [{1: Job({"seed": "2"}, None, UNFINISHED)}, {}]
    assert "Sweep of" not in done.out, "nothing came after the table"


def test_a_job_that_is_killed_is_told_with_the_folder_of_its_run(
    seqnets, tmp_path, monkeypatch, elsewhere
):
    kept = []
    monkeypatch.setattr(
        "seqnets.cli.train._Training._mark_started", lambda *_: kept.append(sweep_rows.take())
    )

    seqnets("train", "-m", *PARITY, elsewhere, "seed=1")

    (run,) = (tmp_path / "runs" / "parity").iterdir()
    folder = str(run.relative_to(tmp_path))
    assert kept[0] == {0: Job({}, None, UNFINISHED._replace(folder=folder))}


def test_hydras_record_of_a_sweep_does_not_name_the_folder_of_its_rows(seqnets, tmp_path):
    done = seqnets("train", "-m", *PARITY, "seed=1", f"output={tmp_path}/r u n s")

    record = OmegaConf.load(tmp_path / "r u n s" / "multirun.yaml")
    assert done.code == 0, done.err
    assert "seed=1" in record.hydra.overrides.task
    assert "SEQNETS_SWEEP" not in str(record)


def test_jobs_of_a_sweep_do_not_say_what_to_do_next(seqnets):
    swept = seqnets("train", "-m", *PARITY, "seed=1")
    alone = seqnets("train", *PARITY, "seed=1")

    assert "What to do next:" not in swept.out
    assert "What to do next:" in alone.out


def test_a_sweep_over_seeds_tells_means_and_deviations(capsys):
    scores = {"gru": (0.1, 0.2, 0.3), "lstm": (1000, 1100, 1200), "rnn": (0.5,)}
    jobs = [
        Job({"cell": cell, "seed": str(seed)}, Trained(0, "runs/a", 7, "loss", "min", score, score))
        for cell, found in scores.items()
        for seed, score in enumerate(found)
    ]
    show(Console(width=100), numbered([*jobs, Job({"cell": "rnn", "seed": "1"}, None)]))

    told = [row for row in rows(capsys.readouterr().out, "mean ± standard deviation") if row]
    assert told == [
        ["gru", "3", "0.2000 ± 0.10", "0.2000 ± 0.10"],
        ["lstm", "3", "1,100 ± 100", "1,100 ± 100"],
        ["rnn", "1", "0.5000", "0.5000"],
    ]


def test_models_of_different_sizes_show_how_many_parameters_they_have(capsys):
    jobs = [
        Job({"size": str(size)}, Trained(0, "runs/a", 1000 * size, "loss", "min", 1.0, 2.0))
        for size in (1, 2)
    ]

    show(Console(width=100), numbered(jobs))
    assert [row[2] for row in rows(capsys.readouterr().out) if row] == ["1,000", "2,000"]
    show(Console(width=100), numbered(jobs[:1]))
    assert "1,000" not in capsys.readouterr().out


def test_jobs_of_one_seed_have_no_means(capsys):
    trained = Trained(0, "a", 7, "loss", "min", 1.0)

    show(Console(), numbered(Job({"seed": "1", "lr": lr}, trained) for lr in "12"))

    assert "Over seeds" not in capsys.readouterr().out


def test_jobs_without_a_score_are_neither_the_best_nor_in_a_mean(capsys):
    scores = (None, 3.0), (2.0, 4.0), (1.0, None)
    trained = [Trained(0, "runs/a", 7, "loss", "min", *found) for found in scores]

    show(Console(width=100), {n: Job({"seed": str(n)}, found) for n, found in enumerate(trained)})

    out = capsys.readouterr().out
    assert "Sweep of 3 jobs: loss, lower is better" in out
    assert [row[0] for row in rows(out) if row] == ["0", "1", "2 *"]
    assert [row[2:4] for row in rows(out) if row] == [
        ["none", "3.000"],
        ["2.000", "4.000"],
        ["1.000", "none"],
    ]
    assert re.search(r"│ +3 │ none │ none │", out), "of three seeds"


def test_keys_that_end_alike_stand_in_full_and_numbers_that_were_drawn_rounded(capsys):
    swept = {"model.dropout": "0.25", "model/option": "zoneout", "dataset.dropout": "-0.00123456"}

    show(Console(width=120), {0: Job(swept, Trained(0, "runs/a", 7, "loss", "min", 1.0, 2.0))})

    out = capsys.readouterr().out
    head = next(line for line in out.splitlines() if "val" in line)
    names = [cell.strip() for cell in head.split("┃")[1:-1]]
    assert names == ["#", "model.dropout", "option", "dataset.dropout", "val", "test", "folder"]
    assert [row[1:4] for row in rows(out) if row] == [["0.25", "zoneout", "-0.001235"]]


@pytest.mark.parametrize("columns", mostly_slow([40, 60], quick=(40,)))
def test_a_narrow_terminal_has_the_folders_below_the_table(columns, seqnets, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))

    done = seqnets("train", "-m", *PARITY, "optimizer.lr=0.1,0.01", "seed=1")

    end = done.out[done.out.index("Sweep of") :].splitlines()
    below = re.findall(r"^#\d (.*)$", "\n".join(end), re.MULTILINE)
    assert set(below) == results(tmp_path).keys()
    assert max(len(line) for line in end if not line.startswith("#")) <= columns
    assert len([row for row in rows(done.out) if row]) == 2, "a row is a line"


@pytest.mark.parametrize(
    ("nothing", "told"),
    [
        ("trainer=glob(nowhere*)", "There are: auto, cpu, ddp, debug, gpu."),
        ("seed=glob(*)", "Give them as seed=ONE,ANOTHER."),
        ("seed=range(3,3)", "Give them as seed=ONE,ANOTHER."),
    ],
)
def test_a_sweep_over_nothing_is_refused(nothing, told, seqnets):
    done = seqnets("train", "-m", *PARITY, nothing)

    assert done.code == 2
    assert done.err == (
        f"UsageError: {nothing}: matches nothing, expected at least one value to try.\n  {told}\n"
    )


@pytest.mark.parametrize(
    ("varied", "key"),
    [
        ("dataset=copy,sort", "dataset.train_size"),
        ("dataset=copy,sort", "+dataset.train_size"),
        ("dataset=copy,etth1", "model.segment"),
        ("model/cell=gru,lstm", "model.cell.bias"),
    ],
)
def test_a_key_that_depends_on_what_a_sweep_varies_is_told_to_need_two_pluses(varied, key, seqnets):
    done = seqnets("train", "-m", varied, f"{key}=2")

    group = varied.partition("=")[0]
    assert done.code == 2
    assert f"{key}=2: depends on what the sweep varies, {group}, expected ++ before it" in done.err
    assert done.err.endswith(f": ++{key.lstrip('+')}=2\n")


def test_a_mistyped_key_of_what_a_sweep_varies_is_told_what_was_meant(seqnets):
    done = seqnets("train", "-m", "dataset=copy,sort", "model.hiden_size=3")

    assert "Did you mean model.hidden_size?" in done.err


def test_a_sweep_whose_output_cannot_be_written_says_so(seqnets, tmp_path):
    (tmp_path / "file").touch()

    done = seqnets("train", "-m", *PARITY, "output=file/runs")

    assert done.code == 1
    assert done.err.startswith("ConfigError: output: file/runs cannot be written: Not a directory")


def test_a_sweep_that_fails_tells_what_was_done(seqnets, tmp_path):
    done = seqnets("train", "-m", *PARITY, "optimizer.lr=0.1,fast,0.2")

    first, second = (row for row in rows(done.out) if row)
    assert done.code == 1
    assert first[4] in results(tmp_path)
    assert second == ["1", "fast", "", "failed", ""], "it failed before its first step"
    assert "\n#1 optimizer.lr: is 'fast', expected a number.\n" in done.out
    assert "optimizer.lr: is 'fast'" in done.err


@pytest.mark.parametrize("columns", mostly_slow([60, 200], quick=(60,)))
def test_a_job_that_fails_after_a_step_tells_its_folder_and_why(
    columns, seqnets, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLUMNS", str(columns))
    wild = ["dataset=adding", "logger=none", "optimizer=sgd", "scheduler=constant"]

    done = seqnets("train", "-m", *SMALL, *wild, "optimizer.lr=0.1,1e30")

    end = done.out[done.out.index("Sweep of") :]
    (left,) = {str(path.relative_to(tmp_path)) for path in tmp_path.glob("runs/*/*")} - {
        *results(tmp_path)
    }
    assert done.code == 1
    assert [row[3] for row in rows(done.out) if row][1] == "failed"
    assert left in ([row for row in rows(done.out) if row][1] if columns == 200 else end)
    assert (f"\n#1 {left}\n" in end) == (columns == 60)
    assert re.search(r"^#1 Training: the (validation )?loss is ", end, re.MULTILINE)


@pytest.mark.parametrize(
    ("error", "cell", "told"),
    [
        (Stopped(15), "stopped", "Stopped by SIGTERM"),
        (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
        (MemoryError(), "failed", "MemoryError"),
        (RuntimeError("shapes\x1b[2J\ndiffer"), "failed", "RuntimeError: shapes\\u001b[2J"),
        (KeyError("x" * 300), "failed", f"KeyError: '{'x' * 186}..."),
    ],
)
def test_whatever_ends_a_job_is_told_in_a_line(error, cell, told, seqnets, monkeypatch, capsys):
    def run(*_, **__):
        raise error

    monkeypatch.setattr("seqnets.cli.train.run", run)

    if isinstance(error, Stopped | MemoryError | KeyboardInterrupt):
        out = seqnets("train", "-m", "seed=1,2").out
    else:
        with pytest.raises(type(error)):
            seqnets("train", "-m", "seed=1,2")
        out = capsys.readouterr().out

    assert f"\n#0 {told}\n" in out
    assert [row[-2] for row in rows(out) if row] == [cell]


def test_jobs_of_several_objectives_name_their_metrics_and_none_is_the_best(seqnets, tmp_path):
    done = seqnets("train", "-m", *SMALL, "dataset=parity,adding", "logger=none")

    first, second = (row for row in rows(done.out) if row)
    assert first[1] == "parity"
    assert first[3].startswith("accuracy ")
    assert second[3].startswith("mse ")
    assert "*" not in first[0] + second[0]


def test_each_job_of_a_sweep_starts_processes_of_its_own(seqnets, monkeypatch):
    found = []

    def run(*_, **__):
        found.append((dist.is_initialized(), os.environ.get("LOCAL_RANK")))
        monkeypatch.setitem(os.environ, "LOCAL_RANK", "0")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        return Trained(0, "runs/a", 7, "loss", "min", 1.0)

    monkeypatch.setattr("seqnets.cli.train.run", run)

    done = seqnets("train", "-m", "seed=1,2")

    assert done.code == 0, done.err
    assert found == [(False, None)] * 2
    assert not dist.is_initialized()


def test_the_table_of_hyperparameters_begins_with_what_a_sweep_varies(
    seqnets, tmp_path, monkeypatch
):
    compared = []
    write = Hyperparameters.on_train_start
    monkeypatch.setattr(
        Hyperparameters,
        "on_train_start",
        lambda self, *run: compared.append(self.compared) or write(self, *run),
    )
    own = "+callbacks.hyperparameters.compared=[model.num_layers]"

    seqnets("train", "-m", *PARITY, "model.dropout=0.1", "model/cell=gru,lstm", "seed=1", own)
    seqnets("train", *PARITY)

    assert compared == [("model.cell", "model.num_layers")] * 2 + [()]


@pytest.mark.parametrize("given", [["-m"], ["hydra.mode=MULTIRUN"], []])
def test_a_file_may_say_what_a_sweep_tries(given, seqnets, tmp_path, monkeypatch):
    path = tmp_path / "conf" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True)
    tried = ["hydra:", "  sweeper:", "    params:", "      optimizer.lr: 0.1,0.2"]
    path.write_text("\n".join(["# @package _global_", *tried]))
    names = []

    def run(*_, **__):
        names.append(os.environ.get("SEQNETS_SWEEP"))
        return Trained(0, "runs/a", 7, "loss", "min", 1.0)

    monkeypatch.setattr("seqnets.cli.train.run", run)

    done = seqnets("train", *given, "--config-dir=conf", "experiment=mine", "dataset=parity")

    assert done.code == 0, done.err
    if given:
        assert [row[1] for row in rows(done.out) if row] == ["0.1", "0.2"]
        assert names[0] == names[1] is not None
    else:
        assert "Sweep" not in done.out
        assert names == [None]


def test_a_process_that_a_job_starts_finds_the_same_files_and_sweeps_over_nothing(
    seqnets, tmp_path, monkeypatch
):
    path = tmp_path / "conf" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True)
    tried = ["hydra:", "  mode: MULTIRUN", "  sweeper:", "    params:", "      seed: 1,2"]
    path.write_text("\n".join(["# @package _global_", *tried]))
    begun = []

    def run(*_, **__):
        begun.append(sys.argv[1:])
        return Trained(0, "runs/a", 7, "loss", "min", 1.0)

    monkeypatch.setattr("seqnets.cli.train.run", run)
    seqnets("train", "-m", "hydra.searchpath=[conf]", "experiment=mine", "dataset=parity")

    done = seqnets(*begun[1])

    assert done.code == 0, done.err
    assert "Sweep of" not in done.out
    assert "seed=2" in begun[1]
    assert begun[1][-1] == "hydra.mode=RUN"
    assert len(begun) == 3


def test_a_job_runs_in_the_folder_that_its_paths_were_given_from(seqnets, tmp_path):
    done = seqnets("train", "-m", *PARITY, "seed=1", "hydra.job.chdir=true")

    assert done.code == 2
    assert f"has the job run in {tmp_path}/runs, expected {tmp_path}, where" in done.err
    assert not results(tmp_path)


def test_a_job_that_a_sweep_began_goes_on_by_a_command_of_its_own(seqnets, tmp_path):
    seqnets("train", "-m", *PARITY, "model/cell=gru,lstm")
    for path in (tmp_path / "runs").glob("*/*/result.json"):
        path.unlink()

    done = seqnets("train", *PARITY, "model/cell=lstm", "resume=auto", "trainer.max_epochs=2")

    assert done.code == 0, done.err
    assert "a new one starts" not in done.out


def test_one_run_has_no_table_of_a_sweep(seqnets):
    assert "Sweep" not in seqnets("train", *PARITY).out


@pytest.mark.parametrize(("dataset", "direction"), [("parity", "maximize"), ("adding", "minimize")])
def test_an_optimising_sweeper_is_given_scores_and_the_way_of_the_objective(
    dataset, direction, seqnets, optimising
):
    done = seqnets("train", "-m", *SMALL, f"dataset={dataset}", "hydra/sweeper=optimising")

    told = [row for row in rows(done.out) if row]
    assert done.code == 0, done.err
    assert optimising[0] == direction
    assert [rounded(score) for score in optimising[1:]] == [row[2] for row in told]
    assert [row[1] for row in told] == ["0.1", "0.01235"]


@pytest.mark.parametrize(
    ("option", "ways"),
    [
        ("optim.maximize", {"parity": True, "adding": False}),
        ("ax_config.experiment.minimize", {"parity": False, "adding": True}),
    ],
)
def test_a_sweeper_is_given_the_way_of_the_objective_in_its_own_words(
    option, ways, seqnets, optimising, monkeypatch
):
    node = OmegaConf.create({"_target_": f"{__name__}.Optimising"})
    OmegaConf.update(node, option, ways["adding"])  # minimising is what sweepers do unasked
    ConfigStore.instance().store("in_its_words", node, group="hydra/sweeper")
    monkeypatch.setattr(
        Optimising, "__init__", lambda self, **given: self.got.append(OmegaConf.create(given))
    )

    for dataset, way in ways.items():
        optimising.clear()
        done = seqnets("train", "-m", *SMALL, f"dataset={dataset}", "hydra/sweeper=in_its_words")

        assert done.code == 0, done.err
        assert OmegaConf.select(optimising[0], option) is way

    wrong = f"hydra.sweeper.{option}={not ways['adding']}"
    done = seqnets("train", "-m", *SMALL, "dataset=adding", "hydra/sweeper=in_its_words", wrong)
    assert done.code == 2
    assert f"hydra.sweeper.{option}: is " in done.err


def test_a_job_that_diverges_is_the_worst_to_an_optimising_sweeper(
    seqnets, optimising, monkeypatch
):
    monkeypatch.setattr(Optimising, "values", (0.1, 1e25, 0.2))

    done = seqnets("train", "-m", *SMALL, "dataset=adding", "hydra/sweeper=optimising")

    assert done.code == 0, done.err
    assert optimising[2] == float("inf")
    assert len(optimising) == 4
    assert "DivergenceError: " in done.err
    assert [row[3] == "failed" for row in rows(done.out) if row] == [False, True, False]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["hydra.sweeper.direction=minimize"], "is minimize, expected maximize"),
        (["++hydra.sweeper.direction=minimize"], "is minimize, expected maximize"),
        (["hydra.sweeper.direction=odd"], "hydra/sweeper: the direction is odd"),
        (["~callbacks.checkpoints", "trainer.limit_val_batches=0"], "has no validation score"),
    ],
)
def test_an_optimising_sweeper_that_cannot_go_on_says_why(arguments, told, seqnets, optimising):
    done = seqnets("train", "-m", *PARITY, "hydra/sweeper=optimising", *arguments)

    assert done.code in (1, 2)
    assert told in done.err
    assert "Traceback" not in done.err


def test_an_optimising_sweeper_is_for_training_alone(seqnets, optimising, monkeypatch):
    monkeypatch.setattr(Optimising, "key", "+dataset.noise")

    done = seqnets("inspect", "-m", "dataset=parity", "hydra/sweeper=optimising")

    assert done.code == 2
    assert "expected `seqnets train`" in done.err


def test_an_interval_is_for_a_sweeper_that_searches(seqnets):
    done = seqnets("train", "-m", *PARITY, "optimizer.lr=interval(0.1,0.2)")

    assert done.code == 2
    assert "hydra/sweeper=optuna searches in an interval" in done.err


@pytest.mark.filterwarnings("ignore")  # Optuna's own, and of what it keeps studies with
def test_optuna_searches(seqnets, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs seqnets[optuna]")
    space = ["optimizer.lr=tag(log,interval(0.001,0.1))", "model/cell=choice(gru,lstm)"]
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]
    kept = [f"hydra.sweeper.storage=sqlite:///{tmp_path}/study.db", "hydra.sweeper.study_name=s"]

    done = seqnets("train", "-m", *PARITY, *space, *search, *kept)
    again = seqnets("train", "-m", *PARITY, *space, *search, *kept)

    assert done.code == again.code == 0, done.err + again.err
    assert "Sweep of 3 jobs: accuracy, higher is better" in done.out
    assert "maximize" in again.out
    assert (tmp_path / "runs" / "optimization_results.yaml").exists()


@pytest.mark.skipif(find_spec("optuna") is not None, reason="it is installed")
def test_optuna_that_is_missing_is_told_with_how_to_get_it(seqnets):
    done = seqnets("train", "-m", "hydra/sweeper=optuna", "optimizer.lr=interval(0.1,0.2)")

    assert done.code == 2
    assert "pip install 'seqnets[optuna]'" in done.err


def test_a_run_that_is_worse_than_the_others_is_pruned(seqnets, tmp_path):
    adding = [*SMALL, "dataset=adding", "dataset.train_size=32", "dataset.test_size=32"]
    pruning = ["callbacks=pruning", "callbacks.pruning.least_runs=1", "callbacks.pruning.warmup=0"]
    long = ["trainer.max_epochs=3", "logger=[]", "dataset.length=4"]

    done = seqnets("train", "-m", *adding, *pruning, *long, "optimizer.lr=1e-3,3")

    bad, good = sorted(results(tmp_path).items(), key=lambda result: "test" in result[1])
    assert done.code == 0, done.err
    assert "test" in good[1]
    assert bad[1]["pruned"].startswith("after 1 validation its best mse is ")
    assert "Pruned: after 1 validation" in done.out
    assert re.search(r"│ 1 +│ 3 +│ [^│]+ │ +pruned │", done.out)
    assert re.search(r"│ 0 \*", done.out)

    again = seqnets("train", f"resume={bad[0]}", "trainer.max_epochs=3")

    assert again.code == 0, again.err
    assert "test" in results(tmp_path)[bad[0]]
